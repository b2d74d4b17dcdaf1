//! The better of two members taken at random.
//!
//! Two choices instead of one make the longest queue exponentially shorter, and more than two add
//! little; nobody herds, since each task looks at others. Source: Mitzenmacher, "The power of two
//! choices in randomized load balancing", 2001. The cost that is compared is the estimated drain
//! time, as in Finagle's and Tower's `p2c`.

use super::super::rng::Rng;
use super::offered::Offered;
use super::{Estimate, Member};

/// The cheaper of two, other than `avoid` if there is another.
pub(super) fn pick(
    offered: &Offered,
    rng: &mut Rng,
    avoid: Option<Member>,
    cost: impl Fn(Member) -> f64,
) -> Option<Member> {
    let [first, second] = offered.any_two(rng)?;
    if first == second || Some(second) == avoid {
        return Some(first);
    }
    let is_first = Some(first) != avoid && cost(first) <= cost(second);
    Some(if is_first { first } else { second })
}

/// µs until a member has worked off what it has and one task more. The service time is measured
/// from ROUTE to RESULT at the broker, so the way there and back is in it.
pub(super) fn drain_us(it: Estimate) -> f64 {
    let tasks = f64::from(it.load.in_flight) + 1.0;
    tasks * it.service_us as f64 / f64::from(it.load.slots.max(1))
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
                drain_us(Estimate { load, service_us, ok_share: 1.0 })
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
        assert_eq!(pick(&offered, &mut rng, Some(0), |_| 1.0), Some(0));
        (1..4).for_each(|member| offered.offer(member));
        let mut seen = [0; 4];
        for _ in 0..800 {
            seen[pick(&offered, &mut rng, None, |_| 1.0).unwrap() as usize] += 1;
            assert_ne!(pick(&offered, &mut rng, Some(2), |_| 1.0), Some(2));
        }
        assert!(seen.iter().all(|count| (150..250).contains(count)), "{seen:?}");
    }

    #[test]
    fn the_slowest_of_all_is_never_the_better_of_two() {
        let (mut offered, mut rng) = (Offered::default(), Rng::new(1));
        (0..8).for_each(|member| offered.offer(member));
        let cost = |member: Member| if member == 5 { 10.0 } else { 1.0 };
        assert!((0..1_000).all(|_| pick(&offered, &mut rng, None, cost) != Some(5)));
    }
}
