//! `mcp-broker journal`: looks at a journal without its broker, and never changes it.

mod check;
mod export;
mod ls;
mod text;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand, ValueEnum};
use mcp_broker::broker::{Record, TaskName};
use mcp_broker::journal::{Directory, Inspection, Storage, inspect};

use super::EXIT_USAGE;

/// It is damaged, or can't be read.
const EXIT_UNSOUND: u8 = 1;
/// As a shell reports a program that SIGPIPE ended.
const EXIT_BROKEN_PIPE: u8 = 141;

/// Look at the journal of durable tasks, without a broker
///
/// Nothing here changes the journal, so it may be in use: then what is shown is how it was at some
/// moment. Tasks of a running broker are better looked at with `mcpctl tasks` and `mcpctl dlq`.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Journal {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Check),
    Ls(ls::Ls),
    Export(export::Export),
}

/// Where a journal is.
#[derive(Debug, Args)]
struct Dir {
    /// The state directory, or the journal's own (durable.dir)
    #[arg(value_name = "DIR", env = "MCP_STATE")]
    dir: PathBuf,
}

/// What a record says of its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// Accepted, without an outcome
    Pending,
    /// Has its outcome, which is kept
    Ended,
    /// Its outcome was settled; only its id is kept
    Settled,
    /// A dead letter: it ended otherwise than it should have
    Dead,
}

/// Why a command does not do what it is for, and its exit code.
struct Failure(u8, String);

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self(EXIT_BROKEN_PIPE, String::new()),
            _ => Self(EXIT_UNSOUND, error.to_string()),
        }
    }
}

impl Journal {
    pub(super) fn main(self) -> ExitCode {
        let done = match self.command {
            Command::Check(check) => check.run(),
            Command::Ls(ls) => ls.run(),
            Command::Export(export) => export.run(),
        };
        done.unwrap_or_else(|Failure(code, why)| {
            if !why.is_empty() {
                eprintln!("mcp-broker: {why}");
            }
            ExitCode::from(code)
        })
    }
}

/// A journal that was looked at.
struct Looked {
    path: PathBuf,
    is_in_use: bool,
    inspection: Inspection,
}

impl Dir {
    fn look(&self) -> Result<Looked, Failure> {
        let path = self.journal()?;
        let directory = Directory::look(&path);
        let failed =
            |error| Failure(EXIT_UNSOUND, format!("cannot read {}: {error}", path.display()));
        let is_in_use = directory.is_in_use().map_err(failed)?;
        let inspection = inspect(&directory).map_err(failed)?;
        Ok(Looked { path, is_in_use, inspection })
    }

    /// The journal's own directory.
    fn journal(&self) -> Result<PathBuf, Failure> {
        let has_segments =
            |path: &Path| Directory::look(path).list().is_ok_and(|segments| !segments.is_empty());
        let below = self.dir.join("journal");
        match [&self.dir, &below].into_iter().find(|path| has_segments(path)) {
            Some(path) => Ok(path.clone()),
            None => Err(Failure(
                EXIT_USAGE,
                format!(
                    "there is no journal in {dir}, nor in {below}; give the state directory of a \
                     broker, or the directory of durable.dir",
                    dir = self.dir.display(),
                    below = below.display()
                ),
            )),
        }
    }
}

fn of(record: &Record) -> Option<(State, &TaskName)> {
    match record {
        Record::Accepted(name, _) => Some((State::Pending, name)),
        Record::Ended(name, _) => Some((State::Ended, name)),
        Record::Settled(name, _) => Some((State::Settled, name)),
        Record::Dead(name, _) => Some((State::Dead, name)),
        // They leave nothing that counts.
        Record::Forgotten(_) | Record::DeadForgotten(_) => None,
    }
}

#[allow(clippy::disallowed_methods, reason = "there is no broker here whose clock it could be")]
fn now_wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
