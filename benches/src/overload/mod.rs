//! `mcp-bench overload`: more than the workers can do, for a while, with real processes over QUIC:
//! what is done of it, what is refused, how fast each, and what that costs.

mod client;
mod run;
mod worker;

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

pub(crate) use client::{Flood, send};
use run::{Outcome, measure};
pub(crate) use worker::work;

use crate::text;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Seconds that are measured
    #[arg(long, value_name = "SECS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    secs: u64,

    /// Tasks that are sent, by those that the workers can do
    #[arg(long, value_name = "X", default_value_t = 3.0)]
    factor: f64,

    /// Worker processes
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    workers: u32,

    /// Slots of each
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    slots: u32,

    /// Attempts that each may have besides, which wait there for a slot
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1000))]
    prefetch: u32,

    /// What a handler sleeps, ms
    #[arg(long, value_name = "MS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    work_ms: u64,

    /// The broker's `max_queue_wait_ms`; 0: only times to live bound the queue
    #[arg(long, value_name = "MS", default_value_t = 40)]
    max_queue_wait_ms: u64,
}

impl Options {
    fn work(&self) -> Duration {
        Duration::from_millis(self.work_ms)
    }

    /// Tasks a second, if nothing but the handlers took time.
    fn capacity_per_s(&self) -> f64 {
        f64::from(self.workers * self.slots) / self.work().as_secs_f64()
    }
}

/// Measures, and prints what came of it.
pub(crate) fn run(options: &Options) -> Result<()> {
    eprintln!(
        "{} workers of {} slots, {} ms a task: {:.0} tasks/s; {:.1} times as many for {} s",
        options.workers,
        options.slots,
        options.work_ms,
        options.capacity_per_s(),
        options.factor,
        options.secs
    );
    let outcome = measure(options)?;
    let mut table = text::table(["", "measured"].map(str::to_owned).to_vec());
    for (name, figure) in figures(options, &outcome) {
        table.add_row([name.to_owned(), figure]);
    }
    writeln!(std::io::stdout().lock(), "{table}").context("stdout")?;
    for (why, tasks) in &outcome.client.not_done {
        eprintln!("not done: {tasks} × {why}");
    }
    Ok(())
}

fn figures(options: &Options, outcome: &Outcome) -> Vec<(&'static str, String)> {
    let client = &outcome.client;
    let secs = options.secs as f64;
    let ms = |us: f64| format!("{:.1} ms", us / 1000.0);
    let mb = |bytes: Option<u64>| {
        bytes.map_or_else(text::dash, |bytes| format!("{:.1} MB", bytes as f64 / 1e6))
    };
    let done_per_s = client.done as f64 / secs;
    let goodput = done_per_s / options.capacity_per_s();
    let busy = client.work_us as f64 / 1e6 / secs / f64::from(options.workers * options.slots);
    vec![
        ("sent, tasks/s", text::number(Some(client.sent as f64 / secs))),
        ("done, tasks/s", text::number(Some(done_per_s))),
        ("done, by capacity", format!("{:.1} %", goodput * 100.0)),
        ("slots in use by handlers", format!("{:.1} %", busy * 100.0)),
        ("done, p50", ms(client.done_p50_us)),
        ("done, p99", ms(client.done_p99_us)),
        ("refused at once, tasks/s", text::number(Some(client.refused as f64 / secs))),
        ("refused at once, p50", ms(client.refused_p50_us)),
        ("refused at once, p99", ms(client.refused_p99_us)),
        ("taken, but waited too long, tasks/s", text::number(Some(client.waited as f64 / secs))),
        ("taken, but not done otherwise, tasks", text::number(Some(client.failed as f64))),
        ("broker's memory before", mb(outcome.broker_before_bytes)),
        ("broker's memory, peak", mb(outcome.broker_peak_bytes)),
        ("CPU of all processes, by the machine's", format!("{:.1} %", outcome.cpu * 100.0)),
    ]
}
