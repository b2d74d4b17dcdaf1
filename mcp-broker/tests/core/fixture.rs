//! A core, its time, and peers that speak to it. Fails on drop when outputs are left that no test
//! looked at.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use mcp_broker::broker::{
    Act, ConnectionId, Core, CoreConfig, Disconnect, Event, Identity, Mono, Now, Output, Record,
    TaskTrace,
};
use mcp_proto::{
    Ack, ActionName, AttemptId, Cancel, CancelReason, Deliver, EncodedTask, ErrorCode, ErrorInfo,
    Executed, Frame, FrameCodec, Goaway, Hello, Incoming, InstanceId, Limits, MCP_VERSION, Message,
    Nack, NodeId, Outcome, Park, Ping, Readiness, Route, RouteHead, Send, SessionId, Task, TaskId,
    TaskResult, TaskState, WorkerHello,
};
use serde_json::Value;

/// What a peer sees.
#[derive(Debug)]
enum Outgoing {
    Frame(ConnectionId, Frame),
    Close(ConnectionId, Option<ErrorCode>),
}

pub(crate) struct Fixture {
    pub(crate) core: Core,
    pub(crate) now: Now,
    connections: u64,
    outputs: VecDeque<Outgoing>,
    pub(crate) events: Vec<Event>,
    pub(crate) acts: Vec<Act>,
    pub(crate) traces: Vec<TaskTrace>,
    pub(crate) records: Vec<(u64, Record)>,
    /// When each attempt was routed.
    pub(crate) routed: HashMap<AttemptId, Mono>,
    /// All that the core put out, if that is wanted.
    pub(crate) transcript: Option<Vec<String>>,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut CoreConfig)) -> Self {
        let mut config = CoreConfig::new(NodeId::try_from("broker-1").unwrap(), 7, 42);
        change(&mut config);
        Self {
            core: Core::new(config),
            now: Now::default(),
            connections: 0,
            outputs: VecDeque::new(),
            events: Vec::new(),
            acts: Vec::new(),
            traces: Vec::new(),
            records: Vec::new(),
            routed: HashMap::new(),
            transcript: None,
        }
    }

    /// Takes what the core wants done.
    pub(crate) fn collect(&mut self) {
        while let Some(output) = self.core.poll_output() {
            if let Some(transcript) = &mut self.transcript {
                transcript.push(format!("{output:?}"));
            }
            match output {
                Output::Event(event) => self.events.push(*event),
                Output::Orders => {}
                Output::Audit(act) => self.acts.push(*act),
                Output::Traced(trace) => self.traces.push(*trace),
                Output::Journal { seq, record } => self.records.push((seq, *record)),
                Output::Send { to, message } => {
                    self.outputs.push_back(Outgoing::Frame(to, message.into()));
                }
                Output::Route { to, route, payload } => {
                    let RouteHead {
                        attempt_id,
                        attempt,
                        ttl_ms,
                        stream_window_bytes,
                        input_follows,
                        span_id,
                    } = route;
                    let task = EncodedTask(Bytes::copy_from_slice(payload.task()));
                    let message = Message::Route(Route {
                        attempt_id,
                        attempt,
                        ttl_ms,
                        task,
                        stream_window_bytes,
                        input_follows,
                        span_id,
                    });
                    let body = Bytes::copy_from_slice(payload.body());
                    self.routed.insert(attempt_id, self.now.mono);
                    self.outputs.push_back(Outgoing::Frame(to, Frame { message, body }));
                }
                Output::Deliver { to, frame } => {
                    let decoded = FrameCodec::new(&Limits::default()).decode(&mut frame.to_bytes());
                    let Ok(Some(Incoming::Frame(frame))) = decoded else {
                        panic!("not a frame: {decoded:?}");
                    };
                    self.outputs.push_back(Outgoing::Frame(to, frame));
                }
                Output::Chunk { to, chunk, body } => {
                    let message = Message::Chunk(*chunk);
                    self.outputs.push_back(Outgoing::Frame(to, Frame { message, body }));
                }
                Output::Close { connection, code, .. } => {
                    self.outputs.push_back(Outgoing::Close(connection, code));
                }
            }
        }
    }

    /// Lets time pass, stopping wherever the core has something to do.
    pub(crate) fn advance(&mut self, ms: u64) {
        let end = self.now.mono.plus_ms(ms);
        while let Some(at) = self.core.poll_timeout().filter(|at| *at <= end) {
            self.now.wall_ms += at.since(self.now.mono) / 1000;
            self.now.mono = self.now.mono.max(at);
            self.core.handle_timeout(self.now);
            self.collect();
        }
        self.now.wall_ms += end.since(self.now.mono) / 1000;
        self.now.mono = end;
        self.collect();
    }

    pub(crate) fn connect(&mut self) -> ConnectionId {
        self.connect_as(Identity::anonymous())
    }

    pub(crate) fn connect_as(&mut self, identity: Identity) -> ConnectionId {
        self.connections += 1;
        let id = ConnectionId(self.connections);
        self.core.handle_connected(self.now, id, identity);
        id
    }

    pub(crate) fn disconnect(&mut self, id: ConnectionId, how: Disconnect) {
        self.core.handle_disconnected(self.now, id, how);
        self.collect();
    }

    pub(crate) fn unreachable(&mut self, id: ConnectionId) {
        self.core.handle_unreachable(self.now, id);
        self.collect();
    }

    pub(crate) fn give(&mut self, from: ConnectionId, message: Message) {
        self.give_body(from, message, "");
    }

    pub(crate) fn give_body(
        &mut self,
        from: ConnectionId,
        message: Message,
        body: impl Into<Bytes>,
    ) {
        let frame = Frame { message, body: body.into() };
        self.give_incoming(from, Incoming::Frame(frame));
    }

    pub(crate) fn give_incoming(&mut self, from: ConnectionId, incoming: Incoming) {
        self.core.foresee(std::slice::from_ref(&incoming));
        self.core.handle_incoming(self.now, from, incoming);
        self.collect();
    }

    /// A client with a session, and its ACK looked at.
    pub(crate) fn client(&mut self) -> ConnectionId {
        self.client_of(None).0
    }

    pub(crate) fn client_of(&mut self, session: Option<&str>) -> (ConnectionId, Ack) {
        let id = self.connect();
        self.give(id, Message::Hello(Box::new(client_hello(session))));
        (id, self.expect_ack(id))
    }

    /// A registered worker of the action `work`.
    pub(crate) fn worker(&mut self, name: &str, slots: u32) -> ConnectionId {
        self.worker_of(worker_hello(name, slots)).0
    }

    pub(crate) fn worker_of(&mut self, hello: WorkerHello) -> (ConnectionId, Ack) {
        let id = self.connect();
        self.give(id, hello_of(hello));
        (id, self.expect_ack(id))
    }

    pub(crate) fn send(&mut self, from: ConnectionId, id: &str) {
        self.send_task(from, task(id), 60_000);
    }

    pub(crate) fn send_task(&mut self, from: ConnectionId, task: Task, ttl_ms: u64) {
        self.send_in_parts(from, task, ttl_ms, 0);
    }

    /// A task whose result is taken in parts.
    pub(crate) fn send_in_parts(
        &mut self,
        from: ConnectionId,
        task: Task,
        ttl_ms: u64,
        stream_window_bytes: u32,
    ) {
        let send = Send { stream_window_bytes, ..Send::new(task.encode(), ttl_ms) };
        self.give_body(from, Message::Send(send), "input");
    }

    pub(crate) fn result(&mut self, from: ConnectionId, attempt_id: AttemptId) {
        self.give_result(from, ok_result(attempt_id));
    }

    /// With a body, if it is ok.
    pub(crate) fn give_result(&mut self, from: ConnectionId, result: TaskResult) {
        let body = if result.outcome == Outcome::Ok { "output" } else { "" };
        self.give_body(from, Message::Result(result), body);
    }

    pub(crate) fn park(&mut self, from: ConnectionId, attempt_id: AttemptId, parked: bool) {
        self.give(from, Message::Park(Park { attempt_id, parked }));
    }

    pub(crate) fn nack(&mut self, from: ConnectionId, attempt_id: AttemptId) {
        self.give(from, Message::Nack(Nack { attempt_id, error: None }));
    }

    /// The handler failed.
    pub(crate) fn fail(&mut self, from: ConnectionId, attempt_id: AttemptId) {
        self.give(from, Message::Result(failed_result(attempt_id)));
    }

    /// NACK that says when to come back.
    pub(crate) fn put_off(&mut self, from: ConnectionId, attempt_id: AttemptId, ms: u64) {
        let error = ErrorInfo::new(ErrorCode::AllBusy, "busy").retry_after_ms(ms);
        let error = Some(Box::new(error));
        self.give(from, Message::Nack(Nack { attempt_id, error }));
    }

    /// What the broker answers an operator, who sends no other tasks.
    pub(crate) fn ask(&mut self, operator: ConnectionId, action: &str, body: &str) -> Value {
        let mut task = task("ask");
        task.action = ActionName::try_from(action).unwrap();
        let send = Message::Send(Send::new(task.encode(), 1_000));
        self.give_body(operator, send, body.to_owned());
        match self.next_for(operator) {
            Some((Message::Deliver(deliver), body)) if deliver.outcome == Outcome::Ok => {
                serde_json::from_slice(&body).unwrap()
            }
            other => panic!("{other:?}"),
        }
    }

    /// The first thing that was sent to this connection and not looked at.
    pub(crate) fn next_for(&mut self, to: ConnectionId) -> Option<(Message, Bytes)> {
        let is_it = |output: &Outgoing| matches!(output, Outgoing::Frame(it, _) if *it == to);
        let index = self.outputs.iter().position(is_it)?;
        match self.outputs.remove(index) {
            Some(Outgoing::Frame(_, Frame { message, body })) => Some((message, body)),
            _ => None,
        }
    }

    fn expect<T>(
        &mut self,
        to: ConnectionId,
        what: &str,
        is_it: impl FnOnce(Message, Bytes) -> Result<T, Message>,
    ) -> T {
        let (message, body) =
            self.next_for(to).unwrap_or_else(|| panic!("{what} expected at {to:?}, got nothing"));
        is_it(message, body).unwrap_or_else(|other| panic!("{what} expected, got {other:?}"))
    }

    pub(crate) fn expect_ack(&mut self, to: ConnectionId) -> Ack {
        self.expect(to, "ACK", |message, _| match message {
            Message::Ack(ack) => Ok(*ack),
            other => Err(other),
        })
    }

    pub(crate) fn expect_route(&mut self, to: ConnectionId) -> Route {
        self.expect(to, "ROUTE", |message, body| match message {
            Message::Route(route) => {
                assert_eq!(&body[..], b"input");
                Ok(route)
            }
            other => Err(other),
        })
    }

    pub(crate) fn expect_deliver(&mut self, to: ConnectionId, id: &str) -> Deliver {
        self.expect(to, "DELIVER", |message, body| match message {
            Message::Deliver(deliver) => {
                assert_eq!(deliver.task_id.as_str(), id);
                assert_eq!(deliver.error.is_none(), deliver.outcome == Outcome::Ok);
                let expected: &[u8] = if deliver.error.is_none() { b"output" } else { b"" };
                assert_eq!(&body[..], expected);
                Ok(*deliver)
            }
            other => Err(other),
        })
    }

    /// The outcome, whether it was executed, and the error's code.
    pub(crate) fn expect_end(
        &mut self,
        to: ConnectionId,
        id: &str,
    ) -> (Outcome, Executed, Option<ErrorCode>) {
        let deliver = self.expect_deliver(to, id);
        (deliver.outcome, deliver.executed, deliver.error.map(|error| error.code))
    }

    pub(crate) fn expect_cancel(&mut self, to: ConnectionId, attempt: AttemptId) -> CancelReason {
        self.expect(to, "CANCEL", |message, _| match message {
            Message::Cancel(Cancel::Attempt(id, reason)) => {
                assert_eq!(id, attempt);
                Ok(reason)
            }
            other => Err(other),
        })
    }

    pub(crate) fn expect_status(&mut self, to: ConnectionId, id: &str) -> TaskState {
        self.expect(to, "STATUS", |message, _| match message {
            Message::Status(task_id, state) => {
                assert_eq!(task_id.as_str(), id);
                Ok(state)
            }
            other => Err(other),
        })
    }

    pub(crate) fn expect_error(&mut self, to: ConnectionId) -> ErrorInfo {
        self.expect(to, "ERROR", |message, _| match message {
            Message::Error(error) => Ok(*error),
            other => Err(other),
        })
    }

    pub(crate) fn expect_goaway(&mut self, to: ConnectionId) -> Goaway {
        self.expect(to, "GOAWAY", |message, _| match message {
            Message::Goaway(goaway) => Ok(goaway),
            other => Err(other),
        })
    }

    pub(crate) fn expect_ping(&mut self, to: ConnectionId) -> u64 {
        self.expect(to, "PING", |message, _| match message {
            Message::Ping(ping) => Ok(ping.seq),
            other => Err(other),
        })
    }

    pub(crate) fn expect_pong(&mut self, to: ConnectionId) -> u64 {
        self.expect(to, "PONG", |message, _| match message {
            Message::Pong(seq) => Ok(seq),
            other => Err(other),
        })
    }

    pub(crate) fn expect_close(&mut self, of: ConnectionId) -> Option<ErrorCode> {
        let is_it = |output: &Outgoing| matches!(output, Outgoing::Close(it, _) if *it == of);
        let index = self.outputs.iter().position(is_it).expect("a close");
        match self.outputs.remove(index) {
            Some(Outgoing::Close(_, code)) => code,
            _ => unreachable!(),
        }
    }

    /// ERROR with this code, and the connection closed with it.
    pub(crate) fn expect_refusal(&mut self, of: ConnectionId) -> ErrorInfo {
        let error = self.expect_error(of);
        assert_eq!(self.expect_close(of), Some(error.code));
        error
    }

    /// Drops what was sent to connections that are gone.
    pub(crate) fn discard(&mut self) {
        self.collect();
        self.outputs.clear();
    }

    pub(crate) fn expect_nothing(&mut self) {
        self.collect();
        assert!(self.outputs.is_empty(), "left over: {:?}", self.outputs);
    }

    /// Slots of this worker in use.
    pub(crate) fn in_flight(&self, agent_id: &str) -> u32 {
        self.core
            .agents(self.now, true)
            .into_iter()
            .find(|agent| agent.agent_id.as_str() == agent_id)
            .map_or(0, |agent| agent.in_flight)
    }

    /// Attempts of this worker that take no slot.
    pub(crate) fn parked(&self, agent_id: &str) -> u32 {
        let agents = self.core.agents(self.now, true);
        let agent = agents.into_iter().find(|agent| agent.agent_id.as_str() == agent_id);
        agent.map_or(0, |agent| agent.parked)
    }

    pub(crate) fn online(&self) -> Vec<String> {
        let agents = self.core.agents(self.now, false);
        agents.into_iter().map(|agent| agent.agent_id.to_string()).collect()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.expect_nothing();
        }
    }
}

pub(crate) fn task(id: &str) -> Task {
    Task::new(TaskId::try_from(id).unwrap(), ActionName::try_from("work").unwrap())
}

pub(crate) fn idempotent(id: &str) -> Task {
    Task { idempotent: true, ..task(id) }
}

/// A task that is sent by the handler of another one.
pub(crate) fn child_of(parent: &str, id: &str) -> Task {
    Task { parent: Some(task_id(parent)), ..task(id) }
}

pub(crate) fn task_id(id: &str) -> TaskId {
    TaskId::try_from(id).unwrap()
}

pub(crate) fn client_hello(session: Option<&str>) -> Hello {
    Hello {
        mcp_version: MCP_VERSION.into(),
        sdk: "test".into(),
        features: Vec::new(),
        client: true,
        session_id: session.map(|id| SessionId::try_from(id).unwrap()),
        token: None,
        worker: None,
    }
}

pub(crate) fn worker_hello(name: &str, slots: u32) -> WorkerHello {
    WorkerHello {
        agent_id: name.try_into().unwrap(),
        instance_id: InstanceId::try_from(format!("{name}-process-1")).unwrap(),
        service_type: "test".into(),
        labels: Default::default(),
        actions: vec![ActionName::try_from("work").unwrap()],
        slots,
        prefetch: 0,
        weight: 1,
        held: Vec::new(),
        received: None,
        readiness: Readiness::Ready,
    }
}

pub(crate) fn hello_of(worker: WorkerHello) -> Message {
    Message::Hello(Box::new(Hello {
        client: false,
        session_id: None,
        worker: Some(worker),
        ..client_hello(None)
    }))
}

pub(crate) fn ok_result(attempt_id: AttemptId) -> TaskResult {
    TaskResult { work_us: 100, ..TaskResult::new(attempt_id, Outcome::Ok, Executed::Yes) }
}

pub(crate) fn failed_result(attempt_id: AttemptId) -> TaskResult {
    TaskResult { outcome: Outcome::Failed, ..ok_result(attempt_id) }
}

pub(crate) fn cancelled_result(attempt_id: AttemptId) -> TaskResult {
    TaskResult { outcome: Outcome::Cancelled, ..ok_result(attempt_id) }
}

/// The handler panicked.
pub(crate) fn panic_result(attempt_id: AttemptId) -> TaskResult {
    let error = ErrorInfo::new(ErrorCode::HandlerPanic, "it panicked");
    TaskResult { error: Some(Box::new(error)), ..failed_result(attempt_id) }
}

/// A PING that reports what a worker holds.
pub(crate) fn report(routes_received: u64, held: &[AttemptId], readiness: Readiness) -> Message {
    let readiness = Some(readiness);
    Message::Ping(Ping { seq: 1, readiness, routes_received, held: held.to_vec() })
}
