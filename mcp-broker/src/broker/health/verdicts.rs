//! What attempts came to, as it changes the health of their workers.

use std::sync::Arc;

use mcp_proto::{ActionName, AgentId};
use smallvec::SmallVec;

use super::breaker::Why;
use super::slow_start::SlowStart;
use crate::broker::balancer::Member;
use crate::broker::inflight::TaskKey;
use crate::broker::pool::{Pool, PoolKey};
use crate::broker::registry::AgentKey;
use crate::broker::rules::ActionRules;
use crate::broker::time::Mono;
use crate::broker::{Core, Event, Now};

/// A change of a worker's condition.
#[derive(Debug, Clone, Copy)]
pub(in crate::broker) enum Turn {
    Opened(Why),
    Closed,
    /// It is that many percent as slow as the others.
    Ejected(u64),
    Returned,
}

/// No fault is seen in silence that was shorter: a pause of a garbage collector, or of the network,
/// can take this long.
const MIN_SILENCE_MS: u64 = 1_000;

/// Nor in one that was less than so many times what a task takes.
const MIN_SILENCE_TIMES: u64 = 4;

impl Pool {
    /// An attempt went well for all that its worker has to do with it; in `service_us` if it did the
    /// task. `probe` is which probe it was, if it was one.
    #[inline]
    pub(in crate::broker) fn note_good(
        &mut self,
        now: Mono,
        index: Member,
        probe: Option<u32>,
        service_us: Option<u64>,
    ) -> Option<Turn> {
        let health = &mut self.members.get_mut(index as usize)?.as_mut()?.health;
        let rules = &*self.rules;
        let closes = rules.breaker.are_on() && health.breaker.note_good(now, probe, &rules.breaker);
        let mut is_outlier = false;
        if let Some(us) = service_us {
            is_outlier = rules.outlier.are_on()
                && health.pace.note(us, &mut self.health.paces, &rules.outlier);
        }
        match (closes, is_outlier) {
            (false, false) => None,
            (true, _) => self.close(now, index),
            (false, true) => self.eject(now, index),
        }
    }

    /// An attempt was ended that would have taken longer than this.
    pub(in crate::broker) fn note_slow(
        &mut self,
        now: Mono,
        index: Member,
        held_us: u64,
    ) -> Option<Turn> {
        let health = &mut self.members.get_mut(index as usize)?.as_mut()?.health;
        let rules = &self.rules.outlier;
        let is_outlier = rules.are_on() && health.pace.note(held_us, &mut self.health.paces, rules);
        if is_outlier { self.eject(now, index) } else { None }
    }

    #[cold]
    fn close(&mut self, now: Mono, index: Member) -> Option<Turn> {
        let is_eased = self.is_settled();
        self.change(now, index, |member, rules| {
            let ms = rules.slow_start_ms;
            member.health.slow_start = SlowStart::begin(now, ms, is_eased);
        })?;
        Some(Turn::Closed)
    }

    /// Leaves a worker out, unless too many are.
    #[cold]
    fn eject(&mut self, now: Mono, index: Member) -> Option<Turn> {
        let all = &self.subqueues[0];
        if (all.ejected() + 1) * 2 > all.ready {
            return None;
        }
        let mut paces = self.health.paces;
        let percent = self.change(now, index, |member, rules| {
            let percent = member.health.pace.percent_of_others(&paces);
            member.health.pace.eject(now.plus_ms(rules.outlier.eject_ms), &mut paces);
            percent
        })?;
        self.health.paces = paces;
        Some(Turn::Ejected(percent))
    }

    fn note_fault(&mut self, now: Mono, index: Member) -> Option<Turn> {
        let why = {
            let health = &mut self.members.get_mut(index as usize)?.as_mut()?.health;
            let rules = &self.rules.breaker;
            if !rules.are_on() {
                return None;
            }
            health.breaker.note_fault(now, rules)?
        };
        self.change(now, index, |_, _| ())?;
        Some(Turn::Opened(why))
    }
}

impl Core {
    /// An attempt at a task was a fault of its worker, or of the task if it was one with others.
    pub(in crate::broker) fn note_fault(
        &mut self,
        now: Now,
        pool: PoolKey,
        agent: AgentKey,
        task: Option<TaskKey>,
    ) {
        if task.is_none_or(|task| self.task_faults(task, agent)) {
            self.worker_faults(now, pool, agent);
        }
    }

    fn worker_faults(&mut self, now: Now, key: PoolKey, agent: AgentKey) {
        let Some(member) = self.registry.member(agent, key) else { return };
        let turn = self.pools.get_mut(key).and_then(|pool| pool.note_fault(now.mono, member));
        if let Some(turn) = turn {
            self.health_turns(now, key, member, turn);
        }
    }

    /// A worker is lost, or left with tasks: one fault for each of its actions of which it held any,
    /// however many they were. Still it holds them.
    pub(in crate::broker) fn worker_leaves_tasks(&mut self, now: Now, agent: AgentKey) {
        let Some(attempts) = self.registry.get(agent).map(|it| it.attempts.clone()) else { return };
        let mut pools: SmallVec<[PoolKey; 4]> = SmallVec::new();
        for key in attempts {
            let task = self.attempts.get(key).and_then(|attempt| attempt.task);
            let Some((task, pool)) =
                task.and_then(|key| self.tasks.get(key).map(|task| (key, task.pool)))
            else {
                continue;
            };
            if self.task_faults(task, agent) && !pools.contains(&pool) {
                pools.push(pool);
            }
        }
        for pool in pools {
            self.worker_faults(now, pool, agent);
        }
    }

    /// Whether it is a fault of its worker that an attempt at a task gave no sign of life: not if
    /// that only says what its client takes for long.
    pub(in crate::broker) fn is_silence_a_fault(&self, key: TaskKey) -> bool {
        let Some(task) = self.tasks.get(key) else { return false };
        let Some(pool) = self.pools.get(task.pool) else { return false };
        let timeout_ms: u64 =
            task.extras.as_ref().map_or(0, |extras| extras.asked.attempt_timeout_ms.into());
        let is_long =
            |service_us: u64| timeout_ms * 1000 >= service_us.saturating_mul(MIN_SILENCE_TIMES);
        timeout_ms >= MIN_SILENCE_MS && pool.service.known_us().is_some_and(is_long)
    }

    /// A worker's condition has changed: tells of it, and sees to what follows.
    #[cold]
    pub(in crate::broker) fn health_turns(
        &mut self,
        now: Now,
        key: PoolKey,
        member: Member,
        turn: Turn,
    ) {
        if let Some((agent_id, action, rules)) = self.names_of(key, member) {
            let event = match turn {
                Turn::Opened(why) => {
                    self.stats.breakers_opened += 1;
                    Event::BreakerOpened { agent_id, action, why: why.to_string() }
                }
                Turn::Closed => Event::BreakerClosed { agent_id, action },
                Turn::Ejected(percent) => {
                    self.stats.workers_ejected += 1;
                    let for_ms = rules.outlier.eject_ms;
                    Event::WorkerEjected { agent_id, action, percent, for_ms }
                }
                Turn::Returned => Event::WorkerReturned { agent_id, action },
            };
            self.event(event);
        }
        self.watch(now.mono, key, member);
        self.pool_has_turned(now, key);
    }

    fn names_of(
        &self,
        pool: PoolKey,
        member: Member,
    ) -> Option<(AgentId, ActionName, Arc<ActionRules>)> {
        let pool = self.pools.get(pool)?;
        let agent = self.registry.get(pool.agent(member)?)?;
        Some((agent.id.clone(), pool.action.clone(), pool.rules.clone()))
    }
}
