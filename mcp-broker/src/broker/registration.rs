//! Workers come, come back, take each other's place, and leave.

use std::sync::Arc;

use bytestring::ByteString;
use mcp_proto::{ActionName, AttemptId, ErrorCode, Readiness, RoutesReceived, WorkerHello};
use smallvec::SmallVec;

use super::balancer::Seat;
use super::hash::fnv1a;
use super::health::Health;
use super::identities::IdentityKey;
use super::peers::Refusal;
use super::permissions::RoleNames;
use super::registry::{Agent, AgentKey, Membership, Memberships, Presence};
use super::sessions::SessionKey;
use super::{ConnectionId, Core, Event, Mono, Now, shadow};

impl Core {
    /// Registers a worker, or lets it resume. It gets no task before [`Core::activate`]. Returns
    /// the attempts that it shall go on with. `session` is the one that it resumes as a client.
    pub(super) fn register(
        &mut self,
        now: Now,
        connection: ConnectionId,
        (identity, roles): (IdentityKey, RoleNames),
        sdk: ByteString,
        hello: WorkerHello,
        session: Option<SessionKey>,
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
                if let Some(agent) = self.registry.get_mut(key) {
                    agent.roles = roles;
                }
                return Ok(self.resume(now, connection, key, sdk, hello, session));
            }
            self.displace(now, key, session);
        } else if self.registry.len() >= self.config.max_agents {
            let message = format!("this broker has {} agents, its limit", self.registry.len());
            return Err((ErrorCode::LimitExceeded, message));
        }

        let agent = Agent {
            node_id: self.registry.node_id(&hello.agent_id),
            generation: self.registry.next_generation(),
            labels: Arc::default(),
            identity,
            roles,
            instance: hello.instance_id.clone(),
            service_type: hello.service_type.clone(),
            sdk,
            id: hello.agent_id.clone(),
            slots: 0,
            prefetch: 0,
            readiness: hello.readiness,
            is_drained: self.drained.contains_key(&hello.agent_id),
            presence: Presence::Online,
            connection: Some(connection),
            registered: now.mono,
            connected: now.mono,
            serves: Memberships::new(),
            next_action: 0,
            attempts: SmallVec::new(),
            parked: 0,
            attempts_bytes: 0,
            routes: 0,
            lease_ms: 0,
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
        self.declare(now, key, hello);
        self.event(event);
        Ok((key, Vec::new()))
    }

    /// Takes over what a worker says of itself.
    fn declare(&mut self, now: Now, key: AgentKey, hello: WorkerHello) {
        let mut before = self.leave_pools(now, key);
        let is_shadow = shadow::is_shadow(&hello.labels);
        let labels = Arc::new(hello.labels);
        let seed = fnv1a(hello.agent_id.as_str().as_bytes(), 0);
        let seat = Seat { slots: hello.slots, weight: hello.weight, seed };
        let mut serves = Memberships::with_capacity(hello.actions.len());
        for action in &hello.actions {
            let health = match before.iter().position(|(served, _)| served == action) {
                Some(index) => before.swap_remove(index).1,
                None => self.memory.recall(&hello.agent_id, action),
            };
            let pool_key = self.served_pool(action.into(), is_shadow);
            if let Some(pool) = self.pools.get_mut(pool_key) {
                let member = pool.join(key, labels.clone(), seat, health);
                serves.push(Membership { pool: pool_key, member });
            }
        }
        self.registry.set_slots(key, hello.slots);
        if let Some(agent) = self.registry.get_mut(key) {
            agent.lease_ms = self.config.lease_ms;
            agent.labels = labels;
            agent.serves = serves;
            agent.prefetch = hello.prefetch;
            agent.readiness = hello.readiness;
            agent.service_type = hello.service_type;
        }
    }

    /// Takes a worker out of the pools of its actions. What is known of its health is returned.
    fn leave_pools(&mut self, now: Now, key: AgentKey) -> Vec<(ActionName, Health)> {
        let Some(agent) = self.registry.get_mut(key) else { return Vec::new() };
        let serves = std::mem::take(&mut agent.serves);
        let mut left = Vec::with_capacity(serves.len());
        for Membership { pool: pool_key, member } in &serves {
            if let Some(pool) = self.pools.get_mut(*pool_key) {
                pool.set_ready(now.mono, *member, 0);
            }
            // What waits for it goes elsewhere first.
            self.pool_has_turned(now, *pool_key);
            let Some(pool) = self.pools.get_mut(*pool_key) else { continue };
            if let Some(mut health) = pool.leave(now.mono, *member) {
                if let Some(timer) = health.take_timer() {
                    self.timers.cancel(timer);
                }
                left.push((pool.action.clone(), health));
            }
        }
        for Membership { pool, .. } in serves {
            self.drop_pool_if_unused(pool);
        }
        left
    }

    /// The same process is back on another connection.
    fn resume(
        &mut self,
        now: Now,
        connection: ConnectionId,
        key: AgentKey,
        sdk: ByteString,
        mut hello: WorkerHello,
        session: Option<SessionKey>,
    ) -> (AgentKey, Vec<AttemptId>) {
        hello.held.sort_unstable();
        self.withdraw(now, key);
        let generation = self.registry.next_generation();
        self.registry.set_presence(key, Presence::Online);
        let Some(agent) = self.registry.get_mut(key) else { return (key, Vec::new()) };
        // Else this may be a HELLO from before its latest ACK, which says nothing of what came after.
        let is_latest = |it: &RoutesReceived| {
            (it.epoch, it.generation) == (self.config.epoch, agent.generation)
        };
        let received = hello.received.filter(is_latest).map(|it| it.routes);
        // None until its ACK is about to be sent: nothing may come before that.
        let old = agent.connection.take();
        agent.generation = generation;
        agent.sdk = sdk;
        agent.connected = now.mono;
        agent.routes = 0;
        // It says again what is parked.
        agent.parked = 0;
        let held = agent.attempts.clone();
        if let Some(old) = old.filter(|old| *old != connection) {
            self.forget_agent_of(now, old, session);
        }

        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for attempt_key in held {
            let Some(attempt) = self.attempts.get_mut(attempt_key) else { continue };
            let has_arrived = received.is_none_or(|routes| attempt.route <= routes);
            attempt.route = 0;
            attempt.set_parked(now.mono, false);
            let id = self.attempt_ids.id(attempt_key);
            match hello.held.binary_search(&id) {
                Ok(_) => known.push(attempt_key),
                Err(_) => unknown.push((attempt_key, has_arrived)),
            }
        }
        for (attempt, has_arrived) in unknown {
            if let Some(attempt) = self.release(attempt)
                && let Some(task) = attempt.task
            {
                match has_arrived {
                    // Its process no longer knows it.
                    true => self.attempt_is_lost(now, task, attempt),
                    false => self.never_arrived(now, task, &attempt),
                }
            }
        }
        // What that ended may have been among them.
        let is_wanted = |it: &Self, key| it.attempts.get(key).is_some_and(|it| it.task.is_some());
        let mut keep = Vec::new();
        for attempt in known {
            if is_wanted(self, attempt) {
                keep.push(self.attempt_ids.id(attempt));
            } else {
                self.release(attempt);
            }
        }
        let agent_id = hello.agent_id.clone();
        self.declare(now, key, hello);
        if let Some(agent) = self.registry.get_mut(key) {
            agent.connection = Some(connection);
        }
        self.stats.agents_resumed += 1;
        self.event(Event::AgentResumed { agent_id, kept: keep.len() });
        (key, keep)
    }

    /// A resumed worker's old connection. What else it carries goes on as if it had broken, but for
    /// a session that is resumed with the worker.
    fn forget_agent_of(&mut self, now: Now, old: ConnectionId, resumed: Option<SessionKey>) {
        let Some(peer) = self.peers.get_mut(&old) else { return };
        peer.agent = None;
        let client = peer.client.take();
        self.send_away(old, ErrorCode::Replaced, "this agent has a newer connection", false);
        match client {
            Some(session) if resumed == client => {
                if let Some(session) = self.sessions.get_mut(session) {
                    session.connection = None;
                }
            }
            Some(session) => self.detach_session(now, session),
            None => {}
        }
    }

    /// Another process has registered under the same name.
    fn displace(&mut self, now: Now, key: AgentKey, session: Option<SessionKey>) {
        let connection = self.registry.get(key).and_then(|agent| agent.connection);
        self.end_registration(now, key, "another process registered under its name");
        if let Some(connection) = connection {
            self.forget_agent_of(now, connection, session);
        }
    }

    /// Its ACK is sent: from now on it gets tasks.
    pub(super) fn activate(&mut self, now: Now, key: AgentKey) {
        let Some(agent) = self.registry.get_mut(key) else { return };
        agent.last_heard = now.mono;
        agent.probed = None;
        agent.busy_since = now.mono;
        self.readiness_changed(now, key);
        self.check_agent(now, key);
        self.send_credits(key);
        self.resend_inputs(key);
        self.fill(now, key);
    }

    pub(super) fn readiness_changed(&mut self, now: Now, key: AgentKey) {
        let Some(agent) = self.registry.get(key) else { return };
        let slots = if agent.is_ready() { agent.slots + agent.prefetch } else { 0 };
        let serves = agent.serves.clone();
        for Membership { pool, member } in &serves {
            if let Some(pool) = self.pools.get_mut(*pool) {
                pool.set_ready(now.mono, *member, slots);
            }
            self.watch(now.mono, *pool, *member);
        }
        self.room_changed(key);
        for Membership { pool, .. } in serves {
            self.pool_has_turned(now, pool);
        }
    }

    /// A worker gets no tasks until it is activated again.
    fn withdraw(&mut self, now: Now, key: AgentKey) {
        let Some(agent) = self.registry.get_mut(key) else { return };
        agent.readiness = Readiness::Standby;
        self.readiness_changed(now, key);
    }

    /// A worker's registration is over; what it held ends with it.
    pub(super) fn end_registration(&mut self, now: Now, key: AgentKey, why: &'static str) {
        let Some(agent) = self.registry.get_mut(key) else { return };
        let attempts = agent.attempts.clone();
        let (agent_id, timer) = (agent.id.clone(), agent.timer.take());
        let is_online = agent.presence == Presence::Online;
        if let Some(timer) = timer {
            self.timers.cancel(timer);
        }
        if is_online {
            self.worker_leaves_tasks(now, key);
        }
        // Out of the pools first, so that what it held goes elsewhere.
        for (action, health) in self.leave_pools(now, key) {
            self.memory.keep(&agent_id, &action, health);
        }
        self.event(Event::AgentLeft { agent_id, why, held: attempts.len() });
        for attempt in attempts {
            if let Some(attempt) = self.release(attempt)
                && let Some(task) = attempt.task
            {
                self.attempt_is_lost(now, task, attempt);
            }
        }
        if let Some(agent) = self.registry.remove(key)
            && self.identities.is_proven(agent.identity)
        {
            self.owners.keep(now.mono, agent.id, agent.identity);
        }
        self.fill_below_caps(now);
    }
}
