//! Waiting between attempts: exponential, with jitter.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The first wait.
pub const FIRST: Duration = Duration::from_millis(100);

/// The longest wait.
pub const CAP: Duration = Duration::from_secs(1);

/// The waits between attempts: 100 ms, then twice as long each time, up to 1 s; each shortened at
/// random by up to a half, so that many peers of one broker don't come back in step.
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
    random: u64,
}

impl Backoff {
    /// The waits from the beginning, with jitter of this process's own.
    pub fn new() -> Self {
        Self::with_seed(RandomState::new().hash_one(0))
    }

    /// The waits from the beginning, the same for the same seed.
    pub fn with_seed(seed: u64) -> Self {
        Self { next: FIRST, random: seed }
    }

    /// How long to wait before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let longest = self.next;
        self.next = (longest * 2).min(CAP);
        longest / 2 + (longest / 2).mul_f64(self.next_fraction())
    }

    /// SplitMix64, as a fraction of 1.
    fn next_fraction(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_are_shortened_by_at_most_half() {
        for seed in 0..100 {
            let mut backoff = Backoff::with_seed(seed);
            for longest_ms in [100, 200, 400, 800, 1000, 1000, 1000] {
                let longest = Duration::from_millis(longest_ms);
                let delay = backoff.next_delay();
                assert!(delay >= longest / 2 && delay <= longest, "{delay:?} of {longest:?}");
            }
        }
    }

    #[test]
    fn peers_do_not_wait_in_step() {
        let first: std::collections::HashSet<_> =
            (0..100).map(|seed| Backoff::with_seed(seed).next_delay()).collect();
        assert!(first.len() > 90);
    }
}
