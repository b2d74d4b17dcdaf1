//! One task without an outcome, and how it is sent.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mcp_proto::{EncodedTask, ErrorInfo, Executed, Message, Send, TaskId};

use super::Ended;
use crate::client::acceptance::Acceptance;
use crate::client::incoming::{Incoming, WINDOW_BYTES};
use crate::client::outgoing::Outgoing;
use crate::connection::Outbox;
use crate::task::Delivered;

/// How long after its time to live a task that was sent waits for the broker's word on it.
pub(super) const END_MARGIN: Duration = Duration::from_secs(2);

/// The same of a durable one: its broker may be reading its journal after a restart.
pub(super) const DURABLE_END_MARGIN: Duration = Duration::from_secs(10);

/// A task to send.
pub(in crate::client) struct Submission<W> {
    pub(in crate::client) id: TaskId,
    pub(in crate::client) task: EncodedTask,
    pub(in crate::client) body: Bytes,
    pub(in crate::client) deadline: Instant,
    /// When it may go to a worker, if not at once.
    pub(in crate::client) not_before: Option<Instant>,
    pub(in crate::client) is_idempotent: bool,
    pub(in crate::client) is_durable: bool,
    /// Set when the result is taken in parts.
    pub(in crate::client) incoming: Option<Arc<Incoming>>,
    /// Set when the body is only the beginning of the input.
    pub(in crate::client) outgoing: Option<Box<Outgoing>>,
    pub(in crate::client) waiter: W,
}

pub(super) struct Entry<W> {
    pub(super) id: TaskId,
    pub(super) task: EncodedTask,
    pub(super) body: Bytes,
    pub(super) deadline: Instant,
    /// See [`Submission::not_before`].
    pub(super) not_before: Option<Instant>,
    pub(super) is_idempotent: bool,
    /// Of a durable task: whether the broker said that it has it on disk.
    pub(super) acceptance: Option<Acceptance>,
    pub(super) state: State,
    /// The client wants it to end.
    pub(super) is_cancelled: bool,
    /// A broker that does not know it any more had taken it, perhaps.
    pub(super) may_have_run: bool,
    /// Why it was not taken on an earlier connection.
    pub(super) refusal: Option<Box<ErrorInfo>>,
    pub(super) order: u64,
    /// Handles that want its end; when the last one is dropped, it is cancelled if it is not durable.
    pub(super) interested: u32,
    pub(super) waiter: Option<W>,
    /// Who sent the same task again.
    pub(super) more_waiters: Vec<W>,
    /// See [`Submission::incoming`].
    pub(super) incoming: Option<Arc<Incoming>>,
    /// See [`Submission::outgoing`].
    pub(super) outgoing: Option<Box<Outgoing>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The broker does not have it.
    Unsent,
    /// The broker may have it.
    Sent,
    /// The broker was asked whether it has it.
    Asked,
}

impl<W> Entry<W> {
    pub(super) fn ends_at(&self) -> Instant {
        match self.state {
            State::Unsent => self.deadline,
            State::Sent | State::Asked if self.is_durable() => self.deadline + DURABLE_END_MARGIN,
            State::Sent | State::Asked => self.deadline + END_MARGIN,
        }
    }

    /// Whether it ran, as far as is known here.
    pub(super) fn executed(&self) -> Executed {
        match self.state {
            State::Unsent if !self.may_have_run => Executed::No,
            State::Unsent | State::Sent | State::Asked => Executed::Maybe,
        }
    }

    /// Whether all of its input is there to be sent once more.
    pub(super) fn can_begin_again(&self) -> bool {
        self.outgoing.as_ref().is_none_or(|outgoing| outgoing.can_begin())
    }

    pub(super) fn is_durable(&self) -> bool {
        self.acceptance.is_some()
    }

    /// Whether a broker that does not have it may be given it once more.
    pub(super) fn may_be_sent_again(&self, now: Instant) -> bool {
        (self.is_idempotent || self.is_durable()) && self.can_begin_again() && now < self.deadline
    }

    /// Whether the next connection sends it again without a question: to a broker that has it after
    /// all, its id says that it is the same.
    pub(super) fn wants_acceptance(&self, now: Instant) -> bool {
        self.acceptance.as_ref().is_some_and(|it| !it.is_set())
            && !self.is_cancelled
            && now < self.deadline
    }

    pub(super) fn resolve(&mut self, end: Delivered, ended: &mut Vec<Ended<W>>) {
        for waiter in self.more_waiters.drain(..) {
            ended.push((waiter, end.clone()));
        }
        ended.extend(self.waiter.take().map(|waiter| (waiter, end)));
    }

    pub(super) fn send(&mut self, now: Instant, out: &mut impl Outbox) {
        let ttl_ms = ms_until(self.deadline, now).max(1);
        // A part of a millisecond that counts as a whole one must not make it as long.
        let delay_ms = self.not_before.map_or(0, |it| ms_until(it, now).min(ttl_ms - 1));
        let stream_window_bytes = match &self.incoming {
            None => 0,
            Some(incoming) => {
                incoming.restart();
                WINDOW_BYTES
            }
        };
        let input_follows = self.outgoing.as_ref().map(|outgoing| outgoing.length());
        // Lent: a clone would allocate.
        let task = mem::replace(&mut self.task, EncodedTask(Bytes::new()));
        let send = Send { task, ttl_ms, stream_window_bytes, input_follows, delay_ms };
        let message = Message::Send(send);
        out.push(&message, &self.body);
        if let Message::Send(Send { task, .. }) = message {
            self.task = task;
        }
        self.state = State::Sent;
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.begin(out);
        }
    }

    /// Whether action and body are the same: what the broker goes by.
    pub(super) fn is_same(&self, task: &EncodedTask, body: &Bytes) -> bool {
        if self.body != *body {
            return false;
        }
        match (self.task.decode(), task.decode()) {
            (Ok(one), Ok(other)) => one.action == other.action,
            (Err(_), _) | (_, Err(_)) => false,
        }
    }
}

/// Rounded up.
fn ms_until(then: Instant, now: Instant) -> u64 {
    then.saturating_duration_since(now).as_micros().div_ceil(1000) as u64
}
