//! The tasks of one tenant and class that wait, in the order in which they go.

use std::collections::BTreeMap;

use super::super::inflight::TaskKey;
use super::super::time::Mono;

/// A task's place in its line. Those that came back go first, then the one whose time to wait is over
/// first (earliest deadline first), then the one that came first. No two are the same, so that a task
/// is taken out exactly where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::broker) struct Rank {
    /// µs, and above them whether it is here for the first time.
    until: u64,
    ticket: u64,
}

const FIRST_TIME: u64 = 1 << 63;

impl Rank {
    /// `ticket` is larger than those of all that came before.
    pub(in crate::broker) fn new(until: Mono, came_back: bool, ticket: u64) -> Self {
        let bit = if came_back { 0 } else { FIRST_TIME };
        Self { until: until.0.min(FIRST_TIME - 1) | bit, ticket }
    }

    /// The rank of a task that is here for the first time, behind its equals.
    pub(in crate::broker) fn of_newcomer(until: Mono) -> Self {
        Self::new(until, false, u64::MAX)
    }

    /// When its time to wait is over.
    pub(in crate::broker) fn until(self) -> Mono {
        Mono(self.until & !FIRST_TIME)
    }
}

/// How far from either end of a line places are counted exactly.
const COUNTED: usize = 64;

/// Tasks in the order of their ranks. Most have the same time to wait, and so come at the end and
/// leave at the beginning; a million of them take about 50 bytes each.
#[derive(Debug, Default)]
pub(super) struct Line {
    tasks: BTreeMap<Rank, TaskKey>,
}

impl Line {
    pub(super) fn insert(&mut self, rank: Rank, task: TaskKey) {
        self.tasks.insert(rank, task);
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, rank: Rank) -> bool {
        self.tasks.remove(&rank).is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    pub(super) fn first(&self) -> Option<(Rank, TaskKey)> {
        self.tasks.first_key_value().map(|(rank, task)| (*rank, *task))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Rank, TaskKey)> {
        self.tasks.iter().map(|(rank, task)| (*rank, *task))
    }

    /// How many go before one of this rank: exactly near both ends, else as if the times to wait of
    /// those between were evenly spread. A tree that counts would cost every task, and few places
    /// are asked for that are not at the end.
    pub(super) fn ahead_of(&self, rank: Rank) -> usize {
        let behind = self.tasks.range(rank..).take(COUNTED).count();
        if behind < COUNTED {
            return self.tasks.len() - behind;
        }
        let ahead = self.tasks.range(..rank).take(COUNTED).count();
        if ahead < COUNTED {
            return ahead;
        }
        let (Some((first, _)), Some((last, _))) =
            (self.tasks.iter().nth(COUNTED - 1), self.tasks.iter().nth_back(COUNTED - 1))
        else {
            return self.tasks.len();
        };
        let part = rank.until.saturating_sub(first.until) as f64;
        let whole = last.until.saturating_sub(first.until).max(1) as f64;
        let between = (self.tasks.len() - 2 * COUNTED) as f64;
        COUNTED + (between * (part / whole).min(1.0)) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::slab::Key;
    use super::*;

    fn line(untils: impl IntoIterator<Item = u64>) -> Line {
        let mut line = Line::default();
        for (ticket, until) in (1..).zip(untils) {
            line.insert(Rank::new(Mono(until), false, ticket), Key::from_bits(1));
        }
        line
    }

    #[test]
    fn who_came_back_goes_first_then_the_earliest_deadline_then_who_came_first() {
        let rank = |until, came_back, ticket| Rank::new(Mono(until), came_back, ticket);
        let mut ranks = [
            rank(u64::MAX, false, 1),
            rank(20, false, 2),
            rank(10, false, 4),
            rank(10, false, 3),
            rank(u64::MAX, true, 5),
            rank(30, true, 6),
        ];
        ranks.sort();
        assert_eq!(ranks.map(|it| it.ticket), [6, 5, 3, 4, 2, 1]);
        assert_eq!(ranks[0].until(), Mono(30));
        assert_eq!(rank(10, false, 1).until(), Mono(10));
    }

    #[test]
    fn places_are_exact_near_the_ends_and_about_right_between() {
        let ahead = |line: &Line, until| line.ahead_of(Rank::of_newcomer(Mono(until)));
        assert_eq!(ahead(&line([]), 5), 0);
        let same = line([7; 1_000]);
        assert_eq!([6, 7, 8].map(|until| ahead(&same, until)), [0, 1_000, 1_000]);
        let even = line(0..1_000);
        for until in [0, 10, 100, 500, 900, 998, 999] {
            assert!(ahead(&even, until).abs_diff(until as usize + 1) <= 2, "{until}");
        }
        // A few that may wait for ever don't make the others look first.
        let with_patient = line((0..1_000).chain([u64::MAX >> 1; 50]));
        assert!(ahead(&with_patient, 500).abs_diff(501) <= 20);
    }
}
