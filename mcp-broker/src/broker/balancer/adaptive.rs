//! The better of two by what is learnt of them: time and success.
//!
//! Compared is the drain time over the square of the share of attempts that end well: whoever takes
//! the task has to do it 1 / share times on average, and each time that was for nothing delays its
//! client as well. Now and then any member is taken instead, so that what is learnt stays true and
//! nobody starves: ε-greedy. Source: Sutton, Barto, "Reinforcement learning", chapter 2.

use mcp_proto::Score;

use super::super::rng::Rng;
use super::offered::Offered;
use super::p2c::{self, Cost};
use super::{Estimate, Member, Odds};

/// One choice in so many is made at random: 5 %, so that one slow worker of eight gets 0.6 % of the
/// tasks, which no p99 shows, and a worker of eight is tried anew with every 160th task.
const EXPLORES_ONE_IN: usize = 20;

/// No worker is thought to do less than this share of its tasks: it costs 16 times as much as one
/// that does all, so that it is still better than others that are far behind.
const MIN_OK_SHARE: f64 = 0.25;

/// The cheaper of two, or any, other than `avoid` if there is another.
pub(super) fn pick(
    offered: &Offered,
    rng: &mut Rng,
    avoid: Option<Member>,
    estimate: impl Fn(Member) -> Estimate,
) -> Option<Member> {
    if rng.below(EXPLORES_ONE_IN) == 0 {
        return offered.any(rng, avoid);
    }
    p2c::pick(offered, rng, avoid, |member| cost(estimate(member)))
}

pub(super) fn odds(
    members: &[Member],
    avoid: Option<Member>,
    estimate: impl Fn(Member) -> Estimate,
) -> Odds {
    let explores = 1.0 / EXPLORES_ONE_IN as f64;
    let others = members.iter().filter(|member| Some(**member) != avoid).count();
    let shares = p2c::shares(members, avoid, |member| cost(estimate(member))).into_iter();
    let odds = shares.map(|(member, share)| {
        let any = match others {
            0 => 1.0,
            _ if Some(member) == avoid => 0.0,
            others => 1.0 / others as f64,
        };
        (member, (1.0 - explores) * share + explores * any)
    });
    let how = format!("the better of two at random, and one time in {EXPLORES_ONE_IN} anyone");
    Odds::new(odds.collect(), how)
}

pub(super) fn score(it: Estimate) -> Score {
    let (value, ok_share) = (cost(it).drain_us(), it.ok_share.max(MIN_OK_SHARE));
    let text = format!("{}: {} ÷ {ok_share:.2}² ok", p2c::time(value), p2c::terms(it));
    Score { value, text }
}

fn cost(it: Estimate) -> Cost {
    let ok_share = it.ok_share.max(MIN_OK_SHARE);
    let cost = Cost::of(it);
    Cost { task_us: cost.task_us / (ok_share * ok_share), ..cost }
}

#[cfg(test)]
mod tests {
    use super::super::Load;
    use super::*;

    fn shares(members: Member, estimate: impl Fn(Member) -> Estimate) -> Vec<f64> {
        let (mut offered, mut rng) = (Offered::default(), Rng::new(1));
        (0..members).for_each(|member| offered.offer(member));
        let mut seen = vec![0; members as usize];
        for _ in 0..100_000 {
            seen[pick(&offered, &mut rng, None, &estimate).unwrap() as usize] += 1;
        }
        seen.into_iter().map(|count| f64::from(count) / 100_000.0).collect()
    }

    fn idle(service_us: u64, ok_share: f64) -> Estimate {
        Estimate { load: Load { in_flight: 0, slots: 1 }, service_us, ok_share }
    }

    #[test]
    fn the_worst_gets_its_floor_and_no_less() {
        let floor = 0.05 / 8.0;
        for worst in [idle(1_000, 0.0), idle(10_000, 1.0)] {
            let shares = shares(8, |member| if member == 3 { worst } else { idle(1_000, 1.0) });
            assert!((0.8..1.2).contains(&(shares[3] / floor)), "{shares:?}");
        }
    }

    #[test]
    fn the_odds_are_those_of_the_picks() {
        let estimate = |member: Member| idle([1_000, 1_000, 5_000, 9_000][member as usize], 1.0);
        let seen = shares(4, estimate);
        let odds = odds(&[0, 1, 2, 3], None, estimate).members;
        assert!((odds.iter().map(|(_, odds)| odds).sum::<f64>() - 1.0).abs() < 1e-9);
        for (member, odds) in odds {
            assert!((seen[member as usize] - odds).abs() < 0.02, "{seen:?}");
        }
        let odds = super::odds(&[0, 1, 2], Some(0), estimate).members;
        assert_eq!(odds.len(), 2, "the avoided one gets nothing");
        assert_eq!(score(idle(1_000, 0.5)).text, "4.0 ms: 1 × 1.0 ms ÷ 1 slots ÷ 0.50² ok");
    }

    #[test]
    fn a_share_of_failures_weighs_twice_and_has_a_bound() {
        let cost_of = |share| cost(idle(1_000, share)).task_us / 1_000.0;
        assert_eq!((cost_of(0.5), cost_of(0.25), cost_of(0.0)), (4.0, 16.0, 16.0));
    }
}
