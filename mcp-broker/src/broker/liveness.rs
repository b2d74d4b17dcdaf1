//! Whether workers are still there.
//!
//! A worker that holds nothing has a lease: any frame renews it. One that holds attempts is probed
//! after a short silence, and lost when it does not answer. A lost worker's registration ends when
//! it is not heard for the grace.

use mcp_proto::{CancelReason, ErrorCode, Executed, Frame, HopEvent, Incoming, Message, Ping};

use super::hedging::another_goes_on;
use super::inflight::{AttemptKey, TaskKey};
use super::registry::{AgentKey, Presence};
use super::results::lost_reason;
use super::{Core, Event, Mono, Now, Timer};

/// What a check of a worker came to.
enum Check {
    Again(Mono),
    Probe,
    Lost(&'static str),
    Gone,
}

impl Core {
    /// Any frame of a worker is a sign of life; a lost one's brings it back.
    pub(super) fn agent_is_heard(&mut self, now: Now, key: AgentKey, incoming: &Incoming) {
        let Some(agent) = self.registry.get_mut(key) else { return };
        agent.last_heard = now.mono;
        let was_probed = agent.probed.take().is_some();
        if agent.presence == Presence::Online {
            if was_probed {
                self.check_agent(now, key);
            }
            return;
        }
        if let Incoming::Frame(Frame { message: Message::Ping(ping), .. }) = incoming
            && let Some(readiness) = ping.readiness
        {
            // Before it gets tasks again, which it may say that it does not take.
            agent.readiness = readiness;
        }
        let agent_id = agent.id.clone();
        let attempts = agent.attempts.clone();
        self.registry.set_presence(key, Presence::Online);
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

    pub(super) fn handle_ping(&mut self, now: Now, key: AgentKey, ping: Ping) {
        let Some(readiness) = ping.readiness else { return };
        let Some(agent) = self.registry.get_mut(key) else { return };
        if agent.readiness != readiness {
            agent.readiness = readiness;
            self.readiness_changed(now, key);
        }
        self.find_leaks(now, key, ping);
        self.fill(now, key);
    }

    /// A worker got an attempt: from now on it is watched closely.
    #[inline]
    pub(super) fn agent_is_busy(&mut self, now: Now, key: AgentKey) {
        let Some(agent) = self.registry.get_mut(key) else { return };
        if agent.attempts.len() > 1 {
            return;
        }
        agent.busy_since = now.mono;
        let at = now.mono.plus_ms(self.config.probe_after_ms);
        if agent.check_at > at {
            self.check_agent_at(key, at);
        }
    }

    fn check_agent_at(&mut self, key: AgentKey, at: Mono) {
        let Some(agent) = self.registry.get_mut(key) else { return };
        if let Some(timer) = agent.timer.take() {
            self.timers.cancel(timer);
        }
        agent.check_at = at;
        agent.timer = Some(self.timers.set(at, Timer::Agent(key)));
    }

    /// Looks whether a worker is due for a probe, lost, or gone, and when to look again.
    pub(super) fn check_agent(&mut self, now: Now, key: AgentKey) {
        match self.check(now.mono, key) {
            None => {}
            Some(Check::Again(at)) => self.check_agent_at(key, at.max(now.mono.plus_ms(1))),
            Some(Check::Probe) => self.probe(now, key),
            Some(Check::Lost(why)) => self.agent_is_lost(now, key, why),
            Some(Check::Gone) => self.agent_is_gone(now, key),
        }
    }

    fn probe(&mut self, now: Now, key: AgentKey) {
        let Some(agent) = self.registry.get_mut(key) else { return };
        agent.probed = Some(now.mono);
        let connection = agent.connection;
        if let Some(to) = connection {
            self.send(to, Message::Ping(Ping::probe(now.mono.0)));
        }
        self.check_agent(now, key);
    }

    /// The network says that a worker is not there any more.
    pub(super) fn agent_is_doubted(&mut self, now: Now, key: AgentKey) {
        let Some(agent) = self.registry.get(key) else { return };
        match (agent.presence, agent.probed) {
            (Presence::Online, None) => self.probe(now, key),
            (Presence::Online, Some(_)) => {
                self.agent_is_lost(now, key, "nothing listens at its address any more");
            }
            (Presence::Lost { .. }, _) => {}
        }
    }

    fn check(&self, now: Mono, key: AgentKey) -> Option<Check> {
        let config = &self.config;
        let agent = self.registry.get(key)?;
        if let Presence::Lost { since } = agent.presence {
            let at = since.plus_ms(config.resume_grace_ms);
            return Some(if now >= at { Check::Gone } else { Check::Again(at) });
        }
        if let Some(probed) = agent.probed {
            let at = probed.plus_ms(config.lost_after_ms.saturating_sub(config.probe_after_ms));
            return Some(if now >= at {
                Check::Lost("it does not answer")
            } else {
                Check::Again(at)
            });
        }
        let lease_over = agent.last_heard.plus_ms(agent.lease_ms);
        if now >= lease_over {
            return Some(Check::Lost("its lease is over"));
        }
        if agent.attempts.is_empty() {
            return Some(Check::Again(lease_over));
        }
        let at = agent.last_heard.max(agent.busy_since).plus_ms(config.probe_after_ms);
        Some(if now >= at { Check::Probe } else { Check::Again(at.min(lease_over)) })
    }

    /// A worker is gone, or so it seems. It gets no tasks; what may run again goes elsewhere at
    /// once; the rest can be resumed for a while.
    pub(super) fn agent_is_lost(&mut self, now: Now, key: AgentKey, why: &'static str) {
        let Some(agent) = self.registry.get_mut(key) else { return };
        if agent.presence != Presence::Online {
            return;
        }
        agent.probed = None;
        let (agent_id, attempts) = (agent.id.clone(), agent.attempts.clone());
        self.worker_leaves_tasks(now, key);
        self.registry.set_presence(key, Presence::Lost { since: now.mono });
        self.stats.agents_lost += 1;
        self.event(Event::AgentLost { agent_id, why, held: attempts.len() });
        self.readiness_changed(now, key);
        for attempt_key in attempts {
            let Some(attempt) = self.attempts.get(attempt_key) else { continue };
            let Some(task) = attempt.task else { continue };
            let it = self.tasks.get_mut(task);
            if it.is_some_and(|it| it.goes_on_without(attempt, Executed::Maybe)) {
                self.goes_on_elsewhere(now, task, attempt_key);
            } else if self.tasks.get(task).is_some_and(|task| task.may_run_again()) {
                self.dispatch_again(now, task, attempt_key);
            }
        }
        self.check_agent(now, key);
    }

    /// Another worker has a task that a lost one has, too.
    fn goes_on_elsewhere(&mut self, now: Now, task: TaskKey, key: AttemptKey) {
        let event = HopEvent::WorkerLost;
        self.add_hop(now, task, key, event, another_goes_on(event));
        self.unbind(key);
    }

    /// Another worker shall do a task that a lost one has.
    fn dispatch_again(&mut self, now: Now, task: TaskKey, key: AttemptKey) {
        let is_poisoned = self.is_poisoned(task);
        let reason = lost_reason(true, is_poisoned);
        self.add_hop(now, task, key, HopEvent::WorkerLost, reason);
        let Some(agent) = self.unbind(key) else { return };
        if is_poisoned {
            let node_id = self.registry.get(agent).map(|agent| agent.node_id.clone());
            return self.end_poisoned(now, task, node_id, None);
        }
        self.place(now, task, true);
    }

    fn agent_is_gone(&mut self, now: Now, key: AgentKey) {
        let connection = self.registry.get(key).and_then(|agent| agent.connection);
        self.end_registration(now, key, "it was lost for too long");
        if let Some(connection) = connection {
            if let Some(peer) = self.peers.get_mut(&connection) {
                peer.agent = None;
            }
            let message = "you gave no sign of life; connect again".into();
            self.refuse(now, connection, (ErrorCode::LeaseExpired, message));
        }
    }
}
