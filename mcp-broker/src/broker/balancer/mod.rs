//! Choosing a worker among those that could take a task.
//!
//! A balancer holds the members of one sub-queue. It is told when one comes or goes (it takes tasks
//! at all, or not), when one gets or loses room, and when its load changes. What is known of a
//! member's speed and success it asks for when it compares, so that learning moves nothing. All
//! operations are O(1) or O(log n) in the number of workers; only a key that session hash does not
//! remember costs a look at each.

mod adaptive;
mod least_loaded;
mod odds;
mod offered;
mod p2c;
mod round_robin;
mod session_hash;
mod weighted_round_robin;

use bytestring::ByteString;
use least_loaded::LeastLoaded;
use mcp_proto::Score;
pub(super) use odds::{MAX_ODDS, Odds};
use offered::Offered;
use p2c::Cost;
use round_robin::RoundRobin;
use schemars::JsonSchema;
use session_hash::SessionHash;
use weighted_round_robin::WeightedRoundRobin;

use super::rng::Rng;

/// How a worker is chosen, of those that have room.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Policy {
    /// Each in turn, whatever its slots.
    RoundRobin,
    /// Each in turn, as often as its weight says, which it declares in HELLO; a heavy one's turns
    /// are spread. For workers of known, different speed. Source: WF²Q, Bennett and Zhang, 1996.
    WeightedRoundRobin,
    /// The one with the smallest in-flight ÷ slots; random among equals.
    #[default]
    LeastLoaded,
    /// Of two at random, the one with the shorter drain time: (in flight + 1) × service time ÷
    /// slots. The service time is measured, from ROUTE to RESULT; of a new worker, that of all is
    /// assumed. For workers whose speed differs or changes. Source: Mitzenmacher, "The power of two
    /// choices in randomized load balancing", 2001.
    P2c,
    /// Tasks with the same affinity key go to the same worker, in proportion to slots, and only the
    /// keys of a worker that comes or goes move. None gets more than 1.25 times its share, however
    /// hot a key is: beyond that, or while a worker has no room, the next one in the key's order is
    /// taken, unless [`Affinity::Hard`] is asked for. Tasks without a key go by `least_loaded`. Other
    /// policies do not look at keys. For sessions whose worker keeps a cache of them. Sources: Thaler
    /// and Ravishankar, "Using name-based mappings to increase hit rates", 1998; Mirrokni, Thorup and
    /// Zadimoghaddam, "Consistent hashing with bounded loads", 2018.
    SessionHash,
    /// As `p2c`, with the drain time divided by the square of the share of attempts that ended ok;
    /// one task in 20 goes anywhere, so that what is learnt stays true and no worker starves. For
    /// workers that fail now and then. Source: Sutton and Barto, "Reinforcement learning", chapter
    /// 2 (ε-greedy).
    Adaptive,
}

impl Policy {
    /// All of them.
    pub const ALL: &[Self] = &[
        Policy::RoundRobin,
        Policy::WeightedRoundRobin,
        Policy::LeastLoaded,
        Policy::P2c,
        Policy::SessionHash,
        Policy::Adaptive,
    ];

    /// Its name in traces and in configuration.
    pub fn name(self) -> ByteString {
        ByteString::from_static(match self {
            Policy::RoundRobin => "round_robin",
            Policy::WeightedRoundRobin => "weighted_round_robin",
            Policy::LeastLoaded => "least_loaded",
            Policy::P2c => "p2c",
            Policy::SessionHash => "session_hash",
            Policy::Adaptive => "adaptive",
        })
    }

    /// The policy by which a task with this key is placed, 0 for none.
    pub(super) fn of_key(self, key: u64) -> Self {
        if self == Policy::SessionHash && key == 0 { Policy::LeastLoaded } else { self }
    }
}

/// What a task with an affinity key does, under [`Policy::SessionHash`], while the worker of its key
/// has no room or more than its share.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Affinity {
    /// It goes to the next worker in the key's order, and to any one if it had to wait: the worker
    /// of its key is better, but not better than now.
    #[default]
    Soft,
    /// It waits for that worker, for as long as that takes tasks at all. For sessions that no other
    /// worker could go on with.
    Hard,
}

/// Names a member of a pool; small and dense.
pub(super) type Member = u32;

/// What a member declares of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seat {
    pub(super) slots: u32,
    /// At least 1.
    pub(super) weight: u32,
    /// Its name's hash, the same whenever it comes.
    pub(super) seed: u64,
}

/// How busy a member is: in flight, of so many slots.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Load {
    pub(super) in_flight: u32,
    pub(super) slots: u32,
}

/// What a member would make of one task more.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Estimate {
    pub(super) load: Load,
    /// µs that it has a task.
    pub(super) service_us: u64,
    /// Share of its attempts that end ok, 0 to 1.
    pub(super) ok_share: f64,
}

/// What a task asks of its worker.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ask {
    /// Its affinity key's hash, 0 without one.
    pub(super) key: u64,
    /// A member that is taken only if there is no other.
    pub(super) avoid: Option<Member>,
}

/// The members of a sub-queue, under a policy.
#[derive(Debug)]
pub(super) enum Balancer {
    RoundRobin(RoundRobin),
    WeightedRoundRobin(WeightedRoundRobin),
    LeastLoaded(LeastLoaded),
    P2c(Offered),
    SessionHash(SessionHash),
    Adaptive(Offered),
}

impl Balancer {
    pub(super) fn new(policy: Policy) -> Self {
        match policy {
            Policy::RoundRobin => Balancer::RoundRobin(RoundRobin::default()),
            Policy::WeightedRoundRobin => {
                Balancer::WeightedRoundRobin(WeightedRoundRobin::default())
            }
            Policy::LeastLoaded => Balancer::LeastLoaded(LeastLoaded::default()),
            Policy::P2c => Balancer::P2c(Offered::default()),
            Policy::SessionHash => Balancer::SessionHash(SessionHash::default()),
            Policy::Adaptive => Balancer::Adaptive(Offered::default()),
        }
    }

    /// The member takes tasks, when it has room.
    pub(super) fn join(&mut self, member: Member, seat: Seat) {
        match self {
            Balancer::WeightedRoundRobin(it) => it.join(member, seat.weight),
            Balancer::SessionHash(it) => it.join(member, seat),
            Balancer::RoundRobin(_)
            | Balancer::LeastLoaded(_)
            | Balancer::P2c(_)
            | Balancer::Adaptive(_) => {}
        }
    }

    /// The member takes no tasks.
    pub(super) fn leave(&mut self, member: Member) {
        match self {
            Balancer::WeightedRoundRobin(it) => it.leave(member),
            Balancer::SessionHash(it) => it.leave(member),
            Balancer::RoundRobin(_)
            | Balancer::LeastLoaded(_)
            | Balancer::P2c(_)
            | Balancer::Adaptive(_) => self.withdraw(member),
        }
    }

    /// The member, which has joined, has room, at this load.
    pub(super) fn offer(&mut self, member: Member, load: Load) {
        match self {
            Balancer::RoundRobin(it) => it.offer(member),
            Balancer::WeightedRoundRobin(it) => it.offer(member),
            Balancer::LeastLoaded(it) => it.offer(member, load),
            Balancer::P2c(it) | Balancer::Adaptive(it) => it.offer(member),
            Balancer::SessionHash(it) => it.offer(member, load),
        }
    }

    /// The member has no room.
    pub(super) fn withdraw(&mut self, member: Member) {
        match self {
            Balancer::RoundRobin(it) => it.withdraw(member),
            Balancer::WeightedRoundRobin(it) => it.withdraw(member),
            Balancer::LeastLoaded(it) => it.withdraw(member),
            Balancer::P2c(it) | Balancer::Adaptive(it) => it.withdraw(member),
            Balancer::SessionHash(it) => it.withdraw(member),
        }
    }

    /// Chooses a member that has room.
    pub(super) fn pick(
        &mut self,
        rng: &mut Rng,
        Ask { key, avoid }: Ask,
        estimate: impl Fn(Member) -> Estimate,
    ) -> Option<Member> {
        match self {
            Balancer::RoundRobin(it) => it.pick(avoid),
            Balancer::WeightedRoundRobin(it) => it.pick(avoid),
            Balancer::LeastLoaded(it) => it.pick(rng, avoid),
            Balancer::P2c(it) => p2c::pick(it, rng, avoid, |it| Cost::of(estimate(it))),
            Balancer::SessionHash(it) => it.pick(rng, key, avoid),
            Balancer::Adaptive(it) => adaptive::pick(it, rng, avoid, estimate),
        }
    }

    /// The first member of a key's order, with room or not.
    pub(super) fn home(&mut self, key: u64) -> Option<Member> {
        match self {
            Balancer::SessionHash(it) => it.home(key),
            _ => None,
        }
    }

    /// The same, without noting that it was asked.
    pub(super) fn home_of(&self, key: u64) -> Option<Member> {
        match self {
            Balancer::SessionHash(it) => it.home_of(key),
            _ => None,
        }
    }

    /// Whether a member comes before another in a key's order.
    pub(super) fn prefers(&self, key: u64, member: Member, other: Member) -> bool {
        match self {
            Balancer::SessionHash(it) => it.prefers(key, member, other),
            _ => false,
        }
    }

    /// How many members have room.
    pub(super) fn len(&self) -> usize {
        match self {
            Balancer::RoundRobin(it) => it.len(),
            Balancer::WeightedRoundRobin(it) => it.len(),
            Balancer::LeastLoaded(it) => it.len(),
            Balancer::P2c(it) | Balancer::Adaptive(it) => it.len(),
            Balancer::SessionHash(it) => it.len(),
        }
    }

    /// Whom [`pick`](Self::pick) would choose if some had no room, without choosing: nothing changes.
    /// Takes about as long as a look at each member.
    pub(super) fn odds(
        &self,
        Ask { key, avoid }: Ask,
        is_out: impl Fn(Member) -> bool,
        estimate: impl Fn(Member) -> Estimate,
    ) -> Odds {
        match self {
            Balancer::RoundRobin(it) => it.odds(avoid, is_out),
            Balancer::WeightedRoundRobin(it) => it.odds(avoid, is_out),
            Balancer::LeastLoaded(it) => it.odds(avoid, is_out),
            Balancer::P2c(it) => p2c::odds(&it.without(is_out), avoid, estimate),
            Balancer::SessionHash(it) => it.odds(key, avoid, is_out),
            Balancer::Adaptive(it) => adaptive::odds(&it.without(is_out), avoid, estimate),
        }
    }

    /// What the policy goes by for a member that has room and a task with this key, 0 for none.
    pub(super) fn score(&self, member: Member, key: u64, estimate: Estimate) -> Option<Score> {
        match self {
            Balancer::RoundRobin(it) => it.score(member),
            Balancer::WeightedRoundRobin(it) => it.score(member),
            Balancer::LeastLoaded(it) => it.score(member),
            Balancer::P2c(_) => Some(p2c::score(estimate)),
            Balancer::SessionHash(it) => it.score(member, key),
            Balancer::Adaptive(_) => Some(adaptive::score(estimate)),
        }
    }
}
