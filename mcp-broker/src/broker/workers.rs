//! What workers do: registration, signs of life, RESULT and NACK; and what becomes of their
//! attempts when they are lost.

use bytes::Bytes;
use std::sync::Arc;

use mcp_proto::{
    AttemptId, CancelReason, ErrorCode, ErrorInfo, Executed, HopEvent, Nack, Outcome, Ping,
    TaskResult, WorkerHello,
};

use super::dispatch::End;
use super::inflight::{Attempt, AttemptKey, TaskKey};
use super::peers::Refusal;
use super::registry::{Agent, AgentKey, Membership, Presence};
use super::sessions::IdentityKey;
use super::{ConnectionId, Core, Event, Mono, Now};

impl Core {
    /// Registers a worker, or lets it resume. It gets no task before [`Core::activate`]. Returns
    /// the attempts that it shall go on with.
    pub(super) fn register(
        &mut self,
        now: Now,
        connection: ConnectionId,
        identity: IdentityKey,
        hello: WorkerHello,
    ) -> Result<(AgentKey, Vec<AttemptId>), Refusal> {
        let max = self.config.limits.max_agent_attempts;
        if hello.slots + hello.prefetch > max {
            let message = format!("slots and prefetch are together over {max}, the limit");
            return Err((ErrorCode::LimitExceeded, message));
        }
        let known = self.registry.find(&hello.agent_id);
        let old = known.and_then(|key| self.registry.get(key).map(|agent| (key, agent)));
        if let Some((key, agent)) = old {
            if agent.identity != identity {
                let message = format!("agent {} belongs to another identity", agent.id);
                return Err((ErrorCode::IdentityMismatch, message));
            }
            if agent.instance == hello.instance_id {
                return Ok(self.resume(now, connection, key, hello));
            }
            self.displace(now, key);
        } else if self.registry.len() >= self.config.max_agents {
            let message = format!("this broker has {} agents, its limit", self.registry.len());
            return Err((ErrorCode::LimitExceeded, message));
        }

        let agent = Agent {
            node_id: self.registry.node_id(&hello.agent_id),
            generation: self.registry.next_generation(),
            labels: Arc::default(),
            identity,
            instance: hello.instance_id.clone(),
            service_type: hello.service_type.clone(),
            id: hello.agent_id.clone(),
            slots: 0,
            prefetch: 0,
            readiness: hello.readiness,
            presence: Presence::Online,
            connection: Some(connection),
            serves: Vec::new(),
            next_action: 0,
            attempts: Vec::new(),
            routes: 0,
            last_heard: now.mono,
            busy_since: now.mono,
            probed: None,
            check_at: Mono::default(),
            timer: None,
        };
        let event = Event::AgentRegistered {
            agent_id: agent.id.clone(),
            node_id: agent.node_id.clone(),
            generation: agent.generation,
        };
        let key = self.registry.insert(agent);
        self.declare(key, hello);
        self.event(event);
        Ok((key, Vec::new()))
    }

    /// Takes over what a worker says of itself.
    fn declare(&mut self, key: AgentKey, hello: WorkerHello) {
        self.leave_pools(key);
        let labels = Arc::new(hello.labels);
        let mut serves = Vec::with_capacity(hello.actions.len());
        for action in &hello.actions {
            let pool_key = self.pool(action);
            if let Some(pool) = self.pools.get_mut(pool_key) {
                let member = pool.join(key, labels.clone());
                serves.push(Membership { pool: pool_key, member });
            }
        }
        if let Some(agent) = self.registry.get_mut(key) {
            agent.labels = labels;
            agent.serves = serves;
            agent.slots = hello.slots;
            agent.prefetch = hello.prefetch;
            agent.readiness = hello.readiness;
            agent.service_type = hello.service_type;
        }
    }

    fn leave_pools(&mut self, key: AgentKey) {
        let Some(agent) = self.registry.get_mut(key) else { return };
        for Membership { pool, member } in std::mem::take(&mut agent.serves) {
            if let Some(pool) = self.pools.get_mut(pool) {
                pool.leave(member);
            }
            self.drop_pool_if_unused(pool);
        }
    }

    /// The same process is back on another connection.
    fn resume(
        &mut self,
        now: Now,
        connection: ConnectionId,
        key: AgentKey,
        hello: WorkerHello,
    ) -> (AgentKey, Vec<AttemptId>) {
        self.leave_pools(key);
        let generation = self.registry.next_generation();
        let Some(agent) = self.registry.get_mut(key) else { return (key, Vec::new()) };
        let old = agent.connection.replace(connection);
        agent.presence = Presence::Online;
        agent.generation = generation;
        agent.routes = 0;
        let held = agent.attempts.clone();
        if let Some(old) = old.filter(|old| *old != connection) {
            self.forget_agent_of(now, old);
        }

        let mut keep = Vec::new();
        for attempt_key in held {
            let id = self.attempt_ids.id(attempt_key);
            let is_held = hello.held.contains(&id);
            let Some(attempt) = self.attempts.get_mut(attempt_key) else { continue };
            attempt.route = 0;
            if is_held && attempt.task.is_some() {
                keep.push(id);
            } else if let Some(attempt) = self.release(attempt_key)
                && let Some(task) = attempt.task
            {
                // It never arrived, or its process no longer knows it.
                self.attempt_is_lost(now, task, attempt);
            }
        }
        let agent_id = hello.agent_id.clone();
        self.declare(key, hello);
        self.stats.agents_resumed += 1;
        self.event(Event::AgentResumed { agent_id, kept: keep.len() });
        (key, keep)
    }

    /// A resumed worker's old connection. What else it carries goes on as if it had broken.
    fn forget_agent_of(&mut self, now: Now, old: ConnectionId) {
        let Some(peer) = self.peers.get_mut(&old) else { return };
        peer.agent = None;
        let client = peer.client.take();
        self.send_away(old, ErrorCode::Replaced, "this agent has a newer connection", false);
        if let Some(session) = client {
            self.detach_session(now, session);
        }
    }

    /// Another process has registered under the same name.
    fn displace(&mut self, now: Now, key: AgentKey) {
        let connection = self.registry.get(key).and_then(|agent| agent.connection);
        self.end_registration(now, key, "another process registered under its name");
        if let Some(connection) = connection {
            self.forget_agent_of(now, connection);
        }
    }

    /// Its ACK is sent: from now on it gets tasks.
    pub(super) fn activate(&mut self, now: Now, key: AgentKey) {
        let Some(agent) = self.registry.get_mut(key) else { return };
        agent.last_heard = now.mono;
        agent.probed = None;
        agent.busy_since = now.mono;
        self.readiness_changed(key);
        self.check_agent(now, key);
        self.fill(now, key);
    }

    fn readiness_changed(&mut self, key: AgentKey) {
        let Some(agent) = self.registry.get(key) else { return };
        let is_ready = agent.is_ready();
        for membership in &agent.serves {
            if let Some(pool) = self.pools.get_mut(membership.pool) {
                pool.set_ready(membership.member, is_ready);
            }
        }
        self.room_changed(key);
    }

    /// Any frame of a worker is a sign of life; a lost one's brings it back.
    pub(super) fn agent_is_heard(&mut self, now: Now, key: AgentKey) {
        let Some(agent) = self.registry.get_mut(key) else { return };
        agent.last_heard = now.mono;
        let was_probed = agent.probed.take().is_some();
        if agent.presence == Presence::Online {
            if was_probed {
                self.check_agent(now, key);
            }
            return;
        }
        agent.presence = Presence::Online;
        let agent_id = agent.id.clone();
        let attempts = agent.attempts.clone();
        let is_current =
            |core: &Core, key| core.attempts.get(key).is_some_and(|it| it.task.is_some());
        let (kept, given_away): (Vec<_>, Vec<_>) =
            attempts.into_iter().partition(|key| is_current(self, *key));
        for attempt in given_away {
            self.cancel_attempt(now, attempt, CancelReason::Superseded);
        }
        self.stats.agents_resumed += 1;
        self.event(Event::AgentResumed { agent_id, kept: kept.len() });
        self.activate(now, key);
    }

    /// A worker is gone, or so it seems. It gets no tasks; what may run again goes elsewhere at
    /// once; the rest can be resumed for a while.
    pub(super) fn agent_is_lost(&mut self, now: Now, key: AgentKey, why: &'static str) {
        let Some(agent) = self.registry.get_mut(key) else { return };
        if agent.presence != Presence::Online {
            return;
        }
        agent.presence = Presence::Lost { since: now.mono };
        agent.probed = None;
        let (agent_id, attempts) = (agent.id.clone(), agent.attempts.clone());
        self.stats.agents_lost += 1;
        self.event(Event::AgentLost { agent_id, why, held: attempts.len() });
        self.readiness_changed(key);
        for attempt_key in attempts {
            let Some(attempt) = self.attempts.get_mut(attempt_key) else { continue };
            let Some(task) = attempt.task else { continue };
            if self.tasks.get(task).is_some_and(|task| task.may_run_again()) {
                attempt.task = None;
                let event = HopEvent::WorkerLost;
                self.add_hop(now, task, attempt_key, event, "worker lost; dispatched again");
                self.place(now, task, true);
            }
        }
        self.check_agent(now, key);
    }

    /// A worker's registration is over; what it held ends with it.
    pub(super) fn end_registration(&mut self, now: Now, key: AgentKey, why: &'static str) {
        let Some(agent) = self.registry.get_mut(key) else { return };
        let attempts = agent.attempts.clone();
        let (agent_id, timer) = (agent.id.clone(), agent.timer.take());
        if let Some(timer) = timer {
            self.timers.cancel(timer);
        }
        // Out of the pools first, so that what it held goes elsewhere.
        self.leave_pools(key);
        self.event(Event::AgentLeft { agent_id, why, held: attempts.len() });
        for attempt in attempts {
            if let Some(attempt) = self.release(attempt)
                && let Some(task) = attempt.task
            {
                self.attempt_is_lost(now, task, attempt);
            }
        }
        self.registry.remove(key);
    }

    /// The worker that held an attempt will not finish it.
    fn attempt_is_lost(&mut self, now: Now, key: TaskKey, attempt: Attempt) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let Some(agent) = self.registry.get(attempt.agent) else { return };
        let may_run_again = task.may_run_again();
        let reason = if may_run_again { "worker lost; dispatched again" } else { "worker lost" };
        let (node_id, policy) = (agent.node_id.clone(), self.policy_name.clone());
        let hop = attempt.hop(now.mono, node_id.clone(), policy, HopEvent::WorkerLost, reason);
        task.hops.push(hop);
        if may_run_again {
            self.place(now, key, true);
        } else {
            let message = "its worker was lost; send it again only if running it twice is safe";
            let error = ErrorInfo::new(ErrorCode::WorkerLost, message).node(node_id);
            self.end(now, key, End::without_result(Outcome::Failed, Executed::Maybe, error));
        }
    }

    /// Takes an attempt from its worker: the slot is free.
    fn release(&mut self, key: AttemptKey) -> Option<Attempt> {
        let attempt = self.attempts.remove(key)?;
        if let Some(timer) = attempt.cancel_timer {
            self.timers.cancel(timer);
        }
        if let Some(agent) = self.registry.get_mut(attempt.agent) {
            agent.attempts.swap_remove(attempt.position);
            if let Some(moved) = agent.attempts.get(attempt.position)
                && let Some(moved) = self.attempts.get_mut(*moved)
            {
                moved.position = attempt.position;
            }
            self.room_changed(attempt.agent);
        }
        Some(attempt)
    }

    /// The attempt of an id, if this worker holds it. Otherwise the worker is told, and nothing
    /// happens: this is the fence.
    fn held_by(
        &mut self,
        from: ConnectionId,
        agent: AgentKey,
        id: AttemptId,
    ) -> Option<AttemptKey> {
        let key = self.attempt_ids.key(id);
        let held =
            key.filter(|key| self.attempts.get(*key).is_some_and(|attempt| attempt.agent == agent));
        if held.is_none() {
            self.stats.refused_results += 1;
            let message = format!("you do not hold attempt {id}");
            self.send_error(from, ErrorInfo::new(ErrorCode::UnknownAttempt, message));
        }
        held
    }

    pub(super) fn handle_result(
        &mut self,
        now: Now,
        from: ConnectionId,
        agent: AgentKey,
        result: TaskResult,
        body: Bytes,
    ) {
        let Some(key) = self.held_by(from, agent, result.attempt_id) else { return };
        let Some(attempt) = self.release(key) else { return };
        match attempt.task {
            None => self.stats.late_results += 1,
            Some(task) => self.take_result(now, task, attempt, result, body),
        }
        self.fill(now, agent);
    }

    fn take_result(
        &mut self,
        now: Now,
        key: TaskKey,
        attempt: Attempt,
        result: TaskResult,
        body: Bytes,
    ) {
        let Some(agent) = self.registry.get(attempt.agent) else { return };
        let node_id = agent.node_id.clone();
        let is_given_up = result.outcome == Outcome::Cancelled;
        let (event, reason) = match result.outcome {
            Outcome::Expired => (HopEvent::Expired, "its worker stopped it at its deadline"),
            Outcome::Cancelled => (HopEvent::Cancelled, "its worker gave it up"),
            Outcome::Ok | Outcome::Failed | Outcome::Rejected | Outcome::Lost => {
                (HopEvent::Completed, "")
            }
        };
        let mut hop =
            attempt.hop(now.mono, node_id.clone(), self.policy_name.clone(), event, reason);
        // A worker can't have spent more than the time it had.
        hop.work_us = result.work_us.min(hop.network_us);
        hop.worker_queue_us = result.queue_us.min(hop.network_us - hop.work_us);
        hop.network_us -= hop.work_us + hop.worker_queue_us;
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.hops.push(hop);
        if is_given_up && (result.executed == Executed::No || task.may_run_again()) {
            task.nacks += u32::from(result.executed == Executed::No);
            task.avoid = Some(attempt.agent);
            return self.place(now, key, true);
        }
        let mut error = result.error;
        let outcome = if is_given_up { Outcome::Failed } else { result.outcome };
        if outcome != Outcome::Ok {
            let (code, message) = match result.outcome {
                Outcome::Cancelled => (ErrorCode::WorkerLost, "its worker gave it up"),
                Outcome::Expired => (ErrorCode::Expired, reason),
                _ => (ErrorCode::HandlerFailed, "the handler failed and did not say why"),
            };
            let error = error.get_or_insert_with(|| Box::new(ErrorInfo::new(code, message)));
            error.node_id = Some(node_id);
        } else {
            error = None;
        }
        let (executed, content_type) = (result.executed, result.content_type);
        self.end(now, key, End { outcome, executed, content_type, error, body });
    }

    pub(super) fn handle_nack(
        &mut self,
        now: Now,
        from: ConnectionId,
        agent: AgentKey,
        nack: Nack,
    ) {
        let Some(key) = self.held_by(from, agent, nack.attempt_id) else { return };
        let Some(attempt) = self.release(key) else { return };
        self.stats.nacked += 1;
        if let Some(task) = attempt.task {
            self.take_back(now, task, attempt, nack);
        }
        self.fill(now, agent);
    }

    /// A worker handed a task back that it did not start.
    fn take_back(&mut self, now: Now, key: TaskKey, attempt: Attempt, nack: Nack) {
        let Some(agent) = self.registry.get(attempt.agent) else { return };
        let node_id = agent.node_id.clone();
        let (policy, reason) = (self.policy_name.clone(), "handed back; dispatched again");
        let hop = attempt.hop(now.mono, node_id.clone(), policy, HopEvent::Nacked, reason);
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.hops.push(hop);
        task.nacks += 1;
        task.avoid = Some(attempt.agent);
        if task.nacks < self.config.max_nacks {
            return self.place(now, key, true);
        }
        let message = format!("workers handed it back {} times", task.nacks);
        let mut error =
            nack.error.map_or_else(|| ErrorInfo::new(ErrorCode::AllBusy, message), |error| *error);
        error.node_id = Some(node_id);
        let executed = self.executed_so_far(key);
        self.end(now, key, End::without_result(Outcome::Rejected, executed, error));
    }

    pub(super) fn handle_ping(&mut self, now: Now, key: AgentKey, ping: Ping) {
        let Some(readiness) = ping.readiness else { return };
        let Some(agent) = self.registry.get_mut(key) else { return };
        if agent.readiness != readiness {
            agent.readiness = readiness;
            self.readiness_changed(key);
        }
        self.find_leaks(now, key, ping);
        self.fill(now, key);
    }

    /// Frames arrive in order, so a worker that has received an attempt's ROUTE, does not list it,
    /// and has sent no RESULT before this PING, will never send one.
    fn find_leaks(&mut self, now: Now, key: AgentKey, mut ping: Ping) {
        ping.held.sort_unstable();
        let Some(agent) = self.registry.get(key) else { return };
        let is_leaked = |attempt_key: &AttemptKey| {
            let id = self.attempt_ids.id(*attempt_key);
            let attempt = self.attempts.get(*attempt_key);
            attempt.is_some_and(|it| it.route <= ping.routes_received)
                && ping.held.binary_search(&id).is_err()
        };
        let leaked: Vec<_> = agent.attempts.iter().copied().filter(is_leaked).collect();
        for attempt in leaked {
            let Some(agent) = self.registry.get(key) else { return };
            let agent_id = agent.id.clone();
            self.stats.leaked += 1;
            self.event(Event::AttemptLeaked { agent_id });
            if let Some(attempt) = self.release(attempt)
                && let Some(task) = attempt.task
            {
                self.attempt_is_lost(now, task, attempt);
            }
        }
    }

    pub(super) fn cancel_is_unconfirmed(&mut self, key: AttemptKey) {
        let Some(attempt) = self.attempts.get_mut(key) else { return };
        attempt.cancel_timer = None;
        let agent = attempt.agent;
        self.stats.cancels_unconfirmed += 1;
        if let Some(agent_id) = self.registry.get(agent).map(|agent| agent.id.clone()) {
            self.event(Event::CancelUnconfirmed { agent_id });
        }
    }
}
