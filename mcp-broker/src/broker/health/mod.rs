//! What keeps tasks from workers that would not do them well, and from workers a task that none
//! survives.
//!
//! Each worker has, for each of its actions, a breaker (`breaker`), a pace that is compared with the
//! others' (`outlier`), and a slow start (`slow_start`). Together they come to a [`Condition`], and
//! that is what decides whether, and with which load, it is offered to the policies (`members`).
//! `verdicts` feeds them with what attempts came to, `watch` lets their time pass; `poison` ends tasks
//! whose workers fail one after the other, `memory` knows failing workers again that come back, and
//! `outage` refuses tasks while the breakers of all their workers are open.

mod breaker;
mod members;
mod memory;
mod outage;
mod outlier;
mod poison;
mod slow_start;
mod verdicts;
mod view;
mod watch;

pub use breaker::BreakerRules;
pub use outlier::OutlierRules;
pub use view::{ActionHealth, Breakers};

pub(super) use members::Unwell;
pub(super) use memory::Memory;
pub(super) use outage::barred;
pub(super) use poison::{Faults, MAX_POISON_AFTER};

use super::balancer::Load;
use super::rules::ActionRules;
use super::time::Mono;
use super::timers::TimerKey;
use breaker::{Breaker, State};
use outlier::{Pace, Paces};
use slow_start::SlowStart;

/// What is known of a worker's health for one action.
#[derive(Debug, Default)]
pub(super) struct Health {
    condition: Condition,
    breaker: Breaker,
    pace: Pace,
    slow_start: SlowStart,
    /// For the next that time changes.
    timer: Option<TimerKey>,
}

/// What a worker's health comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Condition {
    #[default]
    Ok,
    /// It is new: this percentage of its slots counts.
    SlowStart(u8),
    /// It is left out as it is slow.
    Ejected,
    /// It gets one task, by which it is judged.
    HalfOpen,
    /// It has that task.
    Probing,
    /// It gets no tasks.
    Open,
}

/// The health of a pool.
#[derive(Debug, Default)]
pub(super) struct PoolHealth {
    paces: Paces,
    /// Workers that take tasks, and were not new, slow or at fault lately.
    settled: u32,
    /// A sub-queue has or lacks workers that it lacked or had, see [`Pool::change`], or what is pinned is
    /// to be looked at, see [`Pool::reseated`].
    pub(super) has_turned: bool,
    /// Whether the wait of tasks is looked after whose workers' breakers are all open.
    has_outage_timer: bool,
}

impl Condition {
    /// Whether tasks are spread over it as well, with room or not.
    fn takes_part(self, is_last_resort: bool) -> bool {
        match self {
            Condition::Ok | Condition::SlowStart(_) | Condition::HalfOpen | Condition::Probing => {
                true
            }
            Condition::Ejected => is_last_resort,
            Condition::Open => false,
        }
    }
}

impl Health {
    /// Its load as the policies shall see it, if it may have another task. One that is left out may
    /// where nobody else is left.
    pub(super) fn offered(&self, load: Load, is_last_resort: bool) -> Option<Load> {
        match self.condition {
            Condition::Ok | Condition::HalfOpen => Some(load),
            Condition::SlowStart(percent) => Some(Load {
                slots: (u64::from(load.slots) * u64::from(percent) / 100).max(1) as u32,
                ..load
            }),
            Condition::Ejected => is_last_resort.then_some(load),
            Condition::Probing | Condition::Open => None,
        }
    }

    pub(super) fn condition(&self) -> Condition {
        self.condition
    }

    /// Takes part in what its parts have come to. To be called after each change of one.
    fn sum_up(&mut self, now: Mono, rules: &ActionRules) {
        self.condition = match self.breaker.state() {
            State::Open { .. } => Condition::Open,
            State::HalfOpen { is_probing: true } => Condition::Probing,
            State::HalfOpen { is_probing: false } => Condition::HalfOpen,
            State::Closed if self.pace.is_ejected() => Condition::Ejected,
            State::Closed => match self.slow_start.percent(now, rules.slow_start_ms) {
                Some(percent) => Condition::SlowStart(percent),
                None => Condition::Ok,
            },
        };
    }

    fn is_settled(&self) -> bool {
        self.condition == Condition::Ok && self.slow_start.is_past()
    }

    /// When time changes it next.
    fn next_at(&self, now: Mono, rules: &ActionRules) -> Option<Mono> {
        let slow_start = self.slow_start.next_at(now, rules.slow_start_ms);
        [self.breaker.open_until(), self.pace.ejected_until(), slow_start]
            .into_iter()
            .flatten()
            .min()
    }

    pub(super) fn take_timer(&mut self) -> Option<TimerKey> {
        self.timer.take()
    }

    /// What is left of it when its worker comes back as another process: that it failed.
    fn of_next_registration(self) -> Self {
        Self { breaker: self.breaker.of_next_registration(), ..Self::default() }
    }
}
