//! Connections: HELLO, what each may send, and what happens when one ends.

use bytes::Bytes;
use mcp_proto::{
    Ack, Cancel, Chunk, Credit, DecodeError, ErrorCode, ErrorInfo, Executed, Frame, Goaway, Hello,
    Incoming, InvalidMessage, MCP_VERSION, Message, MessageKind, Outcome, Session, Side, Subject,
    TaskResult,
};

use super::audit::Act;
use super::identities::IdentityKey;
use super::registry::AgentKey;
use super::sessions::SessionKey;
use super::talk::Talk;
use super::timers::TimerKey;
use super::{ConnectionId, Core, Disconnect, Event, Identity, Now, Output, Timer};

/// A connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    pub(super) identity: IdentityKey,
    /// What its peer may send now.
    session: Session,
    pub(super) talk: Talk,
    hello_timer: Option<TimerKey>,
    /// Set while it carries this client session.
    pub(super) client: Option<SessionKey>,
    /// Set while it carries this worker's registration.
    pub(super) agent: Option<AgentKey>,
}

/// Why a peer is refused, to be told to it.
pub(super) type Refusal = (ErrorCode, String);

impl Core {
    /// A peer has connected; its identity is what the connection proved.
    pub fn handle_connected(&mut self, now: Now, id: ConnectionId, identity: Identity) {
        self.forget_identities();
        let at = now.mono.plus_ms(self.config.hello_timeout_ms);
        let peer = Peer {
            identity: self.identities.key_of(&identity),
            session: Session::new(Side::Broker),
            talk: Talk::new(now.mono),
            hello_timer: Some(self.timers.set(at, Timer::Hello(id))),
            client: None,
            agent: None,
        };
        self.peers.insert(id, peer);
    }

    /// A connection has ended. One that the core closed itself is unknown here, and ignored.
    pub fn handle_disconnected(&mut self, now: Now, id: ConnectionId, how: Disconnect) {
        let Some(peer) = self.peers.remove(&id) else { return };
        if let Some(timer) = peer.hello_timer {
            self.timers.cancel(timer);
        }
        if let Some(key) = peer.agent {
            if let Some(agent) = self.registry.get_mut(key) {
                agent.connection = None;
            }
            match how {
                Disconnect::Orderly => self.end_registration(now, key, "it closed"),
                Disconnect::Broken => self.agent_is_lost(now, key, "its connection broke"),
            }
        }
        if let Some(session) = peer.client {
            match how {
                Disconnect::Orderly => {
                    self.end_tied(now, session);
                    self.end_session(now, session);
                }
                Disconnect::Broken => self.detach_session(now, session),
            }
        }
    }

    /// The network reports that nothing listens at the peer's address any more. That is no proof:
    /// a worker is asked, and lost when another report is all that comes back. Should it be heard
    /// after all, it goes on.
    pub fn handle_unreachable(&mut self, now: Now, id: ConnectionId) {
        if let Some(agent) = self.peers.get(&id).and_then(|peer| peer.agent) {
            self.agent_is_doubted(now, agent);
        }
    }

    /// The peer sent bytes that are not a frame.
    pub fn handle_malformed(&mut self, now: Now, id: ConnectionId, error: &DecodeError) {
        self.refuse(now, id, (error.code(), error.to_string()));
    }

    /// What a worker was sent for tasks that it holds and that are not over. All of that is in memory,
    /// whether it has taken it or not. 0 of any other peer.
    pub fn attempts_bytes(&self, id: ConnectionId) -> usize {
        let agent = self.peers.get(&id).and_then(|peer| peer.agent);
        agent.and_then(|key| self.registry.get(key)).map_or(0, |agent| agent.attempts_bytes)
    }

    /// The peer does not read what it is sent: too much has gathered for it, or it takes hardly any.
    pub fn handle_overflow(&mut self, now: Now, id: ConnectionId) {
        let message = "you did not read what you were sent; read while your writes wait";
        self.refuse(now, id, (ErrorCode::SlowConsumer, message.into()));
    }

    /// The peer began a frame, and does not send the rest.
    pub fn handle_unfinished(&mut self, now: Now, id: ConnectionId) {
        let message = "you began a frame and did not send the rest of it in time";
        self.refuse(now, id, (ErrorCode::FrameTimeout, message.into()));
    }

    /// A peer sent these frames, which are handled next. Nothing comes of this but that the processor
    /// fetches what they are about for many of them at a time, rather than for each in its turn: with a
    /// thousand tasks in flight little of a task is still in its caches when the result comes.
    pub fn foresee(&self, incoming: &[Incoming]) {
        for incoming in incoming {
            if let Incoming::Frame(Frame { message: Message::Result(result), .. }) = incoming
                && let Some(key) = self.attempt_ids.key(result.attempt_id)
                && let Some(attempt) = self.attempts.get(key)
                && let Some(task) = attempt.task.and_then(|key| self.tasks.get(key))
            {
                task.fetch();
            }
        }
    }

    /// The peer sent a frame.
    pub fn handle_incoming(&mut self, now: Now, id: ConnectionId, incoming: Incoming) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        // Copied first: reading whole what was just written in part waits for that.
        let (peer, talks_too_much) = (*peer, peer.talk.note(&incoming));
        if talks_too_much {
            self.talks_too_much = Some(id);
        }
        let is_open = peer.session.roles().is_some();
        if let Some(agent) = peer.agent {
            self.agent_is_heard(now, agent, &incoming);
        }
        match incoming {
            Incoming::Frame(frame) => self.handle_frame(now, id, &peer, frame),
            Incoming::BodyTooLarge { message, body_bytes } => {
                self.handle_large(now, id, &peer, message, body_bytes);
            }
            Incoming::Unknown { kind } if is_open => {
                let message = format!("frame kind {kind} is not known to protocol {MCP_VERSION}");
                self.send_error(id, ErrorInfo::new(ErrorCode::UnknownFrame, message));
            }
            Incoming::Invalid(invalid) if is_open => self.handle_invalid(id, invalid),
            Incoming::Unknown { kind } => {
                let message = format!("frame kind {kind} is not expected before HELLO");
                self.refuse(now, id, (ErrorCode::UnexpectedFrame, message));
            }
            Incoming::Invalid(invalid) => {
                let code = match invalid.kind {
                    MessageKind::Hello => ErrorCode::InvalidMessage,
                    _ => ErrorCode::UnexpectedFrame,
                };
                self.refuse(now, id, (code, invalid.to_string()));
            }
        }
    }

    fn handle_frame(&mut self, now: Now, id: ConnectionId, peer: &Peer, frame: Frame) {
        let Frame { message, body } = frame;
        if let Err(unexpected) = peer.session.check_received(message.kind()) {
            self.refuse(now, id, (ErrorCode::UnexpectedFrame, unexpected.to_string()));
            return;
        }
        match message {
            // Of every task, and large: moved once, to whoever takes it.
            Message::Send(send) => {
                if let Some(session) = peer.client {
                    self.handle_send(now, id, session, send, body);
                }
            }
            Message::Result(result) => {
                if let Some(agent) = peer.agent {
                    self.handle_result(now, id, agent, result, body);
                }
            }
            message => self.handle_rare(now, id, peer, message, body),
        }
    }

    /// What most tasks need nothing of.
    fn handle_rare(
        &mut self,
        now: Now,
        id: ConnectionId,
        peer: &Peer,
        message: Message,
        body: Bytes,
    ) {
        match (message, peer.client, peer.agent) {
            (Message::Hello(hello), ..) => {
                if let Err(refusal) = self.handle_hello(now, id, *hello) {
                    self.refuse(now, id, refusal);
                }
            }
            (Message::Ping(ping), _, agent) => {
                // PONG first: it confirms what was processed before, not what follows from it.
                self.send(id, Message::Pong(ping.seq));
                if let Some(agent) = agent {
                    self.handle_ping(now, agent, ping);
                }
            }
            (Message::Cancel(Cancel::Task(task)), Some(session), _) => {
                self.handle_cancel(now, session, &task);
            }
            (Message::Fetch(task), Some(session), _) => self.handle_fetch(session, task),
            (Message::Settle(task), Some(session), _) => self.handle_settle(now, session, &task),
            (Message::Nack(nack), _, Some(agent)) => self.handle_nack(now, id, agent, nack),
            (
                Message::Chunk(Chunk { of: Subject::Task(task, _), seq, last, .. }),
                Some(session),
                _,
            ) => {
                self.handle_input(now, session, &task, (seq, last), body);
            }
            (Message::Chunk(chunk), _, Some(agent)) => {
                self.handle_chunk(now, id, agent, chunk, body);
            }
            (Message::Progress(progress), _, Some(agent)) => {
                self.handle_progress(now, agent, progress);
            }
            (
                Message::Credit(Credit { of: Subject::Attempt(of), next_seq, limit_bytes }),
                _,
                Some(agent),
            ) => {
                self.handle_input_credit(now, agent, of, next_seq, limit_bytes);
            }
            (Message::Credit(credit), Some(session), _) => self.handle_credit(id, session, credit),
            (Message::Resume(resume), Some(session), _) => self.handle_resume(id, session, resume),
            (Message::Started(id), _, Some(agent)) => self.handle_sign(now, agent, id),
            (Message::Park(park), _, Some(agent)) => self.handle_park(now, id, agent, park),
            (Message::Cancel(Cancel::Attempt(..)), ..) => {
                let message = "CANCEL: field task_id is missing: a client names its task";
                self.send_error(id, ErrorInfo::new(ErrorCode::InvalidMessage, message));
            }
            (Message::Chunk(_), Some(_), None) => {
                let message = "CHUNK: field task_id is missing: a client names its task";
                self.send_error(id, ErrorInfo::new(ErrorCode::InvalidMessage, message));
            }
            (Message::Credit(_), None, Some(_)) => {
                let message = "CREDIT: field attempt_id is missing: a worker names its attempt";
                self.send_error(id, ErrorInfo::new(ErrorCode::InvalidMessage, message));
            }
            // PONG and ERROR only say that the peer is there. The rest was taken before, is not
            // allowed by the session, or came for a role that this connection has lost to another one.
            (
                Message::Pong(_)
                | Message::Error(_)
                | Message::Ack(_)
                | Message::Goaway(_)
                | Message::Send(_)
                | Message::Accepted(_)
                | Message::Route(_)
                | Message::Result(_)
                | Message::Deliver(_)
                | Message::Cancel(_)
                | Message::Nack(_)
                | Message::Fetch(_)
                | Message::Settle(_)
                | Message::Status(..)
                | Message::Started(_)
                | Message::Progress(_)
                | Message::Chunk(_)
                | Message::Resume(_)
                | Message::Credit(_)
                | Message::Park(_),
                ..,
            ) => {}
        }
    }

    fn handle_hello(&mut self, now: Now, id: ConnectionId, hello: Hello) -> Result<(), Refusal> {
        check_version(&hello.mcp_version)?;
        if self.is_shutting_down {
            let message = "the broker is shutting down; connect again later".into();
            return Err((ErrorCode::ShuttingDown, message));
        }
        let roles = hello.roles();
        let identity = match self.peers.get(&id) {
            Some(peer) => peer.identity,
            None => return Ok(()),
        };
        let resumed = match &hello.session_id {
            Some(id) if roles.client => self.sessions.find(id),
            Some(_) | None => None,
        };
        let is_its = |key: &SessionKey| {
            self.sessions.get(*key).is_some_and(|session| session.identity == identity)
        };
        let resumed = resumed.filter(is_its);
        let (role_names, granted) = self.arrived(id, identity);
        let worker = match hello.worker {
            Some(worker) => {
                self.check_worker(now, identity, &granted, &worker)?;
                let who = (identity, role_names.clone());
                Some(self.register(now, id, who, hello.sdk, worker, resumed)?)
            }
            None => None,
        };
        // Known at once: should the other role be refused, this one ends with the connection.
        if let (Some(peer), Some((agent, _))) = (self.peers.get_mut(&id), &worker) {
            peer.agent = Some(*agent);
        }
        let client = if roles.client {
            Some(self.open_session(now, id, identity, hello.session_id)?)
        } else {
            None
        };
        if let Some(session) = client.and_then(|(session, _)| self.sessions.get_mut(session)) {
            (session.roles, session.granted) = (role_names, granted);
        }

        let Some(peer) = self.peers.get_mut(&id) else { return Ok(()) };
        peer.session.open(roles);
        peer.client = client.map(|(session, _)| session);
        if let Some(timer) = peer.hello_timer.take() {
            self.timers.cancel(timer);
        }
        let agent = worker.as_ref().and_then(|(agent, _)| self.registry.get(*agent));
        let session = client.and_then(|(session, _)| self.sessions.get(session));
        let ack = Ack {
            mcp_version: MCP_VERSION.into(),
            broker_id: self.config.broker_id.clone(),
            epoch: self.config.epoch,
            features: Vec::new(),
            limits: self.config.limits,
            node_id: agent.map(|agent| agent.node_id.clone()),
            generation: agent.map_or(0, |agent| agent.generation),
            lease_ms: self.config.lease_ms as u32,
            ping_interval_ms: self.config.ping_interval_ms as u32,
            keep: worker.as_ref().map(|(_, keep)| keep.clone()).unwrap_or_default(),
            session_id: session.map(|session| session.id.clone()),
            resumed: client.is_some_and(|(_, resumed)| resumed),
            detach_ms: self.config.detach_ms as u32,
        };
        let connected = Act::Connected {
            connection: id,
            identity: self.identities.get(identity).clone(),
            is_client: roles.client,
            agent_id: agent.map(|agent| agent.id.clone()),
        };
        self.audit(connected);
        self.send(id, Message::Ack(Box::new(ack)));
        if let Some((agent, _)) = worker {
            self.activate(now, agent);
        }
        if let Some((session, _)) = client {
            self.deliver_held(session);
        }
        Ok(())
    }

    pub(super) fn hello_is_late(&mut self, now: Now, id: ConnectionId) {
        let message = format!("no HELLO within {} ms", self.config.hello_timeout_ms);
        self.refuse(now, id, (ErrorCode::HelloTimeout, message));
    }

    /// A message with a field that is missing or wrong. A task that can be named is rejected.
    pub(super) fn handle_invalid(&mut self, id: ConnectionId, invalid: InvalidMessage) {
        let client = self.peers.get(&id).and_then(|peer| peer.client);
        let message = invalid.to_string();
        match (invalid.kind, invalid.task_id, client) {
            (MessageKind::Send, Some(task), Some(session)) => {
                self.note_wrong(id);
                self.reject(session, task, ErrorInfo::new(ErrorCode::InvalidTask, message));
            }
            _ => self.send_error(id, ErrorInfo::new(ErrorCode::InvalidMessage, message)),
        }
    }

    fn handle_large(
        &mut self,
        now: Now,
        id: ConnectionId,
        peer: &Peer,
        message: Message,
        body_bytes: usize,
    ) {
        if let Err(unexpected) = peer.session.check_received(message.kind()) {
            self.refuse(now, id, (ErrorCode::UnexpectedFrame, unexpected.to_string()));
            return;
        }
        let max = self.config.limits.max_body_bytes;
        let text = format!("the body has {body_bytes} bytes; at most {max} are allowed");
        let error = ErrorInfo::new(ErrorCode::BodyTooLarge, text);
        match (message, peer.client, peer.agent) {
            (Message::Send(send), Some(session), _) => match send.task.head() {
                Ok(task) => {
                    self.note_wrong(id);
                    self.reject(session, task.id, error);
                }
                Err(invalid) => self.handle_invalid(id, invalid),
            },
            (Message::Result(result), _, Some(agent)) => {
                let outcome = Outcome::Failed;
                let (executed, error) = (Executed::Yes, Some(Box::new(error)));
                let result = TaskResult { outcome, executed, error, permanent: true, ..result };
                self.handle_result(now, id, agent, result, Bytes::new());
            }
            _ => self.send_error(id, error),
        }
    }

    pub(super) fn send_error(&mut self, to: ConnectionId, error: ErrorInfo) {
        self.note_wrong(to);
        let error = error.node(self.config.broker_id.clone());
        self.send(to, Message::Error(Box::new(error)));
    }

    /// Tells the peer why, and closes its connection.
    pub(super) fn refuse(&mut self, now: Now, id: ConnectionId, (code, message): Refusal) {
        let Some(identity) = self.peers.get(&id).map(|peer| peer.identity) else { return };
        self.stats.peers_refused += 1;
        self.send_error(id, ErrorInfo::new(code, message.clone()));
        self.event(Event::PeerRefused { connection: id, code, message: message.clone() });
        let identity = self.identities.get(identity).clone();
        self.audit(Act::Refused { connection: id, identity, code, message: message.clone() });
        self.outputs.push_back(Output::Close { connection: id, code: Some(code), message });
        self.handle_disconnected(now, id, Disconnect::Broken);
    }

    /// Ends a connection that its peer's next one, or nothing, takes the place of. What it carried
    /// has been dealt with.
    pub(super) fn send_away(
        &mut self,
        id: ConnectionId,
        code: ErrorCode,
        message: &str,
        reconnect: bool,
    ) {
        if let Some(peer) = self.peers.remove(&id) {
            debug_assert!(peer.hello_timer.is_none());
            let message = message.to_owned();
            let goaway = Goaway { code, message: message.clone(), reconnect };
            self.send(id, Message::Goaway(goaway));
            self.outputs.push_back(Output::Close { connection: id, code: Some(code), message });
        }
    }
}

fn check_version(version: &str) -> Result<(), Refusal> {
    let parts = version.split_once('.');
    let numbers = parts
        .and_then(|(major, minor)| Some((major.parse::<u16>().ok()?, minor.parse::<u16>().ok()?)));
    match numbers {
        Some((1, _)) => Ok(()),
        Some(_) | None => {
            let message = format!("this broker speaks MCP {MCP_VERSION}, you said {version:?}");
            Err((ErrorCode::UnsupportedVersion, message))
        }
    }
}
