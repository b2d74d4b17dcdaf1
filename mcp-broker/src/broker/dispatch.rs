//! Placing tasks: with a worker that has room, or in a queue until one has.

use std::collections::HashMap;

use foldhash::fast::FixedState;
use mcp_proto::{ActionName, ActionRef, RouteHead};

use super::explain::Found;
use super::inflight::{Attempt, Task, TaskKey, TaskState};
use super::pool::{Choice, Pool, PoolKey};
use super::queue::{Rank, Turn};
use super::registry::AgentKey;
use super::uploads::Upload;
use super::{Core, Mono, Now, Output, Timer};

impl Core {
    /// The pool of an action, or that of its shadow tasks; made if there is none.
    #[inline]
    pub(super) fn pool(&mut self, action: ActionRef<'_>, is_shadow: bool) -> PoolKey {
        match self.pool_names(is_shadow).get(action.as_str()) {
            Some(key) => *key,
            None => self.new_pool(action, is_shadow),
        }
    }

    fn new_pool(&mut self, action: ActionRef<'_>, is_shadow: bool) -> PoolKey {
        let slot = self.measured.slot(action, false);
        let name = action.to_name();
        let (rules, hasher) = (self.rules.of(action.as_str()), self.pool_names.hasher().clone());
        let mut pool = Pool::new(name.clone(), is_shadow, slot, rules, hasher);
        if !is_shadow && self.degraded.contains_key(&name) {
            pool.set_degraded(true);
        }
        let key = self.pools.insert(pool);
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

    /// Gives a task that is new, or came back, to a worker, or queues it. One that came back goes
    /// before the others.
    pub(super) fn place(&mut self, now: Now, key: TaskKey, came_back: bool) {
        if self.is_shutting_down {
            return self.end_for_shutdown(now, key);
        }
        let Some(task) = self.tasks.get_mut(key) else { return };
        let Some(pool) = self.pools.get_mut(task.pool) else { return };
        if came_back {
            pool.open_if_deserted(task.subqueue);
        }
        let is_explained = task.is_explained();
        let has_other_way = pool.has_other_way || task.detour().is_some();
        if has_other_way && self.sidestep(now, key) {
            return;
        }
        if is_explained {
            self.explain_attempt(now, key, Found::ByPolicy);
        }
        let Some(task) = self.tasks.get_mut(key) else { return };
        let Some(pool) = self.pools.get_mut(task.pool) else { return };
        let bytes = task.bytes();
        let (since, was_delayed) = match task.state {
            TaskState::Delayed { since } => {
                pool.delayed.remove(bytes);
                self.delayed.of(pool.is_shadow).remove(bytes);
                (since, true)
            }
            TaskState::Placing { since } => (since, false),
            TaskState::Queued { .. } | TaskState::Running(_) | TaskState::Ending(_) => {
                (now.mono, false)
            }
        };
        let is_expired = now.mono >= task.deadline;
        // Where a worker has room, whatever waits was handed back by it, and waits for another one.
        let ask = task.ask(&self.registry);
        let home = pool.home(task.subqueue, task.affinity);
        if !is_expired
            && let Some(choice) = match home {
                Some(home) => pool.choose(home, task.subqueue, task.affinity),
                None => pool.pick(task.subqueue, &mut self.rng, ask),
            }
        {
            return self.route(now, key, choice, since);
        }
        let until = pool.rules.wait_until(now.mono, task);
        self.tickets += 1;
        let rank = Rank::new(until, came_back, self.tickets);
        task.state = TaskState::Queued { rank, since };
        let (tenant, spot) = (task.tenant, task.spot(rank));
        pool.queued += 1;
        pool.queued_bytes += bytes;
        pool.tenants.waits(tenant, bytes);
        if let Some(sender) = task.sender {
            pool.senders.waits(sender, bytes);
        }
        self.waiting.of(pool.is_shadow).add(bytes);
        task.set_pinned(home);
        let attained_us = pool.tenants.attained_us(tenant);
        pool.lines_mut(home, task.subqueue).push(now.mono, spot, attained_us, key);
        if was_delayed {
            // Another worker would have been better, but not better than none.
            task.avoid = None;
        }
        task.had_worker |= pool.subqueues[task.subqueue].ready > 0;
        let mut at = until;
        if !task.had_worker {
            let wait = task.received.plus_ms(self.config.no_worker_wait_ms);
            let started = Mono::default();
            at = at.min(wait.max(started.plus_ms(self.config.restart_grace_ms)));
        } else if has_other_way {
            at = at.min(self.config.next_look(now));
        } else if pool.subqueues[task.subqueue].is_barred() {
            at = at.min(now.mono.plus_ms(self.config.no_worker_wait_ms));
        }
        let has_room = pool.has_room(&pool.subqueues[task.subqueue]);
        self.tasks.waits(key, &mut pool.waiting);
        if is_expired && has_room {
            return self.expire_queued(now, key);
        }
        self.set_task_timer(key, at);
    }

    /// Sends a task that is in no queue, and was ready to go since then, to the worker that was
    /// chosen, charging it in the same step.
    pub(super) fn route(&mut self, now: Now, key: TaskKey, choice: Choice, since: Mono) {
        self.begin_attempt(now, key, choice, since, false);
    }

    /// Sends a task that a worker has to another one as well.
    pub(super) fn route_hedge(&mut self, now: Now, key: TaskKey, choice: Choice) {
        self.begin_attempt(now, key, choice, now.mono, true);
    }

    fn begin_attempt(
        &mut self,
        now: Now,
        key: TaskKey,
        choice: Choice,
        since: Mono,
        is_hedge: bool,
    ) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let Some(agent) = self.registry.get_mut(choice.agent) else { return };
        let Some(to) = agent.connection else { return };
        task.attempts += 1;
        task.had_worker = true;
        agent.routes += 1;
        agent.attempts_bytes += task.payload.len();
        if let Some(pool) = self.pools.get_mut(task.pool) {
            pool.running += 1;
        }
        let attempt = self.attempts.insert(Attempt {
            task: Some(key),
            pool: task.pool,
            tenant: task.tenant,
            bytes: task.payload.len(),
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
            park_changed: now.mono,
            parked_us: 0,
            probe: None,
            is_hedge,
        });
        agent.attempts.push(attempt);
        let mut hedge_at = None;
        if !is_hedge {
            task.state = TaskState::Running(attempt);
            if task.may_be_hedged() {
                hedge_at = self.pools.get(task.pool).and_then(|pool| pool.hedge_at(now.mono));
            }
        }
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
            span_id: task.traced().and_then(|traced| traced.route_span(task.attempts)),
        };
        let payload = task.payload.clone();
        let mut needs_timer = task.timer.is_none() || since < now.mono;
        if hedge_at.is_some() {
            task.extras_mut();
        }
        if let Some(extras) = &mut task.extras {
            extras.begin(now.mono, attempt, is_hedge, hedge_at);
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
        if choice.is_probe {
            self.begin_probe(now, attempt);
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
        while !self.waiting.is_empty()
            && let Some((task, choice)) = self.next_for(now, agent)
        {
            self.explain_if_asked(now, task, Found::WithRoom(agent));
            self.take_turn(now, task, choice);
        }
        self.fill_below_caps(now);
    }

    /// An attempt has ended of an action, of which there may be tasks that could not run beside it.
    pub(super) fn runs_no_more(&mut self, key: PoolKey) {
        let Some(pool) = self.pools.get_mut(key) else { return };
        pool.running -= 1;
        if pool.rules.max_running > 0 && pool.queued > 0 {
            self.below_cap.push(key);
        }
        if pool.running == 0 {
            self.drop_pool_if_unused(key);
        }
    }

    /// Gives tasks of actions that fewer attempts run of than may to whichever workers have room:
    /// the worker whose attempt made it fewer may serve another action now, or none.
    pub(super) fn fill_below_caps(&mut self, now: Now) {
        while let Some(pool) = self.below_cap.pop() {
            self.fill_pool(now, pool);
        }
    }

    /// Gives an action's waiting tasks to workers for as long as that can be.
    pub(super) fn fill_pool(&mut self, now: Now, key: PoolKey) {
        while let Some(pool) = self.pools.get_mut(key)
            && pool.queued > 0
        {
            let with_room = |index: &usize| pool.has_room(&pool.subqueues[*index]);
            let with_room =
                (0..pool.subqueues.len()).filter(with_room).fold(0, |it, i| it | 1 << i);
            let first = pool.first_in_line(now.mono, with_room, |_| true);
            let Some((_, task, subqueue)) = first else { break };
            self.explain_if_asked(now, task, Found::ByPolicy);
            let Some(pool) = self.pools.get_mut(key) else { return };
            let ask = self.tasks.get(task).map(|task| task.ask(&self.registry)).unwrap_or_default();
            let Some(choice) = pool.pick(subqueue, &mut self.rng, ask) else { break };
            self.take_turn(now, task, choice);
        }
        self.fill_pinned(now, key);
    }

    /// The task that a worker with room shall have next: of its actions in turn, the first in line.
    fn next_for(&mut self, now: Now, key: AgentKey) -> Option<(TaskKey, Choice)> {
        let agent = self.registry.get_mut(key)?;
        agent.room()?;
        let count = agent.serves.len();
        for step in 0..count {
            let index = (agent.next_action + step) % count;
            let membership = agent.serves[index];
            let Some(pool) = self.pools.get_mut(membership.pool) else { continue };
            if pool.queued == 0 || !pool.may_run() {
                continue;
            }
            let open = pool.open_to(membership.member);
            let tasks = &self.tasks;
            let is_wanted =
                |task: TaskKey| tasks.get(task).is_some_and(|task| task.avoid != Some(key));
            let first = pool.first_in_line(now.mono, open, is_wanted);
            let pinned = pool.first_pinned(now.mono, membership.member).filter(|_| open != 0);
            let first = match pinned {
                Some((turn, task)) if first.is_none_or(|(other, ..)| turn < other) => Some(task),
                _ => first.map(|(_, task, _)| task),
            };
            if let Some(first) = first
                && let Some(task) = tasks.get(first)
            {
                agent.next_action = (index + 1) % count;
                let candidates = pool.subqueues[task.subqueue].balancer.len() as u32;
                return Some((first, pool.choice(membership.member, candidates, task.affinity)?));
            }
        }
        None
    }

    /// A waiting task's turn has come: it goes to the worker that was chosen, unless it has expired.
    pub(super) fn take_turn(&mut self, now: Now, key: TaskKey, choice: Choice) {
        let Some(task) = self.tasks.get(key) else { return };
        if now.mono >= task.deadline {
            return self.expire_queued(now, key);
        }
        let Some(pool) = self.pools.get_mut(task.pool) else { return };
        let home = pool.home(task.subqueue, task.affinity);
        if home.is_some_and(|home| pool.agent(home) != Some(choice.agent)) {
            return self.pin(now, key);
        }
        pool.is_served(now.mono, task);
        let Some(since) = self.leave_queue(key) else { return };
        self.route(now, key, choice, since);
    }

    /// Takes a task out of its queue, or of those that wait for their time, and returns since when
    /// it had waited.
    pub(super) fn leave_queue(&mut self, key: TaskKey) -> Option<Mono> {
        let task = self.tasks.get(key)?;
        let bytes = task.bytes();
        let (spot, since) = match task.state {
            TaskState::Placing { since } => return Some(since),
            TaskState::Queued { rank, since } => (task.spot(rank), since),
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
        pool.tenants.waits_no_more(spot.tenant, bytes);
        if let Some(sender) = task.sender {
            pool.senders.waits_no_more(sender, bytes);
        }
        pool.lines_mut(task.pinned(), task.subqueue).remove(spot);
        self.waiting.of(pool.is_shadow).remove(bytes);
        self.tasks.waits_no_more(key, &mut pool.waiting);
        Some(since)
    }

    /// A task needs less room than it did: that counts where it waits, if it does.
    pub(super) fn waiting_shrinks(&mut self, key: TaskKey, by: usize) {
        let Some(task) = self.tasks.get(key) else { return };
        let Some(pool) = self.pools.get_mut(task.pool) else { return };
        match task.state {
            TaskState::Queued { .. } => {
                pool.queued_bytes -= by;
                pool.tenants.shrinks(task.tenant, by);
                if let Some(sender) = task.sender {
                    pool.senders.shrinks(sender, by);
                }
                self.waiting.of(pool.is_shadow).bytes -= by;
            }
            TaskState::Delayed { .. } => {
                pool.delayed.bytes -= by;
                self.delayed.of(pool.is_shadow).bytes -= by;
            }
            TaskState::Placing { .. } | TaskState::Running(_) | TaskState::Ending(_) => {}
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

impl Pool {
    /// Of these sub-queues, the task whose turn it is, and the sub-queue. One that is not wanted,
    /// since this worker handed it back, is passed over where others could take it.
    fn first_in_line(
        &mut self,
        now: Mono,
        subqueues: u64,
        is_wanted: impl Fn(TaskKey) -> bool,
    ) -> Option<(Turn, TaskKey, usize)> {
        let (age_ms, tenants) = (self.rules.age_ms, &self.tenants);
        let mut best: Option<(Turn, TaskKey, usize)> = None;
        for (index, subqueue) in self.subqueues.iter_mut().enumerate() {
            let lines = &mut subqueue.lines;
            if subqueues >> index & 1 == 0 || lines.queued == 0 {
                continue;
            }
            let mut first = lines.first(now, age_ms, tenants);
            if first.is_some_and(|(_, task)| !is_wanted(task)) && subqueue.has_several_takers() {
                first = subqueue.lines.first_wanted(now, age_ms, &is_wanted);
            }
            let Some((turn, task)) = first else { continue };
            if best.is_none_or(|(best, ..)| turn < best) {
                best = Some((turn, task, index));
            }
        }
        best
    }

    /// A waiting task goes to a worker.
    fn is_served(&mut self, now: Mono, task: &Task) {
        self.lines_mut(task.pinned(), task.subqueue).is_served(now, task.priority);
        self.tenants.serve(task.tenant, self.service.us().unwrap_or(0));
    }
}
