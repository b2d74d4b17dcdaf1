//! Tasks that handlers send, and tasks that end with their client's connection.
//!
//! A task whose parent is in flight is linked to it: it ends with it at the latest, is cancelled
//! with it, and its trace becomes a part of its parent's. Links lead from newer tasks to older ones,
//! so there are no circles; keys of tasks that have ended lead nowhere.

use std::mem;

use mcp_proto::limits::MAX_DEPTH;
use mcp_proto::{
    CancelReason, Child, ContextTrace, Deliver, ErrorCode, ErrorInfo, Executed, HopEvent,
    LazyTrace, Outcome, TaskExtras, TaskId,
};

use super::ending::End;
use super::identities::IdentityKey;
use super::inflight::{Task, TaskKey, TaskState, Tasks};
use super::sessions::SessionKey;
use super::{Core, Mono, Now};

/// What ties a task to others, or to a connection. Most tasks have nothing of it.
#[derive(Debug, Default)]
pub(super) struct Kin {
    parent: Option<TaskKey>,
    /// The first of its chain; none: itself.
    root: Option<TaskKey>,
    /// 0 without a parent.
    depth: u8,
    /// Some of them may have ended.
    children: Vec<TaskKey>,
    /// Of a root: tasks of its tree in flight, without itself.
    members: usize,
    /// What happened to the children that ended.
    ended: ContextTrace,
    /// Whether it is cancelled when no session that waits for it has a connection any more.
    ends_with_connection: bool,
}

impl Kin {
    /// Whether it has sent any tasks. They may have ended.
    pub(super) fn has_children(&self) -> bool {
        !self.children.is_empty()
    }
}

/// Why a task is cancelled.
#[derive(Debug, Clone, Copy)]
pub(super) struct CancelCause {
    /// In the trace.
    reason: &'static str,
    /// In the error.
    message: &'static str,
}

/// By CANCEL.
pub(super) const BY_CLIENT: CancelCause =
    CancelCause { reason: "cancelled by the client", message: "cancelled by its client" };

/// By an operator's act.
pub(super) const BY_OPERATOR: CancelCause =
    CancelCause { reason: "cancelled by an operator", message: "cancelled by an operator" };

/// A copy whose original has ended without a result.
pub(super) const NOT_NEEDED: CancelCause = CancelCause {
    reason: "its original ended without a result",
    message: "cancelled: its original ended without a result",
};

/// A copy in a broker that stops.
pub(super) const WITH_BROKER: CancelCause =
    CancelCause { reason: "the broker is shutting down", message: "the broker is shutting down" };

const WITH_PARENT: CancelCause =
    CancelCause { reason: "cancelled with its parent", message: "cancelled: its parent has ended" };

const WITH_CONNECTION: CancelCause = CancelCause {
    reason: "its client's connection ended",
    message: "cancelled: its client's connection ended, and it asked for that",
};

impl CancelCause {
    pub(super) fn end(self, executed: Executed) -> End {
        let error = ErrorInfo::new(ErrorCode::Cancelled, self.message);
        End::without_result(Outcome::Cancelled, executed, error)
    }
}

/// Whether a task that ends so ends its children as well.
pub(super) fn ends_children(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Cancelled | Outcome::Expired)
}

impl Core {
    /// The links of a task that is about to be taken, and its deadline with them.
    pub(super) fn kin_of(
        &self,
        identity: IdentityKey,
        extras: &TaskExtras,
        deadline: Mono,
    ) -> Result<(Option<Box<Kin>>, Mono), ErrorInfo> {
        let ends_with_connection = extras.cancel_on_disconnect;
        let mut kin = Kin { ends_with_connection, ..Kin::default() };
        let parent = match &extras.parent {
            Some(id) => self.parent(identity, id)?,
            None => None,
        };
        let Some((key, parent)) = parent else {
            return Ok((ends_with_connection.then(|| Box::new(kin)), deadline));
        };
        kin.parent = Some(key);
        kin.depth = parent.kin.as_ref().map_or(1, |kin| kin.depth + 1);
        if kin.depth > MAX_DEPTH {
            let message = format!("field depth: more than {MAX_DEPTH} tasks that send tasks");
            return Err(ErrorInfo::new(ErrorCode::InvalidTask, message));
        }
        let is_here = |key: &TaskKey| self.tasks.get(*key).is_some();
        let root = parent.kin.as_ref().and_then(|kin| kin.root).filter(is_here).unwrap_or(key);
        kin.root = Some(root);
        let members =
            self.tasks.get(root).and_then(|it| it.kin.as_ref()).map_or(0, |it| it.members);
        if members >= self.config.max_family {
            let message = format!("{members} tasks below its parents are in flight, the limit");
            return Err(ErrorInfo::new(ErrorCode::LimitExceeded, message).retry_after_ms(100));
        }
        Ok((Some(Box::new(kin)), deadline.min(parent.deadline)))
    }

    /// Whether a task's parent is a shadow task: then it is one, too, so that a load test stays one.
    pub(super) fn is_child_of_shadow(&self, kin: Option<&Kin>) -> bool {
        let parent = kin.and_then(|kin| self.tasks.get(kin.parent?));
        let pool = parent.and_then(|parent| self.pools.get(parent.pool));
        pool.is_some_and(|pool| pool.is_shadow)
    }

    /// The task of this id, if it is in flight.
    fn parent(
        &self,
        identity: IdentityKey,
        id: &TaskId,
    ) -> Result<Option<(TaskKey, &Task)>, ErrorInfo> {
        let name = self.tasks.name(identity, id);
        let found = self.tasks.find(name).and_then(|key| Some((key, self.tasks.get(key)?)));
        let has_ended_it = match found {
            Some((_, Task { state: TaskState::Ending(end), .. })) => ends_children(end.0.outcome),
            Some(found) => return Ok(Some(found)),
            None => self.finished.find(name).is_some_and(|kept| kept.ends_children),
        };
        if has_ended_it {
            let message = format!("its parent {id} was cancelled, or has expired");
            return Err(ErrorInfo::new(ErrorCode::Cancelled, message));
        }
        Ok(None)
    }

    /// Makes the links of a task that was taken known where they lead.
    pub(super) fn link(&mut self, key: TaskKey, session: SessionKey) {
        let Some(kin) = self.tasks.get(key).and_then(|task| task.kin.as_ref()) else { return };
        let (parent, root, ends_with_connection) = (kin.parent, kin.root, kin.ends_with_connection);
        if let Some(root) = root.and_then(|root| self.tasks.get_mut(root)) {
            root.kin.get_or_insert_default().members += 1;
        }
        if let Some(parent) = parent
            && let Some(task) = self.tasks.get_mut(parent)
        {
            let mut children = mem::take(&mut task.kin.get_or_insert_default().children);
            push_live(&self.tasks, &mut children, key);
            if let Some(kin) = self.tasks.get_mut(parent).and_then(|task| task.kin.as_mut()) {
                kin.children = children;
            }
        }
        if ends_with_connection {
            self.tie(session, key);
        }
    }

    /// Ends what depends on a task that is about to end with this outcome.
    pub(super) fn end_children(&mut self, now: Now, key: TaskKey, outcome: Outcome) {
        let Some(kin) = self.tasks.get_mut(key).and_then(|task| task.kin.as_mut()) else { return };
        if !ends_children(outcome) {
            return;
        }
        for child in mem::take(&mut kin.children) {
            match self.tasks.get(child) {
                Some(task) if task.deadline <= now.mono => self.task_is_due(now, child),
                Some(_) => {
                    self.cancel_task(now, child, WITH_PARENT);
                }
                None => {}
            }
        }
    }

    /// Puts the traces of a task's children into its own, and that into its parent's.
    pub(super) fn join_traces(&mut self, key: TaskKey, deliver: &mut Deliver) {
        let Some(action) = self.tasks.get(key).and_then(|task| self.action_of(task)).cloned()
        else {
            return;
        };
        let Some(task) = self.tasks.get_mut(key) else { return };
        let received = task.received;
        let Some(kin) = &mut task.kin else { return };
        let ended = mem::take(&mut kin.ended);
        // Made here, and not encoded yet.
        let LazyTrace::Decoded(trace) = &mut deliver.trace else { return };
        trace.children = ended.children;
        trace.truncated |= ended.truncated;
        let (parent, root) = (kin.parent, kin.root);
        if let Some(root) = root.and_then(|root| self.tasks.get_mut(root)) {
            root.kin.get_or_insert_default().members -= 1;
        }
        if let Some(parent) = parent.and_then(|parent| self.tasks.get_mut(parent)) {
            parent.kin.get_or_insert_default().ended.add_child(Child {
                task_id: deliver.task_id.clone(),
                action,
                sent_us: received.since(parent.received),
                outcome: deliver.outcome,
                trace: ContextTrace { trace_id: None, ..trace.clone() },
            });
        }
    }

    /// Cancels a task for all who wait for it, unless its end is decided already.
    pub(super) fn cancel_task(&mut self, now: Now, key: TaskKey, cause: CancelCause) -> bool {
        match self.tasks.get(key).map(|task| &task.state) {
            Some(
                TaskState::Placing { .. } | TaskState::Queued { .. } | TaskState::Delayed { .. },
            ) => {
                let executed = self.executed_so_far(key);
                self.end(now, key, cause.end(executed));
            }
            Some(TaskState::Running(_)) => {
                let (event, reason) = (HopEvent::Cancelled, CancelReason::Client);
                self.end_attempts(now, key, event, cause.reason, reason);
                self.end(now, key, cause.end(Executed::Maybe));
            }
            Some(TaskState::Ending(_)) | None => return false,
        }
        true
    }

    /// A session waits for a task that ends when nobody with a connection does.
    pub(super) fn tie(&mut self, session: SessionKey, key: TaskKey) {
        if let Some(session) = self.sessions.get_mut(session) {
            push_live(&self.tasks, &mut session.tied, key);
        }
    }

    /// Cancels such a task, if it is one and that is so.
    pub(super) fn cancel_if_unwatched(&mut self, now: Now, key: TaskKey) {
        let Some(task) = self.tasks.get(key) else { return };
        let is_connected = |waiter: &SessionKey| {
            self.sessions.get(*waiter).is_some_and(|session| session.connection.is_some())
        };
        if task.kin.as_ref().is_some_and(|kin| kin.ends_with_connection)
            && !task.waiters.iter().any(is_connected)
        {
            self.cancel_task(now, key, WITH_CONNECTION);
        }
    }

    /// A session's connection has ended, and with it what shall not outlive it.
    pub(super) fn end_tied(&mut self, now: Now, session: SessionKey) {
        let Some(it) = self.sessions.get_mut(session) else { return };
        it.connection = None;
        let mut tied = mem::take(&mut it.tied);
        for key in &tied {
            self.cancel_if_unwatched(now, *key);
        }
        tied.retain(|key| self.tasks.get(*key).is_some());
        if let Some(it) = self.sessions.get_mut(session) {
            it.tied = tied;
        }
    }
}

/// Adds a key to a list from which those of ended tasks are swept now and then: when it is full,
/// which leaves room for as many as stay.
fn push_live(tasks: &Tasks, keys: &mut Vec<TaskKey>, key: TaskKey) {
    if keys.len() == keys.capacity() {
        keys.retain(|key| tasks.get(*key).is_some());
        keys.reserve(keys.len() + 1);
    }
    keys.push(key);
}
