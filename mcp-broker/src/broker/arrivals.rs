//! The order in which a table's entries came.

/// A doubly linked list through the places of a table, beside it: the table stays as dense as it
/// was, and a step costs the same whatever its size. Adding and removing take about 15 instructions
/// each.
#[derive(Debug)]
pub(super) struct Arrivals {
    links: Vec<Link>,
    newest: u32,
}

/// The places of the entries that came next and before.
#[derive(Debug, Clone, Copy)]
struct Link {
    newer: u32,
    older: u32,
}

/// Beyond every place.
const NOWHERE: u32 = u32::MAX;

impl Default for Arrivals {
    fn default() -> Self {
        Self { links: Vec::new(), newest: NOWHERE }
    }
}

impl Arrivals {
    /// Adds the place of a new entry: one that was left, or the next after all there ever were.
    pub(super) fn add(&mut self, place: u32) {
        let link = Link { newer: NOWHERE, older: self.newest };
        if let Some(older) = self.links.get_mut(link.older as usize) {
            older.newer = place;
        }
        match self.links.get_mut(place as usize) {
            Some(it) => *it = link,
            None => self.links.push(link),
        }
        debug_assert!((place as usize) < self.links.len());
        self.newest = place;
    }

    /// Takes the place of an entry out, which was added.
    pub(super) fn remove(&mut self, place: u32) {
        let Some(Link { newer, older }) = self.links.get(place as usize).copied() else { return };
        match self.links.get_mut(newer as usize) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
        if let Some(older) = self.links.get_mut(older as usize) {
            older.newer = newer;
        }
    }

    /// The places, that of the newest entry first.
    pub(super) fn newest(&self) -> impl Iterator<Item = u32> {
        let link = |place: u32| self.links.get(place as usize).map(|link| (place, link.older));
        std::iter::successors(link(self.newest), move |(_, older)| link(*older))
            .map(|(place, _)| place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_in_the_order_in_which_they_were_taken() {
        let mut it = Arrivals::default();
        let newest = |it: &Arrivals| it.newest().collect::<Vec<_>>();
        assert!(newest(&it).is_empty());
        (0..4).for_each(|place| it.add(place));
        assert_eq!(newest(&it), [3, 2, 1, 0]);
        // Of the middle, the newest, the oldest, the last.
        for (place, left) in [(1, &[3, 2, 0][..]), (3, &[2, 0]), (0, &[2]), (2, &[])] {
            it.remove(place);
            assert_eq!(newest(&it), left);
        }
        [2, 0, 3, 1, 4].into_iter().for_each(|place| it.add(place));
        assert_eq!(newest(&it), [4, 1, 3, 0, 2]);
    }
}
