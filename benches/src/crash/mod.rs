//! `mcp-bench crash`: processes are killed at random moments under load, over and over, and what the
//! clients and workers have noted in files of their own is compared in the end.

mod check;
mod client;
mod kill;
mod ledger;
mod worker;

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::text;
use check::Findings;

pub(crate) use client::{Plan, send};
pub(crate) use worker::work;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Times that something is killed
    #[arg(long, value_name = "N", default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    cycles: u32,

    /// Client processes
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    clients: u32,

    /// Tasks that each has in flight
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    in_flight: u32,

    /// Worker processes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=16))]
    workers: u32,

    /// Slots of each
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    slots: u32,

    /// Of the moments and the victims, but not of what the processes do
    #[arg(long, value_name = "N", default_value_t = fastrand::u64(..), hide_default_value = true)]
    seed: u64,

    /// Where journal and notes are, on the disk that is to be tried; kept when something is wrong
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Kills, compares, and prints what came of it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let dir = match &options.dir {
        Some(dir) => {
            std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
            tempfile::tempdir_in(dir)?
        }
        None => tempfile::tempdir()?,
    };
    eprintln!("{} kills, seed {}, in {}", options.cycles, options.seed, dir.path().display());
    let killed = kill::run(options, dir.path())?;
    let findings = check::check(dir.path())?;
    let mut table = text::table(["", "counted"].map(str::to_owned).to_vec());
    for (name, figure) in figures(&killed, &findings) {
        table.add_row([name.to_owned(), figure]);
    }
    writeln!(std::io::stdout().lock(), "{table}").context("stdout")?;
    if findings.wrong.is_empty() {
        return Ok(());
    }
    let kept = dir.keep();
    for wrong in findings.wrong.iter().take(20) {
        eprintln!("{wrong}");
    }
    bail!("{} things went wrong; the notes are in {}", findings.wrong.len(), kept.display())
}

fn figures(killed: &kill::Killed, found: &Findings) -> Vec<(&'static str, String)> {
    let ms = |us: u64| format!("{:.0} ms", us as f64 / 1000.0);
    vec![
        ("brokers killed", killed.brokers.to_string()),
        ("workers killed", killed.workers.to_string()),
        ("clients killed", killed.clients.to_string()),
        ("broker's start until ready, p50", ms(killed.ready_us.value_at_quantile(0.5))),
        ("broker's start until ready, longest", ms(killed.ready_us.max())),
        ("durable tasks sent", found.sent.to_string()),
        ("of them accepted", found.accepted.to_string()),
        ("ended ok", found.ok.to_string()),
        ("ended otherwise", found.not_ok.to_string()),
        ("run more than once", found.run_again.to_string()),
        ("fast tasks sent", found.fast.to_string()),
        ("accepted tasks lost", found.lost.to_string()),
        ("results accepted twice, or different", found.twice.to_string()),
        ("fast tasks run more than once", found.fast_twice.to_string()),
    ]
}
