//! What must hold of attempts.

use std::collections::BTreeSet;

use mcp_broker::broker::{ConnectionId, Now};
use mcp_proto::{AttemptId, RouteHead};

use super::Oracle;

/// All that is known of an attempt.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) task: String,
    worker: usize,
    /// Where its ROUTE went.
    to: ConnectionId,
    /// Its ROUTE was received.
    has_arrived: bool,
    pub(super) is_started: bool,
    /// The broker was told that it was not started.
    is_handed_back: bool,
    /// The broker has given it up.
    pub(super) is_over: bool,
    /// Whether it was over when its first RESULT came.
    pub(super) has_late_result: Option<bool>,
    /// Its task was told not to have run.
    pub(super) must_not_start: bool,
}

impl Attempt {
    /// The broker that routed it is no more.
    pub(super) fn is_of_the_past(&mut self) {
        self.is_over = true;
    }
}

impl Oracle {
    /// ROUTE goes out.
    pub(crate) fn routed(
        &mut self,
        id: &str,
        route: &RouteHead,
        worker: usize,
        to: ConnectionId,
        now: Now,
    ) {
        self.agents.check_route(id, worker, to);
        assert!(!self.is_stopping, "{id} is routed while the broker stops");
        let task = &self.tasks[id];
        assert!(task.told.is_none(), "{id} is routed after its outcome was told: {task:?}");
        assert!(task.ended.is_none(), "{id} is routed after its end: {task:?}");
        task.check_times(route, now);
        if !task.asks.may_run_twice() {
            let mut before = task.attempts.iter().map(|id| &self.attempts[id]);
            let are_back = before.all(|it| it.is_handed_back);
            assert!(are_back, "{id} may not run twice and is routed again: {task:?}");
        }
        let attempt = Attempt {
            task: id.to_owned(),
            worker,
            to,
            has_arrived: false,
            is_started: false,
            is_handed_back: false,
            is_over: false,
            has_late_result: None,
            must_not_start: false,
        };
        // Who is hedged has two attempts. Else one that is routed again, as it may be that may run twice
        // and does not wait for a lost worker, has no other.
        for id in &task.attempts {
            if let Some(it) = self.attempts.get_mut(id) {
                it.is_over |= !self.hedges || self.agents.is_lost(it.worker);
            }
        }
        let before = self.attempts.insert(route.attempt_id, attempt);
        assert!(before.is_none(), "{:?} is there twice", route.attempt_id);
        self.task(id).attempts.push(route.attempt_id);
    }

    /// A worker receives ROUTE.
    pub(crate) fn arrived(&mut self, attempt: AttemptId) {
        self.attempts.get_mut(&attempt).unwrap().has_arrived = true;
    }

    /// A worker has a new connection: what has not arrived on earlier ones never will.
    pub(super) fn arrives_no_more(&mut self, worker: usize, before: ConnectionId) {
        for it in self.attempts.values_mut() {
            if it.worker == worker && it.to.0 < before.0 && !it.has_arrived {
                (it.is_handed_back, it.must_not_start) = (true, true);
            }
        }
    }

    /// A handler starts.
    pub(crate) fn started(&mut self, attempt: AttemptId) {
        let it = self.attempts.get_mut(&attempt).unwrap();
        assert!(!it.is_started, "{attempt:?} is started twice");
        assert!(!it.must_not_start, "{} was told not to have run, and does", it.task);
        it.is_started = true;
        let task = self.tasks.get_mut(&it.task).unwrap();
        task.starts += 1;
        let is_once = task.asks.may_run_twice() || task.starts == 1;
        assert!(is_once, "it ran twice, and may not: {task:?}");
    }

    /// The broker reads that an attempt was not started.
    pub(crate) fn handed_back(&mut self, attempt: AttemptId) {
        if let Some(it) = self.attempts.get_mut(&attempt) {
            it.is_handed_back = true;
        }
    }

    /// The broker reads RESULT.
    pub(crate) fn result(&mut self, attempt: AttemptId) {
        if let Some(it) = self.attempts.get_mut(&attempt) {
            it.has_late_result.get_or_insert(it.is_over);
        }
    }

    /// A task has its outcome, and with it all its attempts.
    pub(super) fn attempts_are_over(&mut self, id: &str) {
        for id in &self.tasks[id].attempts {
            if let Some(it) = self.attempts.get_mut(id) {
                it.is_over = true;
            }
        }
    }

    /// The broker has told a worker that an attempt is over.
    pub(crate) fn given_up(&mut self, attempt: AttemptId) {
        if let Some(it) = self.attempts.get_mut(&attempt) {
            it.is_over = true;
        }
    }

    /// Which attempts a worker may go on with on a new connection; the others are over.
    pub(crate) fn kept(&mut self, worker: usize, keep: &[AttemptId]) {
        let keep: BTreeSet<_> = keep.iter().collect();
        for (id, it) in self.attempts.iter_mut().filter(|(_, it)| it.worker == worker) {
            let is_kept = keep.contains(id);
            assert!(!(is_kept && it.is_over), "{id:?} is over, and to go on: {it:?}");
            it.is_over |= !is_kept;
        }
    }
}
