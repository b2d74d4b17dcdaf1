//! What is measured of tasks, by action: counters and histograms that cost a few additions a task,
//! and a copy of them for whoever shows them.

use std::collections::HashMap;

use foldhash::fast::FixedState;
use mcp_proto::{ActionName, ActionRef, ContextTrace, Deliver, ErrorCode, HopEvent, Outcome};

use super::fallback::StepKind;
use super::health::Breakers;
use super::histogram::Histogram;
use super::mirror::MirrorCounts;
use super::pool::Pool;
use super::recent::Recent;
use super::split::{Arm, ArmMetrics, MAX_ARMS};
use super::time::Mono;
use super::{Core, Now, Stats};

/// Actions that are measured by themselves; the others together. Each has about a hundred time
/// series wherever the metrics are kept, and more actions than this are rarely looked at one by
/// one.
const MAX_ACTIONS: usize = 100;

/// Of these, actions that no worker has served: whoever misspells an action, or makes names up,
/// takes no place from those that work.
const MAX_UNSERVED_ACTIONS: usize = 20;

/// The name of the other actions together. An action of this name is one of them.
const OTHERS: &str = "other";

/// Beyond the largest number of an error code.
const CODES: usize = 64;

/// The entry of an action. The first is that of the others together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Slot(u16);

/// What is measured.
#[derive(Debug)]
pub(super) struct Measured {
    actions: Vec<Entry>,
    slots: HashMap<ActionName, Slot, FixedState>,
    /// Entries of actions that no worker has served.
    unserved: usize,
    refused: [u64; CODES],
}

#[derive(Debug)]
pub(super) struct Entry {
    /// None for the others.
    action: Option<ActionName>,
    is_served: bool,
    pub(super) counts: TaskCounts,
    pub(super) recent: Recent,
    /// Of its shadow tasks, once there was one.
    shadow: Option<Box<TaskCounts>>,
    /// Of its copies, once there was one.
    pub(super) mirror: Option<Box<MirrorCounts>>,
    /// Of the arms that its tasks were divided among lately.
    pub(super) arms: Vec<ArmMetrics>,
}

/// Tasks of an action that ended, since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskCounts {
    /// In the order of [`TaskCounts::OUTCOMES`].
    ended: [u64; TaskCounts::OUTCOMES.len()],
    /// In the order of [`StepKind::ALL`].
    degraded: [u64; StepKind::ALL.len()],
    /// From SEND to DELIVER, of all tasks that were taken.
    pub total: Histogram,
    /// In the broker's queue, of all tasks that were taken.
    pub queued: Histogram,
    /// In their handler, as their worker says, of those that it ended.
    pub worked: Histogram,
}

impl TaskCounts {
    /// How tasks end at a broker, which never says [`Outcome::Lost`].
    pub const OUTCOMES: [Outcome; 5] =
        [Outcome::Ok, Outcome::Failed, Outcome::Expired, Outcome::Cancelled, Outcome::Rejected];

    /// Tasks that ended so. Also those that were rejected because the queue was full.
    pub fn ended(&self) -> impl Iterator<Item = (Outcome, u64)> {
        Self::OUTCOMES.into_iter().zip(self.ended)
    }

    /// A task ended that was taken `total_us` ago.
    #[inline]
    pub(super) fn record(&mut self, deliver: &Deliver, total_us: u64) {
        self.count(deliver.outcome);
        self.total.record(total_us);
        let ContextTrace { hops, queue_us, .. } = &*deliver.trace.decode();
        let waited_us = hops.iter().fold(*queue_us, |sum, hop| sum + hop.queue_us);
        self.queued.record(waited_us);
        if let Some(hop) = hops.last().filter(|hop| hop.event == HopEvent::Completed) {
            self.worked.record(hop.work_us);
        }
    }

    /// Those of them whose outcome is of a step of the fallback chain, by its kind: `"cached"`,
    /// `"action"`, `"default"`.
    pub fn degraded(&self) -> impl Iterator<Item = (&'static str, u64)> {
        StepKind::ALL.into_iter().map(StepKind::name).zip(self.degraded)
    }

    fn count(&mut self, outcome: Outcome) {
        // Outcomes are numbered from 1.
        if let Some(count) = self.ended.get_mut(outcome as usize - 1) {
            *count += 1;
        }
    }
}

/// One action, or all that have no entry of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionMetrics {
    /// The action, or `"other"`.
    pub action: String,
    /// What ended, without shadow tasks.
    pub counts: TaskCounts,
    /// Shadow tasks that ended, once there was one.
    pub shadow: Option<Box<TaskCounts>>,
    /// Copies of its tasks, once there was one.
    pub mirror: Option<Box<MirrorCounts>>,
    /// The arms among which its tasks were divided. Not told of the others.
    pub arms: Vec<ArmMetrics>,
    /// Tasks waiting now.
    pub queued: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// µs since the longest waiting of them was taken; 0 when none waits. Not told of the others.
    pub oldest_us: Option<u64>,
    /// Tasks waiting for their next attempt now.
    pub delayed: u64,
    /// Tasks at workers now.
    pub running: u64,
    /// Workers registered for it, and those of them that take tasks. Not told of the others.
    pub workers: Option<(u64, u64)>,
    /// The breakers of those that take tasks, or would. Not told of the others.
    pub breakers: Option<Breakers>,
}

/// Everything that is measured, at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// Counters and gauges of the whole broker.
    pub stats: Stats,
    /// The others, then each action.
    pub actions: Vec<ActionMetrics>,
    /// SENDs that were refused, by why. There was no task then.
    pub refused: Vec<(ErrorCode, u64)>,
    /// Workers lost now, that may still come back.
    pub agents_lost_now: u64,
    /// Slots of the workers online now.
    pub slots: u64,
}

impl Entry {
    fn new(action: Option<ActionName>, is_served: bool) -> Self {
        Self {
            action,
            is_served,
            counts: TaskCounts::default(),
            recent: Recent::default(),
            shadow: None,
            mirror: None,
            arms: Vec::new(),
        }
    }
}

impl Measured {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            actions: vec![Entry::new(None, true)],
            slots: HashMap::with_hasher(FixedState::with_seed(seed)),
            unserved: 0,
            refused: [0; CODES],
        }
    }

    /// The entry of an action, if it has one of its own.
    pub(super) fn entry(&self, action: &str) -> Option<&Entry> {
        let slot = self.slots.get(action)?;
        Some(&self.actions[usize::from(slot.0)])
    }

    /// The entry of an action, made if there is none and room for one.
    pub(super) fn slot(&mut self, action: ActionRef<'_>, is_served: bool) -> Slot {
        if let Some(slot) = self.slots.get(action.as_str()) {
            let entry = &mut self.actions[usize::from(slot.0)];
            if is_served && !std::mem::replace(&mut entry.is_served, true) {
                self.unserved -= 1;
            }
            return *slot;
        }
        let has_room =
            self.slots.len() < MAX_ACTIONS && (is_served || self.unserved < MAX_UNSERVED_ACTIONS);
        if !has_room || action.as_str() == OTHERS {
            return Slot::default();
        }
        let name = action.to_name();
        let slot = Slot(self.actions.len() as u16);
        self.actions.push(Entry::new(Some(name.clone()), is_served));
        self.slots.insert(name, slot);
        self.unserved += usize::from(!is_served);
        slot
    }

    /// The entries: that of the others, which has no action, then each action's.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Option<&ActionName>, &Entry)> {
        self.actions.iter().map(|entry| (entry.action.as_ref(), entry))
    }

    /// A task was taken that is no shadow task.
    #[inline]
    pub(super) fn taken(&mut self, now: Mono, slot: Slot) {
        let Entry { recent, counts, .. } = &mut self.actions[usize::from(slot.0)];
        recent.taken(now, counts);
    }

    /// A task ended that was taken `total_us` ago.
    pub(super) fn ended(
        &mut self,
        now: Mono,
        slot: Slot,
        is_shadow: bool,
        deliver: &Deliver,
        total_us: u64,
    ) {
        self.counts(now, slot, is_shadow).record(deliver, total_us);
    }

    fn counts(&mut self, now: Mono, slot: Slot, is_shadow: bool) -> &mut TaskCounts {
        let entry = &mut self.actions[usize::from(slot.0)];
        if is_shadow {
            return entry.shadow.get_or_insert_default();
        }
        entry.recent.turn(now, &entry.counts);
        &mut entry.counts
    }

    /// What becomes of the copies of an action's tasks.
    pub(super) fn mirror(&mut self, slot: Slot) -> &mut MirrorCounts {
        self.actions[usize::from(slot.0)].mirror.get_or_insert_default()
    }

    /// What becomes of the tasks of an arm. Those of before are forgotten when there are too many.
    pub(super) fn arm(&mut self, slot: Slot, split: &[Arm], index: usize) -> &mut ArmMetrics {
        let arms = &mut self.actions[usize::from(slot.0)].arms;
        let name = &split[index].name;
        if let Some(found) = arms.iter().position(|arm| arm.name == *name) {
            return &mut arms[found];
        }
        if arms.len() >= MAX_ARMS {
            arms.retain(|it| split.iter().any(|arm| arm.name == it.name));
        }
        arms.push(ArmMetrics { name: name.clone(), counts: TaskCounts::default(), moved: 0 });
        let last = arms.len() - 1;
        &mut arms[last]
    }

    /// The outcome of a task is of such a step.
    pub(super) fn degraded(&mut self, slot: Slot, kind: StepKind) {
        self.actions[usize::from(slot.0)].counts.degraded[kind as usize] += 1;
    }

    /// A task ended without having been placed.
    pub(super) fn ended_at_once(
        &mut self,
        now: Mono,
        action: ActionRef<'_>,
        is_shadow: bool,
        outcome: Outcome,
    ) {
        let slot = self.slot(action, false);
        self.counts(now, slot, is_shadow).count(outcome);
    }

    /// A SEND was refused.
    pub(super) fn refused(&mut self, code: ErrorCode) {
        if let Some(count) = self.refused.get_mut(code as usize) {
            *count += 1;
        }
    }
}

impl Core {
    /// What is measured, as of now. Its cost grows with the actions that are measured by
    /// themselves, not with tasks or workers.
    pub fn metrics(&self, now: Now) -> Metrics {
        let stats = self.stats();
        let mut others = ActionMetrics {
            action: OTHERS.to_owned(),
            counts: TaskCounts::default(),
            shadow: None,
            mirror: None,
            arms: Vec::new(),
            queued: stats.queued,
            queued_bytes: self.waiting.live.bytes as u64,
            oldest_us: None,
            delayed: stats.delayed,
            running: stats.running,
            workers: None,
            breakers: None,
        };
        let mut actions = Vec::with_capacity(self.measured.actions.len());
        for entry in &self.measured.actions {
            let Some(action) = &entry.action else {
                others.counts = entry.counts.clone();
                others.shadow = entry.shadow.clone();
                others.mirror = entry.mirror.clone();
                continue;
            };
            let pool = self.pool_names.get(action).and_then(|key| self.pools.get(*key));
            let it = self.action_metrics(now.mono, entry, action, pool);
            others.queued -= it.queued;
            others.queued_bytes -= it.queued_bytes;
            others.delayed -= it.delayed;
            others.running -= it.running;
            actions.push(it);
        }
        actions.insert(0, others);
        let refused = ErrorCode::ALL
            .iter()
            .filter_map(|code| Some((*code, *self.measured.refused.get(*code as usize)?)))
            .filter(|(_, count)| *count > 0)
            .collect();
        Metrics {
            stats,
            actions,
            refused,
            agents_lost_now: (self.registry.len() - self.registry.online()) as u64,
            slots: self.registry.slots(),
        }
    }

    fn action_metrics(
        &self,
        now: Mono,
        entry: &Entry,
        action: &ActionName,
        pool: Option<&Pool>,
    ) -> ActionMetrics {
        let count = |of: fn(&Pool) -> usize| pool.map_or(0, of) as u64;
        let oldest = pool.and_then(|pool| self.tasks.oldest(&pool.waiting));
        ActionMetrics {
            action: action.to_string(),
            counts: entry.counts.clone(),
            shadow: entry.shadow.clone(),
            mirror: entry.mirror.clone(),
            arms: entry.arms.clone(),
            queued: count(|pool| pool.queued),
            queued_bytes: count(|pool| pool.queued_bytes),
            oldest_us: Some(oldest.map_or(0, |since| now.since(since))),
            delayed: count(|pool| pool.delayed.tasks),
            running: count(|pool| pool.tasks - pool.queued - pool.delayed.tasks),
            workers: Some((count(Pool::workers), count(Pool::ready_workers))),
            breakers: Some(pool.map(Pool::breakers).unwrap_or_default()),
        }
    }
}
