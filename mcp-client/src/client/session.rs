//! A client's session: the pending tasks, and the connection they are sent on.

mod peer;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mcp_proto::{
    Credit, EncodedTask, ErrorCode, ErrorInfo, Executed, InputLength, Limits, Message, NodeId,
    Outcome, SessionId, Subject, TaskId,
};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio_util::sync::CancellationToken;

use super::acceptance::Acceptance;
use super::feed::{self, Feed, Source};
use super::fetches::{Answer, Asker, Fetches};
use super::ids::TaskIds;
use super::incoming::{Incoming, Told};
use super::outgoing::{Outgoing, Pushed};
use super::pending::{Ended, Pending, Submission, local_end};
use super::settlements::Settlements;
use crate::connection::{self, Control, Dialer, Link, Peer, Timeouts};
use crate::error::{CallError, ConnectError};
use crate::record::{Recorder, Sent};
use crate::task::{Delivered, TaskEnd};

/// With more than this waiting to be written, tasks wait before they are sent.
const LANE_SOFT_LIMIT_BYTES: usize = 1024 * 1024;

/// More tasks at once than any broker should allow.
const MAX_SESSION_TASKS: u32 = 1 << 20;

#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) reconnects: bool,
    pub(super) max_pending_bytes: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { reconnects: true, max_pending_bytes: 64 * 1024 * 1024 }
    }
}

/// Shared by the client, the handles of its tasks, and the I/O task.
pub(crate) struct Session {
    settings: Settings,
    state: Mutex<State>,
    ids: TaskIds,
    /// Room for tasks, as the broker allows.
    room: Semaphore,
    /// Room for bytes of bodies.
    bytes: Semaphore,
    max_body_bytes: AtomicU32,
    max_input_bytes: AtomicU64,
    control: Control,
    stopped: CancellationToken,
    runtime: Handle,
    recorder: Recorder,
}

struct State {
    pending: Pending<Waiter>,
    fetches: Fetches,
    settlements: Settlements,
    link: Option<Arc<Link>>,
    session_id: Option<SessionId>,
    broker_id: Option<NodeId>,
    /// How much room for tasks was given out in all.
    room_given: u32,
    /// Why nothing can be sent any more.
    closed: Option<Arc<ConnectError>>,
}

/// Who waits for a task's end, and the room that the task takes until then.
struct Waiter {
    end: oneshot::Sender<Delivered>,
    bytes: u32,
}

/// A task to submit, checked.
pub(crate) struct Draft {
    pub(crate) id: TaskId,
    pub(crate) task: EncodedTask,
    pub(crate) body: Bytes,
    pub(crate) ttl: Duration,
    /// How long it waits before it may go to a worker; less than its time to live.
    pub(crate) delay: Duration,
    pub(crate) is_idempotent: bool,
    pub(crate) is_durable: bool,
    /// Whether its outcome is settled as soon as it is taken.
    pub(crate) settles: bool,
    /// Set when the result is taken in parts.
    pub(crate) incoming: Option<Arc<Incoming>>,
    /// What follows the body.
    pub(crate) source: Option<Box<Source>>,
    /// Set when it is recorded.
    pub(crate) sent: Option<Box<Sent>>,
}

/// A task that was submitted.
pub(crate) struct Ticket {
    pub(crate) id: TaskId,
    pub(crate) end: oneshot::Receiver<Delivered>,
    /// Of a durable task.
    pub(crate) acceptance: Option<Acceptance>,
    /// See [`Draft::settles`].
    pub(crate) settles: bool,
    /// See [`Draft::sent`].
    pub(crate) sent: Option<Box<Sent>>,
    /// What is to be fed.
    feed: Option<Box<Feed>>,
}

/// What became of a task that was to be submitted.
pub(crate) enum Submitted {
    Taken(Ticket),
    /// There is no room now.
    InTurn(BoxFuture<'static, Result<Ticket, CallError>>),
}

impl Session {
    /// Connects, and starts the I/O task.
    pub(super) async fn open(
        mut dialer: Dialer,
        settings: Settings,
        timeouts: Timeouts,
        recorder: Recorder,
    ) -> Result<Arc<Self>, ConnectError> {
        let session = Arc::new(Self {
            settings,
            state: Mutex::new(State {
                pending: Pending::new(),
                fetches: Fetches::default(),
                settlements: Settlements::default(),
                link: None,
                session_id: None,
                broker_id: None,
                room_given: 0,
                closed: None,
            }),
            ids: TaskIds::new(),
            room: Semaphore::new(0),
            bytes: Semaphore::new(settings.max_pending_bytes as usize),
            max_body_bytes: AtomicU32::new(0),
            max_input_bytes: AtomicU64::new(0),
            control: Control::default(),
            stopped: CancellationToken::new(),
            runtime: Handle::current(),
            recorder,
        });
        let (connection, ack) = dialer.dial(session.hello(), timeouts.connect).await?;
        session.connected(&connection.link, &ack);
        tokio::spawn(connection::run(session.clone(), dialer, connection, timeouts));
        Ok(session)
    }

    pub(crate) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    pub(super) fn next_task_id(&self) -> Option<TaskId> {
        self.ids.next()
    }

    /// Takes a task, and sends it when there is a connection; or waits for room first.
    pub(crate) fn submit(self: &Arc<Self>, mut draft: Draft) -> Result<Submitted, CallError> {
        let max = self.max_body_bytes();
        if draft.body.len() > max || draft.source.is_some() {
            draft = self.divide(draft, max)?;
        }
        let now = Instant::now();
        let deadline = now + draft.ttl;
        Ok(match self.try_submit(draft, deadline, now)? {
            Ok(ticket) => Submitted::Taken(ticket),
            Err(draft) => Submitted::InTurn(self.clone().submit_in_turn(draft, deadline).boxed()),
        })
    }

    /// The largest body of a frame.
    pub(crate) fn max_body_bytes(&self) -> usize {
        self.max_body_bytes.load(Ordering::Relaxed) as usize
    }

    /// Has what of an input is too long for a body follow it.
    fn divide(&self, mut draft: Draft, max_body_bytes: usize) -> Result<Draft, CallError> {
        let rest_bytes = draft.source.as_ref().map_or(Some(0), |source| source.bytes);
        let bytes = (draft.body.len() as u64).saturating_add(rest_bytes.unwrap_or(0));
        let max = self.max_input_bytes.load(Ordering::Relaxed).max(max_body_bytes as u64);
        if bytes > max {
            let message = format!("the input has {bytes} bytes; the broker takes at most {max}");
            return Err(too_large(draft.id, message));
        }
        if rest_bytes == Some(0) {
            draft.source = None;
        } else if max == max_body_bytes as u64 || max_body_bytes == 0 {
            let message = "the broker takes no inputs in chunks".to_owned();
            return Err(too_large(draft.id, message));
        }
        if draft.is_durable && (bytes > max_body_bytes as u64 || draft.source.is_some()) {
            return Err(not_in_a_frame(draft.id, max_body_bytes));
        }
        if draft.body.len() > max_body_bytes {
            let over = draft.body.split_off(max_body_bytes);
            draft.source = Some(Box::new(match draft.source.take() {
                None => Source::whole(over),
                Some(source) => source.after(over),
            }));
        }
        Ok(draft)
    }

    fn outgoing(&self, id: &TaskId, body_bytes: usize, source: &Source) -> Box<Outgoing> {
        let length = match source.bytes {
            Some(rest) => InputLength::Bytes(body_bytes as u64 + rest),
            None => InputLength::Unknown,
        };
        let (keeps_all, max_body_bytes) = (source.is_in_memory, self.max_body_bytes());
        Box::new(Outgoing::new(id.clone(), length, keeps_all, max_body_bytes))
    }

    /// Takes a task, or returns it when there is no room now.
    fn try_submit(
        &self,
        draft: Draft,
        deadline: Instant,
        now: Instant,
    ) -> Result<Result<Ticket, Draft>, CallError> {
        let bytes = self.bytes.try_acquire_many(self.counted_bytes(&draft));
        let (Ok(bytes), Ok(room)) = (bytes, self.room.try_acquire()) else {
            return Ok(Err(draft));
        };
        Ok(match self.take(draft, deadline, now)? {
            Ok(ticket) => {
                // The task's, until it ends.
                bytes.forget();
                room.forget();
                Ok(ticket)
            }
            Err((draft, _)) => Err(draft),
        })
    }

    /// Waits for room, behind those that came before.
    async fn submit_in_turn(
        self: Arc<Self>,
        mut draft: Draft,
        deadline: Instant,
    ) -> Result<Ticket, CallError> {
        let bytes = self.counted_bytes(&draft);
        let bytes = self.acquire(&self.bytes, bytes, &draft.id, deadline).await?;
        let room = self.acquire(&self.room, 1, &draft.id, deadline).await?;
        loop {
            let (refused, link) = match self.take(draft, deadline, Instant::now())? {
                Ok(ticket) => {
                    bytes.forget();
                    room.forget();
                    return Ok(ticket);
                }
                Err(refused) => refused,
            };
            let wait = link.drained(LANE_SOFT_LIMIT_BYTES / 2);
            if tokio::time::timeout_at(deadline.into(), wait).await.is_err() {
                return Err(late(&refused.id));
            }
            draft = refused;
        }
    }

    /// Takes a task that there is room for, or returns it with the link that has none.
    #[allow(clippy::type_complexity)]
    fn take(
        &self,
        draft: Draft,
        deadline: Instant,
        now: Instant,
    ) -> Result<Result<Ticket, (Draft, Arc<Link>)>, CallError> {
        let bytes = self.counted_bytes(&draft);
        let mut ended = Vec::new();
        let ticket = {
            let mut state = self.lock();
            if let Some(error) = &state.closed {
                return Err(CallError::Connect(error.clone()));
            }
            let State { pending, link, .. } = &mut *state;
            match link {
                // It takes nothing more, and never drains: this is for the next one.
                Some(link) if link.is_closed() => pending.going_away(),
                Some(link) if link.queued_bytes() > LANE_SOFT_LIMIT_BYTES => {
                    return Ok(Err((draft, link.clone())));
                }
                Some(_) | None => {}
            }
            let Draft { id, task, body, ttl, delay, incoming, source, .. } = draft;
            let Draft { is_idempotent, is_durable, settles, sent, .. } = draft;
            let not_before = (!delay.is_zero()).then(|| deadline - (ttl - delay));
            let (end, ended_at) = oneshot::channel();
            let outgoing = source.as_ref().map(|source| self.outgoing(&id, body.len(), source));
            let feed = source.zip(outgoing.as_ref());
            let feed = feed.map(|(source, outgoing)| {
                Box::new(Feed { source: *source, signal: outgoing.signal() })
            });
            let waiter = Waiter { end, bytes };
            let submission = Submission {
                id: id.clone(),
                task,
                body,
                deadline,
                not_before,
                is_idempotent,
                is_durable,
                incoming,
                outgoing,
                waiter,
            };
            if pending.submit(submission, now, link.as_deref(), &mut ended) {
                self.control.wake.notify_one();
            }
            // Refused, it has none; what has this id then is another one.
            let is_taken = ended.is_empty();
            let acceptance = (is_durable && is_taken).then(|| pending.acceptance(&id)).flatten();
            if let Some(link) = link {
                link.flush_soon();
            }
            Ticket { id, end: ended_at, acceptance, settles, sent, feed }
        };
        self.tell(ended);
        Ok(Ok(ticket))
    }

    /// What a task takes of the room for bodies.
    fn counted_bytes(&self, draft: &Draft) -> u32 {
        let rest_bytes = draft.source.as_ref().map_or(0, |source| source.kept_bytes());
        let bytes = draft.body.len().saturating_add(rest_bytes);
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.settings.max_pending_bytes)
    }

    /// Feeds the input of a task that was submitted, if more of it follows.
    pub(crate) fn feed(self: &Arc<Self>, ticket: &mut Ticket) {
        if let Some(feed) = ticket.feed.take() {
            self.runtime.spawn(feed::run(self.clone(), ticket.id.clone(), *feed));
        }
    }

    /// More of a task's input.
    pub(super) fn push_input(&self, id: &TaskId, part: &mut Bytes, is_last: bool) -> Pushed {
        let mut state = self.lock();
        let State { pending, link, .. } = &mut *state;
        let pushed = pending.push_input(id, part, is_last, link.as_deref());
        if let Some(link) = link.as_ref().filter(|_| pushed == Pushed::Some) {
            link.flush_soon();
        }
        pushed
    }

    /// A task's input can't be had.
    pub(super) fn fail_input(&self, id: &TaskId, problem: &str) {
        self.change(|state, ended| {
            state.pending.fail_input(id, problem, state.link.as_deref(), ended);
        });
    }

    pub(super) fn link(&self) -> Option<Arc<Link>> {
        self.lock().link.clone()
    }

    async fn acquire<'a>(
        &self,
        semaphore: &'a Semaphore,
        count: u32,
        id: &TaskId,
        deadline: Instant,
    ) -> Result<SemaphorePermit<'a>, CallError> {
        let wait = semaphore.acquire_many(count);
        match tokio::time::timeout_at(deadline.into(), wait).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(self.closed_error()),
            Err(_) => Err(late(id)),
        }
    }

    fn closed_error(&self) -> CallError {
        let closed = self.lock().closed.clone();
        CallError::Connect(closed.unwrap_or_else(|| Arc::new(ConnectError::Closed)))
    }

    pub(crate) fn cancel(&self, id: &TaskId) {
        self.change(|state, ended| state.pending.cancel(id, state.link.as_deref(), ended));
    }

    pub(crate) fn abandon(&self, id: &TaskId) {
        self.change(|state, ended| state.pending.abandon(id, state.link.as_deref(), ended));
    }

    /// The outcome of a durable task was taken.
    pub(crate) fn settle(&self, id: &TaskId) {
        self.change(|state, _| state.settlements.settle(id.clone(), state.link.as_deref()));
    }

    /// What the broker has of a task. `waits`: for its outcome, if it is known. Dropped, it asks no
    /// more.
    pub(super) async fn fetch(&self, id: &TaskId, waits: bool) -> Result<Answer, CallError> {
        let Ok(room) = self.room.acquire().await else { return Err(self.closed_error()) };
        let (answer, answered) = oneshot::channel();
        {
            let mut state = self.lock();
            if let Some(error) = &state.closed {
                return Err(CallError::Connect(error.clone()));
            }
            let State { fetches, link, .. } = &mut *state;
            if fetches.ask(id, Asker { waits, answer }, link.as_deref()) {
                // The task's, until the broker has no more to say of it.
                room.forget();
            }
            if let Some(link) = link {
                link.flush_soon();
            }
        }
        answered.await.map_err(|_| self.closed_error())
    }

    /// Says what was read of a result in parts.
    pub(crate) fn credit(&self, id: &TaskId, told: Told) {
        let state = self.lock();
        if let Some(link) = &state.link {
            let Told { attempt, next_seq, limit_bytes } = told;
            let of = Subject::Task(id.clone(), attempt);
            link.push(&Message::Credit(Credit { of, next_seq, limit_bytes }));
            link.flush_soon();
        }
    }

    fn change(&self, change: impl FnOnce(&mut State, &mut Vec<Ended<Waiter>>)) {
        let mut ended = Vec::new();
        {
            let mut state = self.lock();
            change(&mut state, &mut ended);
            if let Some(link) = &state.link {
                link.flush_soon();
            }
        }
        self.tell(ended);
    }

    pub(super) fn begin_close(&self) {
        self.lock().closed.get_or_insert_with(|| Arc::new(ConnectError::Closed));
        self.control.leave.cancel();
    }

    pub(super) async fn closed(&self) {
        self.stopped.cancelled().await;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed.is_some()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.lock().link.is_some()
    }

    pub(super) fn broker_id(&self) -> Option<NodeId> {
        self.lock().broker_id.clone()
    }

    pub(super) fn session_id(&self) -> Option<SessionId> {
        self.lock().session_id.clone()
    }

    pub(super) fn pending(&self) -> usize {
        self.lock().pending.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every critical section leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_room(&self, state: &mut State, limits: &Limits) {
        let wanted = limits.max_session_tasks.clamp(1, MAX_SESSION_TASKS);
        if wanted > state.room_given {
            self.room.add_permits((wanted - state.room_given) as usize);
            state.room_given = wanted;
        } else {
            let taken = self.room.forget_permits((state.room_given - wanted) as usize);
            state.room_given -= taken as u32;
        }
    }

    /// Tells those who wait for tasks how they ended, and gives the room back that they took.
    fn tell(&self, ended: Vec<Ended<Waiter>>) {
        if ended.is_empty() {
            return;
        }
        let (tasks, mut bytes) = (ended.len(), 0);
        for (waiter, end) in ended {
            bytes += waiter.bytes as usize;
            // Who dropped the handle does not want to know.
            let _ = waiter.end.send(end);
        }
        self.room.add_permits(tasks);
        self.bytes.add_permits(bytes);
    }
}

fn too_large(id: TaskId, problem: String) -> CallError {
    let message = format!("{problem}: send a reference to it instead");
    let error = ErrorInfo::new(ErrorCode::BodyTooLarge, message);
    TaskEnd::from(local_end(id, Outcome::Rejected, Executed::No, error)).into()
}

fn not_in_a_frame(id: TaskId, max_bytes: usize) -> CallError {
    let message = format!(
        "the input of a durable task goes in one frame: at most {max_bytes} bytes, and no stream; \
         send a reference to it instead"
    );
    let error = ErrorInfo::new(ErrorCode::Unsupported, message);
    TaskEnd::from(local_end(id, Outcome::Rejected, Executed::No, error)).into()
}

/// The time to live ran out before there was room to send.
fn late(id: &TaskId) -> CallError {
    let message = "its time to live ran out before there was room to send it: fewer tasks in \
                   flight, or smaller ones, get through faster";
    let error = ErrorInfo::new(ErrorCode::Expired, message);
    TaskEnd::from(local_end(id.clone(), Outcome::Expired, Executed::No, error)).into()
}
