//! When the tasks of an open loop are to be sent.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

/// Times that have come and were not taken; then the thread waits, and later ones come late.
const AHEAD: usize = 1024;

/// The times of tasks, each as it comes. A thread of its own keeps them, since the runtime's timers
/// count in milliseconds.
pub(super) struct Schedule {
    times: mpsc::Receiver<Instant>,
}

impl Schedule {
    /// `rate` a second, from `start` on for `length`.
    pub(super) fn start(start: Instant, rate: f64, length: Duration) -> io::Result<Self> {
        let (sender, times) = mpsc::channel(AHEAD);
        thread::Builder::new().name("schedule".to_owned()).spawn(move || {
            for number in 0..count(rate, length) {
                let at = start + Duration::from_secs_f64(number as f64 / rate);
                thread::sleep(at.saturating_duration_since(Instant::now()));
                if sender.blocking_send(at).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { times })
    }

    /// The next time that has come; `None` after the last one. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Instant> {
        self.times.recv().await
    }
}

/// How many tasks there are to send in `length`.
pub(super) fn count(rate: f64, length: Duration) -> u64 {
    (rate * length.as_secs_f64()).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_task_has_its_time_however_late_it_is_taken() {
        let start = Instant::now();
        let mut schedule = Schedule::start(start, 10_000.0, Duration::from_millis(500)).unwrap();
        for number in 0..5_000 {
            let at = schedule.next().await.unwrap();
            let expected = Duration::from_secs_f64(f64::from(number) / 10_000.0);
            assert_eq!(at - start, expected);
            assert!(Instant::now() >= at);
        }
        assert!(schedule.next().await.is_none());
    }
}
