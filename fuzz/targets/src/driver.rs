//! A core, its time, and what it says to whom.

use std::collections::BTreeMap;

use bytes::Bytes;
use mcp_broker::broker::{
    ConnectionId, Core, CoreConfig, Disconnect, Identity, Now, Output, Record,
};
use mcp_proto::{
    EncodedTask, Frame, Hello, Incoming, Message, NodeId, Roles, Route, RouteHead, Session, Side,
};

use crate::round_trip;

/// Timers that fire one after the other without anything else that happens: an idle core has none.
const MAX_TIMEOUTS: u32 = 10_000;

/// Something that a core said.
#[derive(Debug)]
pub(crate) enum Said {
    Frame(ConnectionId, Message, Bytes),
    Close(ConnectionId),
    Journal(u64, Record),
}

pub(crate) struct Driver {
    pub(crate) core: Core,
    pub(crate) now: Now,
    /// As the other side of each open connection sees it.
    sessions: BTreeMap<ConnectionId, (Session, Roles)>,
    connections: u64,
    timeouts: u32,
}

impl Driver {
    pub(crate) fn new(change: impl FnOnce(&mut CoreConfig)) -> Self {
        Self {
            core: core(7, change),
            now: Now::default(),
            sessions: BTreeMap::new(),
            connections: 0,
            timeouts: 0,
        }
    }

    /// Another core takes the place of this one, of which nothing is left.
    pub(crate) fn restart(&mut self, change: impl FnOnce(&mut CoreConfig)) {
        self.core = core(self.core.config().epoch + 1, change);
        self.sessions.clear();
        self.timeouts = 0;
    }

    pub(crate) fn connect(&mut self) -> ConnectionId {
        self.connections += 1;
        let id = ConnectionId(self.connections);
        self.sessions.insert(id, (Session::new(Side::Dialler), Roles::default()));
        self.core.handle_connected(self.now, id, Identity::anonymous());
        id
    }

    pub(crate) fn is_open(&self, id: ConnectionId) -> bool {
        self.sessions.contains_key(&id)
    }

    pub(crate) fn connections(&self) -> Vec<ConnectionId> {
        self.sessions.keys().copied().collect()
    }

    pub(crate) fn disconnect(&mut self, id: ConnectionId, how: Disconnect) {
        self.sessions.remove(&id);
        self.core.handle_disconnected(self.now, id, how);
    }

    /// A frame with a body.
    pub(crate) fn give_body(
        &mut self,
        from: ConnectionId,
        message: Message,
        body: impl Into<Bytes>,
    ) {
        let body = body.into();
        self.receive(from, Incoming::Frame(Frame { message, body }));
    }

    /// A frame without one.
    pub(crate) fn give(&mut self, from: ConnectionId, message: Message) {
        self.give_body(from, message, Bytes::new());
    }

    pub(crate) fn receive(&mut self, from: ConnectionId, incoming: Incoming) {
        if let Incoming::Frame(Frame { message: Message::Hello(hello), .. }) = &incoming
            && let Some((_, roles)) = self.sessions.get_mut(&from)
        {
            *roles = Hello::roles(hello);
        }
        self.core.foresee(std::slice::from_ref(&incoming));
        self.core.handle_incoming(self.now, from, incoming);
        self.timeouts = 0;
    }

    /// The next that the core says. Whoever is meant is connected, and may be told this now.
    pub(crate) fn next(&mut self) -> Option<Said> {
        loop {
            let (to, frame) = match self.core.poll_output()? {
                Output::Event(event) => {
                    // Put into words for the log.
                    assert!(!event.to_string().is_empty());
                    continue;
                }
                Output::Audit(_) | Output::Orders | Output::Traced(_) => continue,
                Output::Journal { seq, record } => return Some(Said::Journal(seq, *record)),
                Output::Close { connection, .. } => {
                    assert!(self.sessions.remove(&connection).is_some(), "closed twice");
                    return Some(Said::Close(connection));
                }
                Output::Send { to, message } => (to, message.into()),
                Output::Deliver { to, frame } => (to, round_trip::decode(frame.to_bytes())),
                Output::Chunk { to, chunk, body } => {
                    (to, Frame { message: Message::Chunk(*chunk), body })
                }
                Output::Route { to, route, payload } => {
                    let body = Bytes::copy_from_slice(payload.body());
                    let task = EncodedTask(Bytes::copy_from_slice(payload.task()));
                    (to, Frame { message: Message::Route(routed(route, task)), body })
                }
            };
            let Some((session, roles)) = self.sessions.get_mut(&to) else {
                panic!("{frame:?} to a connection that is gone");
            };
            if let Err(unexpected) = session.check_received(frame.message.kind()) {
                panic!("{unexpected}: {frame:?}");
            }
            if let Message::Ack(_) = &frame.message {
                session.open(*roles);
            }
            return Some(Said::Frame(to, frame.message, frame.body));
        }
    }

    /// Lets time pass up to `ms` from now, or to the first timer that fires before. Returns whether one
    /// did.
    pub(crate) fn pass(&mut self, ms: &mut u64) -> bool {
        let end = self.now.mono.plus_ms(*ms);
        let due = self.core.poll_timeout().filter(|at| *at <= end);
        let to = due.unwrap_or(end).max(self.now.mono);
        let passed_ms = to.since(self.now.mono) / 1000;
        *ms -= passed_ms.min(*ms);
        self.now.wall_ms += passed_ms;
        self.now.mono = to;
        if due.is_some() {
            self.timeouts += 1;
            assert!(self.timeouts < MAX_TIMEOUTS, "timers fire and fire");
            self.core.handle_timeout(self.now);
        }
        due.is_some()
    }

    /// Time passes, and the timers are late.
    pub(crate) fn stall(&mut self, ms: u64) {
        self.now.wall_ms += ms;
        self.now.mono = self.now.mono.plus_ms(ms);
    }

    /// Nobody is connected and nothing is to be done: nothing may be left.
    pub(crate) fn check_is_empty(&self) {
        let stats = self.core.stats();
        let left = [
            stats.queued,
            stats.delayed,
            stats.running,
            stats.in_flight,
            stats.agents_online,
            stats.sessions,
            stats.streams,
            stats.stream_bytes,
            stats.uploads,
            stats.upload_bytes,
            stats.connections,
            stats.shadow.queued,
            stats.shadow.delayed,
            stats.shadow.running,
        ];
        assert_eq!(left, [0; 14], "{stats:?}");
        assert!(self.core.agents(self.now, true).is_empty());
        assert_eq!(self.core.poll_timeout(), None);
    }
}

fn core(epoch: u64, change: impl FnOnce(&mut CoreConfig)) -> Core {
    let mut config = CoreConfig::new(NodeId::try_from("broker-1").unwrap(), epoch, 42);
    change(&mut config);
    Core::new(config)
}

fn routed(route: RouteHead, task: EncodedTask) -> Route {
    let RouteHead { attempt_id, attempt, ttl_ms, stream_window_bytes, .. } = route;
    let RouteHead { input_follows, span_id, .. } = route;
    Route { attempt_id, attempt, ttl_ms, task, stream_window_bytes, input_follows, span_id }
}
