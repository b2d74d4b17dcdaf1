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
//!     │ STATUS unknown,               Asked ── STATUS unknown, not idempotent ──▶ lost
//!     └──────── idempotent ─────────────┘
//! ```
//!
//! Each ends by itself soon after its time to live: `expired` when it never left, else `lost`.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::collections::hash_map;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use foldhash::fast::RandomState;
use mcp_proto::{
    Cancel, Deliver, EncodedTask, ErrorCode, ErrorInfo, Executed, Message, Outcome, Progress,
    Resume, Send, Subject, TaskId, TaskState,
};

use super::incoming::{Incoming, Told, WINDOW_BYTES};
use super::outgoing::{Outgoing, Pushed};
use crate::connection::Outbox;
use crate::task::Delivered;

/// How long after its time to live a task that was sent waits for the broker's word on it.
const END_MARGIN: Duration = Duration::from_secs(2);

/// Deadlines are looked at in steps of this.
const STEP: Duration = Duration::from_millis(20);

/// The tasks without an outcome. `W` is who waits for one.
pub(super) struct Pending<W> {
    tasks: HashMap<TaskId, Entry<W>, RandomState>,
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

/// A task to send.
pub(super) struct Submission<W> {
    pub(super) id: TaskId,
    pub(super) task: EncodedTask,
    pub(super) body: Bytes,
    pub(super) deadline: Instant,
    pub(super) is_idempotent: bool,
    /// Set when the result is taken in parts.
    pub(super) incoming: Option<Arc<Incoming>>,
    /// Set when the body is only the beginning of the input.
    pub(super) outgoing: Option<Box<Outgoing>>,
    pub(super) waiter: W,
}

/// A task's end, for who waited for it.
pub(super) type Ended<W> = (W, Delivered);

struct Entry<W> {
    task: EncodedTask,
    body: Bytes,
    deadline: Instant,
    is_idempotent: bool,
    state: State,
    /// The client wants it to end.
    is_cancelled: bool,
    /// A broker that does not know it any more had taken it, perhaps.
    may_have_run: bool,
    /// Why it was not taken on an earlier connection.
    refusal: Option<Box<ErrorInfo>>,
    order: u64,
    /// Handles that want its end; when the last one is dropped, it is cancelled.
    interested: u32,
    waiter: Option<W>,
    /// Who sent the same task again.
    more_waiters: Vec<W>,
    /// See [`Submission::incoming`].
    incoming: Option<Arc<Incoming>>,
    /// See [`Submission::outgoing`].
    outgoing: Option<Box<Outgoing>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The broker does not have it.
    Unsent,
    /// The broker may have it.
    Sent,
    /// The broker was asked whether it has it.
    Asked,
}

impl<W> Pending<W> {
    pub(super) fn new() -> Self {
        Self {
            tasks: HashMap::default(),
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
        let Submission { id, task, body, deadline, is_idempotent, waiter, .. } = submission;
        let Submission { incoming, outgoing, .. } = submission;
        let vacant = match self.tasks.entry(id) {
            hash_map::Entry::Vacant(vacant) => vacant,
            hash_map::Entry::Occupied(mut occupied) => {
                let entry = occupied.get_mut();
                let is_in_parts = [&incoming, &entry.incoming].into_iter().any(Option::is_some)
                    || [&outgoing, &entry.outgoing].into_iter().any(Option::is_some);
                if !is_in_parts && is_same(entry, &task, &body) {
                    entry.interested += 1;
                    entry.more_waiters.push(waiter);
                } else {
                    let message = if is_in_parts {
                        "a task with this id is in flight, and what goes in parts has one sender and \
                         one reader"
                    } else {
                        "another task with this id, and another action or body, is in flight: \
                         give it an id of its own"
                    };
                    let error = ErrorInfo::new(ErrorCode::DuplicateMismatch, message);
                    let id = occupied.key().clone();
                    ended.push((waiter, local_end(id, Outcome::Rejected, Executed::No, error)));
                }
                return false;
            }
        };
        let entry = vacant.insert(Entry {
            task,
            body,
            deadline,
            is_idempotent,
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
        });
        self.next_order += 1;
        if self.is_accepting {
            send(entry, now, &mut out);
            self.on_wire += 1;
        }
        let ends_at = entry.ends_at();
        self.note(ends_at)
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

    /// A handle was dropped before the end.
    pub(super) fn abandon(&mut self, id: &TaskId, out: impl Outbox, ended: &mut Vec<Ended<W>>) {
        if let Some(entry) = self.tasks.get_mut(id) {
            entry.interested = entry.interested.saturating_sub(1);
            if entry.interested == 0 {
                self.cancel(id, out, ended);
            }
        }
    }

    /// There is a connection: asks for what was sent before, and sends the rest, in order.
    pub(super) fn connected(&mut self, now: Instant, mut out: impl Outbox) {
        self.is_connected = true;
        self.is_accepting = true;
        let mut all: Vec<_> = self.tasks.iter_mut().collect();
        all.sort_unstable_by_key(|(_, entry)| entry.order);
        for (id, entry) in all {
            match entry.state {
                // Its time is up; the next time-out ends it.
                State::Unsent if entry.deadline <= now => continue,
                State::Unsent => send(entry, now, &mut out),
                State::Sent | State::Asked => {
                    if let Some(incoming) = &entry.incoming {
                        let Told { attempt, next_seq, limit_bytes } = incoming.resume();
                        let task_id = id.clone();
                        let resume = Resume { task_id, attempt, next_seq, limit_bytes };
                        out.push(&Message::Resume(resume), &Bytes::new());
                    }
                    if let Some(outgoing) = &mut entry.outgoing {
                        outgoing.interrupt();
                    }
                    out.push(&Message::Fetch(id.clone()), &Bytes::new());
                    // After FETCH: a session that does not wait for a task can't cancel it.
                    if entry.is_cancelled {
                        out.push(&Message::Cancel(Cancel::Task(id.clone())), &Bytes::new());
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
        let Some(entry) = self.tasks.get(&deliver.task_id) else { return false };
        if deliver.executed == Executed::No && entry.may_have_run {
            deliver.executed = Executed::Maybe;
        }
        if entry.incoming.is_none() && deliver.outcome == Outcome::Ok && deliver.chunks > 0 {
            let message = "its result went in parts to another client, which sent the same task \
                           before: give it an id of its own";
            let error = ErrorInfo::new(ErrorCode::DuplicateMismatch, message);
            let executed = deliver.executed;
            self.undeliverable(&deliver.task_id, Outcome::Failed, executed, error, ended);
            return false;
        }
        let delivered = Delivered { deliver, body };
        let complete = match &entry.incoming {
            None => Some(delivered),
            Some(incoming) => incoming.end(delivered),
        };
        if let Some(delivered) = complete {
            self.complete(delivered, ended);
        }
        false
    }

    /// All of a task's result has come.
    fn complete(&mut self, delivered: Delivered, ended: &mut Vec<Ended<W>>) {
        if let Some(mut entry) = self.remove(&delivered.deliver.task_id) {
            entry.resolve(delivered, ended);
        }
    }

    /// CHUNK.
    pub(super) fn chunk(
        &mut self,
        of: &Subject,
        seq: u32,
        gap: Option<u64>,
        body: Bytes,
        ended: &mut Vec<Ended<W>>,
    ) {
        if let Some((incoming, attempt)) = self.incoming(of)
            && let Some(delivered) = incoming.chunk(attempt, seq, gap, body)
        {
            self.complete(delivered, ended);
        }
    }

    /// PROGRESS.
    pub(super) fn progress(&self, progress: Progress) {
        if let Some((incoming, _)) = self.incoming(&progress.of) {
            incoming.progress(progress);
        }
    }

    fn incoming(&self, of: &Subject) -> Option<(&Incoming, u32)> {
        let Subject::Task(id, attempt) = of else { return None };
        Some((self.tasks.get(id)?.incoming.as_deref()?, *attempt))
    }

    /// CREDIT.
    pub(super) fn credit(
        &mut self,
        of: &Subject,
        next_seq: u32,
        limit_bytes: u64,
        mut out: impl Outbox,
    ) {
        let Subject::Task(id, _) = of else { return };
        if let Some(outgoing) = self.tasks.get_mut(id).and_then(|entry| entry.outgoing.as_mut()) {
            outgoing.credit(next_seq, limit_bytes, &mut out);
        }
    }

    /// More of a task's input: sends as much as it may, from the front of `part`.
    pub(super) fn push_input(
        &mut self,
        id: &TaskId,
        part: &mut Bytes,
        is_last: bool,
        mut out: impl Outbox,
    ) -> Pushed {
        match self.tasks.get_mut(id).and_then(|entry| entry.outgoing.as_mut()) {
            Some(_) if !self.is_connected => Pushed::NoCredit,
            Some(outgoing) => outgoing.push(part, is_last, &mut out),
            None => Pushed::Over,
        }
    }

    /// A task's input can't be had: the task is cancelled, and whoever waits is told why.
    pub(super) fn fail_input(
        &mut self,
        id: &TaskId,
        problem: &str,
        out: impl Outbox,
        ended: &mut Vec<Ended<W>>,
    ) {
        let Some(entry) = self.tasks.get_mut(id) else { return };
        let message = format!("its input could not be read: {problem}");
        let error = ErrorInfo::new(ErrorCode::Cancelled, message);
        let end = local_end(id.clone(), Outcome::Cancelled, entry.executed(), error);
        entry.resolve(end, ended);
        self.cancel(id, out, ended);
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
            TaskState::Unknown
                if entry.is_idempotent && entry.can_begin_again() && now < entry.deadline =>
            {
                entry.may_have_run = true;
                if self.is_accepting {
                    send(entry, now, &mut out);
                } else {
                    entry.state = State::Unsent;
                    self.on_wire -= 1;
                    let ends_at = entry.ends_at();
                    return self.note(ends_at);
                }
            }
            TaskState::Unknown => {
                let message = if entry.is_idempotent {
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

    /// A task's DELIVER came, but can't be used.
    pub(super) fn undeliverable(
        &mut self,
        id: &TaskId,
        outcome: Outcome,
        executed: Executed,
        error: ErrorInfo,
        ended: &mut Vec<Ended<W>>,
    ) {
        self.end(id, outcome, executed, error, ended);
    }

    /// When to call [`expire`](Self::expire) next.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.earliest
    }

    /// Ends the tasks whose time is up.
    pub(super) fn expire(&mut self, now: Instant, ended: &mut Vec<Ended<W>>) {
        if self.earliest.is_none_or(|earliest| earliest > now) {
            return;
        }
        let mut earliest: Option<Instant> = None;
        let mut due = Vec::new();
        for (id, entry) in &self.tasks {
            let ends_at = entry.ends_at();
            if ends_at <= now {
                due.push(id.clone());
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
            let message = "the broker did not say what became of it within its time to live";
            let error = ErrorInfo::new(ErrorCode::BrokerLost, message);
            self.end(id, Outcome::Lost, Executed::Maybe, error, ended);
        }
    }

    /// Ends all tasks: there will be no connection any more.
    pub(super) fn give_up(&mut self, code: ErrorCode, message: &str, ended: &mut Vec<Ended<W>>) {
        self.disconnected();
        self.earliest = None;
        for (id, mut entry) in self.tasks.drain() {
            let executed = entry.executed();
            let error = ErrorInfo::new(code, message);
            entry.resolve(local_end(id, Outcome::Lost, executed, error), ended);
        }
    }

    fn end(
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

    fn remove(&mut self, id: &TaskId) -> Option<Entry<W>> {
        let entry = self.tasks.remove(id)?;
        if entry.state != State::Unsent && self.is_connected {
            self.on_wire -= 1;
        }
        Some(entry)
    }

    /// Notes when a task ends by itself. Returns whether that is earlier than all others.
    fn note(&mut self, ends_at: Instant) -> bool {
        let is_earliest = self.earliest.is_none_or(|earliest| ends_at < earliest);
        if is_earliest {
            self.earliest = Some(ends_at);
        }
        is_earliest
    }
}

impl<W> Entry<W> {
    fn ends_at(&self) -> Instant {
        match self.state {
            State::Unsent => self.deadline,
            State::Sent | State::Asked => self.deadline + END_MARGIN,
        }
    }

    /// Whether it ran, as far as is known here.
    fn executed(&self) -> Executed {
        match self.state {
            State::Unsent if !self.may_have_run => Executed::No,
            State::Unsent | State::Sent | State::Asked => Executed::Maybe,
        }
    }

    /// Whether all of its input is there to be sent once more.
    fn can_begin_again(&self) -> bool {
        self.outgoing.as_ref().is_none_or(|outgoing| outgoing.can_begin())
    }

    fn resolve(&mut self, end: Delivered, ended: &mut Vec<Ended<W>>) {
        for waiter in self.more_waiters.drain(..) {
            ended.push((waiter, end.clone()));
        }
        ended.extend(self.waiter.take().map(|waiter| (waiter, end)));
    }
}

fn send<W>(entry: &mut Entry<W>, now: Instant, out: &mut impl Outbox) {
    let rest = entry.deadline.saturating_duration_since(now);
    let ttl_ms = (rest.as_micros().div_ceil(1000) as u64).max(1);
    let stream_window_bytes = match &entry.incoming {
        None => 0,
        Some(incoming) => {
            incoming.restart();
            WINDOW_BYTES
        }
    };
    let input_follows = entry.outgoing.as_ref().map(|outgoing| outgoing.length());
    // Lent: a clone would allocate.
    let task = mem::replace(&mut entry.task, EncodedTask(Bytes::new()));
    let message =
        Message::Send(Send { task, ttl_ms, stream_window_bytes, input_follows, delay_ms: 0 });
    out.push(&message, &entry.body);
    if let Message::Send(Send { task, .. }) = message {
        entry.task = task;
    }
    entry.state = State::Sent;
    if let Some(outgoing) = &mut entry.outgoing {
        outgoing.begin(out);
    }
}

/// Whether action and body are the same: what the broker goes by.
fn is_same<W>(entry: &Entry<W>, task: &EncodedTask, body: &Bytes) -> bool {
    if entry.body != *body {
        return false;
    }
    match (entry.task.decode(), task.decode()) {
        (Ok(one), Ok(other)) => one.action == other.action,
        (Err(_), _) | (_, Err(_)) => false,
    }
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
