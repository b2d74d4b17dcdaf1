//! The health of workers as operators see it.

use mcp_proto::ActionName;
use serde::Serialize;

use super::Condition;
use crate::broker::balancer::Member;
use crate::broker::pool::Pool;
use crate::broker::registry::Agent;
use crate::broker::time::Mono;
use crate::broker::{Core, Now};

/// How a worker is at one action, where that is not well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ActionHealth {
    /// The action.
    pub action: ActionName,
    /// `"breaker open"`, `"half-open"`, `"probing"`, `"ejected"` or `"slow start"`.
    pub health: &'static str,
    /// ms until time ends that, if it does.
    pub for_ms: Option<u64>,
}

/// The workers of an action that take tasks, or would, by the state of their breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Breakers {
    /// As they should be.
    pub closed: u64,
    /// Being probed.
    pub half_open: u64,
    /// They get no tasks.
    pub open: u64,
}

impl Condition {
    /// Its name for people and in JSON.
    pub(in crate::broker) fn name(self) -> &'static str {
        match self {
            Condition::Ok => "ok",
            Condition::SlowStart(_) => "slow start",
            Condition::Ejected => "ejected",
            Condition::HalfOpen => "half-open",
            Condition::Probing => "probing",
            Condition::Open => "breaker open",
        }
    }

    /// The worse, the larger.
    fn severity(self) -> u8 {
        match self {
            Condition::Ok => 0,
            Condition::SlowStart(_) => 1,
            Condition::Ejected => 2,
            Condition::HalfOpen | Condition::Probing => 3,
            Condition::Open => 4,
        }
    }
}

impl Pool {
    /// The health of a member.
    pub(in crate::broker) fn condition(&self, member: Member) -> Condition {
        let member = self.members.get(member as usize).and_then(Option::as_ref);
        member.map_or(Condition::Ok, |it| it.health.condition())
    }

    /// The same, and for how long, where it is not well.
    pub(in crate::broker) fn unwell(&self, now: Mono, member: Member) -> Option<ActionHealth> {
        let health = &self.members.get(member as usize)?.as_ref()?.health;
        let until = match health.condition {
            Condition::Ok | Condition::HalfOpen | Condition::Probing => None,
            Condition::SlowStart(_) => health.slow_start.ends_at(self.rules.slow_start_ms),
            Condition::Ejected => health.pace.ejected_until(),
            Condition::Open => health.breaker.open_until(),
        };
        (health.condition != Condition::Ok).then(|| ActionHealth {
            action: self.action.clone(),
            health: health.condition.name(),
            for_ms: until.map(|at| at.since(now).div_ceil(1000)),
        })
    }

    pub(in crate::broker) fn breakers(&self) -> Breakers {
        let all = &self.subqueues[0];
        let half_open = all.half_open();
        Breakers {
            closed: (all.ready - half_open).into(),
            half_open: half_open.into(),
            open: all.open().into(),
        }
    }
}

impl Core {
    /// Whether a worker gets no tasks of one of its actions, or few, because of how it did there.
    pub(in crate::broker) fn is_left_out(&self, agent: &Agent) -> bool {
        let mut serves =
            agent.serves.iter().filter_map(|it| Some((self.pools.get(it.pool)?, it.member)));
        serves.any(|(pool, member)| match pool.condition(member) {
            Condition::Ok | Condition::SlowStart(_) => false,
            Condition::Ejected | Condition::HalfOpen | Condition::Probing | Condition::Open => true,
        })
    }

    /// In a word, how a worker is at the action at which it is worst; and how it is at those at which
    /// it is not well.
    pub(in crate::broker) fn health_of(
        &self,
        now: Now,
        agent: &Agent,
    ) -> (&'static str, Vec<ActionHealth>) {
        let serves =
            || agent.serves.iter().filter_map(|it| Some((self.pools.get(it.pool)?, it.member)));
        let conditions = serves().map(|(pool, member)| pool.condition(member));
        let worst = conditions.max_by_key(|it| it.severity()).unwrap_or_default();
        let name = if agent.probed.is_some() { "suspect" } else { worst.name() };
        (name, serves().filter_map(|(pool, member)| pool.unwell(now.mono, member)).collect())
    }
}
