//! `mcp-bench attack`: what hostile peers cost a broker, and honest ones beside them.

mod attacker;
mod kind;
mod peer;
mod run;

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

pub(crate) use attacker::attack;
pub(crate) use kind::Attack;
use run::{Outcome, measure};

use crate::text;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What they do; all of it, one after the other, when nothing is said
    #[arg(value_enum)]
    attacks: Vec<Attack>,

    /// Hostile connections
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    connections: u32,

    /// Seconds of each attack
    #[arg(long, value_name = "SECS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(2..=3600))]
    secs: u64,

    /// Honest tasks a second beside it
    #[arg(long, value_name = "RATE", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
}

impl Options {
    fn time(&self) -> Duration {
        Duration::from_secs(self.secs)
    }
}

/// Measures, and prints a table.
pub(crate) fn run(options: &Options) -> Result<()> {
    let head = [
        "attack",
        "connections",
        "handshakes/s",
        "refused/s",
        "at rest, MB",
        "peak, MB",
        "broker, cores",
        "honest tasks",
        "failed",
        "p50 before, µs",
        "p50, µs",
        "p99 before, µs",
        "p99, µs",
    ];
    let mut table = text::table(head.map(str::to_owned).to_vec());
    let all = <Attack as clap::ValueEnum>::value_variants();
    let attacks = if options.attacks.is_empty() { all } else { &options.attacks };
    for attack in attacks {
        eprintln!("{attack}: {} s", options.secs);
        let outcome = measure(*attack, options).with_context(|| attack.to_string())?;
        table.add_row(row(*attack, options, &outcome));
        for (end, count) in &outcome.seen.ends {
            eprintln!("  {count} × {end}");
        }
        if let Some(error) = &outcome.during.first_error {
            eprintln!("  an honest task: {error}");
        }
    }
    writeln!(std::io::stdout().lock(), "{table}").context("stdout")
}

fn row(attack: Attack, options: &Options, outcome: &Outcome) -> Vec<String> {
    let Outcome { seen, before, during, .. } = outcome;
    let per_s = |count: u64| text::number(Some(count as f64 / options.secs as f64));
    let mb = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
    let us = |us: f64| text::number(Some(us));
    vec![
        attack.to_string(),
        text::number(Some(seen.most as f64)),
        per_s(seen.connected),
        per_s(seen.refused),
        mb(outcome.rest_bytes),
        mb(outcome.peak_bytes),
        format!("{:.2}", outcome.cores),
        text::number(Some(during.tasks_per_s * options.secs as f64)),
        text::number(Some(during.errors as f64)),
        us(before.latency.p50_us),
        us(during.latency.p50_us),
        us(before.latency.p99_us),
        us(during.latency.p99_us),
    ]
}
