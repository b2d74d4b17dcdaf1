//! Each member in turn, as often as its weight says, and evenly spread.
//!
//! Time is counted in rounds: with each task it moves on by 1 ÷ the sum of all weights, and each
//! member has a turn every 1 ÷ weight. Of the turns that have begun, the one that ends first is
//! taken. So nobody is ever a whole task ahead of its share, nor behind it, and members of weights
//! 5, 1, 1 come as `a b a a c a a`. Source: Bennett, Zhang, "WF²Q: worst-case fair weighted fair
//! queueing", 1996; it spreads as nginx's smooth weighted round robin does, in O(log n) instead of
//! O(n), and better than plain stride scheduling, which has a heavy member's turns in a row.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use mcp_proto::Score;

use super::{Member, Odds};

/// One round: far more than the weights of any fleet together, and a `u128` has room for 2^88.
const ROUND: u64 = 1 << 40;

/// The turns of those that have room. One that has none keeps its turn until it comes; then it is
/// dropped, and what the member missed is not made up for.
#[derive(Debug, Default, Clone)]
pub(crate) struct WeightedRoundRobin {
    places: Vec<Place>,
    /// Turns that have begun, by their end.
    begun: BinaryHeap<Reverse<Turn>>,
    /// The others, by their beginning.
    later: BinaryHeap<Reverse<Turn>>,
    now: u128,
    /// Of those that have room.
    weights: u64,
    offered: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    weight: u32,
    /// When its next turn begins.
    begin: u128,
    has_room: bool,
    has_turn: bool,
    /// Tells its turns from those of the member that was here before.
    tenure: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    at: u128,
    member: Member,
    tenure: u32,
}

impl Place {
    fn end(&self) -> u128 {
        self.begin + u128::from(ROUND / u64::from(self.weight.max(1)))
    }
}

impl WeightedRoundRobin {
    /// A member takes tasks, with this weight.
    pub(super) fn join(&mut self, member: Member, weight: u32) {
        let index = member as usize;
        if index >= self.places.len() {
            self.places.resize(index + 1, Place::default());
        }
        self.leave(member);
        self.places[index].weight = weight;
    }

    pub(super) fn leave(&mut self, member: Member) {
        self.withdraw(member);
        if let Some(place) = self.places.get_mut(member as usize) {
            let tenure = place.tenure.wrapping_add(1);
            *place = Place { tenure, ..Place::default() };
        }
    }

    pub(super) fn offer(&mut self, member: Member) {
        let Some(place) = self.places.get_mut(member as usize) else { return };
        if !place.has_room {
            place.has_room = true;
            self.offered += 1;
            self.weights += u64::from(place.weight);
        }
        if !place.has_turn {
            place.has_turn = true;
            place.begin = place.begin.max(self.now);
            self.later.push(Reverse(Turn { at: place.begin, member, tenure: place.tenure }));
        }
    }

    pub(super) fn withdraw(&mut self, member: Member) {
        if let Some(place) = self.places.get_mut(member as usize)
            && place.has_room
        {
            place.has_room = false;
            self.offered -= 1;
            self.weights -= u64::from(place.weight);
        }
    }

    pub(super) fn pick(&mut self, avoid: Option<Member>) -> Option<Member> {
        let first = self.next_turn()?;
        let turn = if avoid == Some(first.member) {
            let second = self.next_turn();
            if second.is_some() {
                self.begun.push(Reverse(first));
            }
            second.unwrap_or(first)
        } else {
            first
        };
        self.now += u128::from(ROUND / self.weights.max(1));
        let place = &mut self.places[turn.member as usize];
        place.begin = place.end();
        self.later.push(Reverse(Turn { at: place.begin, ..turn }));
        Some(turn.member)
    }

    /// Takes out the turn that ends first of those that have begun. When none has, it is time for
    /// the next one.
    fn next_turn(&mut self) -> Option<Turn> {
        loop {
            while let Some(Reverse(turn)) = self.later.peek().copied()
                && (turn.at <= self.now || self.begun.is_empty())
            {
                self.later.pop();
                self.now = self.now.max(turn.at);
                if let Some(place) = self.place_of(turn) {
                    self.begun.push(Reverse(Turn { at: place.end(), ..turn }));
                }
            }
            let Reverse(turn) = self.begun.pop()?;
            if self.place_of(turn).is_some() {
                return Some(turn);
            }
        }
    }

    /// The place of a turn that counts; one whose member has no room is over with that.
    fn place_of(&mut self, turn: Turn) -> Option<Place> {
        let place = &mut self.places[turn.member as usize];
        if place.tenure != turn.tenure {
            return None;
        }
        place.has_turn = place.has_room;
        place.has_room.then_some(*place)
    }

    pub(super) fn len(&self) -> usize {
        self.offered
    }

    pub(super) fn odds(&self, avoid: Option<Member>, is_out: impl Fn(Member) -> bool) -> Odds {
        let mut copy = self.clone();
        let members = 0..self.places.len() as Member;
        members.filter(|member| is_out(*member)).for_each(|member| copy.withdraw(member));
        Odds::certain(copy.pick(avoid), "of the turns that have begun, its ends first")
    }

    pub(super) fn score(&self, member: Member) -> Option<Score> {
        let place = self.places.get(member as usize).filter(|place| place.has_room)?;
        let rounds = |at: u128| at.saturating_sub(self.now) as f64 / ROUND as f64;
        let (begin, end) = (rounds(place.begin), rounds(place.end()));
        let text = format!("weight {}, turn from {begin:.2} to {end:.2}", place.weight);
        Some(Score { value: end, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(weights: &[u32]) -> WeightedRoundRobin {
        let mut it = WeightedRoundRobin::default();
        for (member, weight) in weights.iter().enumerate() {
            it.join(member as Member, *weight);
            it.offer(member as Member);
        }
        it
    }

    fn picks(it: &mut WeightedRoundRobin, count: usize) -> Vec<Member> {
        (0..count).map(|_| it.pick(None).unwrap()).collect()
    }

    #[test]
    fn the_turns_of_a_heavy_member_are_spread() {
        for (weights, expected) in [
            (&[5, 1, 1][..], &[0, 1, 0, 0, 2, 0, 0][..]),
            (&[1, 1, 1], &[0, 1, 2]),
            (&[2, 1], &[0, 1, 0]),
            (&[3, 3, 2], &[0, 1, 2, 0, 1, 2, 0, 1]),
        ] {
            let mut it = with(weights);
            for _ in 0..3 {
                assert_eq!(picks(&mut it, expected.len()), expected, "{weights:?}");
            }
        }
    }

    #[test]
    fn nobody_is_ever_a_whole_task_off_its_share() {
        let weights = [50, 7, 7, 7, 3, 1, 1, 1, 1, 22];
        let sum: u32 = weights.iter().sum();
        let (mut it, mut seen) = (with(&weights), [0; 10]);
        for tasks in 1..=10 * sum {
            seen[it.pick(None).unwrap() as usize] += 1;
            for (count, weight) in seen.iter().zip(weights) {
                let share = f64::from(tasks * weight) / f64::from(sum);
                assert!((f64::from(*count) - share).abs() < 1.001, "{tasks}: {seen:?}");
            }
        }
    }

    #[test]
    fn what_a_full_member_missed_is_not_made_up_for() {
        let mut it = with(&[1, 1, 4]);
        it.withdraw(2);
        let seen = picks(&mut it, 1_000);
        assert!((490..=510).contains(&seen.iter().filter(|it| **it == 0).count()));
        it.offer(2);
        let back = picks(&mut it, 12);
        assert!((8..=9).contains(&back.iter().filter(|it| **it == 2).count()), "{back:?}");
    }

    #[test]
    fn members_that_are_full_now_and_then_keep_their_shares_of_the_rest() {
        let mut it = with(&[3, 1, 1]);
        let mut seen = [0; 3];
        for _ in 0..1_000 {
            let member = it.pick(None).unwrap();
            seen[member as usize] += 1;
            it.withdraw(member);
            it.offer(member);
        }
        assert_eq!(seen, [600, 200, 200]);
    }

    #[test]
    fn a_place_is_taken_over_without_the_turns_of_before() {
        let mut it = with(&[1, 1_000]);
        picks(&mut it, 500);
        it.leave(0);
        it.join(0, 1_000);
        it.offer(0);
        let seen = picks(&mut it, 100);
        assert!((49..=51).contains(&seen.iter().filter(|it| **it == 0).count()));
        it.leave(0);
        it.leave(1);
        assert_eq!((it.pick(None), it.len()), (None, 0));
    }

    #[test]
    fn the_avoided_one_is_taken_only_when_it_is_the_only_one() {
        let mut it = with(&[9, 1]);
        assert_eq!(it.pick(Some(0)), Some(1));
        assert_eq!(it.pick(Some(0)), Some(1));
        it.withdraw(1);
        assert_eq!((it.pick(Some(0)), it.pick(Some(0))), (Some(0), Some(0)));
        assert_eq!(it.len(), 1);
    }

    #[test]
    fn whose_turn_it_is_is_told_without_taking_it() {
        let mut it = WeightedRoundRobin::default();
        for (member, weight) in [(0, 5), (1, 1), (2, 1)] {
            it.join(member, weight);
            it.offer(member);
        }
        for step in 0..40 {
            let avoid = [None, Some(0), Some(1)][step % 3];
            let odds = it.odds(avoid, |_| false).members;
            assert_eq!(odds, [(it.pick(avoid).unwrap(), 1.0)]);
        }
        let mut copy = it.clone();
        copy.withdraw(0);
        let odds = it.odds(None, |member| member == 0).members;
        assert_eq!(odds, [(copy.pick(None).unwrap(), 1.0)]);
        assert!(it.score(0).unwrap().text.starts_with("weight 5, turn from "));
        assert_eq!((copy.score(0), it.odds(None, |_| true).members), (None, vec![]));
    }
}
