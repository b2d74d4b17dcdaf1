//! How many tasks may come in a time.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::time::Mono;

/// A limit of how many tasks are taken: `per_s` in the long run, and at once as many as `burst`.
///
/// It is a token bucket, which is full at first, in the form of the generic cell rate algorithm
/// (ITU-T I.371): one number for each bucket, and when the next task is taken is known exactly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct RateLimit {
    /// Tasks a second, 0.001 to 1,000,000. 0: no limit.
    pub per_s: f64,
    /// Tasks at once. 0: those of a second, at least one.
    pub burst: u32,
}

const MIN_PER_S: f64 = 0.001;
const MAX_PER_S: f64 = 1_000_000.0;

impl RateLimit {
    /// So many tasks a second, and so many at once.
    pub fn new(per_s: f64, burst: u32) -> Self {
        Self { per_s, burst }
    }

    /// What is wrong with `per_s`, to be read after the key.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.per_s == 0.0 || (MIN_PER_S..=MAX_PER_S).contains(&self.per_s) {
            return Ok(());
        }
        Err(format!("is {}; allowed are 0 (no limit), and {MIN_PER_S} to {MAX_PER_S}", self.per_s))
    }

    pub(super) fn is_off(&self) -> bool {
        self.per_s <= 0.0
    }

    /// ns that a bucket takes to gather one task, and those of all that it holds.
    fn gathers(&self) -> (u64, u64) {
        let one_ns = (1e9 / self.per_s.clamp(MIN_PER_S, MAX_PER_S)) as u64;
        let burst =
            if self.burst > 0 { self.burst } else { self.per_s.clamp(1.0, MAX_PER_S) as u32 };
        (one_ns, one_ns.saturating_mul(burst.into()))
    }
}

/// How full a bucket is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bucket {
    /// When it is full again, ns. GCRA's theoretical arrival time.
    full_ns: u64,
}

impl Bucket {
    pub(super) fn is_full(&self, now: Mono) -> bool {
        self.full_ns <= ns(now)
    }

    /// The bucket once a task is taken from it now, or in how many ms there is one in it.
    pub(super) fn take(self, now: Mono, limit: &RateLimit) -> Result<Self, u64> {
        let (one_ns, all_ns) = limit.gathers();
        let full_ns = self.full_ns.max(ns(now)).saturating_add(one_ns);
        match full_ns.saturating_sub(all_ns).saturating_sub(ns(now)) {
            0 => Ok(Self { full_ns }),
            wait_ns => Err(wait_ns.div_ceil(1_000_000)),
        }
    }
}

fn ns(at: Mono) -> u64 {
    at.0.saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono::default().plus_ms(ms)
    }

    /// How many are taken at this time.
    fn taken(bucket: &mut Bucket, now: Mono, limit: RateLimit) -> u32 {
        (0..).take_while(|_| bucket.take(now, &limit).map(|after| *bucket = after).is_ok()).count()
            as u32
    }

    #[test]
    fn a_burst_then_the_rate_and_the_wait_is_exact() {
        let (mut bucket, limit) = (Bucket::default(), RateLimit::new(10.0, 3));
        assert_eq!(taken(&mut bucket, at(5), limit), 3);
        assert_eq!(bucket.take(at(5), &limit), Err(100));
        assert_eq!(bucket.take(at(104), &limit), Err(1));
        assert_eq!(taken(&mut bucket, at(105), limit), 1);
        assert_eq!(taken(&mut bucket, at(10_000), limit), 3);
        assert!(!bucket.is_full(at(10_299)) && bucket.is_full(at(10_300)));
    }

    #[test]
    fn in_the_long_run_it_is_the_rate() {
        for (per_s, expected) in [(0.5, 31), (1.0, 61), (333.0, 333 + 60 * 333)] {
            let (mut bucket, limit) = (Bucket::default(), RateLimit::new(per_s, 0));
            let all: u32 = (0..=60_000).map(|ms| taken(&mut bucket, at(ms), limit)).sum();
            assert!(all.abs_diff(expected) <= 1, "{all} at {per_s}");
        }
    }

    #[test]
    fn what_is_not_a_rate_is_refused_and_does_no_harm() {
        for per_s in [f64::NAN, f64::INFINITY, -1.0, 1e-9, 1e9] {
            let limit = RateLimit::new(per_s, u32::MAX);
            assert!(limit.check().is_err(), "{per_s}");
            let _ = Bucket { full_ns: u64::MAX }.take(Mono(u64::MAX), &limit);
        }
        assert!(RateLimit::default().check().is_ok() && RateLimit::default().is_off());
    }
}
