//! The better of two members taken at random.
//!
//! Two choices instead of one make the longest queue exponentially shorter, and more than two add
//! little; nobody herds, since each task looks at others. Source: Mitzenmacher, "The power of two
//! choices in randomized load balancing", 2001. The cost that is compared is the estimated drain
//! time, as in Finagle's and Tower's `p2c`.

use mcp_proto::Score;

use super::super::rng::Rng;
use super::offered::Offered;
use super::{Estimate, Member, Odds};

/// Times that differ by no more than this factor are taken as equal: those of equals differ by
/// chance, and whoever is last by chance would get nothing at all while there is little to do.
const EQUAL_WITHIN: f64 = 1.25;

/// What a task more would cost at a member: the product of both, its drain time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    /// Tasks a slot.
    pub(super) tasks: f64,
    /// µs a task.
    pub(super) task_us: f64,
}

impl Cost {
    /// The service time is measured from ROUTE to RESULT at the broker, so the way there and back is
    /// in it.
    pub(super) fn of(it: Estimate) -> Self {
        let tasks = (f64::from(it.load.in_flight) + 1.0) / f64::from(it.load.slots.max(1));
        Self { tasks, task_us: it.service_us as f64 }
    }

    /// µs until its slots are free again.
    pub(super) fn drain_us(self) -> f64 {
        self.tasks * self.task_us
    }

    fn is_at_most(self, other: Self) -> bool {
        let (a, b) = (self.task_us, other.task_us);
        if a.max(b) <= a.min(b) * EQUAL_WITHIN {
            self.tasks <= other.tasks
        } else {
            self.drain_us() <= other.drain_us()
        }
    }
}

/// The cheaper of two, other than `avoid` if there is another.
pub(super) fn pick(
    offered: &Offered,
    rng: &mut Rng,
    avoid: Option<Member>,
    cost: impl Fn(Member) -> Cost,
) -> Option<Member> {
    let [first, second] = offered.any_two(rng)?;
    if first == second || Some(second) == avoid {
        return Some(first);
    }
    let is_first = Some(first) != avoid && cost(first).is_at_most(cost(second));
    Some(if is_first { first } else { second })
}

/// Members up to which odds are told exactly, by a look at each pair.
const EXACTLY: usize = 64;

/// How likely each is the cheaper of two.
pub(super) fn shares(
    members: &[Member],
    avoid: Option<Member>,
    cost: impl Fn(Member) -> Cost,
) -> Vec<(Member, f64)> {
    let count = members.len();
    if count <= 1 {
        return members.iter().map(|only| (*only, 1.0)).collect();
    }
    let mut costs: Vec<_> = members.iter().map(|member| (*member, cost(*member))).collect();
    if count > EXACTLY {
        // About: by their order, as if no two were equal.
        costs.sort_by(|(_, a), (_, b)| a.drain_us().total_cmp(&b.drain_us()));
        let share = |place: usize| (2 * (count - place) - 1) as f64 / (count * count) as f64;
        return costs
            .iter()
            .enumerate()
            .map(|(place, (member, _))| (*member, share(place)))
            .collect();
    }
    let of_pair = 1.0 / (count * (count - 1)) as f64;
    let beats = |first: &(Member, Cost), second: &(Member, Cost)| {
        Some(second.0) == avoid || Some(first.0) != avoid && first.1.is_at_most(second.1)
    };
    let share = |one: &(Member, Cost)| {
        let others = costs.iter().filter(|other| other.0 != one.0);
        // As the first of two, and as the second.
        let wins = others.map(|other| u32::from(beats(one, other)) + u32::from(!beats(other, one)));
        f64::from(wins.sum::<u32>()) * of_pair
    };
    costs.iter().map(|one| (one.0, share(one))).collect()
}

pub(super) fn odds(
    members: &[Member],
    avoid: Option<Member>,
    estimate: impl Fn(Member) -> Estimate,
) -> Odds {
    let shares = shares(members, avoid, |member| Cost::of(estimate(member)));
    Odds::new(shares, "the one of two at random that has less to drain")
}

pub(super) fn score(it: Estimate) -> Score {
    let value = Cost::of(it).drain_us();
    Score { value, text: format!("{} to drain: {}", time(value), terms(it)) }
}

/// What the drain time is made of.
pub(super) fn terms(it: Estimate) -> String {
    let Estimate { load, service_us, .. } = it;
    format!("{} × {} ÷ {} slots", load.in_flight + 1, time(service_us as f64), load.slots)
}

pub(super) fn time(us: f64) -> String {
    if us < 1000.0 { format!("{us:.0} µs") } else { format!("{:.1} ms", us / 1000.0) }
}

#[cfg(test)]
mod tests {
    use super::super::Load;
    use super::*;

    #[test]
    fn the_faster_of_two_gets_the_task_until_it_is_as_busy() {
        let offered = |members| {
            let mut it = Offered::default();
            (0..members).for_each(|member| it.offer(member));
            it
        };
        let load = |in_flight| Load { in_flight, slots: 8 };
        let pick = |in_flight: [u32; 2], rng: &mut Rng| {
            let cost = |member: Member| {
                let load = load(in_flight[member as usize]);
                let service_us = [1_000, 4_000][member as usize];
                Cost::of(Estimate { load, service_us, ok_share: 1.0 })
            };
            pick(&offered(2), rng, None, cost)
        };
        let mut rng = Rng::new(1);
        for _ in 0..50 {
            assert_eq!(pick([0, 0], &mut rng), Some(0));
            assert_eq!(pick([2, 0], &mut rng), Some(0));
            assert_eq!(pick([4, 0], &mut rng), Some(1));
        }
    }

    #[test]
    fn equals_are_chosen_at_random_and_the_avoided_one_only_alone() {
        let (mut offered, mut rng) = (Offered::default(), Rng::new(1));
        offered.offer(0);
        let equal = |_| Cost { tasks: 1.0, task_us: 1.0 };
        assert_eq!(pick(&offered, &mut rng, Some(0), equal), Some(0));
        (1..4).for_each(|member| offered.offer(member));
        let mut seen = [0; 4];
        for _ in 0..800 {
            seen[pick(&offered, &mut rng, None, equal).unwrap() as usize] += 1;
            assert_ne!(pick(&offered, &mut rng, Some(2), equal), Some(2));
        }
        assert!(seen.iter().all(|count| (150..250).contains(count)), "{seen:?}");
    }

    #[test]
    fn the_slowest_of_all_is_never_the_better_of_two() {
        let (mut offered, mut rng) = (Offered::default(), Rng::new(1));
        (0..8).for_each(|member| offered.offer(member));
        let cost =
            |member: Member| Cost { tasks: 1.0, task_us: [1.0, 1.3][usize::from(member == 5)] };
        assert!((0..1_000).all(|_| pick(&offered, &mut rng, None, cost) != Some(5)));
    }

    #[test]
    fn the_shares_are_those_of_the_picks() {
        let (mut offered, mut rng) = (Offered::default(), Rng::new(1));
        (0..5).for_each(|member| offered.offer(member));
        let cost = |member: Member| {
            let task_us = [1.0, 1.2, 1.4, 9.0, 9.0][member as usize];
            Cost { tasks: 1.0, task_us }
        };
        for avoid in [None, Some(0), Some(4)] {
            let mut seen = [0.0; 5];
            for _ in 0..20_000 {
                let member = pick(&offered, &mut rng, avoid, cost).unwrap();
                seen[member as usize] += 1.0 / 20_000.0;
            }
            for (member, share) in shares(&[0, 1, 2, 3, 4], avoid, cost) {
                assert!((seen[member as usize] - share).abs() < 0.02, "{avoid:?}: {seen:?}");
            }
        }
        let many: Vec<_> = (0..100).collect();
        let shares = shares(&many, None, |member| Cost { tasks: 1.0, task_us: member.into() });
        let sum: f64 = shares.iter().map(|(_, share)| share).sum();
        assert!((sum - 1.0).abs() < 1e-9 && shares[0].1 > shares[99].1);
    }

    #[test]
    fn a_score_is_told_with_what_it_is_made_of() {
        let load = Load { in_flight: 1, slots: 4 };
        let score = score(Estimate { load, service_us: 24_600, ok_share: 1.0 });
        assert_eq!(score.value, 12_300.0);
        assert_eq!(score.text, "12.3 ms to drain: 2 × 24.6 ms ÷ 4 slots");
    }

    #[test]
    fn small_differences_of_time_leave_the_choice_to_the_load() {
        let cost = |tasks, task_us| Cost { tasks, task_us };
        assert!(cost(0.5, 1.2).is_at_most(cost(0.5, 1.0)));
        assert!(cost(0.5, 1.2).is_at_most(cost(0.55, 1.0)));
        assert!(!cost(0.5, 1.3).is_at_most(cost(0.55, 1.0)));
        assert!(cost(0.5, 1.3).is_at_most(cost(0.7, 1.0)));
    }
}
