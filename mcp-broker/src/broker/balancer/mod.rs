//! Choosing a worker among those that could take a task.
//!
//! A balancer holds the members of one sub-queue that have room, and nothing else: it is told when
//! a member gets or loses room, and when its load changes. All operations are O(1), whatever the
//! number of workers.

mod least_loaded;
mod round_robin;

use bytestring::ByteString;
use least_loaded::LeastLoaded;
use round_robin::RoundRobin;

use super::rng::Rng;

/// How a worker is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Each in turn.
    RoundRobin,
    /// The one with the smallest in-flight ÷ slots; random among equals.
    #[default]
    LeastLoaded,
}

impl Policy {
    /// Its name in traces and in configuration.
    pub fn name(self) -> ByteString {
        ByteString::from_static(match self {
            Policy::RoundRobin => "round_robin",
            Policy::LeastLoaded => "least_loaded",
        })
    }
}

/// Names a member of a pool; small and dense.
pub(super) type Member = u32;

/// How busy a member is: in flight, of so many slots.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) in_flight: u32,
    pub(super) slots: u32,
}

/// The members that have room, under a policy.
#[derive(Debug)]
pub(super) enum Balancer {
    RoundRobin(RoundRobin),
    LeastLoaded(LeastLoaded),
}

impl Balancer {
    pub(super) fn new(policy: Policy) -> Self {
        match policy {
            Policy::RoundRobin => Balancer::RoundRobin(RoundRobin::default()),
            Policy::LeastLoaded => Balancer::LeastLoaded(LeastLoaded::default()),
        }
    }

    /// The member has room, at this load.
    pub(super) fn offer(&mut self, member: Member, load: Load) {
        match self {
            Balancer::RoundRobin(it) => it.offer(member),
            Balancer::LeastLoaded(it) => it.offer(member, load),
        }
    }

    /// The member has no room.
    pub(super) fn withdraw(&mut self, member: Member) {
        match self {
            Balancer::RoundRobin(it) => it.withdraw(member),
            Balancer::LeastLoaded(it) => it.withdraw(member),
        }
    }

    /// Chooses a member, other than `avoid` if there is another.
    pub(super) fn pick(&mut self, rng: &mut Rng, avoid: Option<Member>) -> Option<Member> {
        match self {
            Balancer::RoundRobin(it) => it.pick(avoid),
            Balancer::LeastLoaded(it) => it.pick(rng, avoid),
        }
    }

    /// How many members have room.
    pub(super) fn len(&self) -> usize {
        match self {
            Balancer::RoundRobin(it) => it.len(),
            Balancer::LeastLoaded(it) => it.len(),
        }
    }
}
