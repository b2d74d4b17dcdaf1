//! Client sessions: who waits for outcomes, over one connection or several.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::FixedState;
use mcp_proto::{EncodedFrame, SessionId, TaskId};

use super::config::CoreConfig;
use super::identities::IdentityKey;
use super::inflight::TaskKey;
use super::output::ConnectionId;
use super::permissions::{Granted, RoleNames};
use super::slab::{Key, Slab};
use super::timers::TimerKey;

/// A session may hold so many times as many bytes as are free, so that those who never come back leave
/// some to those who do.
const SHARE: usize = 8;

pub(super) type SessionKey = Key<ClientSession>;

/// A client's session.
#[derive(Debug)]
pub(super) struct ClientSession {
    pub(super) id: SessionId,
    pub(super) identity: IdentityKey,
    /// None while it is detached.
    pub(super) connection: Option<ConnectionId>,
    /// Ends it when it stays detached.
    pub(super) timer: Option<TimerKey>,
    /// Roles that its token named.
    pub(super) roles: RoleNames,
    /// What it may do.
    pub(super) granted: Granted,
    /// Outcomes it waits for.
    pub(super) tasks: usize,
    /// Those of them that end when nobody with a connection waits for them; some may have ended.
    pub(super) tied: Vec<TaskKey>,
    /// Outcomes that came while it was detached.
    held: VecDeque<Held>,
    held_bytes: usize,
}

#[derive(Debug)]
struct Held {
    frame: EncodedFrame,
    /// The task whose outcome it is, if that may be done again.
    durable: Option<TaskId>,
}

impl ClientSession {
    /// A new one, on this connection.
    pub(super) fn new(id: SessionId, identity: IdentityKey, connection: ConnectionId) -> Self {
        Self {
            id,
            identity,
            connection: Some(connection),
            timer: None,
            roles: RoleNames::default(),
            granted: None,
            tasks: 0,
            tied: Vec::new(),
            held: VecDeque::new(),
            held_bytes: 0,
        }
    }
}

/// Sessions by key and by id.
#[derive(Debug)]
pub(super) struct Sessions {
    slab: Slab<ClientSession>,
    names: HashMap<SessionId, SessionKey, FixedState>,
    /// Of outcomes that detached sessions hold.
    held_bytes: usize,
}

impl Sessions {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            slab: Slab::default(),
            names: HashMap::with_hasher(FixedState::with_seed(seed)),
            held_bytes: 0,
        }
    }

    pub(super) fn find(&self, id: &SessionId) -> Option<SessionKey> {
        self.names.get(id).copied()
    }

    pub(super) fn insert(&mut self, session: ClientSession) -> SessionKey {
        let id = session.id.clone();
        let key = self.slab.insert(session);
        self.names.insert(id, key);
        key
    }

    pub(super) fn remove(&mut self, key: SessionKey) -> Option<ClientSession> {
        let session = self.slab.remove(key)?;
        self.names.remove(&session.id);
        self.held_bytes -= session.held_bytes;
        Some(session)
    }

    /// Keeps an outcome for a detached session, as far as there is room. What is not kept may still be
    /// among the finished ones when it is asked for. Of a durable task's, it is told which that is.
    pub(super) fn hold(
        &mut self,
        key: SessionKey,
        frame: &EncodedFrame,
        durable: Option<&TaskId>,
        config: &CoreConfig,
    ) {
        let free = config.detached_bytes.saturating_sub(self.held_bytes);
        let Some(session) = self.slab.get_mut(key) else { return };
        let bytes = frame.len();
        let own = config.max_detached_bytes.min(free.saturating_mul(SHARE));
        let is_room = bytes <= free && session.held_bytes + bytes <= own;
        if is_room && session.held.len() < config.max_detached_results {
            session.held.push_back(Held { frame: frame.detached(), durable: durable.cloned() });
            session.held_bytes += bytes;
            self.held_bytes += bytes;
        }
    }

    /// Takes what is kept for a session.
    pub(super) fn take_held(&mut self, key: SessionKey) -> impl Iterator<Item = EncodedFrame> {
        let held = self.slab.get_mut(key).map(|session| {
            self.held_bytes -= std::mem::take(&mut session.held_bytes);
            std::mem::take(&mut session.held)
        });
        held.into_iter().flatten().map(|held| held.frame)
    }

    /// Drops the outcome of a durable task, which is done again, wherever it is kept. Looks through
    /// all that is. Returns whose sessions these were.
    pub(super) fn drop_held(&mut self, identity: IdentityKey, task_id: &TaskId) -> Vec<SessionKey> {
        let mut holders = Vec::new();
        if self.held_bytes == 0 {
            return holders;
        }
        for key in self.slab.keys() {
            let Some(session) = self.slab.get_mut(key).filter(|it| it.identity == identity) else {
                continue;
            };
            let is_it = |held: &Held| held.durable.as_ref() == Some(task_id);
            if let Some(held) =
                session.held.iter().position(is_it).and_then(|at| session.held.remove(at))
            {
                session.held_bytes -= held.frame.len();
                self.held_bytes -= held.frame.len();
                holders.push(key);
            }
        }
        holders
    }

    pub(super) fn get(&self, key: SessionKey) -> Option<&ClientSession> {
        self.slab.get(key)
    }

    pub(super) fn get_mut(&mut self, key: SessionKey) -> Option<&mut ClientSession> {
        self.slab.get_mut(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &ClientSession> {
        self.slab.iter().map(|(_, session)| session)
    }

    pub(super) fn keys(&self) -> Vec<SessionKey> {
        self.slab.iter().map(|(key, _)| key).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }
}
