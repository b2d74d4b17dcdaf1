//! What became of the tasks of a run.

use std::fmt;
use std::time::{Duration, Instant};

use mcp_client::Outcome;

use crate::exit::Exit;
use crate::latency::{self, Latencies};
use crate::outcomes::Outcomes;

/// Counts and latencies, in bounded memory.
pub(super) struct Tally {
    start: Instant,
    pub(super) outcomes: Outcomes,
    /// Of the tasks that ended `ok`, from SEND to its end as seen here.
    latencies: Latencies,
    /// Lines that are not tasks.
    pub(super) bad_lines: u64,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            outcomes: Outcomes::default(),
            latencies: Latencies::new(),
            bad_lines: 0,
        }
    }

    pub(super) fn add(&mut self, outcome: Outcome, took: Duration) {
        self.outcomes.add(outcome);
        if outcome == Outcome::Ok {
            self.latencies.record(took);
        }
    }

    pub(super) fn exit(&self) -> Exit {
        if self.bad_lines > 0 {
            Exit::Usage
        } else if self.outcomes.count(Outcome::Ok) < self.outcomes.total() {
            Exit::Failed
        } else {
            Exit::Ok
        }
    }
}

/// The summary, in one to three lines.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (total, took) = (self.outcomes.total(), self.start.elapsed());
        let noun = if total == 1 { "task" } else { "tasks" };
        let rate = total as f64 / took.as_secs_f64().max(1e-6);
        write!(f, "{total} {noun} in {} ({rate:.0} tasks/s)", latency::show(took))?;
        if total > 0 {
            write!(f, ": {}", self.outcomes)?;
        }
        if self.outcomes.count(Outcome::Ok) > 0 {
            let [p50, p99] = [0.5, 0.99].map(|part| latency::show(self.latencies.quantile(part)));
            write!(f, "\nok: p50 {p50}, p99 {p99}")?;
        }
        match self.bad_lines {
            0 => Ok(()),
            1 => write!(f, "\n1 line was not a task"),
            lines => write!(f, "\n{lines} lines were not tasks"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_only_what_there_is() {
        let mut tally = Tally::new();
        assert_eq!(tally.exit(), Exit::Ok);
        (0..3).for_each(|_| tally.add(Outcome::Ok, Duration::from_millis(2)));
        assert_eq!(tally.exit(), Exit::Ok);
        tally.add(Outcome::Rejected, Duration::from_secs(1));
        assert_eq!(tally.exit(), Exit::Failed);
        let text = tally.to_string();
        assert!(text.starts_with("4 tasks in "), "{text}");
        assert!(
            text.contains("tasks/s): 3 ok, 1 rejected\nok: p50 2.00 ms, p99 2.00 ms"),
            "{text}"
        );
        tally.bad_lines = 1;
        assert_eq!(tally.exit(), Exit::Usage);
        assert!(tally.to_string().ends_with("\n1 line was not a task"));
    }
}
