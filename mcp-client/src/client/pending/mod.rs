//! The tasks without an outcome: what was sent, what must be asked for, and when to give up.
//! Synchronous: told the time, pushes frames to an [`Outbox`], returns the ends of tasks.
//!
//! ```text
//!                connected: SEND              DELIVER
//!   Unsent ─────────────────────────▶ Sent ───────────────▶ (end)
//!     ▲ ▲                              │  ▲
//!     │ └─ after GOAWAY: DELIVER          │ STATUS queued or running
//!     │      rejected(SHUTTING_DOWN)   │  │
//!     │                                │  │
//!     │            connected: FETCH    ▼  │
//!     │ STATUS unknown,               Asked ── STATUS unknown, may not run twice ──▶ lost
//!     └── idempotent or durable ────────┘
//! ```
//!
//! A durable task that was not accepted is not asked for when there is a connection again, but sent:
//! the broker has it on disk, or has to bring it there.
//!
//! Each ends by itself soon after its time to live: `expired` when it never left, else `lost`.

mod ending;
mod entry;
mod parts;
mod table;
#[cfg(test)]
mod tests;

use std::time::Instant;

use bytes::Bytes;
use mcp_proto::{
    Cancel, Deliver, ErrorCode, ErrorInfo, Executed, Message, Outcome, Resume, TaskId, TaskState,
};

use super::acceptance::Acceptance;
use super::incoming::Told;
use crate::connection::Outbox;
use crate::task::Delivered;
use entry::{Entry, State};
use table::Table;

pub(crate) use ending::{local_end, whole};
pub(super) use entry::Submission;

/// A task's end, for who waited for it.
pub(super) type Ended<W> = (W, Delivered);

/// The tasks without an outcome. `W` is who waits for one.
pub(super) struct Pending<W> {
    tasks: Table<W>,
    /// No task ends by itself before this.
    earliest: Option<Instant>,
    /// Whether there is a connection on which tasks may be sent.
    is_accepting: bool,
    /// Whether there is a connection.
    is_connected: bool,
    /// Tasks on the wire of this connection: sent or asked for.
    on_wire: usize,
    /// Order of arrival.
    next_order: u64,
}

impl<W> Pending<W> {
    pub(super) fn new() -> Self {
        Self {
            tasks: Table::new(),
            earliest: None,
            is_accepting: false,
            is_connected: false,
            on_wire: 0,
            next_order: 0,
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// How many the broker owes an answer for, on this connection.
    pub(super) fn on_wire(&self) -> usize {
        self.on_wire
    }

    /// Adds a task, and sends it if there is a connection. Returns whether the next time-out is
    /// earlier than it was.
    pub(super) fn submit(
        &mut self,
        submission: Submission<W>,
        now: Instant,
        mut out: impl Outbox,
        ended: &mut Vec<Ended<W>>,
    ) -> bool {
        let Submission { id, task, body, deadline, not_before, waiter, .. } = submission;
        let Submission { is_idempotent, is_durable, incoming, outgoing, .. } = submission;
        if let Some(entry) = self.tasks.get_mut(&id) {
            let is_in_parts = [&incoming, &entry.incoming].into_iter().any(Option::is_some)
                || [&outgoing, &entry.outgoing].into_iter().any(Option::is_some);
            let is_less = is_durable && !entry.is_durable();
            if !is_in_parts && !is_less && entry.is_same(&task, &body) {
                entry.interested += 1;
                entry.more_waiters.push(waiter);
            } else {
                let message = if is_in_parts {
                    "a task with this id is in flight, and what goes in parts has one sender and one \
                     reader"
                } else if is_less {
                    "a task with this id is in flight, and is not durable: give this one an id of its \
                     own"
                } else {
                    "another task with this id, and another action or body, is in flight: give it an \
                     id of its own"
                };
                let error = ErrorInfo::new(ErrorCode::DuplicateMismatch, message);
                ended.push((waiter, local_end(id, Outcome::Rejected, Executed::No, error)));
            }
            return false;
        }
        let entry = self.tasks.add(Box::new(Entry {
            id,
            task,
            body,
            deadline,
            not_before,
            is_idempotent,
            acceptance: is_durable.then(Acceptance::default),
            state: State::Unsent,
            is_cancelled: false,
            may_have_run: false,
            refusal: None,
            order: self.next_order,
            interested: 1,
            waiter: Some(waiter),
            more_waiters: Vec::new(),
            incoming,
            outgoing,
        }));
        self.next_order += 1;
        if self.is_accepting {
            entry.send(now, &mut out);
            self.on_wire += 1;
        }
        let ends_at = entry.ends_at();
        self.note(ends_at)
    }

    /// Where to wait for ACCEPTED of a durable task.
    pub(super) fn acceptance(&self, id: &TaskId) -> Option<Acceptance> {
        self.tasks.get(id)?.acceptance.clone()
    }

    /// ACCEPTED.
    pub(super) fn accepted(&self, id: &TaskId) {
        if let Some(acceptance) = self.tasks.get(id).and_then(|entry| entry.acceptance.as_ref()) {
            acceptance.set();
        }
    }

    /// The client wants a task to end.
    pub(super) fn cancel(&mut self, id: &TaskId, mut out: impl Outbox, ended: &mut Vec<Ended<W>>) {
        let Some(entry) = self.tasks.get_mut(id) else { return };
        if entry.is_cancelled {
            return;
        }
        entry.is_cancelled = true;
        if let Some(outgoing) = &mut entry.outgoing {
            outgoing.stop();
        }
        match entry.state {
            State::Unsent => {
                let error = ErrorInfo::new(ErrorCode::Cancelled, "cancelled before it was sent");
                let executed = entry.executed();
                self.end(id, Outcome::Cancelled, executed, error, ended);
            }
            State::Sent | State::Asked if self.is_connected => {
                out.push(&Message::Cancel(Cancel::Task(id.clone())), &Bytes::new());
            }
            // The broker is told at the next connection; who waits need not.
            State::Sent | State::Asked => {
                let message = "cancelled while there was no connection to the broker";
                let error = ErrorInfo::new(ErrorCode::Cancelled, message);
                let end = local_end(id.clone(), Outcome::Cancelled, Executed::Maybe, error);
                entry.resolve(end, ended);
            }
        }
    }

    /// A handle was dropped before the end. A durable task goes on: its outcome can be asked for.
    pub(super) fn abandon(&mut self, id: &TaskId, out: impl Outbox, ended: &mut Vec<Ended<W>>) {
        if let Some(entry) = self.tasks.get_mut(id) {
            entry.interested = entry.interested.saturating_sub(1);
            if entry.interested == 0 && !entry.is_durable() {
                self.cancel(id, out, ended);
            }
        }
    }

    /// There is a connection: asks for what was sent before, and sends the rest, in order.
    pub(super) fn connected(&mut self, now: Instant, mut out: impl Outbox) {
        self.is_connected = true;
        self.is_accepting = true;
        let mut all: Vec<_> = self.tasks.iter_mut().collect();
        all.sort_unstable_by_key(|entry| entry.order);
        for entry in all {
            match entry.state {
                // Its time is up; the next time-out ends it.
                State::Unsent if entry.deadline <= now => continue,
                State::Unsent => entry.send(now, &mut out),
                State::Sent | State::Asked if entry.wants_acceptance(now) => {
                    entry.may_have_run = true;
                    entry.send(now, &mut out);
                }
                State::Sent | State::Asked => {
                    if let Some(incoming) = &entry.incoming {
                        let Told { attempt, next_seq, limit_bytes } = incoming.resume();
                        let task_id = entry.id.clone();
                        let resume = Resume { task_id, attempt, next_seq, limit_bytes };
                        out.push(&Message::Resume(resume), &Bytes::new());
                    }
                    if let Some(outgoing) = &mut entry.outgoing {
                        outgoing.interrupt();
                    }
                    out.push(&Message::Fetch(entry.id.clone()), &Bytes::new());
                    // After FETCH: a session that does not wait for a task can't cancel it.
                    if entry.is_cancelled {
                        out.push(&Message::Cancel(Cancel::Task(entry.id.clone())), &Bytes::new());
                    }
                    entry.state = State::Asked;
                }
            }
            self.on_wire += 1;
        }
    }

    /// The broker will close the connection: what is not sent yet waits for the next one.
    pub(super) fn going_away(&mut self) {
        self.is_accepting = false;
    }

    /// There is no connection any more.
    pub(super) fn disconnected(&mut self) {
        self.is_connected = false;
        self.is_accepting = false;
        self.on_wire = 0;
    }

    /// DELIVER. `sends_again`: whether there will be another connection. Returns whether the next
    /// time-out is earlier than it was.
    pub(super) fn delivered(
        &mut self,
        mut deliver: Box<Deliver>,
        body: Bytes,
        now: Instant,
        sends_again: bool,
        ended: &mut Vec<Ended<W>>,
    ) -> bool {
        // The broker's own, after its GOAWAY: workers that leave can say the same.
        let is_shutting_down = !self.is_accepting
            && deliver.outcome == Outcome::Rejected
            && deliver.executed == Executed::No
            && deliver.error.as_ref().is_some_and(|it| it.code == ErrorCode::ShuttingDown);
        if is_shutting_down
            && sends_again
            && let Some(entry) = self.tasks.get_mut(&deliver.task_id)
            && !entry.is_cancelled
            && entry.can_begin_again()
            && now < entry.deadline
        {
            if entry.state != State::Unsent {
                self.on_wire -= 1;
            }
            entry.state = State::Unsent;
            entry.refusal = deliver.error;
            let ends_at = entry.ends_at();
            return self.note(ends_at);
        }
        let Some(mut entry) = self.remove(&deliver.task_id) else { return false };
        if deliver.executed == Executed::No && entry.may_have_run {
            deliver.executed = Executed::Maybe;
        }
        let Some(incoming) = &entry.incoming else {
            entry.resolve(whole(Delivered { deliver, body }), ended);
            return false;
        };
        match incoming.end(Delivered { deliver, body }) {
            Some(delivered) => entry.resolve(delivered, ended),
            // Parts of its result are to come.
            None => self.put_back(entry),
        }
        false
    }

    /// STATUS. Returns whether the next time-out is earlier than it was.
    pub(super) fn status(
        &mut self,
        id: &TaskId,
        state: TaskState,
        now: Instant,
        mut out: impl Outbox,
        ended: &mut Vec<Ended<W>>,
    ) -> bool {
        let Some(entry) = self.tasks.get_mut(id).filter(|entry| entry.state == State::Asked) else {
            return false;
        };
        match state {
            TaskState::Queued | TaskState::Running => entry.state = State::Sent,
            TaskState::Unknown if entry.is_cancelled => {
                let message = "cancelled; the broker does not know it any more";
                let error = ErrorInfo::new(ErrorCode::Cancelled, message);
                self.end(id, Outcome::Cancelled, Executed::Maybe, error, ended);
            }
            TaskState::Unknown if entry.may_be_sent_again(now) => {
                entry.may_have_run = true;
                if self.is_accepting {
                    entry.send(now, &mut out);
                } else {
                    entry.state = State::Unsent;
                    self.on_wire -= 1;
                    let ends_at = entry.ends_at();
                    return self.note(ends_at);
                }
            }
            TaskState::Unknown => {
                let message = if now >= entry.deadline {
                    "its time to live ran out, and the broker does not know the task"
                } else if entry.is_idempotent {
                    "the broker does not know the task any more, and its input can't be had again"
                } else {
                    "the connection to the broker broke, and the broker does not know the task: it \
                     may have run; mark it idempotent if it may run twice"
                };
                let error = ErrorInfo::new(ErrorCode::BrokerLost, message);
                self.end(id, Outcome::Lost, Executed::Maybe, error, ended);
            }
        }
        false
    }
}
