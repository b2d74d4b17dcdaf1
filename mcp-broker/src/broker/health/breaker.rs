//! The breaker of a worker for one action: after too many faults it gets no tasks for a while, then
//! one to try.
//!
//! ```text
//!             too many faults
//!   Closed ───────────────────▶ Open ◀──────────┐
//!     ▲                          │              │ a fault: open for
//!     │                          │ its time     │ twice as long
//!     │  the probe went well     ▼ is over      │
//!     └────────────────────── HalfOpen ─────────┘
//! ```
//!
//! Source: Nygard, "Release It!", 2nd edition, 2018, section 5.2. That it opens for longer each time,
//! up to ten times as long, is as Envoy ejects hosts (`base_ejection_time` of 30 s,
//! `max_ejection_time` of 300 s).

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::broker::rules::{MAX_INTERVAL_MS, within};
use crate::broker::time::Mono;

/// When the breaker of a worker opens, and for how long. The key `breaker` of an action's rules.
///
/// A fault is a handler's panic, the loss of the worker, an attempt without a sign of life (if its
/// time-out was long), or a break of the protocol: never an error that a handler returns, and never
/// that a worker has no room.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct BreakerRules {
    /// Faults in a row that open it. 0: there is no breaker. 5: the fewest that are rarely chance.
    pub failures: u32,
    /// How far back faults are weighed against what went well. 10,000.
    pub window_ms: u64,
    /// Attempts that must have ended within the window before their share of faults counts. 20:
    /// with fewer, a few faults would be a large share.
    pub min_requests: u32,
    /// Share of faults within the window that opens it, in percent. 50.
    pub error_percent: u32,
    /// How long it stays open the first time; twice as long each time that a probe failed since,
    /// at most ten times. 30,000.
    pub open_ms: u64,
}

impl Default for BreakerRules {
    fn default() -> Self {
        Self {
            failures: 5,
            window_ms: 10_000,
            min_requests: 20,
            error_percent: 50,
            open_ms: 30_000,
        }
    }
}

impl BreakerRules {
    pub(in crate::broker) fn check(&self) -> Result<(), (&'static str, String)> {
        let Self { failures, window_ms, min_requests, error_percent, open_ms } = self;
        within("breaker.failures", *failures, 0..=MAX_COUNT)?;
        within("breaker.window_ms", *window_ms, 1..=MAX_INTERVAL_MS)?;
        within("breaker.min_requests", *min_requests, 1..=MAX_COUNT)?;
        within("breaker.error_percent", *error_percent, 1..=100)?;
        within("breaker.open_ms", *open_ms, 1..=MAX_INTERVAL_MS)
    }

    pub(super) fn are_on(&self) -> bool {
        self.failures > 0
    }
}

/// More attempts than that in a window are a slip of the pen.
const MAX_COUNT: u32 = 1_000_000;

/// A breaker is open at most so many times as long as the first time.
const MAX_TIMES_OPEN: u64 = 10;

/// What a worker's attempts at one action have come to.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::broker) struct Breaker {
    state: State,
    /// Faults since something went well.
    in_a_row: u32,
    /// How often it has opened since it was closed.
    opened: u32,
    /// Tells a probe of this time half-open from one of another time.
    round: u32,
    window: Window,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum State {
    #[default]
    Closed,
    Open {
        until: Mono,
    },
    HalfOpen {
        is_probing: bool,
    },
}

/// Why a breaker opened, as a part of a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) enum Why {
    InARow(u32),
    Share { faults: u32, requests: u32, window_ms: u64 },
    Probe,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::InARow(faults) => write!(f, "{faults} faults in a row"),
            Why::Share { faults, requests, window_ms } => {
                write!(f, "{faults} faults among {requests} attempts within {window_ms} ms")
            }
            Why::Probe => f.write_str("its probe was a fault"),
        }
    }
}

impl Breaker {
    pub(super) fn state(&self) -> State {
        self.state
    }

    pub(super) fn open_until(&self) -> Option<Mono> {
        match self.state {
            State::Open { until } => Some(until),
            State::Closed | State::HalfOpen { .. } => None,
        }
    }

    /// Whether it differs from a new one for longer than its window.
    pub(super) fn is_worth_keeping(&self) -> bool {
        self.state != State::Closed || self.in_a_row > 0
    }

    /// An attempt went well for all that the worker has to do with it. `probe` is the round that it
    /// was the probe of. Returns whether that closed the breaker.
    pub(super) fn note_good(
        &mut self,
        now: Mono,
        probe: Option<u32>,
        rules: &BreakerRules,
    ) -> bool {
        if self.state == State::Closed {
            self.in_a_row = 0;
            self.window.add(now, rules.window_ms, false);
            return false;
        }
        let is_probe = matches!(self.state, State::HalfOpen { .. }) && probe == Some(self.round);
        if is_probe {
            *self = Self { round: self.round, ..Self::default() };
        }
        is_probe
    }

    /// An attempt was a fault. Returns why that opened the breaker, if it did. What ends while it is
    /// open, it had before.
    pub(super) fn note_fault(&mut self, now: Mono, rules: &BreakerRules) -> Option<Why> {
        let why = match self.state {
            State::Open { .. } => return None,
            State::HalfOpen { .. } => Why::Probe,
            State::Closed => {
                self.in_a_row += 1;
                self.window.add(now, rules.window_ms, true);
                self.why_to_open(rules)?
            }
        };
        let times = 1_u64.checked_shl(self.opened).unwrap_or(u64::MAX).min(MAX_TIMES_OPEN);
        let until = now.plus_ms(rules.open_ms.saturating_mul(times));
        *self = Self {
            state: State::Open { until },
            opened: self.opened.saturating_add(1),
            round: self.round,
            ..Self::default()
        };
        Some(why)
    }

    fn why_to_open(&self, rules: &BreakerRules) -> Option<Why> {
        if self.in_a_row >= rules.failures {
            return Some(Why::InARow(self.in_a_row));
        }
        let Part { requests, faults } = self.window.sum();
        let is_share =
            u64::from(faults) * 100 >= u64::from(requests) * u64::from(rules.error_percent);
        (requests >= rules.min_requests && is_share).then_some(Why::Share {
            faults,
            requests,
            window_ms: rules.window_ms,
        })
    }

    /// Lets a probe through if its time is over. Returns whether that is so.
    pub(super) fn half_open(&mut self, now: Mono) -> bool {
        let is_due = matches!(self.state, State::Open { until } if now >= until);
        if is_due {
            self.round = self.round.wrapping_add(1);
            self.state = State::HalfOpen { is_probing: false };
        }
        is_due
    }

    /// An attempt begins that is the probe. Returns its round.
    pub(super) fn begin_probe(&mut self) -> u32 {
        if let State::HalfOpen { is_probing } = &mut self.state {
            *is_probing = true;
        }
        self.round
    }

    /// The probe of a round ended, in whichever way: there may be another.
    pub(super) fn end_probe(&mut self, round: u32) {
        if let State::HalfOpen { is_probing } = &mut self.state
            && self.round == round
        {
            *is_probing = false;
        }
    }

    /// As it is for the worker's next registration: a probe of this one is none of that.
    pub(super) fn of_next_registration(mut self) -> Self {
        if let State::HalfOpen { is_probing } = &mut self.state {
            self.round = self.round.wrapping_add(1);
            *is_probing = false;
        }
        self
    }
}

/// Parts of the window: the oldest goes as a whole, so that between three and four quarters of
/// `window_ms` count, at a fixed size.
const PARTS: usize = 4;

#[derive(Debug, Clone, Copy, Default)]
struct Window {
    parts: [Part; PARTS],
    current: usize,
    /// When the current part ends.
    ends: Mono,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Part {
    requests: u32,
    faults: u32,
}

impl Window {
    fn add(&mut self, now: Mono, window_ms: u64, is_fault: bool) {
        if now >= self.ends {
            self.turn(now, window_ms);
        }
        let part = &mut self.parts[self.current % PARTS];
        part.requests = part.requests.saturating_add(1);
        part.faults = part.faults.saturating_add(is_fault.into());
    }

    /// Begins another part, and forgets those that are over.
    #[cold]
    fn turn(&mut self, now: Mono, window_ms: u64) {
        let part_us = (window_ms * 1000 / PARTS as u64).max(1);
        let over = 1 + now.since(self.ends) / part_us;
        for _ in 0..over.min(PARTS as u64) {
            self.current = (self.current + 1) % PARTS;
            self.parts[self.current] = Part::default();
        }
        self.ends = self.ends + over.saturating_mul(part_us);
    }

    fn sum(&self) -> Part {
        self.parts.iter().fold(Part::default(), |sum, part| Part {
            requests: sum.requests.saturating_add(part.requests),
            faults: sum.faults.saturating_add(part.faults),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono::default().plus_ms(ms)
    }

    /// A breaker that has opened at `ms`.
    fn opened(ms: u64, rules: &BreakerRules) -> Breaker {
        let mut it = Breaker::default();
        while it.state == State::Closed {
            it.note_fault(at(ms), rules);
        }
        it
    }

    #[test]
    fn it_opens_after_faults_in_a_row_and_anything_good_between_them_counts() {
        let (mut it, rules) = (Breaker::default(), BreakerRules::default());
        for _ in 0..3 {
            (0..4).for_each(|_| assert_eq!(it.note_fault(at(5), &rules), None));
            it.note_good(at(5), None, &rules);
        }
        // 12 of 15: enough by their share, but too few.
        (0..4).for_each(|_| assert_eq!(it.note_fault(at(5), &rules), None));
        assert_eq!(it.note_fault(at(5), &rules), Some(Why::InARow(5)));
        assert_eq!(it.open_until(), Some(at(30_005)));
    }

    #[test]
    fn it_opens_when_the_share_of_faults_is_large() {
        let (mut it, rules) = (Breaker::default(), BreakerRules::default());
        for n in 0..9 {
            it.note_good(at(n), None, &rules);
            assert_eq!(it.note_fault(at(n), &rules), None);
        }
        it.note_good(at(9), None, &rules);
        let why = Why::Share { faults: 10, requests: 20, window_ms: 10_000 };
        assert_eq!(it.note_fault(at(10), &rules), Some(why));
        // One less of each in the window, and it stays closed.
        let mut it = Breaker::default();
        for n in 0..19 {
            it.note_good(at(n), None, &rules);
        }
        for n in 0..18 {
            assert_eq!(
                it.note_fault(at(n), &BreakerRules { failures: 100, ..rules.clone() }),
                None
            );
        }
    }

    #[test]
    fn what_is_older_than_the_window_does_not_count() {
        let (mut it, rules) =
            (Breaker::default(), BreakerRules { failures: 100, ..Default::default() });
        (0..1_000).for_each(|_| {
            it.note_good(at(0), None, &rules);
        });
        (0..19).for_each(|_| assert_eq!(it.note_fault(at(10_000), &rules), None));
        assert!(it.note_fault(at(10_000), &rules).is_some());
        // Parts that passed without anything are empty.
        let mut window = Window::default();
        window.add(at(1), 10_000, true);
        window.add(at(2_600), 10_000, true);
        assert_eq!(window.sum(), Part { requests: 2, faults: 2 });
        window.add(at(10_100), 10_000, false);
        assert_eq!(window.sum(), Part { requests: 2, faults: 1 });
        window.add(at(1_000_000), 10_000, false);
        assert_eq!(window.sum(), Part { requests: 1, faults: 0 });
    }

    #[test]
    fn half_open_a_probe_decides() {
        let rules = BreakerRules::default();
        let mut it = opened(0, &rules);
        assert!(!it.half_open(at(29_999)) && it.half_open(at(30_000)) && !it.half_open(at(30_000)));
        let round = it.begin_probe();
        assert_eq!(it.state, State::HalfOpen { is_probing: true });
        // What it had before says nothing.
        assert!(!it.note_good(at(30_001), None, &rules));
        assert!(it.note_good(at(30_001), Some(round), &rules));
        assert!(!it.is_worth_keeping());
        // Closed, it is as new: it opens for as long as the first time.
        (0..5).for_each(|_| {
            it.note_fault(at(40_000), &rules);
        });
        assert_eq!(it.open_until(), Some(at(70_000)));
    }

    #[test]
    fn each_failed_probe_doubles_the_time_up_to_ten_times() {
        let rules = BreakerRules::default();
        let mut it = opened(0, &rules);
        let mut times = Vec::new();
        for _ in 0..6 {
            let until = it.open_until().unwrap();
            it.half_open(until);
            it.begin_probe();
            assert_eq!(it.note_fault(until, &rules), Some(Why::Probe));
            times.push(it.open_until().unwrap().since(until) / 1_000_000);
        }
        assert_eq!(times, [60, 120, 240, 300, 300, 300]);
    }

    #[test]
    fn a_probe_that_ends_without_a_verdict_is_followed_by_another() {
        let rules = BreakerRules::default();
        let mut it = opened(0, &rules);
        it.half_open(at(30_000));
        let round = it.begin_probe();
        it.end_probe(round.wrapping_add(1));
        assert_eq!(it.state, State::HalfOpen { is_probing: true });
        it.end_probe(round);
        assert_eq!(it.state, State::HalfOpen { is_probing: false });
        it.begin_probe();
        assert_eq!(it.of_next_registration().state, State::HalfOpen { is_probing: false });
        assert_ne!(it.of_next_registration().round, round);
    }
}
