//! Placing tasks: with a worker that has room, or in a queue until one has.

use std::collections::HashMap;

use foldhash::fast::FixedState;
use mcp_proto::{ActionName, ActionRef, ErrorCode, ErrorInfo, Labels, Priority, RouteHead};

use super::balancer::Member;
use super::inflight::{Attempt, TaskKey, TaskState, Tasks};
use super::pool::{Choice, MAX_SUBQUEUES, Pool, PoolKey};
use super::queue::{Ticket, Waiting};
use super::registry::AgentKey;
use super::split::Assigned;
use super::uploads::Upload;
use super::{Core, Mono, Now, Output, Timer, shadow};

/// Where a task waits, if it has to.
pub(super) struct Place {
    pub(super) pool: PoolKey,
    pub(super) subqueue: usize,
    pub(super) arm: Option<Assigned>,
}

impl Core {
    /// The pool of an action, or that of its shadow tasks; made if there is none.
    pub(super) fn pool(&mut self, action: ActionRef<'_>, is_shadow: bool) -> PoolKey {
        if let Some(key) = self.pool_names(is_shadow).get(action.as_str()) {
            return *key;
        }
        let slot = self.measured.slot(action, false);
        let (name, rules) = (action.to_name(), self.rules.of(action.as_str()));
        let key = self.pools.insert(Pool::new(name.clone(), is_shadow, slot, rules));
        self.pool_names(is_shadow).insert(name, key);
        key
    }

    fn pool_names(&mut self, is_shadow: bool) -> &mut HashMap<ActionName, PoolKey, FixedState> {
        if is_shadow { &mut self.shadow.pool_names } else { &mut self.pool_names }
    }

    /// The pool of an action that a worker serves.
    pub(super) fn served_pool(&mut self, action: ActionRef<'_>, is_shadow: bool) -> PoolKey {
        let key = self.pool(action, is_shadow);
        if let Some(pool) = self.pools.get_mut(key) {
            pool.slot = self.measured.slot(action, true);
        }
        key
    }

    pub(super) fn drop_pool_if_unused(&mut self, key: PoolKey) {
        if self.pools.get(key).is_some_and(Pool::is_unused)
            && let Some(pool) = self.pools.remove(key)
        {
            self.pool_names(pool.is_shadow).remove(&pool.action);
        }
    }

    /// Where a new task would wait, if it has to and may.
    pub(super) fn queue_for(
        &mut self,
        action: ActionRef<'_>,
        is_shadow: bool,
        required: &Labels,
        affinity_key: &[u8],
        bytes: usize,
    ) -> Result<Place, ErrorInfo> {
        let full = |message, retry_after_ms| {
            Err(ErrorInfo::new(ErrorCode::QueueFull, message).retry_after_ms(retry_after_ms))
        };
        let (tasks, max_tasks) = if is_shadow {
            (self.shadow.tasks, (self.config.max_tasks / shadow::LIVE_TASKS_FOR_EACH).max(1))
        } else {
            (self.tasks.len() - self.shadow.tasks, self.config.max_tasks)
        };
        if tasks >= max_tasks {
            let kind = if is_shadow { "shadow tasks" } else { "tasks" };
            return full(format!("the broker has {tasks} {kind}, its limit"), 1_000);
        }
        let key = self.pool(action, is_shadow);
        let arm = self.assign_arm(key, required, affinity_key);
        let Some(pool) = self.pools.get_mut(key) else { unreachable!("made above") };
        let subqueue = match &arm {
            Some(arm) => pool.subqueue(&arm.labels(required), Some(required)),
            None => pool.subqueue(required, None),
        };
        let Some(subqueue) = subqueue else {
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
        Ok(Place { pool: key, subqueue, arm })
    }

    /// Gives a task that is new, or came back, to a worker, or queues it. One that came back goes
    /// before the others.
    pub(super) fn place(&mut self, now: Now, key: TaskKey, came_back: bool) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let Some(pool) = self.pools.get_mut(task.pool) else { return };
        if self.is_shutting_down {
            return self.end_for_shutdown(now, key);
        }
        let bytes = task.bytes();
        let (since, was_delayed) = match task.state {
            TaskState::Delayed { since } => {
                pool.delayed.remove(bytes);
                self.delayed.of(pool.is_shadow).remove(bytes);
                (since, true)
            }
            _ => (now.mono, false),
        };
        if came_back {
            pool.open_if_deserted(task.subqueue);
        }
        let is_expired = now.mono >= task.deadline;
        // Behind others it has to wait: while they do, no worker has room.
        if (pool.subqueues[task.subqueue].queued == 0 || came_back)
            && !is_expired
            && let Some(choice) = pool.pick(task.subqueue, &mut self.rng, task.avoid)
        {
            return self.route(now, key, choice, since);
        }
        let ticket = self.tickets.next(came_back);
        task.state = TaskState::Queued { ticket, since };
        pool.queued += 1;
        pool.queued_bytes += bytes;
        self.waiting.of(pool.is_shadow).add(bytes);
        let subqueue = &mut pool.subqueues[task.subqueue];
        let place = Waiting { task: key, ticket };
        if was_delayed {
            // Another worker would have been better, but not better than none.
            task.avoid = None;
        }
        task.had_worker |= subqueue.ready > 0;
        let mut at = task.deadline;
        if !task.had_worker {
            let wait = task.received.plus_ms(self.config.no_worker_wait_ms);
            let started = Mono::default();
            at = at.min(wait.max(started.plus_ms(self.config.restart_grace_ms)));
        }
        let (index, priority) = (task.subqueue, task.priority);
        let (tasks, subqueue) = (&self.tasks, &mut pool.subqueues[index]);
        subqueue.push(priority, place, came_back, |place| counts(tasks, place));
        if is_expired && subqueue.balancer.len() > 0 {
            return self.expire_queued(now, key);
        }
        self.set_task_timer(key, at);
    }

    /// Sends a task that is in no queue, and was ready to go since then, to the worker that was
    /// chosen, charging it in the same step.
    pub(super) fn route(&mut self, now: Now, key: TaskKey, choice: Choice, since: Mono) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let Some(agent) = self.registry.get_mut(choice.agent) else { return };
        let Some(to) = agent.connection else { return };
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
            policy: choice.policy,
            cancel_timer: None,
            is_parked: false,
        });
        agent.attempts.push(attempt);
        task.state = TaskState::Running(attempt);
        let stream_window_bytes = match task.stream {
            Some(stream) => self.streams.begin(stream, task.attempts, attempt),
            None => 0,
        };
        let route = RouteHead {
            attempt_id: self.attempt_ids.id(attempt),
            attempt: task.attempts,
            ttl_ms: (task.deadline.since(now.mono) / 1000).max(1),
            stream_window_bytes,
            input_follows: task.upload().map(Upload::length),
        };
        let payload = task.payload.clone();
        let mut needs_timer = task.timer.is_none() || since < now.mono;
        if let Some(extras) = &mut task.extras {
            extras.last_sign = now.mono;
            needs_timer = true;
        }
        let at = task.look_at();
        self.stats.attempts += 1;
        self.stats.redispatched += u64::from(route.attempt > 1);
        self.outputs.push_back(Output::Route { to, route, payload });
        if needs_timer {
            self.set_task_timer(key, at);
        }
        if route.input_follows.is_some() {
            self.begin_input(key);
        }
        self.room_changed(choice.agent);
        self.agent_is_busy(now, choice.agent);
        if route.attempt == 1 && self.rules.has_mirror() {
            self.mirror(now, key);
        }
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
        while let Some((task, choice)) = self.next_for(agent) {
            if self.tasks.get(task).is_some_and(|task| now.mono >= task.deadline) {
                self.expire_queued(now, task);
            } else if let Some(since) = self.leave_queue(task) {
                self.route(now, task, choice, since);
            }
        }
    }

    /// The task that a worker with room shall have next: of its actions in turn, the first in line.
    fn next_for(&mut self, key: AgentKey) -> Option<(TaskKey, Choice)> {
        let agent = self.registry.get_mut(key)?;
        agent.room()?;
        let count = agent.serves.len();
        for step in 0..count {
            let index = (agent.next_action + step) % count;
            let membership = agent.serves[index];
            let Some(pool) = self.pools.get(membership.pool) else { continue };
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

    /// Takes a task out of its queue, or of those that wait for their time, and returns since when
    /// it had waited.
    pub(super) fn leave_queue(&mut self, key: TaskKey) -> Option<Mono> {
        let task = self.tasks.get(key)?;
        let bytes = task.bytes();
        let (ticket, since) = match task.state {
            TaskState::Queued { ticket, since } => (ticket, since),
            TaskState::Delayed { since } => {
                let pool = self.pools.get_mut(task.pool)?;
                pool.delayed.remove(bytes);
                self.delayed.of(pool.is_shadow).remove(bytes);
                return Some(since);
            }
            TaskState::Running(_) | TaskState::Ending(_) => return None,
        };
        let pool = self.pools.get_mut(task.pool)?;
        pool.queued -= 1;
        pool.queued_bytes -= bytes;
        self.waiting.of(pool.is_shadow).remove(bytes);
        let (tasks, subqueue) = (&self.tasks, &mut pool.subqueues[task.subqueue]);
        subqueue.leave(task.priority, ticket, |place| counts(tasks, place));
        Some(since)
    }

    /// A task needs less room than it did: that counts where it waits, if it does.
    pub(super) fn waiting_shrinks(&mut self, key: TaskKey, by: usize) {
        let Some(task) = self.tasks.get(key) else { return };
        let Some(pool) = self.pools.get_mut(task.pool) else { return };
        match task.state {
            TaskState::Queued { .. } => {
                pool.queued_bytes -= by;
                self.waiting.of(pool.is_shadow).bytes -= by;
            }
            TaskState::Delayed { .. } => {
                pool.delayed.bytes -= by;
                self.delayed.of(pool.is_shadow).bytes -= by;
            }
            TaskState::Running(_) | TaskState::Ending(_) => {}
        }
    }

    pub(super) fn set_task_timer(&mut self, key: TaskKey, at: Mono) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        if let Some(timer) = task.timer.take() {
            self.timers.cancel(timer);
        }
        task.timer = Some(self.timers.set(at, Timer::Task(key)));
    }
}

fn counts(tasks: &Tasks, place: &Waiting) -> bool {
    tasks.get(place.task).is_some_and(|task| task.is_queued_as(place.ticket))
}

/// Of the sub-queues that a worker may serve, the first task in line, and how many workers it could
/// go to.
fn first_in_line(
    pool: &Pool,
    member: Member,
    agent: AgentKey,
    tasks: &Tasks,
) -> Option<(TaskKey, Choice)> {
    let eligible = pool.eligible(member);
    let mut best: Option<(Priority, Ticket, TaskKey, u32)> = None;
    for (index, subqueue) in pool.subqueues.iter().enumerate() {
        if eligible >> index & 1 == 0 {
            continue;
        }
        let counts = |place: &Waiting| counts(tasks, place);
        let is_wanted =
            |place: &Waiting| tasks.get(place.task).is_some_and(|task| task.avoid != Some(agent));
        let Some((mut priority, mut place)) = subqueue.first() else { continue };
        debug_assert!(counts(&place));
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
    let policy = pool.rules.policy;
    best.map(|(_, _, task, candidates)| (task, Choice { agent, candidates, policy }))
}
