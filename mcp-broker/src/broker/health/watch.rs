//! What time does to the health of workers, and probes.

use super::Health;
use super::slow_start::SlowStart;
use super::verdicts::Turn;
use crate::broker::balancer::Member;
use crate::broker::inflight::AttemptKey;
use crate::broker::pool::{Pool, PoolKey};
use crate::broker::registry::AgentKey;
use crate::broker::rules::ActionRules;
use crate::broker::time::Mono;
use crate::broker::{Core, Now, Timer};

impl Health {
    /// Does what is due. Returns whether it is taken in again.
    fn pass(&mut self, now: Mono, rules: &ActionRules, is_eased: bool) -> bool {
        self.breaker.half_open(now);
        let returns = self.pace.pass(now);
        if returns {
            self.slow_start = SlowStart::begin(now, rules.slow_start_ms, is_eased);
        } else {
            self.slow_start.pass(now, rules.slow_start_ms);
        }
        returns
    }
}

impl Core {
    /// Sets the timer for what time changes next of a worker's health.
    pub(in crate::broker) fn watch(&mut self, now: Mono, pool: PoolKey, member: Member) {
        let Some(pool_of) = self.pools.get_mut(pool) else { return };
        let Some(member_of) = pool_of.members.get_mut(member as usize).and_then(Option::as_mut)
        else {
            return;
        };
        let is_ready = member_of.is_ready();
        let health = &mut member_of.health;
        if let Some(timer) = health.timer.take() {
            self.timers.cancel(timer);
        }
        // One that takes no tasks is looked after when it does.
        let next = health.next_at(now, &pool_of.rules).filter(|_| is_ready);
        health.timer = next.map(|at| self.timers.set(at, Timer::Health(pool, member)));
    }

    /// Time has changed something of a worker's health.
    pub(in crate::broker) fn health_is_due(&mut self, now: Now, key: PoolKey, member: Member) {
        let Some(pool) = self.pools.get_mut(key) else { return };
        let is_eased = pool.is_settled();
        let returns = pool.change(now.mono, member, |it, rules| {
            it.health.timer = None;
            it.health.pass(now.mono, rules, is_eased)
        });
        let agent = pool.agent(member);
        match returns {
            Some(true) => self.health_turns(now, key, member, Turn::Returned),
            Some(false) => {
                self.watch(now.mono, key, member);
                self.pool_has_turned(now, key);
            }
            None => {}
        }
        if let Some(agent) = agent {
            self.fill(now, agent);
        }
    }

    /// To be called when a pool's members may have become ready or unready, well or unwell: sees to
    /// the sub-queues that have workers that they lacked, or lack those that they had. Tasks of an arm
    /// of a split that has none left are served by any.
    pub(in crate::broker) fn pool_has_turned(&mut self, now: Now, key: PoolKey) {
        let Some(pool) = self.pools.get_mut(key) else { return };
        let has_opened = pool.open_deserted();
        if !std::mem::take(&mut pool.health.has_turned) && !has_opened {
            return;
        }
        let mut begins = false;
        for subqueue in &mut pool.subqueues {
            begins |= subqueue.note_outage(now.mono);
        }
        if begins {
            self.outage_begins(now.mono, key);
        }
        self.pin_anew(now, key);
        self.fill_pool(now, key);
    }

    /// An attempt was routed to a worker whose breaker is half-open.
    #[cold]
    pub(in crate::broker) fn begin_probe(&mut self, now: Now, key: AttemptKey) {
        let Some(attempt) = self.attempts.get_mut(key) else { return };
        let Some(member) = self.registry.member(attempt.agent, attempt.pool) else { return };
        let Some(pool) = self.pools.get_mut(attempt.pool) else { return };
        attempt.probe = pool.change(now.mono, member, |it, _| it.health.breaker.begin_probe());
    }

    /// A probe is no longer with its worker: there may be another.
    #[cold]
    pub(in crate::broker) fn probe_ends(&mut self, agent: AgentKey, pool: PoolKey, round: u32) {
        let Some(member) = self.registry.member(agent, pool) else { return };
        if let Some(pool) = self.pools.get_mut(pool) {
            pool.end_probe(member, round);
        }
    }

    /// The rules of an action have changed: those that no longer hold have no effect any more.
    pub(in crate::broker) fn health_rules_changed(&mut self, now: Now, key: PoolKey) {
        let Some(pool) = self.pools.get_mut(key) else { return };
        let members = 0..pool.members.len() as Member;
        members.clone().for_each(|index| pool.relax(now.mono, index));
        members.for_each(|index| self.watch(now.mono, key, index));
        self.pool_has_turned(now, key);
    }
}

impl Pool {
    /// Frees a member of what the rules no longer have.
    fn relax(&mut self, now: Mono, index: Member) {
        let mut paces = self.health.paces;
        self.change(now, index, |member, rules| {
            let health = &mut member.health;
            if !rules.breaker.are_on() {
                health.breaker = Default::default();
            }
            if !rules.outlier.are_on() {
                health.pace.leave(&mut paces);
                health.pace = Default::default();
            }
            if rules.slow_start_ms == 0 {
                health.slow_start = SlowStart::Past;
            }
        });
        self.health.paces = paces;
    }
}
