//! What all who take part know together, and what must hold of it after each step.
//!
//! The broker's frames and records are looked at when its core wants them sent or kept: what it says
//! is what it promises, whether it arrives or not. A broken promise is a panic.

mod agents;
mod attempts;
mod restart;
mod sessions;
mod task;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::Bytes;
use mcp_broker::broker::{AcceptedTask, ConnectionId, Core, Now};
use mcp_proto::{AttemptId, Deliver, ErrorCode, Executed, Outcome, TaskState};

use crate::asks::Asks;
use agents::Agents;
use attempts::Attempt;
use sessions::Sessions;
use task::{Ended, Span, Task, UNSURE};

pub(crate) use task::End;

/// Sees every step.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    tasks: BTreeMap<String, Task>,
    attempts: BTreeMap<AttemptId, Attempt>,
    agents: Agents,
    sessions: Sessions,
    epoch: u64,
    /// For how long outcomes are kept.
    pub(crate) retention_ms: u64,
    /// Whether a task may have two attempts at once.
    pub(crate) hedges: bool,
    is_stopping: bool,
    /// The journal can't be used any more in this epoch.
    has_failed: bool,
    /// And what was not on disk then is cut off.
    is_taken_back: bool,
    /// The last record of this epoch that is on disk.
    synced: u64,
    /// Tasks that an operator wants done again, in this step.
    replays: BTreeSet<String>,
}

impl Oracle {
    /// A task that may come.
    pub(crate) fn knows(&mut self, asks: Rc<Asks>) {
        let id = asks.id.to_string();
        assert!(self.tasks.insert(id, Task::new(asks)).is_none());
    }

    /// The broker stops in order.
    pub(crate) fn stops(&mut self) {
        self.is_stopping = true;
    }

    /// The journal failed, and what it had not on disk then does not count any more if that could be
    /// taken back.
    pub(crate) fn failed(&mut self, is_taken_back: bool) {
        (self.has_failed, self.is_taken_back) = (true, is_taken_back);
    }

    /// The journal is on disk up to this record.
    pub(crate) fn synced(&mut self, up_to: u64) {
        self.synced = up_to;
    }

    /// The core reads SEND.
    pub(crate) fn sent(&mut self, id: &str, now: Now, ttl_ms: u64, delay_ms: u64) {
        // A journal that has failed is not told when a retention is over.
        let has_failed = self.has_failed;
        let task = self.task(id);
        if task.told.as_ref().is_some_and(End::is_refusal) {
            task.begin_anew();
        } else if has_failed && task.is_over(now) {
            task.at_hand = task.told.clone().or(task.at_hand.take());
            task.begin_anew();
        } else if task.asks.is_durable && task.span.is_none() && !task.is_accepted {
            // What ran before a crash that took it is nothing that the broker can know.
            task.attempts.clear();
        }
        let (start, deadline) = (now.mono.plus_ms(delay_ms), now.mono.plus_ms(ttl_ms));
        task.span.get_or_insert(Span { start, deadline });
    }

    /// The core reads SETTLE.
    pub(crate) fn settled(&mut self, id: &str) {
        let synced = self.synced;
        let task = self.task(id);
        let is_found = task.ended.as_ref().is_some_and(|ended| ended.seq == UNSURE);
        task.is_settled |= task.told.is_some() || task.has_kept_end(synced) || is_found;
        task.is_told_in_vain |= is_found;
    }

    /// An operator asks for a task to be done again.
    pub(crate) fn may_replay(&mut self, id: &str) {
        self.replays.insert(id.to_owned());
    }

    /// The operator's step is over.
    pub(crate) fn no_replays(&mut self) {
        self.replays.clear();
    }

    /// The record goes to the journal that a task was taken.
    pub(crate) fn taken(&mut self, id: &str, seq: u64, accepted: &AcceptedTask, now: Now) {
        let is_replay = self.replays.remove(id);
        let task = self.task(id);
        assert!(task.asks.is_durable, "{id} is fast and in the journal");
        if is_replay {
            task.replay(seq);
            task.span = Some(Span::of(accepted, now));
        }
        let is_new = task.ended.is_none() && !task.is_settled;
        assert!(is_new, "{id} has ended and is taken again: {task:?}");
        (task.taken, task.at_hand) = (Some(seq), None);
    }

    /// The record goes to the journal that a task has ended.
    pub(crate) fn ended(&mut self, id: &str, seq: u64, end: End, now: Now) {
        let task = &self.tasks[id];
        assert!(task.ended.is_none(), "{id} ends twice: {end:?}: {task:?}");
        self.check_end(id, &end, now);
        let kept_until = now.mono.plus_ms(self.retention_ms);
        self.task(id).ended = Some(Ended { seq, end, kept_until });
        self.attempts_are_over(id);
    }

    /// The record goes to the journal that nothing is kept of a task any more.
    pub(crate) fn forgotten(&mut self, id: &str, now: Now) {
        let task = self.task(id);
        assert!(
            task.is_settled || task.is_over(now),
            "{id} is forgotten before its time: {task:?}"
        );
        task.forget();
    }

    /// ACCEPTED goes out.
    pub(crate) fn accepted(&mut self, id: &str) {
        let synced = self.synced;
        let task = self.task(id);
        assert!(task.asks.is_durable, "{id} is fast and ACCEPTED");
        let is_kept = task.taken.is_none_or(|seq| seq <= synced);
        assert!(is_kept, "{id} is ACCEPTED before it is on disk: {task:?}");
        task.is_accepted = true;
    }

    /// STATUS goes out.
    pub(crate) fn status(&mut self, to: ConnectionId, id: &str, state: TaskState, now: Now) {
        let task = &self.tasks[id];
        if state == TaskState::Unknown {
            self.sessions.told(to, id);
            let is_over = self.has_failed && task.is_over(now);
            let is_lost = task.is_accepted && !task.is_settled && !is_over;
            assert!(!is_lost, "{id} was ACCEPTED and is not known: {task:?}");
            let is_here = task.span.is_some() && task.told.is_none();
            assert!(!is_here, "{id} was sent and is not known: {task:?}");
        } else {
            assert!(task.told.is_none(), "{id} has ended and is said not to have: {task:?}");
        }
    }

    /// DELIVER goes out.
    pub(crate) fn told(&mut self, to: ConnectionId, deliver: &Deliver, body: &Bytes, now: Now) {
        let id = deliver.task_id.as_str();
        self.sessions.told(to, id);
        let Some(task) = self.tasks.get(id).filter(|_| !is_for_one(deliver)) else { return };
        let end = End::of(deliver, body);
        if task.at_hand.as_ref() == Some(&end) {
            self.task(id).span = None;
            return;
        }
        if end.code == Some(ErrorCode::Settled) {
            assert!(task.is_settled, "{id} is said to be settled: {task:?}");
            let as_told = task.told.as_ref().is_none_or(|told| told.executed == end.executed);
            assert!(as_told, "{id} was executed otherwise: {end:?}: {task:?}");
            return;
        }
        if self.has_failed && task.ended.as_ref().is_some_and(|it| it.end.is_weakened_to(&end)) {
            return;
        }
        if let Some(told) = &task.told {
            let is_same = *told == end || told.is_refusal() && end.is_refusal();
            assert!(is_same, "{id} has two outcomes, {told:?} and {end:?}: {task:?}");
            return;
        }
        match &task.ended {
            Some(ended) if !self.has_failed => {
                let is_kept = ended.seq <= self.synced;
                assert!(is_kept, "{id} is told its outcome before that is on disk: {task:?}");
                assert_eq!(ended.end, end, "{id} is told what is not on disk");
            }
            _ => self.check_end(id, &end, now),
        }
        self.notice(id, end);
    }

    /// What must be true of an outcome.
    fn check_end(&self, id: &str, end: &End, now: Now) {
        let task = &self.tasks[id];
        match end.outcome {
            Outcome::Ok => {
                let it = &self.attempts[&Asks::attempt_of(&end.body).unwrap()];
                assert!(it.is_started && it.task == id, "{end:?} is not of {id}: {it:?}");
                let is_in_time = it.has_late_result == Some(false);
                assert!(is_in_time, "{id} ends as an attempt that was over: {it:?}");
            }
            Outcome::Expired => {
                // A worker's time to live is what was left, without parts of a millisecond.
                let is_due = task.span.is_none_or(|span| now.mono + 1_000 > span.deadline);
                assert!(is_due, "{id} expires too early: {now:?} {task:?}");
            }
            Outcome::Rejected if task.is_accepted => {
                panic!("{id} was ACCEPTED and is {end:?}: {task:?}");
            }
            Outcome::Cancelled => {
                let may_be = task.asks.is_cancelled.get() || task.asks.is_tied;
                assert!(may_be, "{id} is cancelled by nobody: {end:?}: {task:?}");
            }
            Outcome::Failed | Outcome::Rejected | Outcome::Lost => {}
        }
        if end.executed == Executed::No {
            let ran = task.attempts.iter().any(|id| self.attempts[id].is_started);
            assert!(!ran, "{id} ran, and is said not to have: {end:?}: {task:?}");
        }
    }

    /// Somebody is told of an outcome for the first time.
    fn notice(&mut self, id: &str, end: End) {
        let has_failed = self.has_failed;
        let task = self.tasks.get_mut(id).unwrap();
        let is_kept = task.has_kept_end(self.synced);
        task.is_told_in_vain = has_failed && task.asks.is_durable && !is_kept;
        let promises = end.executed == Executed::No && !end.is_refusal();
        if task.is_told_in_vain && task.is_accepted {
            assert!(!promises, "{id} may run after a restart, and is said not to have: {end:?}");
        }
        if end.executed == Executed::No {
            for id in &task.attempts {
                self.attempts.get_mut(id).unwrap().must_not_start = true;
            }
        }
        task.told = Some(end);
        self.attempts_are_over(id);
    }

    /// After each step.
    pub(crate) fn check(&mut self, core: &Core, now: Now) {
        self.agents.check(core, now);
        self.sessions.step_is_over();
    }

    /// The durable tasks that were ACCEPTED.
    pub(crate) fn accepted_tasks(&self) -> Vec<Rc<Asks>> {
        let accepted = self.tasks.values().filter(|task| task.is_accepted);
        accepted.map(|task| task.asks.clone()).collect()
    }

    /// All durable tasks.
    pub(crate) fn durable_tasks(&self) -> Vec<Rc<Asks>> {
        let durable = self.tasks.values().filter(|task| task.asks.is_durable);
        durable.map(|task| task.asks.clone()).collect()
    }

    fn task(&mut self, id: &str) -> &mut Task {
        self.tasks.get_mut(id).unwrap()
    }
}

/// Whether this outcome is only one session's.
fn is_for_one(deliver: &Deliver) -> bool {
    let Some(error) = &deliver.error else { return false };
    matches!(error.code, ErrorCode::DuplicateMismatch | ErrorCode::LimitExceeded)
        || error.message.contains("so it goes on")
}
