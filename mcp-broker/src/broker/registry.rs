//! The workers: who they are, whether they are there, and what they hold.
//!
//! ```text
//!   HELLO ──▶ Online ── silent, or its connection broke ──▶ Lost
//!               ▲  │                                          │  │
//!               │  │ orderly close,          heard, or HELLO  │  │ grace over
//!               │  │ replaced                of the same      │  │
//!               │  ▼                         instance         │  ▼
//!               │  gone ◀─────────────────────────────────────┼── gone
//!               └─────────────────────────────────────────────┘
//! ```

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use bytestring::ByteString;
use foldhash::fast::FixedState;
use mcp_proto::limits::MAX_AGENT_ATTEMPTS;
use mcp_proto::{AgentId, InstanceId, Labels, NodeId, Readiness};
use smallvec::SmallVec;

use super::balancer::{Load, Member};
use super::hash::fnv1a;
use super::identities::IdentityKey;
use super::inflight::AttemptKey;
use super::output::ConnectionId;
use super::permissions::RoleNames;
use super::pool::PoolKey;
use super::slab::{Key, Slab};
use super::time::Mono;
use super::timers::TimerKey;

pub(super) type AgentKey = Key<Agent>;

/// A registered worker.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) id: AgentId,
    pub(super) instance: InstanceId,
    pub(super) node_id: NodeId,
    pub(super) identity: IdentityKey,
    /// Roles that its token named.
    pub(super) roles: RoleNames,
    pub(super) service_type: ByteString,
    /// What its HELLO says that it is written with.
    pub(super) sdk: ByteString,
    pub(super) generation: u64,
    pub(super) labels: Arc<Labels>,
    pub(super) slots: u32,
    pub(super) prefetch: u32,
    /// What it says.
    pub(super) readiness: Readiness,
    /// An operator keeps new tasks from it, whatever it says.
    pub(super) is_drained: bool,
    pub(super) presence: Presence,
    /// Its connection, while there is one: a silent worker is lost and still connected.
    pub(super) connection: Option<ConnectionId>,
    /// When this process registered first, and when on its present connection.
    pub(super) registered: Mono,
    pub(super) connected: Mono,
    pub(super) serves: Memberships,
    /// Where the next look for a waiting task begins, so that its actions share it fairly.
    pub(super) next_action: usize,
    /// The attempts that it has; a few lie with it.
    pub(super) attempts: SmallVec<[AttemptKey; 4]>,
    /// How many of them are parked; the others are charged to it.
    pub(super) parked: u32,
    /// What it was sent for those whose tasks are not over.
    pub(super) attempts_bytes: usize,
    /// ROUTEs sent on its present connection.
    pub(super) routes: u64,
    /// As it was told: how long it may be silent.
    pub(super) lease_ms: u64,
    pub(super) last_heard: Mono,
    /// Since when it has held attempts without a pause.
    pub(super) busy_since: Mono,
    /// Since when a PING of ours is unanswered.
    pub(super) probed: Option<Mono>,
    /// When to look next whether it is still there.
    pub(super) check_at: Mono,
    pub(super) timer: Option<TimerKey>,
}

/// Whether a worker is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Online,
    Lost { since: Mono },
}

/// An action that a worker serves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Membership {
    pub(super) pool: PoolKey,
    pub(super) member: Member,
}

/// The actions that a worker serves, mostly one or two, which lie with it: with thousands of workers
/// nothing of the one that is next is in the processor's caches.
pub(super) type Memberships = SmallVec<[Membership; 2]>;

impl Presence {
    /// Its name in JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Presence::Online => "online",
            Presence::Lost { .. } => "lost",
        }
    }
}

impl Agent {
    pub(super) fn is_ready(&self) -> bool {
        self.presence == Presence::Online && self.readiness() == Readiness::Ready
    }

    /// Whether it may get tasks, by what it says and by what operators say.
    pub(super) fn readiness(&self) -> Readiness {
        if self.is_drained { Readiness::Draining } else { self.readiness }
    }

    /// Its slots while it is online.
    pub(super) fn online_slots(&self) -> u64 {
        self.counts_as().1
    }

    /// Workers and slots online.
    fn counts_as(&self) -> (usize, u64) {
        match self.presence {
            Presence::Online => (1, u64::from(self.slots)),
            Presence::Lost { .. } => (0, 0),
        }
    }

    /// The attempts charged to it.
    pub(super) fn in_flight(&self) -> u32 {
        self.attempts.len() as u32 - self.parked
    }

    /// Its load, while it can take another task. No task is routed to it that makes in-flight pass
    /// slots + prefetch; a handler that goes on after it was parked can.
    pub(super) fn room(&self) -> Option<Load> {
        let in_flight = self.in_flight();
        let has_room = self.is_ready()
            && in_flight < self.slots + self.prefetch
            && self.attempts.len() < MAX_AGENT_ATTEMPTS as usize;
        has_room.then_some(Load { in_flight, slots: self.slots })
    }
}

/// Workers by key and by their own name.
#[derive(Debug)]
pub(super) struct Registry {
    agents: Slab<Agent>,
    names: BTreeMap<AgentId, AgentKey>,
    nodes: HashMap<NodeId, AgentId, FixedState>,
    generation: u64,
    /// Agents online, and their slots.
    online: usize,
    slots: u64,
}

impl Registry {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            agents: Slab::default(),
            names: BTreeMap::new(),
            nodes: HashMap::with_hasher(FixedState::with_seed(seed)),
            generation: 0,
            online: 0,
            slots: 0,
        }
    }

    /// One counter for all, so it grows for each.
    pub(super) fn next_generation(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }

    /// The node id of an agent: the same at every start of every broker, since it is derived from
    /// the agent's name.
    pub(super) fn node_id(&self, agent_id: &AgentId) -> NodeId {
        let mut salt = 0u64;
        loop {
            let hash = fnv1a(agent_id.as_str().as_bytes(), salt);
            let text = format!("n-{:012x}", hash >> 16);
            let Ok(node_id) = NodeId::try_from(text) else { unreachable!("hexadecimal") };
            match self.nodes.get(&node_id) {
                Some(other) if other != agent_id => salt += 1,
                _ => return node_id,
            }
        }
    }

    pub(super) fn find(&self, agent_id: &AgentId) -> Option<AgentKey> {
        self.names.get(agent_id).copied()
    }

    /// The agent of a node.
    pub(super) fn agent_at(&self, node_id: &NodeId) -> Option<&AgentId> {
        self.nodes.get(node_id)
    }

    /// A worker's place in a pool.
    pub(super) fn member(&self, agent: AgentKey, pool: PoolKey) -> Option<Member> {
        let serves = &self.agents.get(agent)?.serves;
        serves.iter().find(|it| it.pool == pool).map(|it| it.member)
    }

    pub(super) fn insert(&mut self, agent: Agent) -> AgentKey {
        let (id, node_id) = (agent.id.clone(), agent.node_id.clone());
        self.recount((0, 0), agent.counts_as());
        let key = self.agents.insert(agent);
        self.nodes.insert(node_id, id.clone());
        self.names.insert(id, key);
        key
    }

    pub(super) fn remove(&mut self, key: AgentKey) -> Option<Agent> {
        let agent = self.agents.remove(key)?;
        self.recount(agent.counts_as(), (0, 0));
        self.names.remove(&agent.id);
        self.nodes.remove(&agent.node_id);
        Some(agent)
    }

    /// Changes whether a worker is there.
    pub(super) fn set_presence(&mut self, key: AgentKey, presence: Presence) {
        self.change(key, |agent| agent.presence = presence);
    }

    /// Changes how many handlers a worker may run at once.
    pub(super) fn set_slots(&mut self, key: AgentKey, slots: u32) {
        self.change(key, |agent| agent.slots = slots);
    }

    fn change(&mut self, key: AgentKey, change: impl FnOnce(&mut Agent)) {
        let Some(agent) = self.agents.get_mut(key) else { return };
        let before = agent.counts_as();
        change(agent);
        let after = agent.counts_as();
        self.recount(before, after);
    }

    fn recount(&mut self, before: (usize, u64), after: (usize, u64)) {
        self.online = self.online - before.0 + after.0;
        self.slots = self.slots - before.1 + after.1;
    }

    pub(super) fn get(&self, key: AgentKey) -> Option<&Agent> {
        self.agents.get(key)
    }

    pub(super) fn get_mut(&mut self, key: AgentKey) -> Option<&mut Agent> {
        self.agents.get_mut(key)
    }

    /// Those whose names come after this one, by name; all without one.
    pub(super) fn by_name(&self, after: Option<&AgentId>) -> impl Iterator<Item = &Agent> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let keys = self.names.range::<AgentId, _>((from, Bound::Unbounded));
        keys.filter_map(|(_, key)| self.agents.get(*key))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Agent> {
        self.agents.iter().map(|(_, agent)| agent)
    }

    pub(super) fn keys(&self) -> Vec<AgentKey> {
        self.agents.iter().map(|(key, _)| key).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.agents.len()
    }

    /// Workers online.
    pub(super) fn online(&self) -> usize {
        self.online
    }

    /// Slots of the workers online.
    pub(super) fn slots(&self) -> u64 {
        self.slots
    }
}
