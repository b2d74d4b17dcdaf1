//! A worker that is new gets few tasks at first: its caches are cold, its code not compiled yet, and
//! if it fails, few tasks fail with it.
//!
//! Its load is told to the policies as if it had only a part of its slots, so that they prefer
//! others; how many tasks it takes stays as it is, and no task waits for that. Source: Envoy,
//! "Slow start mode".

use crate::broker::time::Mono;

/// From so much of its slots on, in equal steps, a worker's part grows to all.
const FIRST_PERCENT: u64 = 10;
const STEPS: u64 = 5;

/// Whether a worker is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum SlowStart {
    /// It has been there for long enough.
    #[default]
    Past,
    /// `is_eased` unless nobody else could do more of the work.
    New { since: Mono, is_eased: bool },
}

impl SlowStart {
    pub(super) fn begin(now: Mono, slow_start_ms: u64, is_eased: bool) -> Self {
        if slow_start_ms == 0 { Self::Past } else { Self::New { since: now, is_eased } }
    }

    pub(super) fn is_past(self) -> bool {
        self == Self::Past
    }

    /// The part of its slots that counts, if that is not all.
    pub(super) fn percent(self, now: Mono, slow_start_ms: u64) -> Option<u8> {
        let Self::New { since, is_eased: true } = self else { return None };
        let step = now.since(since) / step_us(slow_start_ms);
        (step < STEPS).then(|| (FIRST_PERCENT + (100 - FIRST_PERCENT) * step / STEPS) as u8)
    }

    /// Ends it if it is over.
    pub(super) fn pass(&mut self, now: Mono, slow_start_ms: u64) {
        if self.next_at(now, slow_start_ms).is_some_and(|at| at <= now) {
            *self = Self::Past;
        }
    }

    /// When it is over.
    pub(super) fn ends_at(self, slow_start_ms: u64) -> Option<Mono> {
        match self {
            Self::Past => None,
            Self::New { since, .. } => Some(since + STEPS * step_us(slow_start_ms)),
        }
    }

    /// When the part changes next.
    pub(super) fn next_at(self, now: Mono, slow_start_ms: u64) -> Option<Mono> {
        let Self::New { since, is_eased } = self else { return None };
        let step_us = step_us(slow_start_ms);
        let next = if is_eased { (now.since(since) / step_us + 1).min(STEPS) } else { STEPS };
        Some(since + next * step_us)
    }
}

fn step_us(slow_start_ms: u64) -> u64 {
    (slow_start_ms * 1000 / STEPS).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono(500).plus_ms(ms)
    }

    #[test]
    fn its_part_grows_in_steps_to_all() {
        let mut it = SlowStart::begin(at(0), 10_000, true);
        let mut parts = Vec::new();
        let mut now = at(0);
        while let Some(next) = it.next_at(now, 10_000) {
            parts.push((now.since(at(0)) / 1_000_000, it.percent(now, 10_000)));
            now = next;
            it.pass(now, 10_000);
        }
        let expected = [(0, 10), (2, 28), (4, 46), (6, 64), (8, 82)];
        assert_eq!(parts, expected.map(|(s, percent)| (s, Some(percent))));
        assert_eq!((now, it, it.percent(now, 10_000)), (at(10_000), SlowStart::Past, None));
    }

    #[test]
    fn one_of_many_new_ones_has_all_at_once_and_is_new_all_the_same() {
        let mut it = SlowStart::begin(at(0), 10_000, false);
        assert_eq!(it.percent(at(0), 10_000), None);
        assert_eq!(it.next_at(at(0), 10_000), Some(at(10_000)));
        it.pass(at(9_999), 10_000);
        assert!(!it.is_past());
        it.pass(at(10_000), 10_000);
        assert!(it.is_past());
        assert!(SlowStart::begin(at(0), 0, true).is_past());
    }
}
