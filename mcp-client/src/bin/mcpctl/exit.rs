//! How the process ends.

use std::fmt;
use std::io;

use mcp_proto::Outcome;

/// For `--help`.
pub(crate) const HELP: &str = "\
Exit status:
    0  ok
    1  the task failed; status: the broker is not ready; doctor: a clock is wrong
    2  wrong arguments or input
    3  the task expired
    4  the task was rejected; also: no worker for it
    5  cannot connect, or the broker was lost
    6  tasks result: there is no such task
    7  tasks result: the task has not ended yet
  130  cancelled: Ctrl-C or SIGTERM
  141  the reader of standard output went away";

/// The exit status, one meaning each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Ok = 0,
    Failed = 1,
    Usage = 2,
    Expired = 3,
    Rejected = 4,
    Unreachable = 5,
    UnknownTask = 6,
    NotEnded = 7,
    Cancelled = 130,
    /// What the shell reports for a program that SIGPIPE ended.
    ClosedPipe = 141,
}

impl Exit {
    /// The exit status of a command that is about one task.
    pub(crate) fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Ok => Exit::Ok,
            Outcome::Failed => Exit::Failed,
            Outcome::Expired => Exit::Expired,
            Outcome::Cancelled => Exit::Cancelled,
            Outcome::Rejected => Exit::Rejected,
            Outcome::Lost => Exit::Unreachable,
        }
    }
}

/// Why a command could not do what it was asked: told on stderr, in one or two lines.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// Empty: there is nothing to tell.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: message.to_string() }
    }

    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(crate) fn cancelled() -> Self {
        Self::new(Exit::Cancelled, "")
    }
}

/// An error of writing to stdout.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new(Exit::ClosedPipe, ""),
            _ => Self::new(Exit::Failed, format_args!("cannot write the output: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_in_the_help() {
        let all = [
            Exit::Ok,
            Exit::Failed,
            Exit::Usage,
            Exit::Expired,
            Exit::Rejected,
            Exit::Unreachable,
            Exit::UnknownTask,
            Exit::NotEnded,
            Exit::Cancelled,
            Exit::ClosedPipe,
        ];
        for exit in all {
            let line = format!("{:5}  ", exit as u8);
            assert!(HELP.lines().any(|it| it.starts_with(&line)), "{exit:?}");
        }
    }

    #[test]
    fn each_outcome_has_a_status_of_its_own() {
        let mut all: Vec<_> = Outcome::ALL.iter().map(|it| Exit::of(*it) as u8).collect();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 3, 4, 5, 130]);
    }

    #[test]
    fn a_closed_pipe_is_quiet() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.exit, failure.message.as_str()), (Exit::ClosedPipe, ""));
    }
}
