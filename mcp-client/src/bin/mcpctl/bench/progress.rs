//! A bar on stderr, if that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How much of the time is over.
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(super) fn new(length: Duration) -> Self {
        let steps = length.as_millis() as u64;
        let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{elapsed} [{bar:30}] {percent}% {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar }
    }

    /// Shows what is done so far.
    pub(super) fn update(&self, over: Duration, message: impl FnOnce() -> String) {
        if !self.bar.is_hidden() {
            self.bar.set_position(over.as_millis() as u64);
            self.bar.set_message(message());
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
