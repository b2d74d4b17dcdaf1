//! `mcp-bench sched`: what the broker's policies make of a load, on the real core, in virtual time,
//! beside what a server does that pushes each task at once to some worker.
//!
//! All contenders of a workload get the same tasks under the same seed: the same times, the same
//! amounts of work.

mod charts;
mod claims;
mod contender;
mod events;
mod figures;
mod fleet;
mod options;
mod parallel;
mod pushed;
mod random;
mod record;
mod simulation;
mod table;
mod traffic;
mod workload;
mod workloads;

use std::io::Write;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

use contender::Contender;
use figures::Figures;
pub(crate) use options::Options;
use record::Record;
use simulation::Fate;
use workload::Workload;

/// One way between a peer and whatever is between them, µs: two machines of one data centre.
const NETWORK_US: u64 = 100;

/// What the simulation of one cell came to.
struct Run {
    /// Of each task, in the order of the tasks.
    fates: Vec<Fate>,
    /// Tasks that came to a worker whose slots were all in use.
    over_assigned: u64,
}

/// Simulates all cells, and prints and writes what came of them.
pub(crate) fn run(options: &Options) -> Result<()> {
    let contenders = options.contenders()?;
    let workloads = options.workloads()?;
    let rows: Vec<_> =
        workloads.iter().flat_map(|it| options.seeds().map(move |seed| (it, seed))).collect();
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed}, {eta} left")?;
    let bar = ProgressBar::new(rows.len() as u64).with_style(style);
    let simulate = |(workload, seed): (&Workload, u64)| {
        let tasks = workload.tasks(options.until_us(), seed);
        let cell = |contender: &Contender| {
            let run = contender.run(workload, &tasks, seed)?;
            let figures = Figures::of(workload, &tasks, &run, options.window_us());
            Ok(Record::new(workload, contender, seed, figures))
        };
        let contenders = Contender::of_workload(&contenders, workload);
        let records = contenders.iter().map(cell).collect::<Result<Vec<_>>>();
        bar.inc(1);
        records
    };
    let records: Vec<Record> =
        parallel::map(&rows, simulate).into_iter().collect::<Result<Vec<_>>>()?.concat();
    bar.finish_and_clear();

    let mut out = std::io::stdout().lock();
    write!(out, "{}", table::all(&workloads, &contenders, &records)).context("stdout")?;
    write!(out, "{}", claims::all(&records)).context("stdout")?;
    if let Some(dir) = &options.out {
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        let mut files = charts::all(&workloads, &contenders, &records);
        files.push(("sched.json".to_owned(), serde_json::to_string_pretty(&records)? + "\n"));
        for (name, content) in files {
            let path = dir.join(name);
            std::fs::write(&path, content).with_context(|| path.display().to_string())?;
        }
        eprintln!("written to {}", dir.display());
    }
    Ok(())
}
