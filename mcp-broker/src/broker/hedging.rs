//! Hedging: an attempt that takes longer than most gets another one beside it, at another worker, and
//! the first that does the task wins. Source: Dean and Barroso, "The tail at scale", CACM 56(2), 2013.
//!
//! ```text
//!                the action's p95 is over
//!   one attempt ──────────────────────────▶ two attempts ──── one does the task ──▶ the other is
//!        ▲                                       │                                  cancelled
//!        └───────────────────────────────────────┘
//!           one fails, is handed back, lost or silent
//! ```
//!
//! A worker must have a free slot for it now: it takes nobody's place. There are no more of them than
//! a budget.

use mcp_proto::{CancelReason, Executed, HopEvent, Priority};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::balancer::Member;
use super::budget::Budget;
use super::explain::Found;
use super::inflight::{Attempt, AttemptKey, Extras, Task, TaskKey, TaskState};
use super::p95::P95;
use super::pool::{Choice, Pool};
use super::registry::Registry;
use super::rng::Rng;
use super::rules::{ActionRules, MAX_INTERVAL_MS, within};
use super::{Core, Mono, Now};

/// How the tasks of an action are hedged: those of priority high or urgent that may run twice
/// (`idempotent`), of which nothing comes in parts, and that are not durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct HedgeRule {
    /// Hedges, in percent of the action's tasks that ended ok, 0 to 100. 0: none. What is beyond the
    /// 95th percentile is 5 % of them. 5.
    pub budget_percent: u32,
    /// Tasks that end ok before the first hedge, 1 to 1,000,000: until then it is not known what takes
    /// long. 100.
    pub min_samples: u32,
    /// An attempt is left alone for this long, ms, whatever the others took: of what is as fast as
    /// this, nobody notices when it is slow. 1.
    pub min_delay_ms: u64,
}

impl Default for HedgeRule {
    fn default() -> Self {
        Self { budget_percent: 5, min_samples: 100, min_delay_ms: 1 }
    }
}

impl HedgeRule {
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let Self { budget_percent, min_samples, min_delay_ms } = *self;
        within("hedge.budget_percent", budget_percent, 0..=100)?;
        within("hedge.min_samples", min_samples, 1..=1_000_000)?;
        within("hedge.min_delay_ms", min_delay_ms, 0..=MAX_INTERVAL_MS)
    }
}

/// Of an action whose tasks are hedged: when, and how many more may be.
#[derive(Debug)]
pub(super) struct Hedging {
    rule: HedgeRule,
    budget: Budget,
    /// From ROUTE to RESULT, of attempts that did their task.
    times: P95,
    /// How many did.
    ok: u64,
}

impl Hedging {
    /// None where the rules don't ask for it.
    pub(super) fn of(rules: &ActionRules) -> Option<Box<Self>> {
        let rule = rules.hedge.filter(|rule| rule.budget_percent > 0)?;
        let budget = Budget::of_hedges(rule.budget_percent);
        Some(Box::new(Self { rule, budget, times: P95::default(), ok: 0 }))
    }

    /// An attempt did its task.
    pub(super) fn note_ok(&mut self, held_us: u64) {
        self.ok += 1;
        self.times.record(held_us);
    }

    /// A first attempt lost to a second one, after so long. Were it not counted, the slowest of the
    /// others would be the slow ones next time, and so on.
    pub(super) fn note_lost(&mut self, held_us: u64) {
        self.times.record(held_us);
    }

    /// How long an attempt is left alone, µs, once that is known.
    fn delay_us(&self) -> Option<u64> {
        let is_known = self.ok >= self.rule.min_samples.into();
        is_known.then(|| self.times.us().max(self.rule.min_delay_ms * 1000))
    }
}

impl Pool {
    /// When an attempt that begins now gets another one beside it.
    pub(super) fn hedge_at(&self, now: Mono) -> Option<Mono> {
        Some(now + self.hedging.as_ref()?.delay_us()?)
    }

    /// Chooses a worker that is well and has a free slot for a second attempt, none of `others`, if
    /// the budget has one left.
    fn pick_hedge(
        &mut self,
        now: Mono,
        (subqueue, key): (usize, u64),
        (rng, registry): (&mut Rng, &Registry),
        others: &[Member],
    ) -> Option<Choice> {
        let may_be = !self.is_degraded && !self.subqueues[subqueue].is_last_resort();
        let hedging = self.hedging.as_mut().filter(|_| may_be)?;
        if !hedging.budget.take(now, hedging.ok) {
            return None;
        }
        let is_free = |choice: &Choice| {
            registry.get(choice.agent).is_some_and(|agent| agent.in_flight() < agent.slots)
        };
        let choice = self.pick_none_of(subqueue, rng, key, others).filter(is_free);
        if choice.is_none()
            && let Some(hedging) = &mut self.hedging
        {
            hedging.budget.give_back();
        }
        choice
    }
}

/// Of a task: its second attempt.
#[derive(Debug, Default)]
pub(super) struct Hedge {
    /// When it begins, if the first one still runs then.
    at: Option<Mono>,
    /// Whether there was one.
    was: bool,
    /// While both live: it, and when it was routed or gave its latest sign of life.
    second: Option<(AttemptKey, Mono)>,
    /// Attempts that ended badly while another one went on.
    pub(super) absorbed: u32,
    /// Whether one of them may have begun.
    pub(super) may_have_run: bool,
}

impl Extras {
    /// An attempt was routed: a first one, which gets another one beside it at a time, or that one.
    pub(super) fn begin(
        &mut self,
        now: Mono,
        attempt: AttemptKey,
        is_hedge: bool,
        hedge_at: Option<Mono>,
    ) {
        debug_assert!(self.hedge.second.is_none());
        if is_hedge {
            self.hedge.was = true;
            self.hedge.second = Some((attempt, now));
        } else {
            self.last_sign = now;
        }
        self.hedge.at = hedge_at;
    }

    /// When there is something to do about its attempts.
    pub(super) fn look_at(&self) -> Mono {
        let second = self.hedge.second.map(|(_, sign)| self.silent_at(sign));
        let first = self.silent_at(self.last_sign);
        [second, self.hedge.at].into_iter().flatten().fold(first, Mono::min)
    }

    /// Of its attempts, of which this is the first, one that ends for want of a sign of life.
    fn silent(&self, now: Mono, first: AttemptKey) -> Option<AttemptKey> {
        let mut signs = [(first, self.last_sign)].into_iter().chain(self.hedge.second);
        signs.find(|(_, sign)| now >= self.silent_at(*sign)).map(|(attempt, _)| attempt)
    }
}

impl Task {
    /// Whether it is one of those that are hedged where its action's rules say so.
    pub(super) fn may_be_hedged(&self) -> bool {
        self.is_idempotent
            && self.priority >= Priority::High
            && !self.is_durable
            && self.stream.is_none()
            && self.upload().is_none()
    }

    /// Its attempts that live: two while it is hedged.
    pub(super) fn live_attempts(&self) -> impl Iterator<Item = AttemptKey> + use<> {
        let first = match self.state {
            TaskState::Running(attempt) => Some(attempt),
            TaskState::Placing { .. }
            | TaskState::Queued { .. }
            | TaskState::Delayed { .. }
            | TaskState::Ending(_) => None,
        };
        first.into_iter().chain(first.and(self.second_attempt()))
    }

    /// Whether it ever had two attempts at once.
    pub(super) fn was_hedged(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.hedge.was)
    }

    /// The later one of two attempts that live.
    pub(super) fn second_attempt(&self) -> Option<AttemptKey> {
        self.extras.as_ref()?.hedge.second.map(|(attempt, _)| attempt)
    }

    /// An attempt of it ended badly. Returns whether it has another one, with which it goes on.
    pub(super) fn goes_on_without(&mut self, attempt: &Attempt, executed: Executed) -> bool {
        let Some(extras) = &mut self.extras else { return false };
        let Some((second, sign)) = extras.hedge.second.take() else { return false };
        if !attempt.is_hedge {
            self.state = TaskState::Running(second);
            extras.last_sign = sign;
        }
        extras.hedge.absorbed += 1;
        extras.hedge.may_have_run |= executed != Executed::No;
        true
    }

    /// An attempt of it gave a sign of life.
    pub(super) fn note_sign(&mut self, now: Mono, attempt: &Attempt) {
        let Some(extras) = &mut self.extras else { return };
        match &mut extras.hedge.second {
            Some((_, sign)) if attempt.is_hedge => *sign = now,
            _ => extras.last_sign = now,
        }
    }
}

/// Of an attempt that ended so, as its hop tells it: why its task goes on all the same.
pub(super) fn another_goes_on(event: HopEvent) -> &'static str {
    match event {
        HopEvent::Completed => "failed; another attempt goes on",
        HopEvent::Nacked => "handed back; another attempt goes on",
        HopEvent::WorkerLost => "worker lost; another attempt goes on",
        HopEvent::Expired => "its worker stopped it at its deadline; another attempt goes on",
        HopEvent::Cancelled => "its worker gave it up; another attempt goes on",
        HopEvent::TimedOut => "no sign of life; another attempt goes on",
    }
}

impl Core {
    /// A running task's timer fired, before its deadline.
    pub(super) fn look_at_attempts(&mut self, now: Now, key: TaskKey) {
        let task = self.tasks.get(key);
        let Some(Task { state: TaskState::Running(first), extras: Some(extras), .. }) = task else {
            return self.look_again(key);
        };
        match extras.silent(now.mono, *first) {
            Some(silent) => self.attempt_is_silent(now, key, silent),
            None if extras.hedge.at.is_some_and(|at| now.mono >= at) => {
                self.hedge(now, key, *first);
            }
            None => self.look_again(key),
        }
    }

    /// A task's one attempt takes longer than most: another one begins beside it, if it can.
    fn hedge(&mut self, now: Now, key: TaskKey, first: AttemptKey) {
        let Some(first) = self.attempts.get(first) else { return };
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.extras_mut().hedge.at = None;
        // A handler that waits for its children is not slow, and another one would send them again.
        let is_parent = first.is_parked || task.kin.as_ref().is_some_and(|kin| kin.has_children());
        let may_be = !is_parent && !self.is_shutting_down;
        // Its rule may be gone by now.
        let hedges = self.pools.get(task.pool).is_some_and(|pool| pool.hedging.is_some());
        if !may_be || !hedges {
            return self.look_again(key);
        }
        let member_of = |agent| self.registry.member(agent, task.pool);
        let others: SmallVec<[_; 2]> =
            [first.agent].into_iter().chain(task.avoid).filter_map(member_of).collect();
        if task.is_explained() {
            self.explain_attempt(now, key, Found::Except(&others));
        }
        let Some(task) = self.tasks.get(key) else { return };
        let Some(pool) = self.pools.get_mut(task.pool) else { return };
        let (place, by) = ((task.subqueue, task.affinity), (&mut self.rng, &self.registry));
        match pool.pick_hedge(now.mono, place, by, &others) {
            Some(choice) => {
                self.stats.hedges += 1;
                self.route_hedge(now, key, choice);
            }
            None => {
                self.stats.hedges_refused += 1;
                self.look_again(key);
            }
        }
    }

    /// An attempt has decided its task. If it has another one, that is cancelled.
    pub(super) fn end_other_attempt(&mut self, now: Now, key: TaskKey, by: &Attempt, is_ok: bool) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let (TaskState::Running(first), Some(extras)) = (&task.state, &mut task.extras) else {
            return;
        };
        let Some((second, _)) = extras.hedge.second.take() else { return };
        let other = if by.is_hedge { *first } else { second };
        let pool = task.pool;
        if is_ok && by.is_hedge {
            self.stats.hedges_won += 1;
            self.note_lost(now, pool, other);
        }
        let reason = match is_ok {
            true => "hedged; another attempt won",
            false => "hedged; another attempt failed for good",
        };
        self.add_hop(now, key, other, HopEvent::Cancelled, reason);
        self.cancel_attempt(now, other, CancelReason::Superseded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_twenty_is_slow_also_when_the_slow_ones_lose() {
        let rules = ActionRules { hedge: Some(HedgeRule::default()), ..ActionRules::default() };
        let mut it = Hedging::of(&rules).unwrap();
        let mut slow = 0;
        for number in 0..100_000_u32 {
            // Exponential, of 10 ms.
            let share = f64::from(number * 7_919 % 1_000 + 1) / 1_000.0;
            let held_us = (-share.ln() * 10_000.0) as u64;
            match it.delay_us() {
                Some(delay_us) if held_us > delay_us => {
                    slow += 1;
                    it.note_ok(1_000);
                    it.note_lost(delay_us + 1_000);
                }
                Some(_) | None => it.note_ok(held_us),
            }
        }
        assert!((1_000..=6_000).contains(&slow), "{slow}");
    }
}
