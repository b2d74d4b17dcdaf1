//! What is known of a task.

use std::rc::Rc;

use bytes::Bytes;
use mcp_broker::broker::{AcceptedTask, Mono, Now};
use mcp_proto::{AttemptId, Deliver, ErrorCode, Executed, Outcome, RouteHead};

use crate::asks::Asks;

/// The outcome of a task, as far as it is to be the same for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) outcome: Outcome,
    pub(crate) executed: Executed,
    pub(crate) code: Option<ErrorCode>,
    pub(crate) body: Bytes,
}

impl End {
    pub(crate) fn of(deliver: &Deliver, body: &Bytes) -> Self {
        Self {
            outcome: deliver.outcome,
            executed: deliver.executed,
            code: deliver.error.as_ref().map(|error| error.code),
            body: body.clone(),
        }
    }

    /// What a client says itself when nobody knows.
    pub(crate) fn lost() -> Self {
        let (outcome, executed) = (Outcome::Lost, Executed::Maybe);
        Self { outcome, executed, code: Some(ErrorCode::BrokerLost), body: Bytes::new() }
    }

    /// Whether the other is the same, but promises less of what ran.
    pub(super) fn is_weakened_to(&self, other: &Self) -> bool {
        self.executed == Executed::No
            && *other == Self { executed: Executed::Maybe, ..self.clone() }
    }

    /// The broker did not take the task: sent again, it is a new one.
    pub(super) fn is_refusal(&self) -> bool {
        self.outcome == Outcome::Rejected
            && (self.executed == Executed::No || self.code == Some(ErrorCode::DurableUnavailable))
    }
}

/// From when on a task may be routed, and until when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) start: Mono,
    pub(super) deadline: Mono,
}

impl Span {
    /// As the journal has it.
    pub(super) fn of(task: &AcceptedTask, now: Now) -> Self {
        let at = |wall_ms: u64| now.mono.plus_ms(wall_ms.saturating_sub(now.wall_ms));
        Self { start: at(task.start_wall_ms), deadline: at(task.deadline_wall_ms) }
    }
}

/// The number of a record that a broker found which can't write to its journal: what was written last
/// it may have read from the system's memory only.
pub(super) const UNSURE: u64 = u64::MAX;

/// An outcome in the journal.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    /// The record, of this epoch; 0 if it was there before, or [`UNSURE`].
    pub(super) seq: u64,
    pub(super) end: End,
    /// Unless it is settled before.
    pub(super) kept_until: Mono,
}

/// A task that was done again, as it was before.
#[derive(Debug)]
pub(super) struct Before {
    /// The record that it was taken again, of this epoch.
    pub(super) seq: u64,
    pub(super) told: Option<End>,
    pub(super) is_accepted: bool,
    pub(super) is_settled: bool,
    pub(super) is_forgotten: bool,
}

/// All that is known of a task.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) asks: Rc<Asks>,
    /// As this epoch took it.
    pub(super) span: Option<Span>,
    /// The record that it was taken, of this epoch, or [`UNSURE`].
    pub(super) taken: Option<u64>,
    pub(super) ended: Option<Ended>,
    pub(super) is_accepted: bool,
    pub(super) is_settled: bool,
    /// That nothing is kept of it any more is in the journal, or on its way there.
    pub(super) is_forgotten: bool,
    /// The outcome that need not be known any more, but may be until the broker ends.
    pub(super) at_hand: Option<End>,
    pub(super) told: Option<End>,
    /// It was told or settled after the journal had failed: a restart may know nothing of it.
    pub(super) is_told_in_vain: bool,
    /// Since it was taken.
    pub(super) attempts: Vec<AttemptId>,
    pub(super) starts: u32,
    pub(super) before: Option<Before>,
}

impl Task {
    pub(super) fn new(asks: Rc<Asks>) -> Self {
        Self {
            asks,
            span: None,
            taken: None,
            ended: None,
            is_accepted: false,
            is_settled: false,
            is_forgotten: false,
            at_hand: None,
            told: None,
            is_told_in_vain: false,
            attempts: Vec::new(),
            starts: 0,
            before: None,
        }
    }

    /// Whether its outcome is on disk, when that is up to this record.
    pub(super) fn has_kept_end(&self, synced: u64) -> bool {
        self.ended.as_ref().is_some_and(|ended| ended.seq <= synced)
    }

    /// Whether the retention of its outcome is over.
    pub(super) fn is_over(&self, now: Now) -> bool {
        self.ended.as_ref().is_some_and(|ended| now.mono >= ended.kept_until)
    }

    /// It was refused, and comes again.
    pub(super) fn begin_anew(&mut self) {
        (self.told, self.span, self.is_accepted) = (None, None, false);
        self.attempts.clear();
    }

    /// Nothing of it is kept any more.
    pub(super) fn forget(&mut self) {
        let ended = self.ended.take().map(|ended| ended.end);
        self.at_hand = self.told.take().or(ended);
        self.begin_anew();
        (self.before, self.taken) = (None, None);
        (self.is_settled, self.is_forgotten) = (false, true);
    }

    /// It has ended, and is done again.
    pub(super) fn replay(&mut self, seq: u64) {
        let told = self.told.take().or_else(|| self.ended.take().map(|ended| ended.end));
        self.ended = None;
        let Self { is_accepted, is_settled, .. } = *self;
        let is_forgotten = std::mem::take(&mut self.is_forgotten);
        self.before = Some(Before { seq, told, is_accepted, is_settled, is_forgotten });
        (self.is_accepted, self.is_settled, self.is_told_in_vain) = (false, false, false);
        self.attempts.clear();
    }

    /// It is not done again after all.
    pub(super) fn undo_replay(&mut self, before: Before) {
        let Before { told, is_accepted, is_settled, .. } = before;
        (self.told, self.is_accepted, self.is_settled) = (told, is_accepted, is_settled);
    }

    pub(super) fn check_times(&self, route: &RouteHead, now: Now) {
        let Span { start, deadline } = self.span.unwrap();
        assert!(now.mono >= start, "it is routed before its time: {now:?} {self:?}");
        assert!(now.mono < deadline, "it is routed after its deadline: {now:?} {self:?}");
        let at_most = deadline.max(now.mono.plus_ms(1));
        let is_within = now.mono.plus_ms(route.ttl_ms) <= at_most;
        assert!(is_within, "it is given too much time: {route:?} {now:?} {self:?}");
    }
}
