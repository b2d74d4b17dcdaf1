//! The one source of chance of a run.

use std::ops::Range;

/// Random numbers from a seed.
pub(crate) struct Rng(fastrand::Rng);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.u64(..)
    }

    pub(crate) fn chance(&mut self, percent: u32) -> bool {
        self.0.u32(..100) < percent
    }

    /// A number in the range; its start if that is empty.
    pub(crate) fn between(&mut self, range: Range<u64>) -> u64 {
        if range.is_empty() { range.start } else { self.0.u64(range) }
    }

    pub(crate) fn index(&mut self, length: usize) -> usize {
        self.0.usize(..length)
    }

    pub(crate) fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.index(of.len())].clone()
    }

    /// A time whose order of magnitude is as likely as any other: mostly short, sometimes long.
    pub(crate) fn time_us(&mut self, range: Range<u64>) -> u64 {
        let octaves = (range.end / range.start.max(1)).max(1).ilog2() + 1;
        let high = range.start.max(1) << self.0.u32(0..octaves);
        self.between(range.start..(high * 2).min(range.end))
    }

    /// The time until something that happens so often on average.
    pub(crate) fn until_us(&mut self, mean_us: u64) -> u64 {
        (-(1.0 - self.0.f64()).ln() * mean_us as f64) as u64
    }
}
