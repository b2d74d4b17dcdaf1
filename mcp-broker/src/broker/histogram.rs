//! Durations, counted in buckets.

/// Upper bound of the first bucket, µs: about what a round trip on one machine takes.
const FIRST_US: u64 = 100;

/// Buckets with a bound, each twice the one before, so that the bucket of a duration is found by
/// its number of bits. The last bound is 104.8576 s.
const BOUNDED: usize = 21;

/// A histogram of durations: fixed buckets, no allocation, a few instructions to record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// The last is for all beyond the last bound.
    counts: [u64; BOUNDED + 1],
    sum_us: u64,
}

impl Histogram {
    pub(crate) fn record(&mut self, us: u64) {
        let firsts = us.saturating_sub(1) / FIRST_US;
        let index = (u64::BITS - firsts.leading_zeros()) as usize;
        self.counts[index.min(BOUNDED)] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }

    /// The buckets in order: the largest duration in µs that it counts, none for the last one, and
    /// how many there were above the bucket before.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        self.counts
            .iter()
            .enumerate()
            .map(|(index, count)| ((index < BOUNDED).then_some(FIRST_US << index), *count))
    }

    /// The bound of the bucket that this part of all, 0 to 1, does not exceed, µs; none when it has
    /// none, or nothing was recorded.
    pub fn quantile_us(&self, part: f64) -> Option<u64> {
        let wanted = (self.count() as f64 * part).ceil().max(1.0) as u64;
        let mut seen = 0;
        let bucket = self.buckets().find(|(_, count)| {
            seen += count;
            seen >= wanted
        });
        bucket.and_then(|(bound_us, _)| bound_us)
    }

    /// About the duration that this part of all, 0 to 1, does not exceed, µs: by its place in its bucket,
    /// as if the bucket's were spread evenly. The largest bound for what has none; none when nothing was
    /// recorded.
    pub(crate) fn estimate_us(&self, part: f64) -> Option<u64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let wanted = (count as f64 * part).max(1.0);
        let (mut seen, mut lower_us) = (0.0, 0);
        for (bound_us, count) in self.buckets() {
            let Some(bound_us) = bound_us else { break };
            if count > 0 && seen + count as f64 >= wanted {
                let share = (wanted - seen) / count as f64;
                return Some(lower_us + ((bound_us - lower_us) as f64 * share) as u64);
            }
            seen += count as f64;
            lower_us = bound_us;
        }
        Some(lower_us)
    }

    /// What was recorded since it was like `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let mut since = self.clone();
        for (count, before) in since.counts.iter_mut().zip(earlier.counts) {
            *count = count.saturating_sub(before);
        }
        since.sum_us = since.sum_us.saturating_sub(earlier.sum_us);
        since
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of all, µs.
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_bound_of_its_bucket() {
        let mut it = Histogram::default();
        assert_eq!(it.quantile_us(0.5), None);
        (0..99).for_each(|_| it.record(150));
        it.record(u64::MAX);
        assert_eq!(it.quantile_us(0.0), Some(200));
        assert_eq!((it.quantile_us(0.99), it.quantile_us(1.0)), (Some(200), None));
    }

    #[test]
    fn an_estimate_lies_within_its_bucket() {
        let mut it = Histogram::default();
        assert_eq!(it.estimate_us(0.5), None);
        (0..100).for_each(|_| it.record(150));
        assert_eq!((it.estimate_us(0.5), it.estimate_us(1.0)), (Some(150), Some(200)));
        let before = it.clone();
        it.record(u64::MAX);
        assert_eq!(it.estimate_us(1.0), Some(104_857_600));
        assert_eq!((it.since(&before).count(), it.since(&it).estimate_us(0.5)), (1, None));
    }

    #[test]
    fn a_duration_is_in_the_first_bucket_that_is_not_below_it() {
        let bounds: Vec<_> = Histogram::default().buckets().map(|(bound, _)| bound).collect();
        assert_eq!((bounds[0], bounds[20], bounds[21]), (Some(100), Some(104_857_600), None));
        let edges = [0, 1, 99, 100, 101, 200, 201, 104_857_600, 104_857_601, u64::MAX];
        for us in edges {
            let mut it = Histogram::default();
            it.record(us);
            let found = it.buckets().position(|(_, count)| count == 1);
            let expected = bounds.iter().position(|bound| bound.is_none_or(|bound| us <= bound));
            assert_eq!((found, it.count(), it.sum_us()), (expected, 1, us), "{us}");
        }
    }
}
