//! `mcp-bench fleet`: what it costs to have many agents registered, or many connections open, that
//! do nothing.

mod cost;
mod holder;
mod metrics;
mod options;
mod run;
mod table;

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

pub(crate) use holder::{Held, hold};
pub(crate) use options::Options;
use options::Output;

/// How often the bar moves by itself while connections are opened.
const TICK: Duration = Duration::from_millis(200);

/// Measures all that was asked for, and prints it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let per_process = options.check()?;
    let fleets = options.fleets();
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {spinner} {msg}")?;
    let bar = ProgressBar::new(run::STEPS * fleets.len() as u64).with_style(style);
    bar.enable_steady_tick(TICK);
    let mut costs = Vec::new();
    for fleet in &fleets {
        let cost = run::measure(fleet, options, per_process, &bar);
        costs.push(cost.with_context(|| fleet.to_string())?);
    }
    bar.finish_and_clear();
    let text = match options.output {
        Output::Json => serde_json::to_string_pretty(&costs)?,
        Output::Table => table::of(&costs).to_string(),
    };
    writeln!(std::io::stdout().lock(), "{text}").context("stdout")
}
