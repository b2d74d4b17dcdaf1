//! The one place that reads clocks. Everything else is told what time it is.

#![allow(clippy::disallowed_methods, reason = "this is where the clocks are read")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::broker::{Mono, Now};

/// The clocks of one broker: µs since it was made, and the time of day.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Both clocks.
    pub(crate) fn now(&self) -> Now {
        Now { mono: self.mono(), wall_ms: since_1970().as_millis() as u64 }
    }

    /// How long it is until `deadline`; zero when that is past.
    pub(crate) fn until(&self, deadline: Mono) -> Duration {
        Duration::from_micros(deadline.since(self.mono()))
    }

    /// The point of tokio's clock at which `wait` is over.
    pub(crate) fn instant_in(&self, wait: Duration) -> tokio::time::Instant {
        tokio::time::Instant::now() + wait
    }

    fn mono(&self) -> Mono {
        Mono(self.start.elapsed().as_micros() as u64)
    }
}

/// The time of day, UTC. Zero for a clock that is set before 1970.
pub(crate) fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
