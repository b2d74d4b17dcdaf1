//! A connection to a broker, from its first frame on.

use bytes::Bytes;
use mcp_broker::broker::{ConnectionId, Disconnect};
use mcp_proto::{
    ActionName, Executed, Frame, FrameCodec, Hello, InstanceId, MCP_VERSION, Message, Outcome,
    Ping, Readiness, Send, Task, TaskId, TaskResult, WorkerHello,
};

use crate::driver::{Driver, Said};
use crate::header::frame;
use crate::input::Input;
use crate::{memory, round_trip};

/// What the core takes at most, with all that was sent to it.
const MAX_PER_BYTE: usize = 1024;
const MAX_OTHERWISE: usize = 4 * 1024 * 1024;

/// Longer than anything lives.
const FOR_GOOD_MS: u64 = 8 * 24 * 60 * 60 * 1000;

/// Whatever is sent on a connection, HELLO first or not: the core says only what the other side may be
/// told now, nothing after it has closed the connection, and once all is over nothing is left of it.
///
/// A sequence of steps; see `World::step`.
pub fn hello(data: &[u8]) {
    memory::within(MAX_PER_BYTE * data.len() + MAX_OTHERWISE, || {
        let mut world = World::new();
        let mut input = Input::new(data);
        while !input.is_empty() {
            world.step(&mut input);
        }
        world.settle();
    });
}

/// A broker with a worker and a client that behave, and connections of one that may not.
struct World {
    it: Driver,
    worker: ConnectionId,
    /// What the worker has to do.
    routed: Vec<Message>,
    /// The newest connection of the other.
    peer: ConnectionId,
    codec: FrameCodec,
    journalled: u64,
}

/// One more frame may be sent on each of them.
const MAX_CONNECTIONS: usize = 6;

impl World {
    fn new() -> Self {
        let mut it = Driver::new(|config| config.is_durable = true);
        let (worker, client, peer) = (it.connect(), it.connect(), it.connect());
        it.give(worker, worker_hello());
        it.give(client, hello_of(true, None));
        for id in ["t1", "t2", "t3"] {
            let id = TaskId::try_from(id).unwrap();
            let task = Task::new(id, ActionName::try_from("work").unwrap());
            it.give_body(client, Message::Send(Send::new(task.encode(), 60_000)), "input");
        }
        let codec = codec(&it);
        let mut world = Self { it, worker, routed: Vec::new(), peer, codec, journalled: 0 };
        world.listen();
        world
    }

    /// A byte says what happens: with its lower bits below 26 a frame of this kind, whose message has as
    /// many bytes as the next byte says. Its upper bits tell of the body.
    fn step(&mut self, input: &mut Input<'_>) {
        let step = input.byte();
        let variant = step >> 5;
        match step & 0x1f {
            kind @ ..26 => {
                let count = match variant & 4 {
                    0 => usize::from(input.byte()),
                    _ => usize::from(input.byte()) << 8 | usize::from(input.byte()),
                };
                let message = input.bytes(count);
                let body = match variant & 3 {
                    0 => &b""[..],
                    1 => b"input",
                    2 => br#"{"action":"work"}"#,
                    _ => {
                        let count = input.byte().into();
                        input.bytes(count)
                    }
                };
                self.send(frame(kind, message, body).freeze());
            }
            26 => {
                let count = input.byte().into();
                self.send(Bytes::copy_from_slice(input.bytes(count)));
            }
            27 => self.pass([1, 60, 600, 2_500, 11_000, 31_000, 100_000, 1][usize::from(variant)]),
            28 => self.connect(),
            29 => {
                let how = if variant & 1 == 0 { Disconnect::Broken } else { Disconnect::Orderly };
                self.it.disconnect(self.peer, how);
                self.listen();
                self.connect();
            }
            30 => self.work(),
            _ => {
                match variant {
                    0 => self.it.core.journal_synced(self.it.now, self.journalled),
                    1 => self.it.core.journal_failed(self.it.now, "no more room"),
                    2 => self.it.core.handle_unreachable(self.it.now, self.peer),
                    3 => self.it.core.handle_overflow(self.it.now, self.peer),
                    4 => self.it.core.begin_shutdown(self.it.now, 1_000),
                    _ => self.it.stall(40),
                }
                self.listen();
            }
        }
    }

    /// Bytes on the lane of the peer.
    fn send(&mut self, mut bytes: Bytes) {
        loop {
            let decoded = self.codec.decode(&mut bytes);
            if !self.it.is_open(self.peer) {
                return self.connect();
            }
            match decoded {
                Ok(Some(incoming)) => self.it.receive(self.peer, incoming),
                Ok(None) => return,
                Err(error) => self.it.core.handle_malformed(self.it.now, self.peer, &error),
            }
            self.listen();
        }
    }

    fn connect(&mut self) {
        if self.it.connections().len() >= MAX_CONNECTIONS {
            return;
        }
        self.codec = codec(&self.it);
        self.peer = self.it.connect();
    }

    fn pass(&mut self, mut ms: u64) {
        while self.it.pass(&mut ms) {
            self.listen();
        }
    }

    /// Hears all that the core says.
    fn listen(&mut self) {
        while let Some(said) = self.it.next() {
            match said {
                Said::Frame(to, message, body) => self.hear(to, message, body),
                Said::Close(_) => {}
                Said::Journal(seq, _) => self.journalled = seq,
            }
        }
    }

    fn hear(&mut self, to: ConnectionId, message: Message, body: Bytes) {
        round_trip::check(&Frame { message: message.clone(), body });
        if to != self.worker {
            return;
        }
        match message {
            Message::Route(_) | Message::Cancel(_) => self.routed.push(message),
            Message::Ping(ping) => self.it.give(to, Message::Pong(ping.seq)),
            _ => {}
        }
    }

    /// The worker does all that it has to.
    fn work(&mut self) {
        for message in std::mem::take(&mut self.routed) {
            let (attempt, outcome) = match message {
                Message::Route(route) => (route.attempt_id, Outcome::Ok),
                Message::Cancel(mcp_proto::Cancel::Attempt(id, _)) => (id, Outcome::Cancelled),
                _ => continue,
            };
            let result = TaskResult::new(attempt, outcome, Executed::Yes);
            self.it.give_body(self.worker, Message::Result(result), "output");
            self.listen();
        }
        let report = Ping::probe(1);
        self.it.give(self.worker, Message::Ping(report));
        self.listen();
    }

    /// Lets everything come to its end.
    fn settle(mut self) {
        for connection in self.it.connections() {
            self.it.disconnect(connection, Disconnect::Broken);
            self.listen();
        }
        // What ends now is journalled, and that lets others end.
        for _ in 0..4 {
            self.it.core.journal_synced(self.it.now, self.journalled);
            self.listen();
            self.pass(FOR_GOOD_MS);
        }
        self.it.check_is_empty();
    }
}

fn codec(of: &Driver) -> FrameCodec {
    FrameCodec::new(&of.core.config().limits).with_bodies_apart()
}

fn hello_of(client: bool, worker: Option<WorkerHello>) -> Message {
    Message::Hello(Box::new(Hello {
        mcp_version: MCP_VERSION.into(),
        sdk: "fuzz".into(),
        features: Vec::new(),
        client,
        session_id: None,
        token: None,
        worker,
    }))
}

fn worker_hello() -> Message {
    let worker = WorkerHello {
        agent_id: "agent-0".try_into().unwrap(),
        instance_id: InstanceId::try_from("process-0").unwrap(),
        service_type: "fuzz".into(),
        labels: Default::default(),
        actions: vec![ActionName::try_from("work").unwrap()],
        slots: 2,
        prefetch: 0,
        weight: 1,
        held: Vec::new(),
        received: None,
        readiness: Readiness::Ready,
    };
    hello_of(false, Some(worker))
}
