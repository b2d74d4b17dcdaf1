//! What clients do: sessions, SEND, CANCEL, FETCH.

use bytes::{Bytes, BytesMut};
use mcp_proto::{
    CancelReason, ContextTrace, Deliver, Delivery, EncodedTask, ErrorCode, ErrorInfo, Executed,
    HopEvent, Message, Outcome, Send, SessionId, Task as TaskSpec, TaskId, TaskState as Reported,
};

use super::admin;
use super::dispatch::End;
use super::inflight::{Task, TaskKey, TaskState};
use super::peers::Refusal;
use super::sessions::{ClientSession, IdentityKey, SessionKey};
use super::{ConnectionId, Core, Event, Now, Timer};

/// Bodies up to this are copied out of the read buffer that they came in, which would otherwise
/// stay allocated as long as the task: half of the buffer's size.
const DETACHED_BODY_BYTES: usize = 32 * 1024;

impl Core {
    /// Opens a session, or resumes it. Returns whether it was resumed.
    pub(super) fn open_session(
        &mut self,
        now: Now,
        connection: ConnectionId,
        identity: IdentityKey,
        id: Option<SessionId>,
    ) -> Result<(SessionKey, bool), Refusal> {
        let known = id.as_ref().and_then(|id| self.sessions.find(id));
        if let Some(key) = known {
            self.resume_session(now, connection, identity, key)?;
            return Ok((key, true));
        }
        if self.sessions.len() >= self.config.max_sessions {
            let message = format!("this broker has {} sessions, its limit", self.sessions.len());
            return Err((ErrorCode::LimitExceeded, message));
        }
        let id = match id {
            Some(id) => id,
            None => self.new_session_id()?,
        };
        let session = ClientSession {
            id,
            identity,
            connection: Some(connection),
            timer: None,
            tasks: 0,
            held: Default::default(),
            held_bytes: 0,
        };
        Ok((self.sessions.insert(session), false))
    }

    fn resume_session(
        &mut self,
        now: Now,
        connection: ConnectionId,
        identity: IdentityKey,
        key: SessionKey,
    ) -> Result<(), Refusal> {
        let Some(session) = self.sessions.get_mut(key) else { return Ok(()) };
        if session.identity != identity {
            let message = format!("session {} belongs to another identity", session.id);
            return Err((ErrorCode::IdentityMismatch, message));
        }
        let old = session.connection.replace(connection);
        if let Some(timer) = session.timer.take() {
            self.timers.cancel(timer);
        }
        self.stats.sessions_resumed += 1;
        if let Some(old) = old {
            self.displace_connection(now, old);
        }
        Ok(())
    }

    /// A session's old connection, which its client has given up. What else it carries goes on as
    /// if it had broken.
    fn displace_connection(&mut self, now: Now, old: ConnectionId) {
        let agent = self.peers.get_mut(&old).and_then(|peer| peer.agent.take());
        self.send_away(old, ErrorCode::Replaced, "your session has a newer connection", false);
        if let Some(key) = agent {
            if let Some(agent) = self.registry.get_mut(key) {
                agent.connection = None;
            }
            self.agent_is_lost(now, key, "its connection was replaced");
        }
    }

    fn new_session_id(&mut self) -> Result<SessionId, Refusal> {
        let text = format!("s-{:016x}{:016x}", self.rng.next_u64(), self.rng.next_u64());
        SessionId::try_from(text).map_err(|error| (ErrorCode::Internal, error.to_string()))
    }

    pub(super) fn detach_session(&mut self, now: Now, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.connection = None;
        let at = now.mono.plus_ms(self.config.detach_ms);
        session.timer = Some(self.timers.set(at, Timer::Session(key)));
        let session_id = session.id.clone();
        self.event(Event::SessionDetached { session_id });
    }

    pub(super) fn session_is_over(&mut self, key: SessionKey) {
        self.end_session(key);
    }

    /// The session's tasks run on; their outcomes are kept for a while, for whoever asks.
    pub(super) fn end_session(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.remove(key)
            && let Some(timer) = session.timer
        {
            self.timers.cancel(timer);
        }
    }

    /// Sends what came while the session was detached.
    pub(super) fn deliver_held(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(to) = session.connection else { return };
        session.held_bytes = 0;
        for (deliver, body) in std::mem::take(&mut session.held) {
            self.send_with_body(to, Message::Deliver(deliver), body);
        }
    }

    /// Sends an outcome to a session, or holds it while that is detached.
    pub(super) fn deliver(&mut self, key: SessionKey, deliver: Deliver, body: Bytes) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        match session.connection {
            Some(to) => self.send_with_body(to, Message::Deliver(deliver), body),
            None => {
                let bytes = session.held_bytes + body.len();
                // What is not held may still be among the finished ones when it is asked for.
                if session.held.len() < self.config.max_detached_results
                    && bytes <= self.config.max_detached_bytes
                {
                    session.held_bytes = bytes;
                    session.held.push_back((deliver, body));
                }
            }
        }
    }

    /// Refuses a SEND. There is no task, and nothing to remember.
    pub(super) fn reject(&mut self, session: SessionKey, task_id: TaskId, error: ErrorInfo) {
        self.stats.count(Outcome::Rejected);
        let broker_id = self.config.broker_id.clone();
        let error = error.task(task_id.clone()).node(broker_id.clone());
        let deliver = Deliver {
            task_id,
            outcome: Outcome::Rejected,
            executed: Executed::No,
            content_type: Default::default(),
            error: Some(Box::new(error)),
            trace: ContextTrace { broker_id: Some(broker_id), ..Default::default() },
        };
        self.deliver(session, deliver, Bytes::new());
    }

    pub(super) fn handle_send(&mut self, now: Now, session: SessionKey, send: Send, body: Bytes) {
        let (encoded, body) = detach(send.task, body);
        let spec = match encoded.decode() {
            Ok(spec) => spec,
            Err(invalid) => {
                let error = ErrorInfo::new(ErrorCode::InvalidTask, invalid.to_string());
                match (invalid.task_id, self.sessions.get(session).and_then(|it| it.connection)) {
                    (Some(task_id), _) => self.reject(session, task_id, error),
                    (None, Some(connection)) => self.send_error(connection, error),
                    (None, None) => {}
                }
                return;
            }
        };
        let Some(identity) = self.sessions.get(session).map(|session| session.identity) else {
            return;
        };
        let fingerprint = self.tasks.fingerprint(spec.action.as_str(), &body);
        if self.is_duplicate(session, identity, &spec.id, fingerprint) {
            return;
        }
        let id = spec.id.clone();
        if let Err(error) =
            self.accept(now, session, identity, fingerprint, spec, encoded, body, send.ttl_ms)
        {
            self.reject(session, id, error);
        }
    }

    /// Answers a SEND whose task id is known.
    fn is_duplicate(
        &mut self,
        session: SessionKey,
        identity: IdentityKey,
        id: &TaskId,
        fingerprint: u64,
    ) -> bool {
        let known = match self.tasks.find(identity, id) {
            Some(key) => self.tasks.get(key).map(|task| (task.fingerprint, Some(key))),
            None => self.finished.find(identity, id).map(|kept| (kept.fingerprint, None)),
        };
        let Some((known, in_flight)) = known else { return false };
        self.stats.duplicates += 1;
        if known != fingerprint {
            let message = format!("task {id} was sent before with another action or body");
            let error = ErrorInfo::new(ErrorCode::DuplicateMismatch, message);
            self.reject(session, id.clone(), error);
        } else if let Some(key) = in_flight {
            if let Err(error) = self.join(session, key) {
                self.reject(session, id.clone(), error);
            }
        } else {
            self.deliver_again(session, identity, id);
        }
        true
    }

    /// Lets a session wait for a task that is in flight.
    fn join(&mut self, session: SessionKey, key: TaskKey) -> Result<(), ErrorInfo> {
        let Some(task) = self.tasks.get_mut(key) else { return Ok(()) };
        if task.waiters.contains(&session) {
            return Ok(());
        }
        // Sessions that ended make room.
        let sessions = &self.sessions;
        task.waiters.retain(|waiter| sessions.get(*waiter).is_some());
        if task.waiters.len() >= self.config.max_waiters {
            let message = format!("{} sessions wait for this task already", task.waiters.len());
            return Err(ErrorInfo::new(ErrorCode::LimitExceeded, message));
        }
        task.waiters.push(session);
        if let Some(session) = self.sessions.get_mut(session) {
            session.tasks += 1;
        }
        Ok(())
    }

    /// Sends a kept outcome.
    fn deliver_again(&mut self, session: SessionKey, identity: IdentityKey, id: &TaskId) -> bool {
        let Some(kept) = self.finished.find(identity, id) else { return false };
        let (deliver, body) = (kept.deliver.clone(), kept.body.clone());
        self.deliver(session, deliver, body);
        true
    }

    #[allow(clippy::too_many_arguments)]
    fn accept(
        &mut self,
        now: Now,
        session: SessionKey,
        identity: IdentityKey,
        fingerprint: u64,
        spec: TaskSpec,
        encoded: EncodedTask,
        body: Bytes,
        ttl_ms: u64,
    ) -> Result<(), ErrorInfo> {
        if self.is_shutting_down {
            let message = "the broker is shutting down; send the task again when it is back";
            return Err(ErrorInfo::new(ErrorCode::ShuttingDown, message).retry_after_ms(1_000));
        }
        if admin::is_builtin(&spec.action) {
            self.answer_builtin(now, session, spec, &body);
            return Ok(());
        }
        let is_durable = spec.delivery == Delivery::Durable;
        if is_durable && !self.can_be_durable() {
            let message = "this broker keeps no durable journal; send the task with delivery fast";
            return Err(ErrorInfo::new(ErrorCode::DurableUnavailable, message));
        }
        let max = self.config.limits.max_session_tasks;
        if self.sessions.get(session).is_some_and(|it| it.tasks >= max as usize) {
            let message = format!("this session has {max} tasks in flight, its limit");
            return Err(ErrorInfo::new(ErrorCode::LimitExceeded, message).retry_after_ms(100));
        }
        let mut required = spec.required_labels;
        if spec.shadow {
            required.0.insert("shadow".into(), "true".into());
        }
        let (pool, subqueue) =
            self.queue_for(&spec.action, &required, encoded.0.len() + body.len())?;

        let deadline = now.mono.plus_ms(ttl_ms);
        let task = Task {
            id: spec.id,
            identity,
            fingerprint,
            encoded,
            body,
            priority: spec.priority,
            is_idempotent: spec.idempotent,
            is_durable,
            waiters: [session].into(),
            pool,
            subqueue,
            received: now.mono,
            deadline,
            timer: None,
            state: TaskState::Queued { ticket: 0, since: now.mono },
            attempts: 0,
            nacks: 0,
            avoid: None,
            had_worker: false,
            hops: Vec::new(),
        };
        let key = self.tasks.insert(task);
        if let Some(pool) = self.pools.get_mut(pool) {
            pool.tasks += 1;
            pool.subqueues[subqueue].tasks += 1;
        }
        if let Some(session) = self.sessions.get_mut(session) {
            session.tasks += 1;
        }
        self.stats.accepted += 1;
        if is_durable {
            self.journal_accepted(now, key, session, ttl_ms);
        }
        self.place(now, key, false);
        Ok(())
    }

    pub(super) fn handle_cancel(&mut self, now: Now, session: SessionKey, id: &TaskId) {
        let Some(identity) = self.sessions.get(session).map(|session| session.identity) else {
            return;
        };
        let Some(key) = self.tasks.find(identity, id) else { return };
        let Some(task) = self.tasks.get_mut(key) else { return };
        if !task.waiters.contains(&session) {
            return;
        }
        if task.waiters.len() > 1 {
            self.leave_task(now, session, key);
            return;
        }
        match task.state {
            TaskState::Queued { .. } => {
                let executed = self.executed_so_far(key);
                self.end(now, key, cancelled(executed));
            }
            TaskState::Running(attempt) => {
                self.add_hop(now, key, attempt, HopEvent::Cancelled, "cancelled by the client");
                self.cancel_attempt(now, attempt, CancelReason::Client);
                self.end(now, key, cancelled(Executed::Maybe));
            }
            TaskState::Ending(_) => {}
        }
    }

    /// One of several waiting sessions cancels: for it the task is over, for the others it goes on.
    fn leave_task(&mut self, now: Now, session: SessionKey, key: TaskKey) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.waiters.retain(|waiter| *waiter != session);
        let mut deliver = self.outcome_of(now, key, &cancelled(Executed::Maybe));
        if let Some(error) = deliver.as_mut().and_then(|deliver| deliver.error.as_mut()) {
            error.message = "cancelled; other clients wait for it, so it goes on".into();
        }
        if let Some(session) = self.sessions.get_mut(session) {
            session.tasks -= 1;
        }
        if let Some(deliver) = deliver {
            self.deliver(session, deliver, Bytes::new());
        }
    }

    pub(super) fn handle_fetch(&mut self, session: SessionKey, id: TaskId) {
        let Some((identity, to)) =
            self.sessions.get(session).and_then(|it| Some((it.identity, it.connection?)))
        else {
            return;
        };
        let state = match self.tasks.find(identity, &id) {
            Some(key) => match self.join(session, key) {
                Ok(()) => match self.tasks.get(key).map(|task| &task.state) {
                    Some(TaskState::Queued { .. }) => Reported::Queued,
                    Some(TaskState::Running(_) | TaskState::Ending(_)) => Reported::Running,
                    None => Reported::Unknown,
                },
                Err(error) => return self.reject(session, id, error),
            },
            None if self.deliver_again(session, identity, &id) => return,
            None => Reported::Unknown,
        };
        self.send(to, Message::Status(id, state));
    }
}

fn cancelled(executed: Executed) -> End {
    let error = ErrorInfo::new(ErrorCode::Cancelled, "cancelled by its client");
    End::without_result(Outcome::Cancelled, executed, error)
}

/// Copies a task out of the read buffer, so that it doesn't keep that allocated.
fn detach(task: EncodedTask, body: Bytes) -> (EncodedTask, Bytes) {
    if body.len() > DETACHED_BODY_BYTES {
        return (task, body);
    }
    let mut copy = BytesMut::with_capacity(task.0.len() + body.len());
    copy.extend_from_slice(&task.0);
    copy.extend_from_slice(&body);
    let mut copy = copy.freeze();
    (EncodedTask(copy.split_to(task.0.len())), copy)
}
