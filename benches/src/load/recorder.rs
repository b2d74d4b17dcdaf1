//! What came back, and how long it took.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use anyhow::Result;
use bytes::Bytes;
use hdrhistogram::Histogram;

use super::Latency;

/// Longest latency told apart, ns.
const MAX_NS: u64 = 120_000_000_000;

/// Shares of tasks at which a latency curve has a point: nine for each nine.
const NINES: u32 = 5;

/// Which tasks' latencies belong to the measured time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Belongs {
    /// Those that end in it: a closed loop sends no more when it is over.
    ByEnd,
    /// Those that should be sent in it, however late they come back: else an open loop would leave
    /// out the slowest.
    ByStart,
}

/// Counts tasks, and takes the latencies of those that belong to the measured time.
pub(super) struct Recorder {
    payload_bytes: usize,
    belongs: Belongs,
    histogram: RefCell<Histogram<u64>>,
    opened: Cell<Option<Instant>>,
    closed: Cell<Option<Instant>>,
    done: Cell<u64>,
    outstanding: Cell<u64>,
    errors: Cell<u64>,
    first_error: RefCell<Option<String>>,
}

impl Recorder {
    pub(super) fn new(payload_bytes: usize, belongs: Belongs) -> Self {
        let histogram = Histogram::new_with_bounds(1, MAX_NS, 3);
        Self {
            payload_bytes,
            belongs,
            histogram: RefCell::new(histogram.unwrap_or_else(|_| unreachable!("valid bounds"))),
            opened: Cell::new(None),
            closed: Cell::new(None),
            done: Cell::new(0),
            outstanding: Cell::new(0),
            errors: Cell::new(0),
            first_error: RefCell::new(None),
        }
    }

    /// The measured time begins.
    pub(super) fn open(&self, at: Instant) {
        self.opened.set(Some(at));
    }

    /// The measured time is over, and nothing more is to be sent.
    pub(super) fn close(&self) {
        self.closed.set(Some(Instant::now()));
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.get().is_some()
    }

    /// A task that began at `start` has come back.
    pub(super) fn record(&self, start: Instant, result: Result<Bytes>) {
        let body = match result {
            Ok(body) => body,
            Err(error) => return self.failed(1, format!("{error:#}")),
        };
        if body.len() != self.payload_bytes {
            return self.failed(1, format!("the result has {} bytes", body.len()));
        }
        self.done.set(self.done.get() + 1);
        let Some(opened) = self.opened.get() else { return };
        let closed = self.closed.get();
        let is_in_it = match self.belongs {
            Belongs::ByEnd => closed.is_none(),
            Belongs::ByStart => start >= opened && closed.is_none_or(|closed| start < closed),
        };
        if is_in_it {
            let ns = start.elapsed().as_nanos() as u64;
            self.histogram.borrow_mut().saturating_record(ns);
        }
    }

    fn failed(&self, tasks: u64, why: String) {
        self.errors.set(self.errors.get() + tasks);
        self.first_error.borrow_mut().get_or_insert(why);
    }

    pub(super) fn sent(&self) {
        self.outstanding.set(self.outstanding.get() + 1);
    }

    pub(super) fn came_back(&self) {
        self.outstanding.set(self.outstanding.get() - 1);
    }

    pub(super) fn outstanding(&self) -> u64 {
        self.outstanding.get()
    }

    /// What has not come back has failed.
    pub(super) fn give_up(&self) {
        let left = self.outstanding.get();
        if left > 0 {
            self.failed(left, format!("{left} tasks did not come back"));
        }
    }

    pub(super) fn done(&self) -> u64 {
        self.done.get()
    }

    pub(super) fn errors(&self) -> u64 {
        self.errors.get()
    }

    pub(super) fn first_error(&self) -> Option<String> {
        self.first_error.borrow().clone()
    }

    pub(super) fn latency(&self) -> Latency {
        let histogram = self.histogram.borrow();
        let at = |share: f64| histogram.value_at_quantile(share) as f64 / 1000.0;
        let shares = (0..NINES).flat_map(|nines| {
            let rest = 0.1f64.powi(nines as i32);
            (0..9).map(move |step| 1.0 - rest * (1.0 - f64::from(step) / 10.0))
        });
        // Beyond the last few tasks there is nothing to tell.
        let last = 1.0 - 1.0 / histogram.len().max(1) as f64;
        Latency {
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            curve: shares.filter(|share| *share <= last).map(|it| (it, at(it))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(recorder: &Recorder, start: Instant, body: &'static [u8]) {
        recorder.record(start, Ok(Bytes::from_static(body)));
    }

    #[test]
    fn a_closed_loop_counts_what_ends_in_the_measured_time() {
        let recorder = Recorder::new(1, Belongs::ByEnd);
        let start = Instant::now();
        record(&recorder, start, b"x");
        recorder.open(Instant::now());
        record(&recorder, start, b"x");
        record(&recorder, start, b"x");
        record(&recorder, start, b"too long");
        assert_eq!((recorder.done(), recorder.errors()), (3, 1));
        recorder.close();
        record(&recorder, start, b"x");
        assert_eq!(recorder.histogram.borrow().len(), 2);
    }

    #[test]
    fn an_open_loop_counts_what_should_be_sent_in_the_measured_time() {
        let recorder = Recorder::new(1, Belongs::ByStart);
        let before = Instant::now();
        let opened = before + std::time::Duration::from_nanos(1);
        recorder.open(opened);
        record(&recorder, before, b"x");
        record(&recorder, opened, b"x");
        assert_eq!(recorder.histogram.borrow().len(), 1);
        recorder.close();
        record(&recorder, opened, b"x");
        assert_eq!(recorder.histogram.borrow().len(), 2);
    }

    #[test]
    fn the_curve_rises_to_the_slowest_told_apart() {
        let recorder = Recorder::new(1, Belongs::ByEnd);
        for us in 1..=1000 {
            recorder.histogram.borrow_mut().saturating_record(us * 1000);
        }
        let latency = recorder.latency();
        assert!((latency.p50_us - 500.0).abs() < 1.0, "{latency:?}");
        assert!(latency.curve.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{latency:?}");
        assert!(latency.curve.iter().all(|(share, _)| *share <= 0.999 + 1e-9));
    }
}
