//! Each member in turn.

use std::collections::VecDeque;

use mcp_proto::Score;

use super::{Member, Odds};

/// A ring of members. One that has no room stays in the ring, to be dropped when its turn comes:
/// so it keeps its place if it has room again by then.
#[derive(Debug, Default)]
pub(crate) struct RoundRobin {
    ring: VecDeque<Member>,
    members: Vec<Place>,
    offered: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    has_room: bool,
    in_ring: bool,
}

impl RoundRobin {
    pub(super) fn offer(&mut self, member: Member) {
        let index = member as usize;
        if index >= self.members.len() {
            self.members.resize(index + 1, Place::default());
        }
        let place = &mut self.members[index];
        if !place.has_room {
            place.has_room = true;
            self.offered += 1;
        }
        if !place.in_ring {
            place.in_ring = true;
            self.ring.push_back(member);
        }
    }

    pub(super) fn withdraw(&mut self, member: Member) {
        if let Some(place) = self.members.get_mut(member as usize)
            && place.has_room
        {
            place.has_room = false;
            self.offered -= 1;
        }
    }

    pub(super) fn pick(&mut self, avoid: Option<Member>) -> Option<Member> {
        let mut avoided = None;
        while let Some(member) = self.ring.pop_front() {
            let place = &mut self.members[member as usize];
            if !place.has_room {
                place.in_ring = false;
                continue;
            }
            self.ring.push_back(member);
            if avoid != Some(member) {
                return Some(member);
            }
            if avoided.replace(member).is_some() {
                break;
            }
        }
        avoided
    }

    pub(super) fn len(&self) -> usize {
        self.offered
    }

    /// The members with room, in the order of their turns.
    fn turns(&self) -> impl Iterator<Item = Member> {
        self.ring.iter().copied().filter(|member| self.members[*member as usize].has_room)
    }

    pub(super) fn score(&self, member: Member) -> Option<Score> {
        let turn = 1 + self.turns().position(|it| it == member)?;
        Some(Score { value: turn as f64, text: format!("turn {turn}") })
    }

    pub(super) fn odds(&self, avoid: Option<Member>, is_out: impl Fn(Member) -> bool) -> Odds {
        let next = self.turns().filter(|member| !is_out(*member));
        let next = next.min_by_key(|member| Some(*member) == avoid);
        Odds::certain(next, "it is its turn")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_in_turn_and_the_full_ones_are_passed_over() {
        let mut it = RoundRobin::default();
        (0..3).for_each(|member| it.offer(member));
        let picks: Vec<_> = (0..4).map(|_| it.pick(None).unwrap()).collect();
        assert_eq!(picks, [0, 1, 2, 0]);
        it.withdraw(1);
        assert_eq!((it.pick(None), it.pick(None), it.len()), (Some(2), Some(0), 2));
        it.withdraw(0);
        it.withdraw(2);
        assert_eq!((it.pick(None), it.len()), (None, 0));
    }

    #[test]
    fn whose_turn_it_is_is_told_without_taking_it() {
        let mut it = RoundRobin::default();
        (0..4).for_each(|member| it.offer(member));
        it.pick(None);
        it.withdraw(1);
        assert_eq!(it.odds(None, |_| false).members, [(2, 1.0)]);
        assert_eq!(it.odds(Some(2), |_| false).members, [(3, 1.0)]);
        assert_eq!(it.odds(Some(2), |member| member != 2).members, [(2, 1.0)]);
        assert_eq!(it.odds(None, |member| member == 2).members, [(3, 1.0)]);
        assert_eq!(it.score(0).map(|score| score.text), Some("turn 3".to_owned()));
        assert_eq!((it.score(1), it.pick(None)), (None, Some(2)));
    }

    #[test]
    fn the_avoided_one_is_taken_only_when_it_is_the_only_one() {
        let mut it = RoundRobin::default();
        it.offer(0);
        it.offer(1);
        assert_eq!((it.pick(Some(0)), it.pick(Some(0))), (Some(1), Some(1)));
        it.withdraw(1);
        assert_eq!(it.pick(Some(0)), Some(0));
    }
}
