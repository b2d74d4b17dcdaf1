//! Client sessions: who waits for outcomes, over one connection or several.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::FixedState;
use mcp_proto::{EncodedFrame, SessionId};

use super::identity::Identity;
use super::inflight::TaskKey;
use super::output::ConnectionId;
use super::slab::{Key, Slab};
use super::timers::TimerKey;

pub(super) type SessionKey = Key<ClientSession>;

/// An identity, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct IdentityKey(u32);

/// A client's session.
#[derive(Debug)]
pub(super) struct ClientSession {
    pub(super) id: SessionId,
    pub(super) identity: IdentityKey,
    /// None while it is detached.
    pub(super) connection: Option<ConnectionId>,
    /// Ends it when it stays detached.
    pub(super) timer: Option<TimerKey>,
    /// Outcomes it waits for.
    pub(super) tasks: usize,
    /// Those of them that end when nobody with a connection waits for them; some may have ended.
    pub(super) tied: Vec<TaskKey>,
    /// Outcomes that came while it was detached.
    pub(super) held: VecDeque<EncodedFrame>,
    pub(super) held_bytes: usize,
}

/// Sessions by key and by id.
#[derive(Debug)]
pub(super) struct Sessions {
    slab: Slab<ClientSession>,
    names: HashMap<SessionId, SessionKey, FixedState>,
    identities: Vec<Identity>,
    identity_keys: HashMap<Identity, IdentityKey, FixedState>,
}

impl Sessions {
    /// The broker's own, which no peer can have: that one of its name would have another number.
    pub(super) const BROKER: IdentityKey = IdentityKey(0);

    pub(super) fn new(seed: u64) -> Self {
        let hasher = FixedState::with_seed(seed);
        Self {
            slab: Slab::default(),
            names: HashMap::with_hasher(hasher.clone()),
            identities: vec![Identity::new("broker")],
            identity_keys: HashMap::with_hasher(hasher),
        }
    }

    /// The number of an identity. Identities are as many as somebody issued, and are never
    /// forgotten.
    pub(super) fn identity(&mut self, identity: &Identity) -> IdentityKey {
        if let Some(key) = self.identity_keys.get(identity) {
            return *key;
        }
        let key = IdentityKey(self.identities.len() as u32);
        self.identities.push(identity.clone());
        self.identity_keys.insert(identity.clone(), key);
        key
    }

    pub(super) fn identity_of(&self, key: IdentityKey) -> &Identity {
        &self.identities[key.0 as usize]
    }

    /// All identities that came here.
    pub(super) fn identities(&self) -> impl Iterator<Item = (IdentityKey, &Identity)> {
        (0..).map(IdentityKey).zip(&self.identities)
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
        Some(session)
    }

    pub(super) fn get(&self, key: SessionKey) -> Option<&ClientSession> {
        self.slab.get(key)
    }

    pub(super) fn get_mut(&mut self, key: SessionKey) -> Option<&mut ClientSession> {
        self.slab.get_mut(key)
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }
}
