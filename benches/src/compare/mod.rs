//! `mcp-bench compare`.

mod charts;
mod disk;
mod options;
mod plan;
mod record;
mod servers;
mod summary;
mod table;

use std::io::Write;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

use crate::peers::Peer;
pub(crate) use options::Options;
use plan::{Cell, Plan};
use record::Record;
use servers::Servers;

/// Runs the comparison, and prints and writes what came of it.
pub(crate) fn run(options: &Options) -> Result<()> {
    options.check()?;
    let servers = Servers::find(options)?;
    let mut peers = Vec::new();
    for peer in options.peers() {
        match servers.version(peer) {
            Ok(_) => peers.push(peer),
            Err(how_to_get_it) => eprintln!("{peer} is skipped: {how_to_get_it}"),
        }
    }
    for warning in servers.warnings(&peers)? {
        eprintln!("{warning}");
    }
    if peers.is_empty() {
        anyhow::bail!("none of the peers can be run");
    }

    let plan = Plan::new(options, peers);
    let bar = progress(plan.runs() as u64)?;
    let mut records = Vec::new();
    for repeat in 1..=plan.repeats {
        for (peer, cell) in plan.closed() {
            records.push(measure(&servers, options, peer, &cell, repeat, &bar));
        }
    }
    let mut records: Vec<Record> = records.into_iter().flatten().collect();
    // Its rates depend on what the peers were seen to be capable of.
    let capacities = summary::capacities(&records);
    for repeat in 1..=plan.repeats {
        for (peer, cell) in plan.open(&capacities) {
            records.extend(measure(&servers, options, peer, &cell, repeat, &bar));
        }
    }
    bar.finish_and_clear();

    let tables = table::all(&plan, &records);
    writeln!(std::io::stdout().lock(), "{tables}").context("stdout")?;
    if let Some(dir) = &options.out {
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        let mut files = charts::all(&plan, &records);
        files.push(("compare.json".to_owned(), serde_json::to_string_pretty(&records)? + "\n"));
        for (name, content) in files {
            let path = dir.join(name);
            std::fs::write(&path, content).with_context(|| path.display().to_string())?;
        }
        eprintln!("written to {}", dir.display());
    }
    Ok(())
}

/// One run. What fails is told, and left out.
fn measure(
    servers: &Servers,
    options: &Options,
    peer: Peer,
    cell: &Cell,
    repeat: u32,
    bar: &ProgressBar,
) -> Option<Record> {
    bar.set_message(format!("{peer}, {cell}"));
    let disk = || peer.guarantee().map(|_| servers.disk()).transpose();
    let run = || Ok((disk()?, servers.measure(peer, cell.slots, cell.load(options))?));
    let result: Result<_> = run();
    bar.inc(1);
    match result {
        Ok((disk, measured)) => {
            if let Some(why) = &measured.first_error {
                bar.println(format!("{peer}, {cell}: {} tasks failed: {why}", measured.errors));
            }
            let version = servers.version(peer).unwrap_or_default();
            Some(Record::new(peer, version, disk, cell, repeat, measured))
        }
        Err(error) => {
            bar.println(format!("{peer}, {cell}: {error:#}"));
            None
        }
    }
}

fn progress(runs: u64) -> Result<ProgressBar> {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed}, {eta} left  {msg}")?;
    Ok(ProgressBar::new(runs).with_style(style))
}
