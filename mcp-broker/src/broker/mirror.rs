//! The mirror: a share of an action's live tasks is copied to its shadow workers, and what they make
//! of them is compared with what became of the tasks.
//!
//! A copy is a shadow task that nobody waits for. It is made once its original is on its way, only
//! if a shadow worker has room at once, and it ends for good with its only attempt: so nobody
//! notices that a task is copied. Random choices about copies are drawn apart, so that those about
//! live tasks are the same with a mirror and without.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;

use bytes::Bytes;
use foldhash::fast::FixedState;
use mcp_proto::limits::MAX_TASK_BYTES;
use mcp_proto::{
    ActionName, Deliver, Delivery, EncodedTask, ErrorCode, HopEvent, Outcome, Payload, Priority,
    Task as ProtoTask, TaskId,
};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::family::{NOT_NEEDED, WITH_BROKER};
use super::histogram::Histogram;
use super::inflight::{Extras, Task, TaskKey, TaskState};
use super::metrics::Slot;
use super::pool::{Choice, PoolKey};
use super::rng::Rng;
use super::sessions::Sessions;
use super::{Core, Now, shadow};

/// A copy takes at most so long: one that hangs gives its place back.
const MAX_TTL_MS: u64 = 60_000;

/// The most that `max_running` can be: the table of an action is searched, and its bodies are held
/// at their workers' connections.
const MAX_RUNNING: usize = 1_024;

/// Which share of an action's tasks is copied to its shadow workers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MirrorRule {
    /// Of the tasks that are routed, in percent, 0 to 100. Tasks whose input comes in chunks, since
    /// it does not fit a frame, are not copied.
    pub percent: f64,
    /// Copies, and comparisons whose original still runs, at one time; 1 to 1,024. 64: some seconds
    /// of a share of the traffic, and at most 4 MiB of inputs.
    #[serde(default = "default_max_running")]
    pub max_running: usize,
}

fn default_max_running() -> usize {
    64
}

impl MirrorRule {
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        if !(0.0..=100.0).contains(&self.percent) {
            return Err(("mirror.percent", format!("is {}; allowed are 0 to 100", self.percent)));
        }
        if !(1..=MAX_RUNNING).contains(&self.max_running) {
            let problem = format!("is {}; allowed are 1 to {MAX_RUNNING}", self.max_running);
            return Err(("mirror.max_running", problem));
        }
        Ok(())
    }
}

/// What became of an action's copies, since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MirrorCounts {
    /// Tasks that were copied.
    pub mirrored: u64,
    /// Tasks that were not, though it was their turn: no shadow worker had room, or there were
    /// `max_running` copies.
    pub skipped: u64,
    /// Pairs with the same result: the same outcome, and the same body or error code.
    pub equal: u64,
    /// Pairs with different results.
    pub different: u64,
    /// Pairs that can't be compared: the original has no result, or was given out in parts.
    pub not_compared: u64,
    /// Copies without a result: lost with their worker, handed back, or too slow.
    pub shadow_failed: u64,
    /// Pairs that were given up, since their originals took too long and there were too many.
    pub given_up: u64,
    /// From ROUTE to RESULT, of originals whose copies have a result too.
    pub live: Histogram,
    /// The same of those copies.
    pub shadow: Histogram,
}

/// Ties a task to a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mirrored {
    /// Of the comparison.
    id: u64,
    is_copy: bool,
}

/// A task that was copied, and its copy, while one of them has not ended.
#[derive(Debug)]
struct Comparison {
    id: u64,
    copy: TaskKey,
    live: Option<Finding>,
    shadow: Option<Finding>,
}

/// A result, as far as it is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Finding {
    outcome: Outcome,
    error_code: Option<ErrorCode>,
    /// Of the body, 64 bits: of a billion equal ones, not one is likely to be wrong.
    body_hash: u64,
    is_in_parts: bool,
    /// From ROUTE to RESULT.
    held_us: u64,
}

/// One of a pair that has ended, with its result, if it has one.
#[derive(Debug)]
pub(super) struct Half {
    mirrored: Mirrored,
    action: ActionName,
    slot: Slot,
    finding: Option<Finding>,
}

impl Half {
    pub(super) fn is_copy(&self) -> bool {
        self.mirrored.is_copy
    }
}

/// Where a new comparison goes.
enum Place {
    Free,
    /// That of one that is given up.
    Of(usize),
}

/// All comparisons under way.
#[derive(Debug)]
pub(super) struct Mirrors {
    /// By action, oldest first, at most `max_running` of each.
    tables: HashMap<ActionName, VecDeque<Comparison>, FixedState>,
    rng: Rng,
    hash: FixedState,
    /// Copies so far.
    issued: u64,
}

impl Mirrors {
    pub(super) fn new(seed: u64) -> Self {
        let hash = FixedState::with_seed(seed);
        Self { tables: HashMap::with_hasher(hash.clone()), rng: Rng::new(seed), hash, issued: 0 }
    }

    /// One of a pair that ends so.
    pub(super) fn half(
        &self,
        mirrored: Mirrored,
        action: &ActionName,
        slot: Slot,
        deliver: &Deliver,
        body: &Bytes,
    ) -> Half {
        Half { mirrored, action: action.clone(), slot, finding: self.finding(deliver, body) }
    }

    fn finding(&self, deliver: &Deliver, body: &Bytes) -> Option<Finding> {
        let trace = deliver.trace.decode();
        let hop = trace.hops.last().filter(|hop| hop.event == HopEvent::Completed)?;
        Some(Finding {
            outcome: deliver.outcome,
            error_code: deliver.error.as_ref().map(|error| error.code),
            body_hash: self.hash.hash_one(&body[..]),
            is_in_parts: deliver.chunks > 0,
            held_us: hop.network_us + hop.worker_queue_us + hop.work_us,
        })
    }

    /// Whether there is a place for one more comparison of an action, and which one is to be given
    /// up for it: the oldest whose copy has ended. Those whose copies run are not given up, or none
    /// would come to its end where copies are slow.
    fn place(&self, action: &ActionName, max: usize) -> Option<Place> {
        match self.tables.get(action).filter(|table| table.len() >= max) {
            None => Some(Place::Free),
            Some(table) => table.iter().position(|it| it.shadow.is_some()).map(Place::Of),
        }
    }

    fn find(&mut self, action: &ActionName, id: u64) -> Option<&mut Comparison> {
        let table = self.tables.get_mut(action)?;
        let index = table.binary_search_by_key(&id, |it| it.id).ok()?;
        table.get_mut(index)
    }

    fn remove(&mut self, action: &ActionName, id: u64) {
        let Some(table) = self.tables.get_mut(action) else { return };
        if let Ok(index) = table.binary_search_by_key(&id, |it| it.id) {
            table.remove(index);
        }
        if table.is_empty() {
            self.tables.remove(action);
        }
    }
}

impl MirrorCounts {
    fn compare(&mut self, live: Finding, shadow: Finding) {
        self.live.record(live.held_us);
        self.shadow.record(shadow.held_us);
        let is_equal = |live: Finding, shadow: Finding| {
            (live.outcome, live.error_code, live.body_hash)
                == (shadow.outcome, shadow.error_code, shadow.body_hash)
        };
        if live.is_in_parts && live.outcome == shadow.outcome {
            self.not_compared += 1;
        } else if is_equal(live, shadow) {
            self.equal += 1;
        } else {
            self.different += 1;
        }
    }
}

/// A copy that is about to be made.
struct Copied {
    pool: PoolKey,
    subqueue: usize,
    choice: Choice,
    task: ProtoTask,
    encoded: EncodedTask,
}

impl Core {
    /// A task was routed for the first time: copies it, if it is its turn.
    pub(super) fn mirror(&mut self, now: Now, key: TaskKey) {
        let Some(task) = self.tasks.get(key) else { return };
        let Some(pool) = self.pools.get(task.pool).filter(|pool| !pool.is_shadow) else { return };
        let Some(rule) = pool.rules.mirror else { return };
        if task.upload().is_some()
            || self.is_shutting_down
            || !self.mirrors.rng.chance(rule.percent / 100.0)
        {
            return;
        }
        let (action, slot) = (pool.action.clone(), pool.slot);
        let place = self.mirrors.place(&action, rule.max_running);
        let copied = place.and_then(|place| Some((place, self.copy_of(&action, key)?)));
        let counts = self.measured.mirror(slot);
        let Some((place, copied)) = copied else {
            counts.skipped += 1;
            return;
        };
        counts.mirrored += 1;
        if let Place::Of(given_up) = place {
            counts.given_up += 1;
            self.mirrors.tables.entry(action.clone()).or_default().remove(given_up);
        }
        self.route_copy(now, key, action, copied);
    }

    /// What a copy of a task would be, and who would get it; none when nobody has room for it.
    fn copy_of(&mut self, action: &ActionName, original: TaskKey) -> Option<Copied> {
        let key = *self.shadow.pool_names.get(action)?;
        let pool = self.pools.get_mut(key).filter(|pool| pool.has_room())?;
        let payload = &self.tasks.get(original)?.payload;
        let task = EncodedTask(Bytes::copy_from_slice(payload.task())).decode().ok()?;
        let mut required_labels = task.required_labels;
        shadow::require(&mut required_labels);
        let subqueue = pool.subqueue(&required_labels, None)?;
        let choice = pool.pick(subqueue, &mut self.mirrors.rng, None)?;
        self.mirrors.issued += 1;
        let id = format!("mirror-{:x}-{:x}", self.config.epoch, self.mirrors.issued);
        let task = ProtoTask {
            id: TaskId::try_from(id).ok()?,
            required_labels,
            shadow: true,
            priority: Priority::Low,
            idempotent: false,
            delivery: Delivery::Fast,
            retry: None,
            attempt_timeout_ms: 0,
            cancel_on_disconnect: false,
            // What it sends or reports is no part of what its original does.
            parent: None,
            traceparent: Default::default(),
            tracestate: Default::default(),
            ..task
        };
        let encoded = task.encode();
        let fits = encoded.0.len() <= MAX_TASK_BYTES;
        fits.then_some(Copied { pool: key, subqueue, choice, task, encoded })
    }

    fn route_copy(&mut self, now: Now, original: TaskKey, action: ActionName, copied: Copied) {
        let Copied { pool: pool_key, subqueue, choice, task, encoded } = copied;
        let identity = Sessions::BROKER;
        let name_hash = self.tasks.name(identity, &task.id).hash;
        let id = self.mirrors.issued;
        let Some(it) = self.tasks.get_mut(original) else { return };
        it.extras_mut().mirrored = Some(Mirrored { id, is_copy: false });
        let deadline = it.deadline.min(now.mono.plus_ms(MAX_TTL_MS));
        let body = Bytes::copy_from_slice(it.payload.body());
        let payload = Payload::new(&encoded, body, &mut self.scratch);
        let mirrored = Some(Mirrored { id, is_copy: true });
        let copy = self.tasks.insert(Task {
            id: task.id,
            identity,
            name_hash,
            fingerprint: 0,
            payload,
            priority: task.priority,
            is_idempotent: false,
            is_durable: false,
            waiters: SmallVec::new(),
            pool: pool_key,
            subqueue,
            received: now.mono,
            deadline,
            timer: None,
            state: TaskState::Queued { ticket: 0, since: now.mono },
            attempts: 0,
            nacks: 0,
            avoid: None,
            had_worker: true,
            hops: Vec::new(),
            stream: None,
            extras: Some(Box::new(Extras { mirrored, ..Extras::default() })),
            kin: None,
        });
        if let Some(pool) = self.pools.get_mut(pool_key) {
            pool.tasks += 1;
            pool.subqueues[subqueue].tasks += 1;
        }
        self.shadow.tasks += 1;
        self.stats.shadow.accepted += 1;
        let comparison = Comparison { id, copy, live: None, shadow: None };
        self.mirrors.tables.entry(action).or_default().push_back(comparison);
        self.route(now, copy, choice, now.mono);
    }

    /// Whether a task is a copy: it has one attempt, whatever becomes of that.
    pub(super) fn is_copy(&self, key: TaskKey) -> bool {
        let extras = self.tasks.get(key).and_then(|task| task.extras.as_ref());
        extras.and_then(|extras| extras.mirrored).is_some_and(|it| it.is_copy)
    }

    /// One of a pair has ended: when the other has, too, they are compared.
    pub(super) fn half_ended(&mut self, now: Now, half: Half) {
        let Half { mirrored: Mirrored { id, is_copy }, action, slot, finding } = half;
        let Some(pair) = self.mirrors.find(&action, id) else { return };
        if is_copy {
            pair.shadow = finding;
        } else {
            pair.live = finding;
        }
        let (live, shadow, copy) = (pair.live, pair.shadow, pair.copy);
        let counts = self.measured.mirror(slot);
        match (live, shadow) {
            (Some(live), Some(shadow)) => counts.compare(live, shadow),
            _ if finding.is_some() => return,
            _ if is_copy => counts.shadow_failed += 1,
            _ => counts.not_compared += 1,
        }
        self.mirrors.remove(&action, id);
        if !is_copy {
            self.cancel_task(now, copy, NOT_NEEDED);
        }
    }

    /// Nobody waits for copies, so a broker that shuts down does not.
    pub(super) fn end_copies(&mut self, now: Now) {
        let copies: Vec<_> = self.mirrors.tables.values().flatten().map(|it| it.copy).collect();
        for copy in copies {
            self.cancel_task(now, copy, WITH_BROKER);
        }
    }
}
