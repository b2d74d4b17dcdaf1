//! Ending tasks: their deadlines, their outcomes, and who is told.

use bytes::Bytes;
use bytestring::ByteString;
use mcp_proto::{
    ActionName, Cancel, CancelReason, ContextTrace, Deliver, EncodedFrame, ErrorCode, ErrorInfo,
    Executed, Hop, HopEvent, Labels, LazyTrace, Message, Outcome, ResultHeaders,
};

use super::durable::DurableEnd;
use super::fallback::Detour;
use super::family::ends_children;
use super::finished::Kept;
use super::health::barred;
use super::inflight::{AttemptKey, Name, Task, TaskKey, TaskState};
use super::mirror::{Finding, Half};
use super::pool::Pool;
use super::registry::AgentKey;
use super::traced::Traced;
use super::{Core, Mono, Now, Timer};

/// How a task ends.
#[derive(Debug)]
pub(super) struct End {
    pub(super) outcome: Outcome,
    pub(super) executed: Executed,
    pub(super) content_type: ByteString,
    pub(super) error: Option<Box<ErrorInfo>>,
    pub(super) body: Bytes,
    pub(super) headers: ResultHeaders,
}

impl End {
    pub(super) fn without_result(outcome: Outcome, executed: Executed, error: ErrorInfo) -> Self {
        Self {
            outcome,
            executed,
            content_type: ByteString::new(),
            error: Some(Box::new(error)),
            body: Bytes::new(),
            headers: None,
        }
    }
}

impl Core {
    /// A task's timer fired: its time to live is over, or its wait for any worker at all.
    pub(super) fn task_is_due(&mut self, now: Now, key: TaskKey) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.timer = None;
        let deadline = task.deadline;
        let is_expired = now.mono >= deadline;
        match task.state {
            TaskState::Running(_) if is_expired => {
                let error = "its time to live ran out while a worker had it";
                self.end_attempts(now, key, HopEvent::Expired, error, CancelReason::Expired);
                let error = ErrorInfo::new(ErrorCode::Expired, error);
                self.end(now, key, End::without_result(Outcome::Expired, Executed::Maybe, error));
            }
            TaskState::Queued { rank, .. } => match self.no_worker(now.mono, key) {
                Some(error) => self.give_up(now, key, error),
                None if is_expired => self.expire_queued(now, key),
                None if now.mono >= rank.until() => self.has_waited_too_long(now, key),
                None => self.wait_on(now, key, rank.until()),
            },
            TaskState::Delayed { .. } if is_expired => self.expire_delayed(now, key),
            TaskState::Delayed { .. } => self.place(now, key, true),
            TaskState::Running(_) => self.look_at_attempts(now, key),
            TaskState::Placing { .. } | TaskState::Ending(_) => {}
        }
    }

    /// A task waits for a worker until then, unless there is another way and no worker any more.
    fn wait_on(&mut self, now: Now, key: TaskKey, until: Mono) {
        let Some(task) = self.tasks.get(key) else { return };
        let Some(pool) = self.pools.get(task.pool) else { return };
        if !pool.has_other_way && task.detour().is_none() {
            return self.set_task_timer(key, until);
        }
        if !self.sidestep(now, key) {
            self.set_task_timer(key, self.config.next_look(now).min(until));
        }
    }

    /// A task's time to live ran out before a worker had room for it.
    pub(super) fn expire_queued(&mut self, now: Now, key: TaskKey) {
        let message = format!("its time to live ran out while {}", self.what_it_waits_for(key));
        let error = ErrorInfo::new(ErrorCode::Expired, message);
        let executed = self.executed_so_far(key);
        self.end(now, key, End::without_result(Outcome::Expired, executed, error));
    }

    /// A task has waited for a worker for as long as its action lets tasks wait.
    fn has_waited_too_long(&mut self, now: Now, key: TaskKey) {
        let Some(task) = self.tasks.get(key) else { return };
        let Some(pool) = self.pools.get(task.pool) else { return };
        let waited_ms = now.mono.since(task.received) / 1000;
        let message = format!(
            "it waited for {waited_ms} ms, as long as tasks of {} may, while {}",
            pool.action,
            self.what_it_waits_for(key)
        );
        let error = ErrorInfo::new(ErrorCode::AllBusy, message);
        let error = error.retry_after_ms(pool.retry_after_ms());
        self.give_up(now, key, error);
    }

    /// Why a task is still in its queue, as a part of a sentence.
    fn what_it_waits_for(&self, key: TaskKey) -> &'static str {
        let subqueue = self
            .tasks
            .get(key)
            .and_then(|task| self.pools.get(task.pool).map(|pool| &pool.subqueues[task.subqueue]));
        match subqueue {
            Some(subqueue) if subqueue.ready > 0 => "all workers were busy",
            Some(subqueue) if subqueue.is_barred() => "the breakers of all its workers were open",
            Some(subqueue) if subqueue.eligible > 0 => "no worker for it was ready any more",
            Some(_) | None => "no worker for it was left",
        }
    }

    /// A task's time to live ran out before its next attempt was due.
    fn expire_delayed(&mut self, now: Now, key: TaskKey) {
        let message = "its time to live ran out while it waited for its time";
        let error = ErrorInfo::new(ErrorCode::Expired, message);
        let executed = self.executed_so_far(key);
        self.end(now, key, End::without_result(Outcome::Expired, executed, error));
    }

    /// Why no worker could have taken a queued task, or can for too long now, if that is so.
    pub(super) fn no_worker(&self, now: Mono, key: TaskKey) -> Option<ErrorInfo> {
        let task = self.tasks.get(key)?;
        let pool = self.pools.get(task.pool)?;
        let subqueue = &pool.subqueues[task.subqueue];
        let wait_ms = self.config.no_worker_wait_ms;
        let is_barred = || subqueue.barred_since().is_some_and(|at| now >= at.plus_ms(wait_ms));
        if task.is_durable || subqueue.ready > 0 || task.had_worker && !is_barred() {
            return None;
        }
        if subqueue.is_barred() {
            return Some(barred(now, pool, subqueue));
        }
        let error = self.nobody_for(&pool.action, &subqueue.required, subqueue.eligible);
        Some(error.retry_after_ms(wait_ms))
    }

    /// Why no worker takes the tasks of an action that require these labels, of those so many that
    /// have them.
    pub(super) fn nobody_for(
        &self,
        action: &ActionName,
        required: &Labels,
        eligible: u32,
    ) -> ErrorInfo {
        if eligible > 0 {
            let message = format!(
                "{eligible} workers serve {action}, but none is ready: standby, draining or lost"
            );
            ErrorInfo::new(ErrorCode::AllUnhealthy, message)
        } else if required.is_empty() {
            let shadow = self.shadow.pool_names.get(action).and_then(|key| self.pools.get(*key));
            let but = match shadow {
                Some(shadow) if shadow.workers() > 0 => " but with the label shadow=true",
                Some(_) | None => "",
            };
            let message = format!("no worker serves {action}{but}; start one, or check the name");
            ErrorInfo::new(ErrorCode::NoWorker, message)
        } else {
            let labels: Vec<_> = required.0.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let labels = labels.join(", ");
            let message = format!("no worker serves {action} with the labels {labels}");
            ErrorInfo::new(ErrorCode::NoWorker, message)
        }
    }

    fn pool_of(&self, key: TaskKey) -> Option<&Pool> {
        self.pools.get(self.tasks.get(key)?.pool)
    }

    /// What a task's client asked for, whoever is to do it.
    pub(super) fn action_of<'a>(&'a self, task: &'a Task) -> Option<&'a ActionName> {
        match task.detour() {
            Some(detour) => Some(&detour.action),
            None => Some(&self.pools.get(task.pool)?.action),
        }
    }

    /// Whether an earlier attempt of a queued task may have run.
    pub(super) fn executed_so_far(&self, key: TaskKey) -> Executed {
        match self.tasks.get(key) {
            Some(task) if task.may_have_run() => Executed::Maybe,
            _ => Executed::No,
        }
    }

    /// Ends all attempts of a task that is about to end, as their hops tell.
    pub(super) fn end_attempts(
        &mut self,
        now: Now,
        key: TaskKey,
        event: HopEvent,
        why: &'static str,
        reason: CancelReason,
    ) {
        let Some(task) = self.tasks.get(key) else { return };
        for attempt in task.live_attempts() {
            self.add_hop(now, key, attempt, event, why);
            self.cancel_attempt(now, attempt, reason);
        }
    }

    /// Ends an attempt whose task has ended, or goes elsewhere. It stays charged to its worker until
    /// that confirms.
    pub(super) fn cancel_attempt(&mut self, now: Now, key: AttemptKey, reason: CancelReason) {
        let Some(agent) = self.unbind(key) else { return };
        let connection = self.registry.get(agent).and_then(|agent| agent.connection);
        if let Some(to) = connection
            && let Some(attempt) = self.attempts.get_mut(key)
            && attempt.cancel_timer.is_none()
        {
            let at = now.mono.plus_ms(self.config.cancel_grace_ms);
            attempt.cancel_timer = Some(self.timers.set(at, Timer::Cancel(key)));
            let id = self.attempt_ids.id(key);
            self.send(to, Message::Cancel(Cancel::Attempt(id, reason)));
        }
    }

    /// The attempt is of no task any more: what its worker was sent for it may be gone from memory.
    /// Returns whose attempt it is.
    pub(super) fn unbind(&mut self, key: AttemptKey) -> Option<AgentKey> {
        let attempt = self.attempts.get_mut(key)?;
        attempt.task = None;
        let agent = self.registry.get_mut(attempt.agent)?;
        agent.attempts_bytes -= std::mem::take(&mut attempt.bytes);
        Some(attempt.agent)
    }

    /// Records how an attempt ended, as the broker saw it.
    pub(super) fn add_hop(
        &mut self,
        now: Now,
        key: TaskKey,
        attempt: AttemptKey,
        event: HopEvent,
        reason: &'static str,
    ) {
        let Some(attempt) = self.attempts.get(attempt) else { return };
        let Some(agent) = self.registry.get(attempt.agent) else { return };
        if let Some(task) = self.tasks.get_mut(key) {
            task.add_hop(attempt.hop(now.mono, task, agent.node_id.clone(), event, reason));
        }
    }

    /// Gives a task its outcome. A durable one's is journalled before it is told.
    pub(super) fn end(&mut self, now: Now, key: TaskKey, mut end: End) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        if matches!(task.state, TaskState::Ending(_)) {
            return;
        }
        let has_kin = task.kin.is_some();
        if has_kin {
            self.end_children(now, key, end.outcome);
        }
        let Some(task) = self.tasks.get_mut(key) else { return };
        if let Some(timer) = task.timer.take() {
            self.timers.cancel(timer);
        }
        let (is_running, is_durable) =
            (matches!(task.state, TaskState::Running(_)), task.is_durable);
        let is_on_disk = task.is_on_disk;
        let hops = std::mem::take(&mut task.hops);
        let body = std::mem::take(&mut end.body);
        if is_on_disk && end.executed == Executed::No && !self.can_be_durable() {
            // Its outcome will not be on disk: after a restart it may run.
            end.executed = Executed::Maybe;
        }
        let Some(task) = self.tasks.get(key) else { return };
        let mut deliver = self.outcome_of(now, task, end, hops);
        if has_kin {
            self.join_traces(key, &mut deliver);
        }
        if !is_running {
            self.leave_queue(key);
        }
        if is_durable && self.can_be_durable() {
            self.bury(now, key, &deliver);
            self.journal_ended(now, key, deliver, body);
        } else {
            self.finish(now, key, &mut deliver, body);
        }
    }

    /// What is told of a task that ends so.
    pub(super) fn outcome_of(&self, now: Now, task: &Task, end: End, hops: Vec<Hop>) -> Deliver {
        let waited_us = task.state.waits_since().map_or(0, |since| now.mono.since(since));
        let (chunks, attempt) = self.streams.chunks(task.stream);
        let mut error = end.error;
        if let Some(error) = &mut error {
            error.task_id = Some(task.id.clone());
            error.node_id.get_or_insert_with(|| self.config.broker_id.clone());
        }
        Deliver {
            task_id: task.id.clone(),
            outcome: end.outcome,
            executed: end.executed,
            content_type: end.content_type,
            error,
            headers: end.headers,
            trace: ContextTrace {
                broker_id: Some(self.config.broker_id.clone()),
                total_us: now.mono.since(task.received),
                queue_us: waited_us,
                hops,
                children: Vec::new(),
                truncated: false,
                trace_id: task.traced().and_then(Traced::given_id),
            }
            .into(),
            chunks,
            attempt,
            fallback: task.detour().and_then(Detour::told),
        }
    }

    /// Tells an outcome to all who wait for it, and keeps it for a while. Takes its hops.
    pub(super) fn finish(&mut self, now: Now, key: TaskKey, deliver: &mut Deliver, body: Bytes) {
        let keeps_answers = deliver.outcome == Outcome::Ok
            && self.pool_of(key).is_some_and(|pool| pool.keeps_answers);
        if keeps_answers {
            self.keep_answer(now, key, deliver, &body);
        }
        let Some(task) = self.tasks.get_mut(key) else { return };
        let waiters = std::mem::take(&mut task.waiters);
        let mut extras = task.extras.take();
        let Task { identity, name_hash, fingerprint, received, stream, .. } = *task;
        let Task { priority, tenant, attempts, subqueue, pool: pool_key, .. } = *task;
        let durable = task.is_durable.then(|| task.payload.clone());
        self.identities.usage_mut(identity).end(task.payload.len());
        self.tasks.remove(key);
        let Some(pool) = self.pools.get_mut(pool_key) else { return };
        pool.tasks -= 1;
        pool.subqueues[subqueue].tasks -= 1;
        let is_open = pool.subqueues[subqueue].without_arm.is_none();
        pool.tenants.leave(tenant);
        pool.note_end(now.mono);
        let is_shadow = pool.is_shadow;
        // Where it was in the end, and what its client asked for.
        let (placed, placed_slot, is_unused) = (pool.action.clone(), pool.slot, pool.is_unused());
        let detour = extras.as_mut().and_then(|extras| extras.detour.take());
        let (asked, slot) = match detour {
            None => (None, placed_slot),
            Some(detour) => {
                if let Some(kind) = detour.kind() {
                    self.stats.degraded += 1;
                    self.measured.degraded(detour.slot, kind);
                }
                (Some(detour.action), detour.slot)
            }
        };
        let total_us = now.mono.since(received);
        self.measured.ended(now.mono, slot, is_shadow, deliver, total_us);
        self.shadow.tasks -= usize::from(is_shadow);
        if is_unused {
            self.drop_pool_if_unused(pool_key);
        }
        let mut half = None;
        let mut traced = None;
        if let Some(extras) = extras {
            traced = extras.traced;
            if let Some(upload) = extras.upload {
                self.uploads.end(key, &upload);
            }
            if let Some(arm) = &extras.arm {
                self.count_in_arm(slot, arm, is_open, deliver, now.mono.since(received));
            }
            half = extras.mirrored.map(|mirrored| {
                let parts = stream.and_then(|stream| self.streams.digest(stream));
                let finding = Finding::of(parts, deliver, &body);
                Half { mirrored, action: placed.clone(), slot: placed_slot, finding }
            });
        }
        if let Some(stream) = stream {
            self.streams.end(stream);
        }
        self.stats.count(deliver.outcome, is_shadow);
        if let Some(copy) = half.take_if(|half| half.is_copy()) {
            // Nobody waits for it, or asks for it later.
            return self.half_ended(now, copy);
        }
        let arena = self.finished.arena(deliver.outcome);
        let frame = EncodedFrame::deliver(deliver, body, arena);
        for session in waiters {
            if let Some(session) = self.sessions.get_mut(session) {
                session.tasks -= 1;
            }
            self.deliver(session, frame.clone(), durable.as_ref().map(|_| &deliver.task_id));
        }
        let Deliver { outcome, executed, .. } = *deliver;
        let action = asked.unwrap_or(placed);
        if let Some(traced) = traced {
            self.tell_trace(now, &traced, deliver, (&action, priority, durable.is_some()));
        }
        if let Some(payload) = durable {
            let name = Name { identity, id: &deliver.task_id, hash: name_hash };
            self.durable_ends(
                now,
                DurableEnd { name, action: &action, payload: &payload, executed, frame: &frame },
            );
        }
        let mut node_id = None;
        if let LazyTrace::Decoded(trace) = &mut deliver.trace {
            node_id = trace.hops.last().map(|hop| hop.node_id.clone());
            trace.hops.clear();
            self.spare_hops = std::mem::take(&mut trace.hops);
        }
        self.finished.push(Kept {
            identity,
            name_hash,
            fingerprint,
            node_id,
            task_id: deliver.task_id.clone(),
            is_refusal: outcome == Outcome::Rejected && executed == Executed::No,
            ends_children: ends_children(outcome),
            frame,
            action,
            priority,
            outcome,
            error_code: deliver.error.as_ref().map(|error| error.code),
            attempts,
            received,
            ended: now.mono,
        });
        if let Some(original) = half {
            self.half_ended(now, original);
        }
    }
}
