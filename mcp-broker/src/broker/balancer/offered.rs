//! The members that have room, in no order.

use super::super::rng::Rng;
use super::Member;

/// A set of members out of which any is taken at random in O(1).
#[derive(Debug, Default)]
pub(crate) struct Offered {
    members: Vec<Member>,
    /// Where each is in `members`.
    positions: Vec<Option<u32>>,
}

impl Offered {
    pub(super) fn offer(&mut self, member: Member) {
        let index = member as usize;
        if index >= self.positions.len() {
            self.positions.resize(index + 1, None);
        }
        if self.positions[index].is_none() {
            self.positions[index] = Some(self.members.len() as u32);
            self.members.push(member);
        }
    }

    pub(super) fn withdraw(&mut self, member: Member) {
        let Some(position) = self.positions.get_mut(member as usize).and_then(Option::take) else {
            return;
        };
        self.members.swap_remove(position as usize);
        if let Some(moved) = self.members.get(position as usize) {
            self.positions[*moved as usize] = Some(position);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// The members but for some.
    pub(super) fn without(&self, is_out: impl Fn(Member) -> bool) -> Vec<Member> {
        self.members.iter().copied().filter(|member| !is_out(*member)).collect()
    }

    /// Any member, other than `avoid` if there is another.
    pub(super) fn any(&self, rng: &mut Rng, avoid: Option<Member>) -> Option<Member> {
        let [first, second] = self.any_two(rng)?;
        Some(if Some(first) == avoid { second } else { first })
    }

    /// Any two members; twice the same one if there is no other.
    pub(super) fn any_two(&self, rng: &mut Rng) -> Option<[Member; 2]> {
        match self.members[..] {
            [] => None,
            [only] => Some([only; 2]),
            [..] => {
                let first = rng.below(self.members.len());
                let second = rng.below(self.members.len() - 1);
                // The last one stands in for the first, so that each pair is as likely.
                let second = if second == first { self.members.len() - 1 } else { second };
                Some([self.members[first], self.members[second]])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_of_those_offered_each_pair_as_likely() {
        let (mut it, mut rng) = (Offered::default(), Rng::new(1));
        assert_eq!(it.any(&mut rng, None), None);
        (0..5).for_each(|member| it.offer(member));
        it.offer(1);
        it.withdraw(0);
        it.withdraw(0);
        it.withdraw(9);
        let mut seen = [[0; 5]; 5];
        for _ in 0..12_000 {
            let [a, b] = it.any_two(&mut rng).unwrap();
            seen[a as usize][b as usize] += 1;
        }
        for (a, row) in seen.iter().enumerate() {
            for (b, count) in row.iter().enumerate() {
                let expected = if a == b || a == 0 || b == 0 { 0..1 } else { 900..1_100 };
                assert!(expected.contains(count), "{seen:?}");
            }
        }
    }

    #[test]
    fn the_avoided_one_is_taken_only_when_it_is_the_only_one() {
        let (mut it, mut rng) = (Offered::default(), Rng::new(1));
        it.offer(3);
        assert_eq!(it.any(&mut rng, Some(3)), Some(3));
        it.offer(4);
        assert!((0..100).all(|_| it.any(&mut rng, Some(3)) == Some(4)));
    }
}
