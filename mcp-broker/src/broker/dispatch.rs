//! Placing tasks and ending them.

use bytes::Bytes;
use bytestring::ByteString;
use mcp_proto::{
    ActionName, Cancel, CancelReason, ContextTrace, Deliver, ErrorCode, ErrorInfo, Executed,
    HopEvent, Labels, Message, Outcome, Route,
};

use super::balancer::Member;
use super::finished::Kept;
use super::inflight::{Attempt, AttemptKey, Task, TaskKey, TaskState};
use super::pool::{Choice, MAX_SUBQUEUES, Pool, PoolKey};
use super::queue::{Ticket, Waiting};
use super::registry::AgentKey;
use super::{Core, Now, Timer};

/// How a task ends.
#[derive(Debug)]
pub(super) struct End {
    pub(super) outcome: Outcome,
    pub(super) executed: Executed,
    pub(super) content_type: ByteString,
    pub(super) error: Option<Box<ErrorInfo>>,
    pub(super) body: Bytes,
}

impl End {
    pub(super) fn without_result(outcome: Outcome, executed: Executed, error: ErrorInfo) -> Self {
        Self {
            outcome,
            executed,
            content_type: ByteString::new(),
            error: Some(Box::new(error)),
            body: Bytes::new(),
        }
    }
}

impl Core {
    /// The pool of an action, made if there is none.
    pub(super) fn pool(&mut self, action: &ActionName) -> PoolKey {
        if let Some(key) = self.pool_names.get(action) {
            return *key;
        }
        let key = self.pools.insert(Pool::new(action.clone(), self.config.policy));
        self.pool_names.insert(action.clone(), key);
        key
    }

    pub(super) fn drop_pool_if_unused(&mut self, key: PoolKey) {
        if self.pools.get(key).is_some_and(Pool::is_unused)
            && let Some(pool) = self.pools.remove(key)
        {
            self.pool_names.remove(&pool.action);
        }
    }

    /// Where a new task would wait, if it has to and may.
    pub(super) fn queue_for(
        &mut self,
        action: &ActionName,
        required: &Labels,
        bytes: usize,
    ) -> Result<(PoolKey, usize), ErrorInfo> {
        let full = |message, retry_after_ms| {
            Err(ErrorInfo::new(ErrorCode::QueueFull, message).retry_after_ms(retry_after_ms))
        };
        if self.tasks.len() >= self.config.max_tasks {
            return full(format!("the broker has {} tasks, its limit", self.tasks.len()), 1_000);
        }
        let key = self.pool(action);
        let Some(pool) = self.pools.get_mut(key) else { unreachable!("made above") };
        let Some(subqueue) = pool.subqueue(required) else {
            let message = format!(
                "tasks with {MAX_SUBQUEUES} different sets of required labels are in flight for {action}, the limit"
            );
            return full(message, 1_000);
        };
        let must_wait = {
            let subqueue = &pool.subqueues[subqueue];
            subqueue.queued > 0 || subqueue.balancer.len() == 0
        };
        let is_full = pool.queued >= self.config.max_queue_tasks
            || pool.queued_bytes + bytes > self.config.max_queue_bytes;
        if must_wait && is_full {
            let message = format!(
                "the queue of {action} is full: {} tasks, {} bytes",
                pool.queued, pool.queued_bytes
            );
            let retry_after_ms = pool.retry_after_ms();
            self.drop_pool_if_unused(key);
            return full(message, retry_after_ms);
        }
        Ok((key, subqueue))
    }

    /// Gives a task that is new, or came back, to a worker, or queues it. One that came back goes
    /// before the others.
    pub(super) fn place(&mut self, now: Now, key: TaskKey, came_back: bool) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let Some(pool) = self.pools.get_mut(task.pool) else { return };
        if self.is_shutting_down {
            return self.end_for_shutdown(now, key);
        }
        let ticket = self.tickets.next(came_back);
        task.state = TaskState::Queued { ticket, since: now.mono };
        pool.queued += 1;
        pool.queued_bytes += task.bytes();
        let subqueue = &mut pool.subqueues[task.subqueue];
        // Behind others it has to wait: while they do, no worker has room.
        if (subqueue.queued == 0 || came_back)
            && let Some(choice) = pool.pick(task.subqueue, &mut self.rng, task.avoid)
        {
            pool.subqueues[task.subqueue].queued += 1;
            return self.route(now, key, choice);
        }
        let subqueue = &mut pool.subqueues[task.subqueue];
        let place = Waiting { task: key, ticket };
        task.had_worker |= subqueue.ready > 0;
        let mut at = task.deadline;
        if !task.had_worker {
            at = at.min(task.received.plus_ms(self.config.no_worker_wait_ms));
        }
        let (index, priority) = (task.subqueue, task.priority);
        let (tasks, subqueue) = (&self.tasks, &mut pool.subqueues[index]);
        subqueue.push(priority, place, came_back, |place| counts(tasks, place));
        self.set_task_timer(key, at);
    }

    fn set_task_timer(&mut self, key: TaskKey, at: super::Mono) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        if let Some(timer) = task.timer.take() {
            self.timers.cancel(timer);
        }
        task.timer = Some(self.timers.set(at, Timer::Task(key)));
    }

    /// Sends a queued task to the worker that was chosen, charging it in the same step.
    fn route(&mut self, now: Now, key: TaskKey, choice: Choice) {
        if self.tasks.get(key).is_some_and(|task| now.mono >= task.deadline) {
            let executed = self.executed_so_far(key);
            return self.end(now, key, End { executed, ..expired_in_queue() });
        }
        let queued = self.leave_queue(key);
        let Some(task) = self.tasks.get_mut(key) else { return };
        let Some(agent) = self.registry.get_mut(choice.agent) else { return };
        let Some(to) = agent.connection else { return };
        let since = queued.unwrap_or(now.mono);
        task.attempts += 1;
        task.had_worker = true;
        agent.routes += 1;
        let attempt = self.attempts.insert(Attempt {
            task: Some(key),
            agent: choice.agent,
            position: agent.attempts.len(),
            number: task.attempts,
            route: agent.routes,
            routed: now.mono,
            queue_us: now.mono.since(since),
            candidates: choice.candidates,
            cancel_timer: None,
        });
        agent.attempts.push(attempt);
        task.state = TaskState::Running(attempt);
        let route = Route {
            attempt_id: self.attempt_ids.id(attempt),
            attempt: task.attempts,
            ttl_ms: (task.deadline.since(now.mono) / 1000).max(1),
            task: task.encoded.clone(),
        };
        let (body, deadline, has_timer) = (task.body.clone(), task.deadline, task.timer.is_some());
        self.stats.attempts += 1;
        self.stats.redispatched += u64::from(route.attempt > 1);
        self.send_with_body(to, Message::Route(route), body);
        if !has_timer || queued.is_some_and(|since| since < now.mono) {
            self.set_task_timer(key, deadline);
        }
        self.room_changed(choice.agent);
        self.agent_is_busy(now, choice.agent);
    }

    /// Tells the pools whether a worker has room, and how busy it is.
    pub(super) fn room_changed(&mut self, key: AgentKey) {
        let Some(agent) = self.registry.get(key) else { return };
        let room = agent.room();
        for membership in &agent.serves {
            if let Some(pool) = self.pools.get_mut(membership.pool) {
                pool.set_room(membership.member, room);
            }
        }
    }

    /// Gives a worker waiting tasks for as long as it has room.
    pub(super) fn fill(&mut self, now: Now, agent: AgentKey) {
        while let Some((task, candidates)) = self.next_for(agent) {
            self.route(now, task, Choice { agent, candidates });
        }
    }

    /// The task that a worker with room shall have next: of its actions in turn, the first in line.
    fn next_for(&mut self, key: AgentKey) -> Option<(TaskKey, u32)> {
        let agent = self.registry.get_mut(key)?;
        agent.room()?;
        let count = agent.serves.len();
        for step in 0..count {
            let index = (agent.next_action + step) % count;
            let membership = agent.serves[index];
            let Some(pool) = self.pools.get_mut(membership.pool) else { continue };
            if pool.queued == 0 {
                continue;
            }
            if let Some(found) = first_in_line(pool, membership.member, key, &self.tasks) {
                agent.next_action = (index + 1) % count;
                return Some(found);
            }
        }
        None
    }

    /// Takes a task out of its queue, and returns since when it had waited.
    fn leave_queue(&mut self, key: TaskKey) -> Option<super::Mono> {
        let task = self.tasks.get(key)?;
        let TaskState::Queued { since, .. } = task.state else { return None };
        let pool = self.pools.get_mut(task.pool)?;
        pool.queued -= 1;
        pool.queued_bytes -= task.bytes();
        pool.subqueues[task.subqueue].queued -= 1;
        Some(since)
    }

    /// A task's timer fired: its time to live is over, or its wait for any worker at all.
    pub(super) fn task_is_due(&mut self, now: Now, key: TaskKey) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.timer = None;
        let deadline = task.deadline;
        let is_expired = now.mono >= deadline;
        match task.state {
            TaskState::Running(attempt) if is_expired => {
                let error = "its time to live ran out while a worker had it";
                self.add_hop(now, key, attempt, HopEvent::Expired, error);
                self.cancel_attempt(now, attempt, CancelReason::Expired);
                let error = ErrorInfo::new(ErrorCode::Expired, error);
                self.end(now, key, End::without_result(Outcome::Expired, Executed::Maybe, error));
            }
            TaskState::Queued { .. } => match self.no_worker(key) {
                Some(error) => {
                    let executed = self.executed_so_far(key);
                    let end = End::without_result(Outcome::Rejected, executed, error);
                    self.end(now, key, end);
                }
                None if is_expired => {
                    let executed = self.executed_so_far(key);
                    self.end(now, key, End { executed, ..expired_in_queue() });
                }
                None => self.set_task_timer(key, deadline),
            },
            TaskState::Running(_) => self.set_task_timer(key, deadline),
            TaskState::Ending(_) => {}
        }
    }

    /// Why no worker could have taken a queued task, if that is so.
    fn no_worker(&self, key: TaskKey) -> Option<ErrorInfo> {
        let task = self.tasks.get(key)?;
        let pool = self.pools.get(task.pool)?;
        let subqueue = &pool.subqueues[task.subqueue];
        if task.had_worker || subqueue.ready > 0 {
            return None;
        }
        let (action, required) = (&pool.action, &subqueue.required);
        let error = if subqueue.eligible > 0 {
            let message = format!(
                "{} workers serve {action}, but none is ready: standby, draining or lost",
                subqueue.eligible
            );
            ErrorInfo::new(ErrorCode::AllUnhealthy, message)
        } else if required.is_empty() {
            let message = format!("no worker serves {action}; start one, or check the name");
            ErrorInfo::new(ErrorCode::NoWorker, message)
        } else {
            let labels: Vec<_> = required.0.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let labels = labels.join(", ");
            let message = format!("no worker serves {action} with the labels {labels}");
            ErrorInfo::new(ErrorCode::NoWorker, message)
        };
        Some(error.retry_after_ms(self.config.no_worker_wait_ms))
    }

    /// Whether an earlier attempt of a queued task may have run.
    pub(super) fn executed_so_far(&self, key: TaskKey) -> Executed {
        match self.tasks.get(key) {
            Some(task) if task.attempts > task.nacks => Executed::Maybe,
            _ => Executed::No,
        }
    }

    /// Ends an attempt whose task has ended, or goes elsewhere. It stays charged to its worker until
    /// that confirms.
    pub(super) fn cancel_attempt(&mut self, now: Now, key: AttemptKey, reason: CancelReason) {
        let Some(attempt) = self.attempts.get_mut(key) else { return };
        attempt.task = None;
        let connection = self.registry.get(attempt.agent).and_then(|agent| agent.connection);
        if let Some(to) = connection
            && attempt.cancel_timer.is_none()
        {
            let at = now.mono.plus_ms(self.config.cancel_grace_ms);
            attempt.cancel_timer = Some(self.timers.set(at, Timer::Cancel(key)));
            let id = self.attempt_ids.id(key);
            self.send(to, Message::Cancel(Cancel::Attempt(id, reason)));
        }
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
        let policy = self.policy_name.clone();
        let hop = attempt.hop(now.mono, agent.node_id.clone(), policy, event, reason);
        if let Some(task) = self.tasks.get_mut(key) {
            task.hops.push(hop);
        }
    }

    /// Gives a task its outcome. A durable one's is journalled before it is told.
    pub(super) fn end(&mut self, now: Now, key: TaskKey, end: End) {
        let Some(deliver) = self.outcome_of(now, key, &end) else { return };
        self.leave_queue(key);
        let Some(task) = self.tasks.get_mut(key) else { return };
        if matches!(task.state, TaskState::Ending(_)) {
            return;
        }
        if let Some(timer) = task.timer.take() {
            self.timers.cancel(timer);
        }
        if task.is_durable && self.can_be_durable() {
            self.journal_ended(key, deliver, end.body);
        } else {
            self.finish(now, key, deliver, end.body);
        }
    }

    /// What is told of a task that ends so.
    pub(super) fn outcome_of(&self, now: Now, key: TaskKey, end: &End) -> Option<Deliver> {
        let task = self.tasks.get(key)?;
        let waited_us = match task.state {
            TaskState::Queued { since, .. } => now.mono.since(since),
            TaskState::Running(_) | TaskState::Ending(_) => 0,
        };
        let mut error = end.error.clone();
        if let Some(error) = &mut error {
            error.task_id = Some(task.id.clone());
            error.node_id.get_or_insert_with(|| self.config.broker_id.clone());
        }
        Some(Deliver {
            task_id: task.id.clone(),
            outcome: end.outcome,
            executed: end.executed,
            content_type: end.content_type.clone(),
            error,
            trace: ContextTrace {
                broker_id: Some(self.config.broker_id.clone()),
                total_us: now.mono.since(task.received),
                queue_us: waited_us,
                hops: task.hops.clone(),
                truncated: false,
            },
        })
    }

    /// Tells an outcome to all who wait for it, and keeps it for a while.
    pub(super) fn finish(&mut self, now: Now, key: TaskKey, deliver: Deliver, body: Bytes) {
        let Some(task) = self.tasks.remove(key) else { return };
        let Task { waiters, identity, fingerprint, pool: pool_key, subqueue, .. } = task;
        if let Some(pool) = self.pools.get_mut(pool_key) {
            pool.tasks -= 1;
            pool.subqueues[subqueue].tasks -= 1;
            pool.note_end(now.mono);
        }
        self.drop_pool_if_unused(pool_key);
        self.stats.count(deliver.outcome);
        let body = if body.len() <= KEPT_BODY_COPY_BYTES && !body.is_empty() {
            // The read buffer it came in is not kept with it.
            Bytes::copy_from_slice(&body)
        } else {
            body
        };
        for session in waiters {
            if let Some(session) = self.sessions.get_mut(session) {
                session.tasks -= 1;
            }
            self.deliver(session, deliver.clone(), body.clone());
        }
        self.finished.push(Kept { identity, fingerprint, deliver, body });
    }
}

/// Results up to this are copied before they are kept: half of a read buffer.
const KEPT_BODY_COPY_BYTES: usize = 32 * 1024;

fn counts(tasks: &super::inflight::Tasks, place: &Waiting) -> bool {
    tasks.get(place.task).is_some_and(|task| task.is_queued_as(place.ticket))
}

/// Of the sub-queues that a worker may serve, the first task in line, and how many workers it could
/// go to.
fn first_in_line(
    pool: &mut Pool,
    member: Member,
    agent: AgentKey,
    tasks: &super::inflight::Tasks,
) -> Option<(TaskKey, u32)> {
    let eligible = pool.eligible(member);
    let mut best: Option<(mcp_proto::Priority, Ticket, TaskKey, u32)> = None;
    for (index, subqueue) in pool.subqueues.iter_mut().enumerate() {
        if eligible >> index & 1 == 0 {
            continue;
        }
        let counts = |place: &Waiting| counts(tasks, place);
        let is_wanted =
            |place: &Waiting| tasks.get(place.task).is_some_and(|task| task.avoid != Some(agent));
        let Some((mut priority, mut place)) = subqueue.first(counts) else { continue };
        if subqueue.ready > 1 && !is_wanted(&place) {
            // It was handed back by this worker, and others could take it.
            match subqueue.first_wanted(counts, is_wanted) {
                Some(wanted) => (priority, place) = wanted,
                None => continue,
            }
        }
        if best.is_none_or(|(p, ticket, ..)| (priority, ticket) > (p, place.ticket)) {
            best = Some((priority, place.ticket, place.task, subqueue.balancer.len() as u32));
        }
    }
    best.map(|(_, _, task, candidates)| (task, candidates))
}

fn expired_in_queue() -> End {
    let message = "its time to live ran out while all workers were busy";
    let error = ErrorInfo::new(ErrorCode::Expired, message);
    End::without_result(Outcome::Expired, Executed::No, error)
}
