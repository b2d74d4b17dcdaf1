//! The 95th percentile of the durations of late.

/// Each power of two has 8 buckets, so a bucket's bound is at most an eighth above what is in it.
const BITS: u32 = 3;
const PER_OCTAVE: u64 = 1 << BITS;

/// What is longer, 19 hours, counts as this.
const MAX_US: u64 = (1 << 36) - 1;
const BUCKETS: usize = bucket(MAX_US) + 1;

/// With so many durations counted, what was counted before is halved: half of what counts is of the
/// last 2,048 durations.
const WINDOW: u32 = 4_096;

/// A histogram of the durations of late that knows the bucket of its 95th percentile at any time.
/// Buckets are linear within a power of two, as those of HdrHistogram
/// (<https://hdrhistogram.github.io/HdrHistogram/>).
#[derive(Debug)]
pub(super) struct P95 {
    counts: [u16; BUCKETS],
    total: u32,
    /// The first bucket above which are at most 5 %.
    at: usize,
    /// What is above it.
    above: u32,
}

impl Default for P95 {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], total: 0, at: 0, above: 0 }
    }
}

impl P95 {
    pub(super) fn record(&mut self, us: u64) {
        if self.total >= WINDOW {
            self.forget_half();
        }
        let index = bucket(us.min(MAX_US));
        self.counts[index] += 1;
        self.total += 1;
        self.above += u32::from(index > self.at);
        self.settle();
    }

    /// At least 95 % of the durations were not above this, µs. At most an eighth more than the
    /// smallest of which that is true.
    pub(super) fn us(&self) -> u64 {
        bound_us(self.at)
    }

    /// Moves to the first bucket above which are at most 5 %: mostly a step, or none.
    fn settle(&mut self) {
        let most = self.total / 20;
        while self.above > most {
            self.at += 1;
            self.above -= u32::from(self.counts[self.at]);
        }
        while self.at > 0 && self.above + u32::from(self.counts[self.at]) <= most {
            self.above += u32::from(self.counts[self.at]);
            self.at -= 1;
        }
    }

    fn forget_half(&mut self) {
        self.counts.iter_mut().for_each(|count| *count /= 2);
        let sum = |counts: &[u16]| counts.iter().copied().map(u32::from).sum();
        self.total = sum(&self.counts);
        self.above = sum(&self.counts[self.at + 1..]);
    }
}

/// The bucket of a duration of at most [`MAX_US`].
const fn bucket(us: u64) -> usize {
    if us < PER_OCTAVE {
        return us as usize;
    }
    let shift = us.ilog2() - BITS;
    (shift as usize) * PER_OCTAVE as usize + (us >> shift) as usize
}

/// The largest duration of a bucket.
fn bound_us(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    match (bucket / PER_OCTAVE).checked_sub(1) {
        None => bucket,
        Some(shift) => ((bucket % PER_OCTAVE + PER_OCTAVE + 1) << shift) - 1,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bucket_ends_where_the_next_begins_and_is_narrow() {
        for index in 0..BUCKETS - 1 {
            let us = bound_us(index);
            assert_eq!((bucket(us), bucket(us + 1)), (index, index + 1), "{us}");
            let first = index.checked_sub(1).map_or(0, |before| bound_us(before) + 1);
            assert!(us <= first + first / 8, "{first} to {us}");
        }
        assert_eq!(bound_us(BUCKETS - 1), MAX_US);
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let mut it = P95::default();
        (0..100_000).for_each(|_| it.record(1_000_000));
        assert!((1_000_000..1_125_000).contains(&it.us()));
        (0..WINDOW * 4).for_each(|_| it.record(1_000));
        assert!((1_000..1_125).contains(&it.us()), "{}", it.us());
        it.record(u64::MAX);
        assert!(it.us() < 1_125);
    }

    proptest! {
        #[test]
        fn it_is_that_of_the_sorted_durations(all in prop::collection::vec(0..100_000u64, 1..2_000)) {
            let mut it = P95::default();
            for (index, us) in all.iter().enumerate() {
                it.record(*us);
                if index % 97 == 0 || index + 1 == all.len() {
                    let mut sorted = all[..=index].to_vec();
                    sorted.sort_unstable();
                    let exact = sorted[index - sorted.len() / 20];
                    prop_assert!(it.us() >= exact && it.us() <= exact + exact / 8, "{exact}");
                }
            }
        }
    }
}
