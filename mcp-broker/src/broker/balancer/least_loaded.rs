//! The member with the smallest in-flight ÷ slots.

use mcp_proto::Score;

use super::super::rng::Rng;
use super::{Load, Member, Odds};

/// Loads are told apart in steps of 1/64 of a member's slots; a load above 1 (tasks prefetched)
/// counts up to 2. Members of one step are equals.
const STEPS: u32 = 64;
const LEVELS: usize = 128;

/// Members by level of load: the lowest level that has any is found by its bit, and a member moves
/// between levels in O(1).
#[derive(Debug)]
pub(crate) struct LeastLoaded {
    levels: Box<[Vec<Member>; LEVELS]>,
    /// A bit for each level that has any.
    occupied: [u64; LEVELS / 64],
    places: Vec<Option<Place>>,
    offered: usize,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    level: u8,
    position: u32,
}

impl Default for LeastLoaded {
    fn default() -> Self {
        Self {
            levels: Box::new([const { Vec::new() }; LEVELS]),
            occupied: [0; LEVELS / 64],
            places: Vec::new(),
            offered: 0,
        }
    }
}

impl LeastLoaded {
    pub(super) fn offer(&mut self, member: Member, load: Load) {
        let level =
            (load.in_flight.saturating_mul(STEPS) / load.slots.max(1)).min(LEVELS as u32 - 1) as u8;
        if member as usize >= self.places.len() {
            self.places.resize(member as usize + 1, None);
        }
        match self.places[member as usize] {
            Some(place) if place.level == level => return,
            Some(place) => self.take_out(place),
            None => self.offered += 1,
        }
        let members = &mut self.levels[usize::from(level)];
        self.places[member as usize] = Some(Place { level, position: members.len() as u32 });
        members.push(member);
        self.occupied[usize::from(level / 64)] |= 1 << (level % 64);
    }

    pub(super) fn withdraw(&mut self, member: Member) {
        if let Some(place) = self.places.get_mut(member as usize).and_then(Option::take) {
            self.take_out(place);
            self.offered -= 1;
        }
    }

    /// Takes whoever is there from its level.
    #[inline]
    fn take_out(&mut self, place: Place) {
        let members = &mut self.levels[usize::from(place.level)];
        members.swap_remove(place.position as usize);
        if let Some(moved) = members.get(place.position as usize) {
            self.places[*moved as usize] = Some(place);
        }
        if members.is_empty() {
            self.occupied[usize::from(place.level / 64)] &= !(1 << (place.level % 64));
        }
    }

    pub(super) fn pick(&mut self, rng: &mut Rng, avoid: Option<Member>) -> Option<Member> {
        for (levels, occupied) in self.levels.chunks(64).zip(self.occupied) {
            let mut occupied = occupied;
            while occupied != 0 {
                let members = &levels[occupied.trailing_zeros() as usize];
                let first = rng.below(members.len());
                if Some(members[first]) != avoid {
                    return Some(members[first]);
                }
                if members.len() > 1 {
                    return Some(members[(first + 1) % members.len()]);
                }
                occupied &= occupied - 1;
            }
        }
        (self.offered > 0).then_some(avoid).flatten()
    }

    pub(super) fn len(&self) -> usize {
        self.offered
    }

    pub(super) fn score(&self, member: Member) -> Option<Score> {
        let level = self.places.get(member as usize).copied().flatten()?.level;
        let percent = u32::from(level) * 100 / STEPS;
        Some(Score {
            value: f64::from(level) / f64::from(STEPS),
            text: format!("{percent} % of its slots in use"),
        })
    }

    pub(super) fn odds(&self, avoid: Option<Member>, is_out: impl Fn(Member) -> bool) -> Odds {
        for level in self.levels.iter() {
            let level: Vec<_> = level.iter().copied().filter(|it| !is_out(*it)).collect();
            let equals = level.iter().filter(|member| Some(**member) != avoid).count();
            if equals > 0 {
                let how = match equals {
                    1 => "it has the smallest part of its slots in use".to_owned(),
                    _ => format!(
                        "at random among the {equals} with the smallest part of their slots in use"
                    ),
                };
                // The one behind the avoided one stands in for it.
                let stands_in = level.iter().position(|member| Some(*member) == avoid);
                let stands_in = stands_in.map(|avoided| level[(avoided + 1) % level.len()]);
                let share = 1.0 / level.len() as f64;
                let odds = |member: Member| match member {
                    member if Some(member) == avoid => 0.0,
                    member if Some(member) == stands_in => 2.0 * share,
                    _ => share,
                };
                return Odds::new(
                    level.iter().map(|member| (*member, odds(*member))).collect(),
                    how,
                );
            }
        }
        let avoided = avoid.filter(|member| self.score(*member).is_some() && !is_out(*member));
        Odds::certain(avoided, "there is no other")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(in_flight: u32, slots: u32) -> Load {
        Load { in_flight, slots }
    }

    #[test]
    fn the_smallest_share_of_its_slots_wins() {
        let (mut it, mut rng) = (LeastLoaded::default(), Rng::new(1));
        it.offer(0, load(1, 2));
        it.offer(1, load(1, 4));
        it.offer(2, load(3, 4));
        assert_eq!(it.pick(&mut rng, None), Some(1));
        it.offer(1, load(4, 4));
        assert_eq!(it.pick(&mut rng, None), Some(0));
        it.withdraw(0);
        it.withdraw(1);
        assert_eq!((it.pick(&mut rng, None), it.len()), (Some(2), 1));
        assert_eq!(it.pick(&mut rng, Some(2)), Some(2));
    }

    #[test]
    fn equals_are_chosen_at_random_and_all_of_them() {
        let (mut it, mut rng) = (LeastLoaded::default(), Rng::new(1));
        (0..4).for_each(|member| it.offer(member, load(0, 1)));
        let mut seen = [0; 4];
        (0..400).for_each(|_| seen[it.pick(&mut rng, None).unwrap() as usize] += 1);
        assert!(seen.iter().all(|count| (60..140).contains(count)), "{seen:?}");
    }

    #[test]
    fn the_odds_are_those_of_the_picks() {
        let (mut it, mut rng) = (LeastLoaded::default(), Rng::new(1));
        assert_eq!(it.odds(None, |_| false).members, []);
        (0..5).for_each(|member| it.offer(member, load(member / 3, 2)));
        for avoid in [None, Some(1), Some(4)] {
            let mut seen = [0.0; 5];
            (0..6_000).for_each(|_| seen[it.pick(&mut rng, avoid).unwrap() as usize] += 1.0 / 6e3);
            let odds = it.odds(avoid, |_| false).members;
            assert_eq!(odds.iter().map(|(_, odds)| odds).sum::<f64>(), 1.0);
            for (member, odds) in odds {
                assert!((seen[member as usize] - odds).abs() < 0.03, "{avoid:?}: {seen:?}");
            }
        }
        assert_eq!(it.odds(Some(0), |member| member < 3).members, [(3, 0.5), (4, 0.5)]);
        assert_eq!(it.odds(Some(4), |member| member < 4).members, [(4, 1.0)]);
        assert_eq!(it.score(3).map(|score| score.value), Some(0.5));
        assert_eq!(
            it.score(3).map(|score| score.text),
            Some("50 % of its slots in use".to_owned())
        );
        assert_eq!(it.score(5), None);
    }
}
