//! The command line.

use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use super::contender::Contender;
use super::workload::Workload;
use super::workloads;

/// Until queues are as long as they will be, and policies know the workers, s.
const WARM_UP_SECS: u64 = 5;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Policies, and push_random and push_round_robin [default: all]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    policies: Vec<String>,

    /// Workloads [default: all]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    workloads: Vec<String>,

    /// Runs of each, under seeds of their own; the figures are medians
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,

    /// Seconds of virtual time that are measured
    #[arg(long, value_name = "SECS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    secs: u64,

    /// Directory for sched.json and the plots
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
}

impl Options {
    pub(super) fn contenders(&self) -> Result<Vec<Contender>> {
        match &self.policies[..] {
            [] => Ok(Contender::all()),
            names => names.iter().map(|name| Contender::of(name)).collect(),
        }
    }

    pub(super) fn workloads(&self) -> Result<Vec<Workload>> {
        let all = workloads::all();
        if self.workloads.is_empty() {
            return Ok(all);
        }
        let find = |name: &String| match all.iter().find(|it| it.name == name) {
            Some(workload) => Ok(workload.clone()),
            None => {
                let names: Vec<_> = all.iter().map(|it| it.name).collect();
                bail!("--workloads {name}: there are {}", names.join(", "))
            }
        };
        self.workloads.iter().map(find).collect()
    }

    pub(super) fn seeds(&self) -> RangeInclusive<u64> {
        1..=self.seeds
    }

    /// When the last task is sent.
    pub(super) fn until_us(&self) -> u64 {
        self.window_us().end
    }

    /// The time that counts.
    pub(super) fn window_us(&self) -> Range<u64> {
        WARM_UP_SECS * 1_000_000..(WARM_UP_SECS + self.secs) * 1_000_000
    }
}
