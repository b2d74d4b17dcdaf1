//! The way of a task along a fallback chain.

use std::sync::Arc;

use bytes::Bytes;
use mcp_proto::{ActionName, Cause, Deliver, ErrorInfo, Outcome};

use super::answers::Question;
use super::search::{Does, Found, Seeker, is_want_of_worker};
use super::{FallbackStep, StepKind};
use crate::broker::admission::Admitted;
use crate::broker::ending::End;
use crate::broker::inflight::{Task, TaskKey, TaskState};
use crate::broker::metrics::Slot;
use crate::broker::mirror::Half;
use crate::broker::rules::ActionRules;
use crate::broker::{Core, CoreConfig, Mono, Now};

/// How often a task that waits looks whether there still is a worker for it, if there is anything else
/// for it: at least a second apart.
const MIN_LOOK_MS: u64 = 1_000;

/// A task that has left the way to its action's workers.
#[derive(Debug)]
pub(in crate::broker) struct Detour {
    /// What its client asked for, and where that is measured.
    pub(in crate::broker) action: ActionName,
    pub(in crate::broker) slot: Slot,
    /// As they were then: a change does not make it take a step twice.
    rules: Arc<ActionRules>,
    /// The step that has it; none once all have given up.
    at: Option<usize>,
    /// The step to try next.
    next: usize,
}

impl Detour {
    fn step(&self) -> Option<&FallbackStep> {
        self.rules.fallback.get(self.at?)
    }

    pub(in crate::broker) fn kind(&self) -> Option<StepKind> {
        self.step().map(FallbackStep::kind)
    }

    /// What a DELIVER says of it.
    pub(in crate::broker) fn told(&self) -> Option<Box<str>> {
        self.step().map(FallbackStep::told)
    }
}

impl Task {
    pub(in crate::broker) fn detour(&self) -> Option<&Detour> {
        self.extras.as_ref()?.detour.as_deref()
    }
}

impl Core {
    /// Has a task take a step that was found for it.
    pub(in crate::broker) fn take_step(&mut self, now: Now, key: TaskKey, found: Found) {
        let Found { rules, index, does } = found;
        let since = self.leave_queue(key).unwrap_or(now.mono);
        let Some(task) = self.tasks.get_mut(key) else { return };
        let Some(pool) = self.pools.get(task.pool) else { return };
        task.state = TaskState::Placing { since };
        let (stream, attempts) = (task.stream, task.attempts);
        let (action, slot) = (pool.action.clone(), pool.slot);
        let extras = task.extras_mut();
        // It is none of its arm's any more, and is compared with no copy.
        extras.arm = None;
        let mirrored = extras.mirrored.take();
        let half =
            mirrored.map(|mirrored| Half { mirrored, action: action.clone(), slot, finding: None });
        let detour = extras
            .detour
            .get_or_insert_with(|| Box::new(Detour { action, slot, rules, at: None, next: 0 }));
        (detour.at, detour.next) = (Some(index), index + 1);
        if let Some(half) = half {
            self.half_ended(now, half);
        }
        match does {
            Does::Answer { content_type, headers, body } => {
                // What earlier attempts gave out is no part of this answer.
                if let Some(stream) = stream {
                    self.streams.void(stream, attempts + 1);
                }
                let (outcome, executed) = (Outcome::Ok, self.executed_so_far(key));
                let end = End { outcome, executed, content_type, error: None, body, headers };
                self.end(now, key, end);
            }
            Does::Place { at, payload } => {
                if let Some(task) = self.tasks.get_mut(key) {
                    let usage = self.identities.usage_mut(task.identity);
                    usage.end(task.payload.len());
                    usage.begin(payload.len());
                    task.payload = payload;
                }
                self.move_to(key, at);
                self.place(now, key, false);
            }
        }
    }

    /// Makes a task that waits nowhere one of another action's pool, which has admitted it.
    fn move_to(&mut self, key: TaskKey, to: Admitted) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let (from, subqueue, tenant) = (task.pool, task.subqueue, task.tenant);
        (task.pool, task.subqueue, task.tenant) = (to.pool, to.subqueue, to.tenant);
        if let Some(pool) = self.pools.get_mut(to.pool) {
            pool.tasks += 1;
            pool.subqueues[to.subqueue].tasks += 1;
        }
        if let Some(pool) = self.pools.get_mut(from) {
            pool.tasks -= 1;
            pool.subqueues[subqueue].tasks -= 1;
            pool.tenants.leave(tenant);
        }
        self.drop_pool_if_unused(from);
    }

    /// A task gets no worker: the next step of its chain takes it, or it ends rejected.
    pub(in crate::broker) fn give_up(&mut self, now: Now, key: TaskKey, mut error: ErrorInfo) {
        if self.takes_next_step(now, key, &mut error) {
            return;
        }
        let detour = self.tasks.get_mut(key).and_then(|task| task.extras.as_mut()?.detour.as_mut());
        if let Some(detour) = detour {
            detour.at = None;
        }
        let executed = self.executed_so_far(key);
        self.end(now, key, End::without_result(Outcome::Rejected, executed, error));
    }

    /// The same, of a task that does not end if nothing answers it. Returns whether a step took it.
    pub(in crate::broker) fn takes_next_step(
        &mut self,
        now: Now,
        key: TaskKey,
        error: &mut ErrorInfo,
    ) -> bool {
        is_want_of_worker(error.code) && self.fall_back(now, key, &mut error.causes)
    }

    /// Has a task that waits, or has no place, take the next step of its chain. Returns whether there
    /// was one that could take it.
    fn fall_back(&mut self, now: Now, key: TaskKey, refusals: &mut Vec<Cause>) -> bool {
        let Some(task) = self.tasks.get(key) else { return false };
        let Some(pool) = self.pools.get(task.pool).filter(|pool| !pool.is_shadow) else {
            return false;
        };
        let subqueue = &pool.subqueues[task.subqueue];
        let (action, rules, from) = match task.detour() {
            Some(detour) => (detour.action.clone(), detour.rules.clone(), detour.next),
            None => (pool.action.clone(), pool.rules.clone(), 0),
        };
        if from >= rules.fallback.len() {
            return false;
        }
        let upload = task.upload();
        let seeker = Seeker {
            identity: task.identity,
            sender: task.sender,
            fingerprint: task.fingerprint,
            payload: task.payload.clone(),
            required: subqueue.without_arm.as_ref().unwrap_or(&subqueue.required).clone(),
            affinity: task.affinity,
            deadline: task.deadline,
            needs_place: false,
            upload_room_bytes: upload.map(|upload| upload.room_bytes()),
            can_run: now.mono < task.deadline && task.has_whole_input(),
        };
        match self.step_for(now, action.as_str(), &seeker, &rules, from, refusals) {
            Some(found) => {
                self.take_step(now, key, found);
                true
            }
            None => false,
        }
    }

    /// Has a task whose pool has no worker for it, or is degraded, leave it if there is another way.
    /// Returns whether it did.
    pub(in crate::broker) fn sidestep(&mut self, now: Now, key: TaskKey) -> bool {
        let Some(task) = self.tasks.get(key) else { return false };
        let Some(pool) = self.pools.get(task.pool) else { return false };
        if now.mono >= task.deadline {
            return false;
        }
        if pool.is_degraded {
            let error = self.degraded_error(pool.action.as_str());
            self.give_up(now, key, error);
            return true;
        }
        // The workers of before a restart are coming back.
        let grace = Mono::default().plus_ms(self.config.restart_grace_ms);
        !pool.has_worker(task.subqueue)
            && now.mono >= grace
            && self.fall_back(now, key, &mut Vec::new())
    }

    /// Keeps the answer of a task's worker for others.
    pub(in crate::broker) fn keep_answer(
        &mut self,
        now: Now,
        key: TaskKey,
        deliver: &Deliver,
        body: &Bytes,
    ) {
        let Some(task) = self.tasks.get(key).filter(|task| task.detour().is_none()) else { return };
        let Some(pool) = self.pools.get(task.pool) else { return };
        let Ok(head) = task.payload.head() else { return };
        if deliver.chunks > 0 {
            return;
        }
        let question = Question {
            identity: task.identity,
            action: pool.action.as_str(),
            tenant: head.tenant,
            affinity_key: head.affinity_key,
            fingerprint: task.upload().is_none().then_some(task.fingerprint),
        };
        for step in &pool.rules.fallback {
            if let FallbackStep::Cached { by, .. } = step
                && let Some(key) = self.answers.key(question, *by)
            {
                self.answers.keep(key, now.mono, deliver, body);
            }
        }
    }
}

impl CoreConfig {
    /// When a task that waits looks again whether there is a worker for it.
    pub(in crate::broker) fn next_look(&self, now: Now) -> Mono {
        now.mono.plus_ms(self.no_worker_wait_ms.max(MIN_LOOK_MS))
    }
}
