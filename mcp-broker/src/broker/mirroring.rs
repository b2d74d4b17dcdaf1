//! The mirror: a share of an action's live tasks is copied to its shadow workers, and what they make
//! of them is compared with what became of the tasks.
//!
//! A copy is a shadow task that nobody waits for. It is made once its original is on its way, only
//! if a shadow worker has room at once, and it ends for good with its only attempt: so nobody
//! notices that a task is copied. Random choices about copies are drawn apart, so that those about
//! live tasks are the same with a mirror and without.

use bytes::Bytes;
use mcp_proto::limits::MAX_TASK_BYTES;
use mcp_proto::{ActionName, Delivery, EncodedTask, Payload, Priority, Task as ProtoTask, TaskId};
use smallvec::SmallVec;

use super::balancer::Ask;
use super::family::{NOT_NEEDED, WITH_BROKER};
use super::identities::Identities;
use super::inflight::{Extras, Task, TaskKey, TaskState};
use super::mirror::{Comparison, Half, Mirrored, Place};
use super::pool::{Choice, PoolKey};
use super::{Core, Now, shadow};

/// A copy takes at most so long: one that hangs gives its place back.
const MAX_TTL_MS: u64 = 60_000;

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
        let pool = self.pools.get_mut(key).filter(|pool| pool.has_room(&pool.subqueues[0]))?;
        let original = self.tasks.get(original)?;
        let task = EncodedTask(Bytes::copy_from_slice(original.payload.task())).decode().ok()?;
        let mut required_labels = task.required_labels;
        shadow::require(&mut required_labels);
        let subqueue = pool.subqueue(&required_labels, None)?;
        let ask = Ask { key: original.affinity, avoid: None };
        let choice = pool.pick(subqueue, &mut self.mirrors.rng, ask)?;
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
        let identity = Identities::BROKER;
        let name_hash = self.tasks.name(identity, &task.id).hash;
        let id = self.mirrors.issued;
        let Some(it) = self.tasks.get_mut(original) else { return };
        it.extras_mut().mirrored = Some(Mirrored { id, is_copy: false });
        if let Some(stream) = it.stream {
            self.streams.begin_digest(stream);
        }
        let affinity = it.affinity;
        let deadline = it.deadline.min(now.mono.plus_ms(MAX_TTL_MS));
        let body = Bytes::copy_from_slice(it.payload.body());
        let payload = Payload::new(&encoded, body, &mut self.scratch);
        let mirrored = Some(Mirrored { id, is_copy: true });
        let Some(pool) = self.pools.get_mut(pool_key) else { return };
        pool.tasks += 1;
        pool.subqueues[subqueue].tasks += 1;
        let tenant = pool.tenants.enter(now.mono, task.tenant.as_bytes());
        self.identities.usage_mut(identity).begin(payload.len());
        let copy = self.tasks.insert(Task {
            id: task.id,
            identity,
            name_hash,
            fingerprint: 0,
            payload,
            priority: task.priority,
            affinity,
            tenant,
            sender: None,
            is_idempotent: false,
            is_durable: false,
            is_on_disk: false,
            waiters: SmallVec::new(),
            pool: pool_key,
            subqueue,
            received: now.mono,
            deadline,
            timer: None,
            state: TaskState::Placing { since: now.mono },
            attempts: 0,
            nacks: 0,
            avoid: None,
            had_worker: true,
            hops: Vec::new(),
            stream: None,
            extras: Some(Box::new(Extras { mirrored, ..Extras::default() })),
            kin: None,
        });
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
