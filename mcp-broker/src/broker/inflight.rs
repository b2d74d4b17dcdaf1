//! Tasks without an outcome, and the attempts at them.
//!
//! ```text
//!            SEND
//!              │
//!              ▼     a worker has room
//!   ┌──────▶ Queued ────────────────▶ Running(attempt) ──── RESULT ──┐
//!   │          ▲ │                      │   │   │                     │
//!   │  its time│ │ deadline, CANCEL,    │   │   │ deadline, CANCEL,   │ durable: until
//!   │  has come│ │ no worker, shutdown  │   │   │ shutdown: at once   │ it is journalled
//!   │          │ │                      │   │   │                     ▼
//!   │          │ └──────────┐           │   │   │                   Ending
//!   │          │            ▼           │   │   ▼                     │
//!   │          │         DELIVER ◀──────┼───┼───┴─────────────────────┘
//!   │          │            ▲           │   │
//!   │          │            │ deadline, │   │
//!   │          │            │ CANCEL,   │   │
//!   │          │            │ shutdown  │   │
//!   │        Delayed ◀──────┴───────────┼───┘ failed or silent, and to be tried again; put off
//!   │                                   │
//!   └───── NACK; worker lost, if the task may be tried again; otherwise DELIVER
//! ```
//!
//! An attempt outlives its task when that ends first: it stays charged to its worker until the
//! worker's RESULT or the end of its registration gives the slot back.

use std::hash::BuildHasher;
use std::hint::black_box;

use bytes::Bytes;
use bytestring::ByteString;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use mcp_proto::limits::MAX_HOPS;
use mcp_proto::{
    AttemptId, Deliver, Explanation, Hop, HopEvent, InputLength, NodeId, Payload, Priority,
    TaskExtras, TaskId,
};
use smallvec::SmallVec;

use super::arrivals::{Arrivals, Links};
use super::balancer::{Ask, Member, Policy};
use super::fallback::Detour;
use super::family::Kin;
use super::health::Faults;
use super::hedging::Hedge;
use super::identities::IdentityKey;
use super::mirror::Mirrored;
use super::pool::PoolKey;
use super::queue::{Rank, Spot, Tenant};
use super::registry::{AgentKey, Registry};
use super::sessions::SessionKey;
use super::slab::{Key, Slab};
use super::split::Assigned;
use super::streams::StreamKey;
use super::time::Mono;
use super::timers::TimerKey;
use super::traced::Traced;
use super::uploads::Upload;

pub(super) type TaskKey = Key<Task>;
pub(super) type AttemptKey = Key<Attempt>;

/// A task without an outcome.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) id: TaskId,
    pub(super) identity: IdentityKey,
    /// See [`Name::hash`].
    pub(super) name_hash: u64,
    /// Of its action and body.
    pub(super) fingerprint: u64,
    pub(super) payload: Payload,
    pub(super) priority: Priority,
    /// Its affinity key's hash; 0 without one.
    pub(super) affinity: u64,
    pub(super) tenant: Tenant,
    /// The session that sent it, if it names no tenant.
    pub(super) sender: Option<SessionKey>,
    pub(super) is_idempotent: bool,
    pub(super) is_durable: bool,
    /// Set once the journal has it on disk.
    pub(super) is_on_disk: bool,
    /// Sessions that get its outcome.
    pub(super) waiters: SmallVec<[SessionKey; 2]>,
    pub(super) pool: PoolKey,
    pub(super) subqueue: usize,
    pub(super) received: Mono,
    pub(super) deadline: Mono,
    pub(super) timer: Option<TimerKey>,
    pub(super) state: TaskState,
    /// Attempts so far.
    pub(super) attempts: u32,
    /// Attempts that were handed back for good.
    pub(super) nacks: u32,
    /// The worker that could not or did not do it last.
    pub(super) avoid: Option<AgentKey>,
    /// A ready worker could have taken it at some time.
    pub(super) had_worker: bool,
    /// The newest, at least as many as a trace has.
    pub(super) hops: Vec<Hop>,
    /// Set when its client takes the result in parts.
    pub(super) stream: Option<StreamKey>,
    /// What most tasks have nothing of.
    pub(super) extras: Option<Box<Extras>>,
    /// What ties it to other tasks, if anything does.
    pub(super) kin: Option<Box<Kin>>,
}

#[derive(Debug)]
pub(super) enum TaskState {
    /// It is in no queue: within one step, until it has a place or an end.
    Placing {
        since: Mono,
    },
    Queued {
        rank: Rank,
        since: Mono,
    },
    /// It waits for its time, in no queue.
    Delayed {
        since: Mono,
    },
    /// A worker has it. While it is hedged, the first one of two attempts; see [`Hedge`].
    Running(AttemptKey),
    Ending(Box<(Deliver, Bytes)>),
}

impl TaskState {
    /// Since when it waits, if no worker has it and its end is not decided.
    pub(super) fn waits_since(&self) -> Option<Mono> {
        match self {
            TaskState::Placing { since }
            | TaskState::Queued { since, .. }
            | TaskState::Delayed { since } => Some(*since),
            TaskState::Running(_) | TaskState::Ending(_) => None,
        }
    }
}

/// What most tasks have nothing of.
#[derive(Debug, Default)]
pub(super) struct Extras {
    /// What its SEND asked for.
    pub(super) asked: TaskExtras,
    /// Of the running attempt, the first one of two: when it was routed, or gave its latest sign of
    /// life.
    pub(super) last_sign: Mono,
    /// Attempts that workers put off.
    pub(super) put_off: u32,
    /// Attempts that failed without having begun.
    pub(super) unstarted: u32,
    /// Workers that put it off since it last waited.
    pub(super) put_off_by: SmallVec<[AgentKey; 4]>,
    /// Set when its input comes in chunks.
    pub(super) upload: Option<Box<Upload>>,
    /// Attempts that ended badly.
    pub(super) faults: Faults,
    /// What another attempt beside a slow one needs.
    pub(super) hedge: Hedge,
    /// Set when it was copied, or is a copy.
    pub(super) mirrored: Option<Mirrored>,
    /// Set when it takes part in a split.
    pub(super) arm: Option<Assigned>,
    /// The worker in whose lines it waits, if it waits in one's.
    pub(super) pinned: Option<Member>,
    /// Set when a step of its fallback chain has it, or has answered it.
    pub(super) detour: Option<Box<Detour>>,
    /// The time to live that it came with, if that was before the broker's start; 0 otherwise.
    pub(super) ttl_ms: u64,
    /// Whether the broker had it before it was started, and may have routed it then.
    pub(super) is_restored: bool,
    /// Why attempts went where they went, by their numbers, of those that are no hop yet.
    pub(super) explanations: Vec<(u32, Box<Explanation>)>,
    /// Set when it came with a trace, or is recorded.
    pub(super) traced: Option<Traced>,
}

/// Explanations in all hops of a task: with them, a trace has room for as many hops as it may have.
const MAX_EXPLANATIONS_BYTES: usize = 6 * 1024;

impl Task {
    /// Whether it does no harm when another attempt follows one that possibly started.
    pub(super) fn may_run_twice(&self) -> bool {
        self.is_idempotent || self.is_durable
    }

    /// Whether another attempt follows one whose worker was lost.
    pub(super) fn may_run_again(&self) -> bool {
        self.may_run_twice() && self.has_attempts_left() && self.has_whole_input()
    }

    /// Whether another attempt can have all of its input.
    pub(super) fn has_whole_input(&self) -> bool {
        self.upload().is_none_or(Upload::is_whole)
    }

    pub(super) fn upload(&self) -> Option<&Upload> {
        self.extras.as_ref()?.upload.as_deref()
    }

    /// Attempts so far, without those that were handed back, or ended while another one went on.
    pub(super) fn tries(&self) -> u32 {
        let uncounted = |extras: &Extras| extras.put_off + extras.hedge.absorbed;
        self.attempts - self.nacks - self.extras.as_deref().map_or(0, uncounted)
    }

    pub(super) fn has_attempts_left(&self) -> bool {
        let retry = self.extras.as_ref().and_then(|extras| extras.asked.retry);
        retry.is_none_or(|retry| self.tries() < retry.max_attempts)
    }

    /// Whether the broker had it before it was started.
    pub(super) fn is_restored(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.is_restored)
    }

    /// Whether the handler may have begun in one of its attempts, those before a restart included.
    pub(super) fn may_have_run(&self) -> bool {
        match &self.extras {
            Some(extras) => {
                let is_hidden = extras.is_restored || extras.hedge.may_have_run;
                is_hidden || self.tries() > extras.unstarted
            }
            None => self.tries() > 0,
        }
    }

    /// When to look after it while a worker has it: at its deadline, when there should have been a
    /// sign of life, or when another attempt is to begin.
    pub(super) fn look_at(&self) -> Mono {
        self.extras.as_ref().map_or(self.deadline, |extras| extras.look_at().min(self.deadline))
    }

    /// What it asks of its worker.
    pub(super) fn ask(&self, registry: &Registry) -> Ask {
        let avoid = self.avoid.and_then(|agent| registry.member(agent, self.pool));
        Ask { key: self.affinity, avoid }
    }

    pub(super) fn extras_mut(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    /// Whether its trace tells why its attempts went where they went.
    pub(super) fn is_explained(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.asked.explain)
    }

    /// Notes why an attempt goes where it goes.
    pub(super) fn explain(&mut self, attempt: u32, explanation: Explanation) {
        let explanations = &mut self.extras_mut().explanations;
        explanations.retain(|(other, _)| *other != attempt);
        explanations.push((attempt, Box::new(explanation)));
    }

    #[inline]
    pub(super) fn add_hop(&mut self, mut hop: Hop) {
        if self.is_explained() {
            self.add_explanation(&mut hop);
        }
        // One more than a trace has is left, so that it says that some are missing.
        if self.hops.len() > 2 * MAX_HOPS {
            self.hops.drain(..MAX_HOPS);
        }
        // Mostly the only one.
        if self.hops.is_empty() {
            self.hops.reserve_exact(1);
        }
        self.hops.push(hop);
    }

    #[cold]
    fn add_explanation(&mut self, hop: &mut Hop) {
        let explanations = &mut self.extras_mut().explanations;
        let Some(index) = explanations.iter().position(|it| it.0 == hop.attempt) else { return };
        let explanation = explanations.swap_remove(index).1;
        let mut bytes = explanation.json_bytes();
        hop.explanation = Some(explanation);
        for older in self.hops.iter_mut().rev() {
            bytes += older.explanation.as_ref().map_or(0, |it| it.json_bytes());
            if bytes > MAX_EXPLANATIONS_BYTES {
                older.explanation = None;
            }
        }
    }

    /// The time to live that it came with.
    pub(super) fn ttl_ms(&self) -> u64 {
        match self.extras.as_ref().map_or(0, |extras| extras.ttl_ms) {
            0 => self.deadline.since(self.received).div_ceil(1000),
            ttl_ms => ttl_ms,
        }
    }

    /// What it costs a queue.
    pub(super) fn bytes(&self) -> usize {
        self.payload.len() + self.upload().map_or(0, Upload::room_bytes)
    }

    /// Has the processor fetch it: reads a little of each part of it, and waits for none.
    #[inline]
    pub(super) fn fetch(&self) {
        let Self { hops, state, payload, received, timer, id, .. } = self;
        let parts = (hops.len(), state.waits_since().is_some(), payload.len(), received.0);
        black_box((parts, timer.is_some(), id.as_bytes().first().copied()));
    }

    /// Where it waits, if its rank there is this.
    pub(super) fn spot(&self, rank: Rank) -> Spot {
        Spot { priority: self.priority, tenant: self.tenant, rank }
    }
}

impl Extras {
    /// When an attempt ends without a further sign of life.
    pub(super) fn silent_at(&self, last_sign: Mono) -> Mono {
        match self.asked.attempt_timeout_ms {
            0 => Mono(u64::MAX),
            timeout_ms => last_sign.plus_ms(timeout_ms.into()),
        }
    }
}

/// An attempt at a task, charged to a worker unless it is parked.
#[derive(Debug)]
pub(super) struct Attempt {
    /// None once the task has ended, or another attempt took over.
    pub(super) task: Option<TaskKey>,
    /// Its task's.
    pub(super) pool: PoolKey,
    pub(super) tenant: Tenant,
    /// What its worker was sent for its task; 0 once that is over.
    pub(super) bytes: usize,
    pub(super) agent: AgentKey,
    /// Its place in the worker's list.
    pub(super) position: usize,
    /// 1 for the task's first.
    pub(super) number: u32,
    /// How many ROUTEs its worker had been sent on its connection, with this one; 0 once it was
    /// resumed over another connection.
    pub(super) route: u64,
    pub(super) routed: Mono,
    /// The broker's queue before it, µs.
    pub(super) queue_us: u64,
    pub(super) candidates: u32,
    /// By which it was chosen.
    pub(super) policy: Policy,
    /// Runs from CANCEL until it is confirmed.
    pub(super) cancel_timer: Option<TimerKey>,
    /// Its handler waits for other tasks, and its slot is free meanwhile.
    pub(super) is_parked: bool,
    /// When that last changed.
    pub(super) park_changed: Mono,
    /// For how long it was parked before.
    pub(super) parked_us: u64,
    /// Which probe it is of its worker's breaker, if it is one.
    pub(super) probe: Option<u32>,
    /// It began beside another one.
    pub(super) is_hedge: bool,
}

impl Attempt {
    /// Whether it is parked now. Returns whether it was.
    pub(super) fn set_parked(&mut self, now: Mono, is_parked: bool) -> bool {
        let was_parked = std::mem::replace(&mut self.is_parked, is_parked);
        if was_parked != is_parked {
            if was_parked {
                self.parked_us += now.since(self.park_changed);
            }
            self.park_changed = now;
        }
        was_parked
    }

    /// For how long it has taken a slot, µs.
    pub(super) fn held_us(&self, now: Mono) -> u64 {
        let end = if self.is_parked { self.park_changed } else { now };
        end.since(self.routed).saturating_sub(self.parked_us)
    }

    /// The hop of an attempt at this task that ended now; what the worker reports of it is added by
    /// [`Hop`]'s fields.
    pub(super) fn hop(
        &self,
        now: Mono,
        task: &Task,
        node_id: NodeId,
        event: HopEvent,
        reason: &'static str,
    ) -> Hop {
        Hop {
            node_id,
            event,
            attempt: self.number,
            queue_us: self.queue_us,
            network_us: now.since(self.routed),
            worker_queue_us: 0,
            work_us: 0,
            policy: self.policy.name(),
            candidates: self.candidates,
            reason: ByteString::from_static(reason),
            // 0 would be "not told".
            began_us: match task.was_hedged() {
                true => self.routed.since(task.received).max(1),
                false => 0,
            },
            explanation: None,
        }
    }
}

/// Attempt ids on the wire: the attempt's key, and above it 16 bits of the broker's epoch.
#[derive(Debug, Clone, Copy)]
pub(super) struct AttemptIds {
    epoch: u64,
}

impl AttemptIds {
    pub(super) fn new(epoch: u64) -> Self {
        Self { epoch: epoch & 0xffff }
    }

    pub(super) fn id(self, key: AttemptKey) -> AttemptId {
        AttemptId(self.epoch << 48 | key.to_bits())
    }

    /// The key of an id, unless it is of another epoch.
    pub(super) fn key(self, id: AttemptId) -> Option<AttemptKey> {
        (id.0 >> 48 == self.epoch).then(|| Key::from_bits(id.0))
    }
}

/// What a task is looked up by, here and among the finished ones.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name<'a> {
    pub(super) identity: IdentityKey,
    pub(super) id: &'a TaskId,
    /// Of both; made once for a task.
    pub(super) hash: u64,
}

/// Tasks by key, and by identity and id.
#[derive(Debug)]
pub(super) struct Tasks {
    slab: Slab<Task>,
    links: Links,
    arrivals: Arrivals,
    /// Of those that wait, for a list in each pool.
    waiting: Links,
    names: HashTable<TaskKey>,
    hash: FixedState,
}

impl Tasks {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            slab: Slab::default(),
            links: Links::default(),
            arrivals: Arrivals::default(),
            waiting: Links::default(),
            names: HashTable::new(),
            hash: FixedState::with_seed(seed),
        }
    }

    #[inline]
    pub(super) fn name<'a>(&self, identity: IdentityKey, id: &'a TaskId) -> Name<'a> {
        Name { identity, id, hash: self.hash.hash_one((identity, id.as_bytes())) }
    }

    #[inline]
    pub(super) fn find(&self, name: Name<'_>) -> Option<TaskKey> {
        let is_it = |key: &TaskKey| {
            self.slab
                .get(*key)
                .is_some_and(|task| task.identity == name.identity && task.id == *name.id)
        };
        self.names.find(name.hash, is_it).copied()
    }

    pub(super) fn insert(&mut self, task: Task) -> TaskKey {
        let hash = task.name_hash;
        let key = self.slab.insert(task);
        self.arrivals.add(&mut self.links, key.place());
        let slab = &self.slab;
        self.names.insert_unique(hash, key, |key| slab.get(*key).map_or(0, |task| task.name_hash));
        key
    }

    #[inline]
    pub(super) fn remove(&mut self, key: TaskKey) {
        let Some(task) = self.slab.get(key) else { return };
        self.arrivals.remove(&mut self.links, key.place());
        if let Ok(entry) = self.names.find_entry(task.name_hash, |other| *other == key) {
            entry.remove();
        }
        self.slab.discard(key);
    }

    pub(super) fn get(&self, key: TaskKey) -> Option<&Task> {
        self.slab.get(key)
    }

    pub(super) fn get_mut(&mut self, key: TaskKey) -> Option<&mut Task> {
        self.slab.get_mut(key)
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// The tasks, the newest first.
    pub(super) fn newest(&self) -> impl Iterator<Item = &Task> {
        self.arrivals.newest(&self.links).filter_map(|place| self.slab.at(place))
    }

    /// A task waits from now on: adds it to those of its pool that do, by when they came.
    pub(super) fn waits(&mut self, key: TaskKey, of_pool: &mut Arrivals) {
        /// What came back is older than most; those that do so together are few, or the same age.
        const LOOKED_AT: usize = 16;
        let received = |place| self.slab.at(place).map(|task| task.received);
        let of_this = received(key.place());
        let newest = of_pool.newest(&self.waiting).next();
        if newest.is_none_or(|newest| received(newest) <= of_this) {
            return of_pool.add(&mut self.waiting, key.place());
        }
        let newer = of_pool
            .oldest(&self.waiting)
            .enumerate()
            .find(|(n, place)| *n == LOOKED_AT || received(*place) > of_this);
        if let Some((_, newer)) = newer {
            of_pool.add_before(&mut self.waiting, key.place(), newer);
        }
    }

    /// A task waits no more.
    pub(super) fn waits_no_more(&mut self, key: TaskKey, of_pool: &mut Arrivals) {
        of_pool.remove(&mut self.waiting, key.place());
    }

    /// A pool's tasks that wait, that which came first before the others.
    pub(super) fn waiting(&self, of_pool: &Arrivals) -> impl Iterator<Item = (TaskKey, &Task)> {
        of_pool.oldest(&self.waiting).filter_map(|place| self.slab.entry_at(place))
    }

    /// Since when the broker has had the oldest of a pool's tasks that wait.
    pub(super) fn oldest(&self, of_pool: &Arrivals) -> Option<Mono> {
        let oldest = of_pool.oldest(&self.waiting).next()?;
        self.slab.at(oldest).map(|task| task.received)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Task> {
        self.slab.iter().map(|(_, task)| task)
    }

    pub(super) fn keys(&self) -> Vec<TaskKey> {
        self.slab.keys()
    }

    /// Tells a task from another with the same id.
    pub(super) fn fingerprint(
        &self,
        action: &str,
        body: &[u8],
        input_follows: Option<InputLength>,
    ) -> u64 {
        match input_follows {
            None => self.hash.hash_one((action, body)),
            Some(InputLength::Unknown) => self.hash.hash_one((action, body, 0_u64)),
            Some(InputLength::Bytes(bytes)) => self.hash.hash_one((action, body, bytes)),
        }
    }
}
