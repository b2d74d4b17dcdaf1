//! Ends that are decided here: time-outs, closing, and what can't be used.

use std::time::{Duration, Instant};

use bytes::Bytes;
use mcp_proto::{Deliver, ErrorCode, ErrorInfo, Executed, Outcome, TaskId};

use super::entry::{Entry, State};
use super::{Ended, Pending};
use crate::task::Delivered;

/// Deadlines are looked at in steps of this.
const STEP: Duration = Duration::from_millis(20);

impl<W> Pending<W> {
    /// A task has ended, and all of its result has come.
    pub(in crate::client) fn complete(&mut self, delivered: Delivered, ended: &mut Vec<Ended<W>>) {
        if let Some(mut entry) = self.remove(&delivered.deliver.task_id) {
            entry.resolve(delivered, ended);
        }
    }

    /// When to call [`expire`](Self::expire) next.
    pub(in crate::client) fn next_timeout(&self) -> Option<Instant> {
        self.earliest
    }

    /// Ends the tasks whose time is up.
    pub(in crate::client) fn expire(&mut self, now: Instant, ended: &mut Vec<Ended<W>>) {
        if self.earliest.is_none_or(|earliest| earliest > now) {
            return;
        }
        let mut earliest: Option<Instant> = None;
        let mut due = Vec::new();
        for entry in self.tasks.iter() {
            let ends_at = entry.ends_at();
            if ends_at <= now {
                due.push(entry.id.clone());
            } else if earliest.is_none_or(|earliest| ends_at < earliest) {
                earliest = Some(ends_at);
            }
        }
        self.earliest = earliest.map(|earliest| earliest.max(now + STEP));
        for id in due {
            self.time_is_up(&id, ended);
        }
    }

    fn time_is_up(&mut self, id: &TaskId, ended: &mut Vec<Ended<W>>) {
        let Some(entry) = self.tasks.get_mut(id) else { return };
        if entry.state == State::Unsent {
            let message = "its time to live ran out before there was a connection to send it on";
            let mut error = ErrorInfo::new(ErrorCode::Expired, message);
            error.causes.extend(entry.refusal.take().map(|refusal| mcp_proto::Cause {
                code: refusal.code,
                message: refusal.message,
                node_id: refusal.node_id,
            }));
            let executed = entry.executed();
            self.end(id, Outcome::Expired, executed, error, ended);
        } else if let Some(delivered) = entry.incoming.as_ref().and_then(|it| it.give_up()) {
            self.complete(delivered, ended);
        } else {
            let message = if entry.is_durable() {
                "the broker did not say what became of it within its time to live: when it is back, \
                 ask for the task by its id"
            } else {
                "the broker did not say what became of it within its time to live"
            };
            let error = ErrorInfo::new(ErrorCode::BrokerLost, message);
            self.end(id, Outcome::Lost, Executed::Maybe, error, ended);
        }
    }

    /// Ends all tasks: there will be no connection any more.
    pub(in crate::client) fn give_up(
        &mut self,
        code: ErrorCode,
        message: &str,
        ended: &mut Vec<Ended<W>>,
    ) {
        self.disconnected();
        self.earliest = None;
        for mut entry in self.tasks.drain() {
            let executed = entry.executed();
            let error = ErrorInfo::new(code, message);
            let end = local_end(entry.id.clone(), Outcome::Lost, executed, error);
            entry.resolve(end, ended);
        }
    }

    pub(super) fn end(
        &mut self,
        id: &TaskId,
        outcome: Outcome,
        executed: Executed,
        error: ErrorInfo,
        ended: &mut Vec<Ended<W>>,
    ) {
        let Some(mut entry) = self.remove(id) else { return };
        entry.resolve(local_end(id.clone(), outcome, executed, error), ended);
    }

    pub(super) fn remove(&mut self, id: &TaskId) -> Option<Box<Entry<W>>> {
        let entry = self.tasks.remove(id)?;
        if entry.state != State::Unsent && self.is_connected {
            self.on_wire -= 1;
        }
        Some(entry)
    }

    /// Undoes [`remove`](Self::remove).
    pub(super) fn put_back(&mut self, entry: Box<Entry<W>>) {
        if entry.state != State::Unsent && self.is_connected {
            self.on_wire += 1;
        }
        self.tasks.add(entry);
    }

    /// Notes when a task ends by itself. Returns whether that is earlier than all others.
    pub(super) fn note(&mut self, ends_at: Instant) -> bool {
        let is_earliest = self.earliest.is_none_or(|earliest| ends_at < earliest);
        if is_earliest {
            self.earliest = Some(ends_at);
        }
        is_earliest
    }
}

/// The end of a task for who takes its result whole. Of one that went in parts, only the last of it
/// is here.
pub(crate) fn whole(delivered: Delivered) -> Delivered {
    let Deliver { outcome, executed, chunks, .. } = *delivered.deliver;
    if outcome != Outcome::Ok || chunks == 0 {
        return delivered;
    }
    let message = "its result went in parts to another client, which sent it before, and can't be had \
                   again: send it under an id of its own";
    let error = ErrorInfo::new(ErrorCode::DuplicateMismatch, message);
    local_end(delivered.deliver.task_id, Outcome::Failed, executed, error)
}

/// An end that is decided here.
pub(crate) fn local_end(
    task_id: TaskId,
    outcome: Outcome,
    executed: Executed,
    error: ErrorInfo,
) -> Delivered {
    let deliver = Box::new(Deliver {
        error: Some(Box::new(error.task(task_id.clone()))),
        ..Deliver::new(task_id, outcome, executed)
    });
    Delivered { deliver, body: Bytes::new() }
}
