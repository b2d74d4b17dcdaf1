//! A worker's registration: the attempts it holds, its handlers, and the connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;
use foldhash::fast::RandomState;
use mcp_proto::{
    Ack, ActionName, AgentId, AttemptId, Cancel, CancelReason, Chunk, Credit, ErrorCode, ErrorInfo,
    Frame, Goaway, Hello, MCP_VERSION, Message, NodeId, Route, Subject, WorkerHello,
};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::attempts::{Attempts, Completion, Emitted, Routed, Sign, Signed, Start};
use super::handler::Handler;
use super::inlet::Told;
use super::job::Job;
use super::line::Line;
use super::run::{begin, resume, run};
use super::stats::WorkerStats;
use super::{WorkerExit, WorkerStatus};
use crate::connection::{self, Control, Dialer, Link, Peer, Received, SDK, Stop, Timeouts};
use crate::error::ConnectError;
use crate::record::Recorder;

/// After the end of a drain, handlers that can't be stopped and results that can't be delivered are
/// waited for this long.
const DRAIN_GRACE: Duration = Duration::from_secs(5);

/// How long after a read handlers are begun in place. What they need beyond is shared with the other
/// tasks of the thread.
const IN_PLACE: Duration = Duration::from_millis(1);

/// Shared by the worker, its handlers' tasks, and the I/O task.
pub(super) struct Registration {
    /// What it says of itself, but for what it holds.
    hello: WorkerHello,
    handlers: HashMap<ActionName, Arc<dyn Handler>, RandomState>,
    /// Whether handlers may be begun in the I/O task: on a runtime with one thread they run in turn
    /// anyway; with more they run in parallel, each in its task.
    begins_in_place: bool,
    state: Mutex<State>,
    control: Control,
    status: watch::Sender<WorkerStatus>,
    recorder: Recorder,
}

struct State {
    attempts: Attempts,
    link: Option<Arc<Link>>,
    node_id: NodeId,
    drain: Option<Drain>,
}

struct Drain {
    /// When to hand back and cancel what is left; then, when to leave regardless.
    limit_at: Instant,
    is_over: bool,
}

impl State {
    fn flush_soon(&self) {
        if let Some(link) = &self.link {
            link.flush_soon();
        }
    }
}

impl Registration {
    /// Connects and registers, and starts the I/O task.
    pub(super) async fn open(
        mut dialer: Dialer,
        hello: WorkerHello,
        handlers: HashMap<ActionName, Arc<dyn Handler>>,
        timeouts: Timeouts,
        recorder: Recorder,
    ) -> Result<Arc<Self>, ConnectError> {
        let attempts = Attempts::new(hello.slots, hello.prefetch);
        let (connection, ack) = dialer.dial(as_hello(hello.clone()), timeouts.connect).await?;
        let node_id = ack.node_id.clone().ok_or_else(|| ConnectError::Protocol {
            address: connection.link.address(),
            problem: "it registers a worker without a node_id".to_owned(),
        })?;
        let registration = Arc::new(Self {
            hello,
            handlers: handlers.into_iter().collect(),
            begins_in_place: Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread,
            state: Mutex::new(State { attempts, link: None, node_id, drain: None }),
            control: Control::default(),
            status: watch::Sender::new(WorkerStatus::Connected),
            recorder,
        });
        registration.connected(&connection.link, &ack);
        tokio::spawn(connection::run(registration.clone(), dialer, connection, timeouts));
        Ok(registration)
    }

    pub(super) fn agent_id(&self) -> &AgentId {
        &self.hello.agent_id
    }

    pub(super) fn node_id(&self) -> NodeId {
        self.lock().node_id.clone()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.lock().link.is_some()
    }

    pub(super) fn stats(&self) -> WorkerStats {
        self.lock().attempts.stats()
    }

    pub(super) fn begin_drain(&self, limit: Duration) {
        let now = Instant::now();
        let limit_at = now.checked_add(limit).unwrap_or_else(|| now + Duration::from_secs(1 << 32));
        self.change(|state| {
            let drain = state.drain.get_or_insert(Drain { limit_at, is_over: false });
            if !drain.is_over {
                drain.limit_at = drain.limit_at.min(limit_at);
            }
            state.attempts.begin_drain(state.link.as_deref());
            state.flush_soon();
        });
        self.control.wake.notify_one();
    }

    pub(super) fn status(&self) -> watch::Receiver<WorkerStatus> {
        self.status.subscribe()
    }

    pub(super) async fn closed(&self) -> WorkerExit {
        let mut status = self.status();
        let has_stopped = |status: &WorkerStatus| matches!(status, WorkerStatus::Stopped(_));
        match status.wait_for(has_stopped).await.as_deref() {
            Ok(WorkerStatus::Stopped(exit)) => exit.clone(),
            // Not possible: it was waited for, and the sender is in self.
            Ok(WorkerStatus::Connected | WorkerStatus::Disconnected) | Err(_) => {
                WorkerExit::Drained
            }
        }
    }

    /// Changes the state. What came of it is to be flushed.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        if state.drain.is_some() && state.attempts.is_idle() {
            self.control.leave.cancel();
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every critical section leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer for Registration {
    fn hello(&self) -> Hello {
        let state = self.lock();
        as_hello(WorkerHello {
            held: state.attempts.held_for_hello(),
            received: state.attempts.received(),
            readiness: state.attempts.readiness(),
            ..self.hello.clone()
        })
    }

    fn connected(self: &Arc<Self>, link: &Arc<Link>, ack: &Ack) {
        let mut starts = Vec::new();
        self.change(|state| {
            if let Some(node_id) = &ack.node_id {
                state.node_id.clone_from(node_id);
            }
            state.link = Some(link.clone());
            state.attempts.connected(ack, Instant::now(), &**link, &mut starts);
        });
        self.status.send_replace(WorkerStatus::Connected);
        self.spawn(starts);
    }

    fn disconnected(&self) {
        {
            let mut state = self.lock();
            state.link = None;
            state.attempts.disconnected();
        }
        self.status.send_replace(WorkerStatus::Disconnected);
    }

    fn received(self: &Arc<Self>, batch: &mut Vec<Received>, arrived_at: Instant) {
        let mut now = arrived_at;
        let mut starts = Vec::new();
        for received in batch.drain(..) {
            // What can be done without the lock is.
            let event = self.look_into(received, arrived_at);
            self.change(|state| self.handle(state, event, now, &mut starts));
            while let Some(start) = starts.pop() {
                if !self.begins_in_place || now - arrived_at > IN_PLACE {
                    self.spawn([start]);
                    continue;
                }
                let id = start.id;
                let begun = begin(start);
                now = Instant::now();
                match begun {
                    Ok(completion) => self.complete(id, completion, now, &mut starts),
                    Err(begun) => drop(tokio::spawn(resume(self.clone(), id, begun))),
                }
            }
        }
    }

    /// It goes on with what it holds until the broker closes the connection.
    fn going_away(&self, _goaway: &Goaway) {}

    fn may_leave(&self) -> bool {
        false
    }

    fn timeout(&self, now: Instant) -> Option<Instant> {
        self.change(|state| {
            let State { attempts, link, drain, .. } = state;
            attempts.timeout(now, link.as_deref());
            if let Some(drain) = drain
                && drain.limit_at <= now
            {
                if drain.is_over || link.is_none() {
                    self.control.leave.cancel();
                }
                attempts.end_drain(link.as_deref());
                *drain = Drain { limit_at: now + DRAIN_GRACE, is_over: true };
            }
            let drain_at = drain.as_ref().map(|drain| drain.limit_at);
            [attempts.next_timeout(), drain_at].into_iter().flatten().min()
        })
    }

    fn is_owed(&self) -> bool {
        self.lock().attempts.is_owed()
    }

    /// Also, that the broker knows it to be draining: until then it may route.
    fn is_settled(&self) -> bool {
        let state = self.lock();
        state.attempts.is_idle() && !state.attempts.is_owed()
    }

    fn reconnects(&self, error: Option<&ConnectError>) -> bool {
        !error.is_some_and(ConnectError::is_final)
    }

    fn stopped(&self, stop: Stop) {
        let exit = match stop {
            Stop::Left => WorkerExit::Drained,
            Stop::Replaced(info) => refused(Box::new(info)),
            Stop::Failed(ConnectError::Refused(info) | ConnectError::Version(info)) => {
                refused(info)
            }
            Stop::Failed(error) => {
                refused(Box::new(ErrorInfo::new(ErrorCode::Internal, error.to_string())))
            }
        };
        {
            let mut state = self.lock();
            state.link = None;
            state.attempts.stop();
        }
        self.status.send_replace(WorkerStatus::Stopped(exit));
    }

    fn control(&self) -> &Control {
        &self.control
    }
}

fn as_hello(worker: WorkerHello) -> Hello {
    Hello {
        mcp_version: ByteString::from_static(MCP_VERSION),
        sdk: ByteString::from_static(SDK),
        features: Vec::new(),
        client: false,
        session_id: None,
        token: None,
        worker: Some(worker),
    }
}

fn refused(info: Box<ErrorInfo>) -> WorkerExit {
    match info.code {
        ErrorCode::Replaced => WorkerExit::Replaced,
        _ => WorkerExit::Refused(info),
    }
}

/// A frame for a worker, looked into.
enum Event {
    Route(Routed),
    RouteTooLarge(AttemptId, usize),
    Cancel(AttemptId, CancelReason),
    Credit {
        id: AttemptId,
        next_seq: u32,
        limit_bytes: u64,
    },
    Input {
        id: AttemptId,
        seq: u32,
        is_last: bool,
        body: Bytes,
    },
    Pong(u64),
    /// Nothing that concerns a worker.
    Other,
}

impl Registration {
    fn look_into(self: &Arc<Self>, received: Received, arrived_at: Instant) -> Event {
        match received {
            Received::Frame(Frame { message: Message::Route(route), body }) => {
                let Route { attempt_id: id, attempt, ttl_ms, task, .. } = route;
                let Route { stream_window_bytes, input_follows, span_id, .. } = route;
                let deadline = arrived_at + Duration::from_millis(ttl_ms);
                let job = task.decode().map(|task| {
                    let mut task = Box::new(task);
                    let processing = self.recorder.arrived(&mut task, (id, attempt), span_id);
                    let is_streamed = stream_window_bytes > 0;
                    let line = Line::new(self, id, is_streamed, input_follows, processing);
                    Job { task, body, deadline, attempt, line }
                });
                let handler = job.as_ref().ok().and_then(|it| self.handlers.get(&it.task.action));
                let handler = handler.cloned();
                Event::Route(Routed { id, job, handler, arrived_at, stream_window_bytes })
            }
            Received::Frame(Frame {
                message: Message::Cancel(Cancel::Attempt(id, why)), ..
            }) => Event::Cancel(id, why),
            Received::Frame(Frame {
                message: Message::Credit(Credit { of: Subject::Attempt(id), next_seq, limit_bytes }),
                ..
            }) => Event::Credit { id, next_seq, limit_bytes },
            Received::Frame(Frame {
                message: Message::Chunk(Chunk { of: Subject::Attempt(id), seq, last, .. }),
                body,
            }) => {
                // Apart from the read buffer, which a handler that does not read would hold on to.
                let body = Bytes::copy_from_slice(&body);
                Event::Input { id, seq, is_last: last, body }
            }
            Received::Frame(Frame { message: Message::Pong(seq), .. }) => Event::Pong(seq),
            Received::TooLarge(Message::Route(route), bytes) => {
                Event::RouteTooLarge(route.attempt_id, bytes)
            }
            Received::Frame(_) | Received::TooLarge(..) | Received::Invalid(_) => Event::Other,
        }
    }

    fn handle(&self, state: &mut State, event: Event, now: Instant, starts: &mut Vec<Start>) {
        let State { attempts, link, .. } = state;
        let out = link.as_deref();
        match event {
            Event::Route(routed) => {
                if attempts.route(routed, now, out, starts) {
                    self.control.wake.notify_one();
                }
            }
            Event::RouteTooLarge(id, bytes) => attempts.route_too_large(id, bytes, out),
            Event::Cancel(id, reason) => attempts.cancel(id, reason, now, out),
            Event::Credit { id, next_seq, limit_bytes } => {
                attempts.credit(id, next_seq, limit_bytes)
            }
            Event::Input { id, seq, is_last, body } => attempts.input(id, seq, is_last, body),
            Event::Pong(seq) => attempts.pong(seq),
            Event::Other => {}
        }
    }

    pub(super) fn park(self: &Arc<Self>, id: AttemptId) {
        let mut starts = Vec::new();
        self.change(|state| {
            let State { attempts, link, .. } = state;
            attempts.park(id, Instant::now(), link.as_deref(), &mut starts);
            state.flush_soon();
        });
        self.spawn(starts);
    }

    pub(super) fn unpark(&self, id: AttemptId) -> Option<CancellationToken> {
        self.change(|state| {
            let turn = state.attempts.unpark(id, state.link.as_deref());
            state.flush_soon();
            turn
        })
    }

    pub(super) fn reclaim(&self, id: AttemptId) {
        self.change(|state| {
            state.attempts.reclaim(id, state.link.as_deref());
            state.flush_soon();
        });
    }

    /// Runs handlers, each in a task of its own.
    pub(super) fn spawn(self: &Arc<Self>, starts: impl IntoIterator<Item = Start>) {
        // Without a runtime it is being shut down, and nothing more can run.
        let Ok(runtime) = Handle::try_current() else { return };
        for start in starts {
            runtime.spawn(run(self.clone(), start));
        }
    }

    /// A handler gives a sign of life.
    pub(super) fn sign(&self, id: AttemptId, sign: Sign) {
        let signed = self.change(|state| {
            let State { attempts, link, .. } = state;
            let signed = attempts.sign(id, sign, Instant::now(), link.as_deref());
            if signed == Signed::Pushed {
                state.flush_soon();
            }
            signed
        });
        if signed == Signed::Waits {
            self.control.wake.notify_one();
        }
    }

    /// A handler's task is done with it, and takes what is returned next.
    pub(super) fn completed(
        self: &Arc<Self>,
        id: AttemptId,
        completion: Completion,
    ) -> Option<Start> {
        let mut starts = Vec::new();
        self.complete(id, completion, Instant::now(), &mut starts);
        self.lock().flush_soon();
        let next = starts.pop();
        self.spawn(starts);
        next
    }

    /// A handler gives out a part of its result: sends as much as it may, from the front of `part`.
    pub(super) fn emit(&self, id: AttemptId, part: &mut Bytes) -> Emitted {
        self.change(|state| {
            let State { attempts, link, .. } = state;
            let emitted = attempts.emit(id, part, link.as_deref());
            state.flush_soon();
            emitted
        })
    }

    /// A handler has read some of its input.
    pub(super) fn credit_input(&self, id: AttemptId, told: Told) {
        let state = self.lock();
        let State { attempts, link, .. } = &*state;
        attempts.credit_input(id, told, link.as_deref());
        state.flush_soon();
    }

    fn complete(
        &self,
        id: AttemptId,
        completion: Completion,
        now: Instant,
        starts: &mut Vec<Start>,
    ) {
        self.change(|state| {
            let State { attempts, link, .. } = state;
            attempts.complete(id, completion, now, link.as_deref(), starts);
        });
    }
}
