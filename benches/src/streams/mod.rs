//! `mcp-bench streams`: what small tasks notice of results in parts beside them.

mod parts;
mod run;

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};

pub(crate) use parts::{Reading, read, work};
use run::{Beside, Case, measure};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Small tasks a second, sent at their times whatever comes back
    #[arg(long, value_name = "RATE", default_value_t = 2_000)]
    rate: u32,

    /// Seconds of each measurement; of the one with stalled readers, at least
    #[arg(long, value_name = "SECS", default_value_t = 10)]
    secs: u64,

    /// Size of the result that is read beside them, MiB: again and again while it is measured
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    mib: u64,

    /// Readers that stop reading, each of a result of its own
    #[arg(long, value_name = "N", default_value_t = 64)]
    stalled: u32,

    /// Seconds that they do
    #[arg(long, value_name = "SECS", default_value_t = 60)]
    stall_secs: u64,
}

/// Measures, and prints a table.
pub(crate) fn run(options: &Options) -> Result<()> {
    let cases = [
        Case { beside: Beside::Nothing, secs: options.secs },
        Case { beside: Beside::Large { bytes: options.mib << 20 }, secs: options.secs },
        Case { beside: Beside::Stalled { count: options.stalled }, secs: options.stall_secs },
    ];
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    let head =
        ["beside", "tasks", "failed", "p50, µs", "p99, µs", "p99.9, µs", "MB/s", "broker, MB"];
    table.set_header(head);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for case in &cases {
        eprintln!("{}: {} s", case.beside, case.secs);
        let it = measure(case, f64::from(options.rate)).with_context(|| case.beside.to_string())?;
        let latency = &it.tasks.latency;
        table.add_row([
            case.beside.to_string(),
            format!("{:.0}", it.tasks.tasks_per_s * case.secs as f64),
            it.tasks.errors.to_string(),
            format!("{:.0}", latency.p50_us),
            format!("{:.0}", latency.p99_us),
            format!("{:.0}", latency.p999_us),
            it.bytes_per_s.map_or_else(String::new, |bytes| format!("{:.0}", bytes / 1e6)),
            it.broker_bytes.map_or_else(String::new, |bytes| format!("{:.1}", bytes as f64 / 1e6)),
        ]);
    }
    writeln!(std::io::stdout().lock(), "{table}").context("stdout")
}

/// How long a measurement takes.
fn duration(secs: u64) -> Duration {
    Duration::from_secs(secs)
}
