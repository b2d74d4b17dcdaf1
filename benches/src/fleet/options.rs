//! The command line.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::holder::Held;

/// Longest idle time, s: a slip of the pen is refused.
const MAX_IDLE_SECS: u64 = 3600;

/// Most connections that are opened at once: with more, the broker asks for a round trip more.
const MAX_CONCURRENCY: u32 = 128;

/// Files of a connection in the process that opened it: its socket, the same again for the reports
/// about it, and the epoll instance that waits for those.
const FILES_EACH: u64 = 3;

/// Files that a process needs besides its connections.
const OTHER_FILES: u64 = 64;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Fleets of so many agents, each with its own connection
    #[arg(long, value_delimiter = ',', value_name = "LIST", default_values_t = [2_000, 10_000])]
    agents: Vec<u32>,

    /// So many plain client connections
    #[arg(long, value_delimiter = ',', value_name = "LIST", default_values_t = [20_000])]
    connections: Vec<u32>,

    /// Seconds that a fleet idles while CPU time is measured
    #[arg(long, value_name = "SECS", default_value_t = 20)]
    idle_secs: u64,

    /// Connections being opened at any time
    #[arg(long, value_name = "N", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CONCURRENCY)))]
    pub(super) concurrency: u32,

    /// Runs of everything; the table has medians
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,

    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(super) output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    Table,
    /// An array with an object for each run
    Json,
}

/// One run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fleet {
    pub(super) held: Held,
    pub(super) count: u32,
    pub(super) repeat: u32,
}

impl Options {
    /// What a process may hold, after raising that as far as the system lets it.
    pub(super) fn check(&self) -> Result<u32> {
        let most = mcp_broker::Config::default().limits.max_connections;
        for count in self.agents.iter().chain(&self.connections) {
            if !(1..=most).contains(&(*count as usize)) {
                bail!("{count}: 1 to {most} are allowed, what a broker takes by default");
            }
        }
        if !(1..=MAX_IDLE_SECS).contains(&self.idle_secs) {
            bail!("--idle-secs {}: 1 to {MAX_IDLE_SECS} are allowed", self.idle_secs);
        }
        let files = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: files.maximum, ..files };
        setrlimit(Resource::Nofile, raised).context("the limit of open files")?;
        let files = files.maximum.unwrap_or(u64::MAX).saturating_sub(OTHER_FILES) / FILES_EACH;
        match u32::try_from(files).unwrap_or(u32::MAX) {
            0 => bail!("a process may open too few files: see `ulimit -Hn`"),
            per_process => Ok(per_process),
        }
    }

    pub(super) fn idle(&self) -> Duration {
        Duration::from_secs(self.idle_secs)
    }

    /// All runs, a repeat after the other.
    pub(super) fn fleets(&self) -> Vec<Fleet> {
        let of = |held, counts: &[u32], repeat| -> Vec<Fleet> {
            counts.iter().map(|count| Fleet { held, count: *count, repeat }).collect()
        };
        let repeats = (1..=self.repeat).map(|repeat| {
            let mut fleets = of(Held::Agents, &self.agents, repeat);
            fleets.extend(of(Held::Connections, &self.connections, repeat));
            fleets
        });
        repeats.flatten().collect()
    }
}

impl fmt::Display for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.count, self.held)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    fn options(args: &str) -> Options {
        Cli::parse_from(std::iter::once("fleet").chain(args.split_whitespace())).options
    }

    #[test]
    fn a_repeat_has_every_fleet() {
        let options = options("--agents 2,3 --connections 4 --repeat 2");
        let fleets: Vec<_> =
            options.fleets().iter().map(|it| format!("{it}/{}", it.repeat)).collect();
        let expected = ["2 agents/1", "3 agents/1", "4 connections/1", "2 agents/2"];
        assert_eq!((&fleets[..4], fleets.len()), (&expected.map(str::to_owned)[..], 6));
    }

    #[test]
    fn what_the_broker_would_refuse_is_refused() {
        for wrong in ["--agents 0", "--connections 20001", "--idle-secs 0"] {
            assert!(options(wrong).check().is_err(), "{wrong}");
        }
    }
}
