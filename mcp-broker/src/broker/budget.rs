//! How many attempts there may be on top of what was asked for: a part of the tasks lately.
//!
//! When everything fails, retries multiply the load on workers that are in trouble already; when all
//! is slow, hedges do. A budget keeps each to a share of it. Source: Google SRE book, "Handling
//! overload"; the form is that of Finagle's retry budget.

use super::time::Mono;

/// Retries that a broker may have which is new, or has had nothing to do: they come back at
/// [`REFILL_PER_S`], so that a few tasks an hour are tried again like many.
const RESERVE: u64 = 10;

/// Retries a second by which the reserve is filled up again.
const REFILL_PER_S: u64 = 1;

/// Retries that can be saved up: what "lately" means. With 20 %, those of 5,000 tasks.
const MAX_SAVED_RETRIES: u64 = 1_000;

/// Hedges that can be saved up: with 5 %, those of 2,000 tasks. Fewer than retries, since they are
/// made when workers are slow, and all at once where all of them are.
const MAX_SAVED_HEDGES: u64 = 100;

/// Parts of an attempt.
const PARTS: u64 = 100;

/// A bucket of attempts that tasks fill. It is brought up to date when one is asked for, so that a
/// task costs nothing.
#[derive(Debug)]
pub(super) struct Budget {
    /// Percent of the tasks.
    percent: u64,
    /// Attempts that it has at the start, and again after some time.
    reserve: u64,
    max_saved: u64,
    /// What is left, in parts of an attempt.
    parts: u64,
    /// Up to where it is up to date: tasks, and the time.
    tasks: u64,
    refilled: Mono,
}

impl Budget {
    pub(super) fn of_retries(percent: u32) -> Self {
        Self::new(percent, RESERVE, MAX_SAVED_RETRIES)
    }

    /// Hedges are never needed, so nothing is in reserve for them.
    pub(super) fn of_hedges(percent: u32) -> Self {
        Self::new(percent, 0, MAX_SAVED_HEDGES)
    }

    fn new(percent: u32, reserve: u64, max_saved: u64) -> Self {
        let (percent, parts) = (percent.into(), reserve * PARTS);
        Self { percent, reserve, max_saved, parts, tasks: 0, refilled: Mono::default() }
    }

    /// Another share, of the tasks that nothing was taken for yet, too.
    pub(super) fn set_percent(&mut self, percent: u32) {
        self.percent = percent.into();
    }

    /// Takes an attempt, if there is one. `tasks` is how many there were since the start.
    pub(super) fn take(&mut self, now: Mono, tasks: u64) -> bool {
        let earned = (tasks - self.tasks).saturating_mul(self.percent * PARTS / 100);
        self.tasks = tasks;
        self.parts = self.parts.saturating_add(earned).min(self.max_saved * PARTS);
        self.refill(now);
        let is_left = self.parts >= PARTS;
        if is_left {
            self.parts -= PARTS;
        }
        is_left
    }

    /// An attempt that was taken is not made.
    pub(super) fn give_back(&mut self) {
        self.parts += PARTS;
    }

    fn refill(&mut self, now: Mono) {
        let parts = now.since(self.refilled) * REFILL_PER_S * PARTS / 1_000_000;
        if parts > 0 {
            self.refilled = now;
            if self.parts < self.reserve * PARTS {
                self.parts = (self.parts + parts).min(self.reserve * PARTS);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(budget: &mut Budget, now: Mono, tasks: u64) -> u64 {
        (0..).take_while(|_| budget.take(now, tasks)).count() as u64
    }

    #[test]
    fn retries_are_a_share_of_the_tasks_beside_a_reserve() {
        let (mut it, now) = (Budget::of_retries(20), Mono::default());
        assert_eq!(taken(&mut it, now, 0), RESERVE);
        assert_eq!(taken(&mut it, now, 4), 0);
        assert_eq!(taken(&mut it, now, 5), 1);
        assert_eq!(taken(&mut it, now, 105), 20);
        assert_eq!(taken(&mut it, now, 1_000_000), MAX_SAVED_RETRIES);
    }

    #[test]
    fn the_reserve_comes_back_with_time_and_no_more_than_it() {
        let mut it = Budget::of_retries(0);
        let at = |ms| Mono::default().plus_ms(ms);
        assert_eq!(taken(&mut it, at(0), 100), RESERVE);
        assert_eq!(taken(&mut it, at(999), 100), 0);
        // What was counted as 99 parts is not lost.
        assert_eq!(taken(&mut it, at(1_010), 100), 1);
        assert_eq!(taken(&mut it, at(1_000_000), 100), RESERVE);
    }

    #[test]
    fn hedges_are_a_share_of_the_tasks_and_no_more() {
        let (mut it, now) = (Budget::of_hedges(5), Mono::default().plus_ms(1_000_000));
        assert_eq!(taken(&mut it, now, 19), 0);
        assert_eq!(taken(&mut it, now, 20), 1);
        assert_eq!(taken(&mut it, now, 120), 5);
        assert_eq!(taken(&mut it, now, 1_000_000), MAX_SAVED_HEDGES);
        it.give_back();
        assert_eq!(taken(&mut it, now, 1_000_000), 1);
    }
}
