//! What lately became of an action's tasks: rates over some seconds, and how long tasks took.
//!
//! Counters only grow; what they were at the beginning of a second is noted by the first task that comes
//! or ends in a later one. So a quiet action costs nothing, and a busy one a comparison a task.

use serde::Serialize;

use super::histogram::Histogram;
use super::metrics::TaskCounts;
use super::time::Mono;

/// Seconds whose beginnings are remembered: more than the longest span asked for.
const SECONDS: u64 = 64;

/// A histogram is larger than counters: it is remembered every ten seconds, eight times.
const STEP_S: u64 = 10;
const STEPS: u64 = 8;

/// Quantiles are of the tasks that ended since the beginning of the step so many before this one: in
/// the last 50 to 60 s.
const STEPS_BACK: u64 = 5;

/// Of one action's tasks, without shadow tasks.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// Tasks taken since the start.
    taken: u64,
    /// The second in which a task last came or ended.
    second: u64,
    /// None before the first.
    marks: Option<Box<Marks>>,
}

/// Counters at the beginning of a second.
#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    taken: u64,
    ended: [u64; TaskCounts::OUTCOMES.len()],
}

#[derive(Debug)]
struct Marks {
    /// Of second n at n modulo [`SECONDS`].
    counters: [Mark; SECONDS as usize],
    /// Of step n at n modulo [`STEPS`].
    totals: [Histogram; STEPS as usize],
}

/// Tasks a second.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub(super) struct Rates {
    /// Taken.
    taken: f64,
    /// Ended ok.
    ok: f64,
    /// Ended failed or expired.
    error: f64,
    cancelled: f64,
    /// Refused, at once or later.
    rejected: f64,
}

/// Quantiles of the time from SEND to DELIVER, µs; none when no task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(super) struct Quantiles {
    p50_us: Option<u64>,
    p99_us: Option<u64>,
}

impl Recent {
    /// A task was taken.
    #[inline]
    pub(super) fn taken(&mut self, now: Mono, counts: &TaskCounts) {
        self.turn(now, counts);
        self.taken += 1;
    }

    /// A task is about to be counted as ended.
    #[inline]
    pub(super) fn turn(&mut self, now: Mono, counts: &TaskCounts) {
        let second = second(now);
        if second != self.second || self.marks.is_none() {
            self.mark(second, counts);
        }
    }

    #[cold]
    fn mark(&mut self, second: u64, counts: &TaskCounts) {
        let is_first = self.marks.is_none();
        let mark = self.mark_of(counts);
        let marks = self.marks.get_or_insert_with(|| {
            let counters = [Mark::default(); SECONDS as usize];
            Box::new(Marks { counters, totals: Default::default() })
        });
        let from = if is_first { second } else { self.second + 1 };
        for at in from.max((second + 1).saturating_sub(SECONDS))..=second {
            marks.counters[(at % SECONDS) as usize] = mark;
        }
        let (from, step) = (self.second / STEP_S + 1, second / STEP_S);
        for at in from.max((step + 1).saturating_sub(STEPS))..=step {
            marks.totals[(at % STEPS) as usize] = counts.total.clone();
        }
        self.second = second;
    }

    fn mark_of(&self, counts: &TaskCounts) -> Mark {
        let mut ended = [0; TaskCounts::OUTCOMES.len()];
        for (to, (_, count)) in ended.iter_mut().zip(counts.ended()) {
            *to = count;
        }
        Mark { taken: self.taken, ended }
    }

    /// Counters at the beginning of a second of the last minute.
    fn at(&self, second: u64, counts: &TaskCounts) -> Mark {
        match &self.marks {
            Some(marks) if second <= self.second => marks.counters[(second % SECONDS) as usize],
            _ => self.mark_of(counts),
        }
    }

    /// Over this many whole seconds before this one, at most 60; those before the start of the broker
    /// are left out.
    pub(super) fn rates(&self, now: Mono, over_s: u64, counts: &TaskCounts) -> Rates {
        let end = second(now);
        let over_s = over_s.min(end);
        if over_s == 0 {
            return Rates::default();
        }
        let (from, to) = (self.at(end - over_s, counts), self.at(end, counts));
        let per_s = |from: u64, to: u64| rounded((to - from) as f64 / over_s as f64);
        let [ok, failed, expired, cancelled, rejected] =
            std::array::from_fn(|index| per_s(from.ended[index], to.ended[index]));
        Rates {
            taken: per_s(from.taken, to.taken),
            ok,
            error: failed + expired,
            cancelled,
            rejected,
        }
    }

    /// Of the last 50 to 60 s.
    pub(super) fn quantiles(&self, now: Mono, counts: &TaskCounts) -> Quantiles {
        let from = (second(now) / STEP_S).saturating_sub(STEPS_BACK);
        let since = match &self.marks {
            _ if from == 0 => counts.total.clone(),
            Some(marks) if from <= self.second / STEP_S => {
                counts.total.since(&marks.totals[(from % STEPS) as usize])
            }
            _ => return Quantiles::default(),
        };
        Quantiles { p50_us: since.estimate_us(0.5), p99_us: since.estimate_us(0.99) }
    }
}

impl std::ops::AddAssign for Rates {
    fn add_assign(&mut self, other: Self) {
        self.taken = rounded(self.taken + other.taken);
        self.ok = rounded(self.ok + other.ok);
        self.error = rounded(self.error + other.error);
        self.cancelled = rounded(self.cancelled + other.cancelled);
        self.rejected = rounded(self.rejected + other.rejected);
    }
}

/// Three digits are enough for people.
fn rounded(rate: f64) -> f64 {
    (rate * 1e3).round() / 1e3
}

fn second(now: Mono) -> u64 {
    now.0 / 1_000_000
}

#[cfg(test)]
mod tests {
    use mcp_proto::{Deliver, Executed, Outcome, TaskId};

    use super::*;

    #[derive(Default)]
    struct It(Recent, TaskCounts);

    impl It {
        fn take(&mut self, at_ms: u64) {
            self.0.taken(Mono(at_ms * 1_000), &self.1);
        }

        fn end(&mut self, at_ms: u64, outcome: Outcome, total_us: u64) {
            self.0.turn(Mono(at_ms * 1_000), &self.1);
            let id = TaskId::try_from("t").unwrap();
            self.1.record(&Deliver::new(id, outcome, Executed::Yes), total_us);
        }

        fn rates(&self, at_ms: u64, over_s: u64) -> Rates {
            self.0.rates(Mono(at_ms * 1_000), over_s, &self.1)
        }

        fn quantiles(&self, at_s: u64) -> Quantiles {
            self.0.quantiles(Mono(at_s * 1_000_000), &self.1)
        }
    }

    #[test]
    fn a_rate_is_of_whole_seconds_and_goes_to_zero_when_nothing_comes() {
        let mut it = It::default();
        assert_eq!(it.rates(500, 10), Rates::default());
        for ms in 0..20_000 {
            it.take(ms);
            it.end(ms, if ms % 10 == 0 { Outcome::Failed } else { Outcome::Ok }, 100);
        }
        for over_s in [10, 60] {
            let rates = it.rates(19_999, over_s);
            assert_eq!((rates.taken, rates.ok, rates.error), (1_000.0, 900.0, 100.0));
        }
        assert_eq!(it.rates(25_000, 10).taken, 500.0);
        assert_eq!(it.rates(30_000, 10).taken, 0.0);
        assert_eq!(it.rates(60_000, 60).taken, 333.333);
        assert_eq!(it.rates(1_000_000, 60).taken, 0.0);
        it.end(1_000_500, Outcome::Expired, 100);
        it.end(1_000_600, Outcome::Rejected, 100);
        let rates = it.rates(1_001_000, 1);
        assert_eq!((rates.taken, rates.error, rates.rejected), (0.0, 1.0, 1.0));
    }

    #[test]
    fn an_action_that_is_new_has_no_past() {
        let mut it = It::default();
        it.take(100_500);
        it.take(100_700);
        assert_eq!(it.rates(101_000, 10).taken, 0.2);
        assert_eq!(it.rates(101_000, 60).taken, 0.033);
    }

    #[test]
    fn quantiles_forget_what_is_a_minute_old() {
        let mut it = It::default();
        assert_eq!(it.quantiles(0), Quantiles::default());
        (0..100).for_each(|_| it.end(1_000, Outcome::Ok, 1_000_000));
        let slow = it.quantiles(5);
        assert!(slow.p50_us.unwrap() > 700_000 && slow.p99_us.unwrap() <= 1_638_400, "{slow:?}");
        assert_eq!(it.quantiles(100), Quantiles::default());
        (0..100).for_each(|_| it.end(100_000, Outcome::Ok, 150));
        let fast = it.quantiles(101);
        assert!(fast.p50_us.unwrap() < 200 && fast.p99_us.unwrap() <= 200, "{fast:?}");
        assert_eq!(it.quantiles(155), fast);
        assert_eq!(it.quantiles(160), Quantiles::default());
    }
}
