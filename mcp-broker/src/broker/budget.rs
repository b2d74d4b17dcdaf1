//! How many retries there may be: a part of the tasks that were taken lately.
//!
//! When everything fails, retries multiply the load on workers that are in trouble already. The
//! budget keeps them to a share of it. Source: Google SRE book, "Handling overload"; the form is
//! that of Finagle's retry budget.

use super::time::Mono;

/// Retries that a broker may have which is new, or has had nothing to do: they come back at
/// [`REFILL_PER_S`], so that a few tasks an hour are tried again like many.
const RESERVE: u64 = 10;

/// Retries a second by which the reserve is filled up again.
const REFILL_PER_S: u64 = 1;

/// Retries that can be saved up: what "lately" means. With 20 %, those of 5,000 tasks.
const MAX_SAVED: u64 = 1_000;

/// Parts of a retry.
const PARTS: u64 = 100;

/// A bucket of retries that tasks fill. It is brought up to date when a retry is asked for, so that
/// a task costs nothing.
#[derive(Debug)]
pub(super) struct RetryBudget {
    /// Percent of the tasks taken.
    percent: u64,
    /// What is left, in parts of a retry.
    parts: u64,
    /// Up to where it is up to date: tasks taken, and the time.
    accepted: u64,
    refilled: Mono,
}

impl RetryBudget {
    pub(super) fn new(percent: u32) -> Self {
        let parts = RESERVE * PARTS;
        Self { percent: percent.into(), parts, accepted: 0, refilled: Mono::default() }
    }

    /// Takes a retry, if there is one. `accepted` is how many tasks were taken since the start.
    pub(super) fn take(&mut self, now: Mono, accepted: u64) -> bool {
        let earned = (accepted - self.accepted).saturating_mul(self.percent * PARTS / 100);
        self.accepted = accepted;
        self.parts = self.parts.saturating_add(earned).min(MAX_SAVED * PARTS);
        self.refill(now);
        let is_left = self.parts >= PARTS;
        if is_left {
            self.parts -= PARTS;
        }
        is_left
    }

    fn refill(&mut self, now: Mono) {
        let parts = now.since(self.refilled) * REFILL_PER_S * PARTS / 1_000_000;
        if parts > 0 {
            self.refilled = now;
            if self.parts < RESERVE * PARTS {
                self.parts = (self.parts + parts).min(RESERVE * PARTS);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(budget: &mut RetryBudget, now: Mono, accepted: u64) -> u64 {
        (0..).take_while(|_| budget.take(now, accepted)).count() as u64
    }

    #[test]
    fn retries_are_a_share_of_the_tasks_beside_a_reserve() {
        let (mut it, now) = (RetryBudget::new(20), Mono::default());
        assert_eq!(taken(&mut it, now, 0), RESERVE);
        assert_eq!(taken(&mut it, now, 4), 0);
        assert_eq!(taken(&mut it, now, 5), 1);
        assert_eq!(taken(&mut it, now, 105), 20);
        assert_eq!(taken(&mut it, now, 1_000_000), MAX_SAVED);
    }

    #[test]
    fn the_reserve_comes_back_with_time_and_no_more_than_it() {
        let mut it = RetryBudget::new(0);
        let at = |ms| Mono::default().plus_ms(ms);
        assert_eq!(taken(&mut it, at(0), 100), RESERVE);
        assert_eq!(taken(&mut it, at(999), 100), 0);
        // What was counted as 99 parts is not lost.
        assert_eq!(taken(&mut it, at(1_010), 100), 1);
        assert_eq!(taken(&mut it, at(1_000_000), 100), RESERVE);
    }
}
