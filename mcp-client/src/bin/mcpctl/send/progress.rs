//! A bar on stderr, if that is a terminal.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::tally::Tally;

/// How far the file is done, in bytes of its lines.
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Without `total_bytes` there is a spinner instead of a bar.
    pub(super) fn new(total_bytes: Option<u64>) -> Self {
        let template = match total_bytes {
            Some(_) => "{elapsed} [{bar:30}] {percent}% {msg}",
            None => "{elapsed} {spinner} {msg}",
        };
        let bar = ProgressBar::with_draw_target(total_bytes, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self { bar }
    }

    /// A line of this length is done.
    pub(super) fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// A line is done because it is not a task.
    pub(super) fn line(&self, number: u64, bytes: u64, problem: &dyn fmt::Display) {
        self.advance(bytes);
        // There is nowhere left to tell it when stderr is closed.
        self.suspend(|| writeln!(io::stderr(), "line {number}: {problem}").ok());
    }

    /// Shows the counts.
    pub(super) fn update(&self, tally: &Tally, in_flight: usize) {
        if !self.bar.is_hidden() {
            self.bar.set_message(format!("{}, {in_flight} in flight", tally.outcomes));
        }
    }

    /// Takes the bar away while `write` writes.
    pub(super) fn suspend<R>(&self, write: impl FnOnce() -> R) -> R {
        self.bar.suspend(write)
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
