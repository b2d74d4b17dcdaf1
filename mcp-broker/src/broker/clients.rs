//! Client sessions: opened, resumed, detached, ended; and outcomes on their way to them.

use bytes::Bytes;
use mcp_proto::{Deliver, EncodedFrame, ErrorCode, SessionId, TaskId};

use super::identities::IdentityKey;
use super::peers::Refusal;
use super::sessions::{ClientSession, SessionKey};
use super::{ConnectionId, Core, Event, Now, Output, Timer};

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
        let session = ClientSession::new(id, identity, connection);
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
        // None until its ACK is about to be sent: what ends now is held until after that.
        let old = session.connection.take();
        if let Some(timer) = session.timer.take() {
            self.timers.cancel(timer);
        }
        self.stats.sessions_resumed += 1;
        if let Some(old) = old {
            self.displace_connection(now, old);
        }
        if let Some(session) = self.sessions.get_mut(key) {
            session.connection = Some(connection);
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
        let at = now.mono.plus_ms(self.config.detach_ms);
        session.timer = Some(self.timers.set(at, Timer::Session(key)));
        let session_id = session.id.clone();
        self.event(Event::SessionDetached { session_id });
        self.end_tied(now, key);
    }

    /// The session's tasks run on, but for those whose input it had not sent to its end; their
    /// outcomes are kept for a while, for whoever asks.
    pub(super) fn end_session(&mut self, now: Now, key: SessionKey) {
        if let Some(session) = self.sessions.remove(key)
            && let Some(timer) = session.timer
        {
            self.timers.cancel(timer);
        }
        self.leave_streams(key);
        self.leave_uploads(now, key);
    }

    /// Sends what came while the session was detached.
    pub(super) fn deliver_held(&mut self, key: SessionKey) {
        let Some(to) = self.sessions.get(key).and_then(|session| session.connection) else {
            return;
        };
        for frame in self.sessions.take_held(key) {
            self.outputs.push_back(Output::Deliver { to, frame });
        }
    }

    /// The same for an outcome that is for this session only.
    pub(super) fn tell(&mut self, key: SessionKey, deliver: &Deliver, body: Bytes) {
        let frame = EncodedFrame::deliver(deliver, body, &mut self.arena);
        self.deliver(key, frame, None);
    }

    /// Sends an outcome to a session, or holds it while that is detached: that of a durable task until
    /// the task is done again, if it is.
    #[inline]
    pub(super) fn deliver(
        &mut self,
        key: SessionKey,
        frame: EncodedFrame,
        durable: Option<&TaskId>,
    ) {
        let Some(session) = self.sessions.get(key) else { return };
        match session.connection {
            Some(to) => self.outputs.push_back(Output::Deliver { to, frame }),
            None => self.sessions.hold(key, &frame, durable, &self.config),
        }
    }
}
