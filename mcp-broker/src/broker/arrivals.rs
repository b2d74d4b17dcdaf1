//! The order in which a table's entries came.

/// Links through the places of a table, beside it: the table stays as dense as it was, and a step
/// costs the same whatever its size. They make doubly linked lists, of which a place is in one at
/// most. Adding and removing take about 15 instructions each.
#[derive(Debug, Default)]
pub(super) struct Links(Vec<Link>);

/// The places of the entries that came next and before.
#[derive(Debug, Clone, Copy)]
struct Link {
    newer: u32,
    older: u32,
}

/// Places in the order in which they were added, by their [`Links`].
#[derive(Debug)]
pub(super) struct Arrivals {
    newest: u32,
    oldest: u32,
}

/// Beyond every place.
const NOWHERE: u32 = u32::MAX;

const NO_LINK: Link = Link { newer: NOWHERE, older: NOWHERE };

impl Default for Arrivals {
    fn default() -> Self {
        Self { newest: NOWHERE, oldest: NOWHERE }
    }
}

impl Arrivals {
    /// Adds the place of a new entry.
    pub(super) fn add(&mut self, links: &mut Links, place: u32) {
        self.add_before(links, place, NOWHERE);
    }

    /// Adds the place of an entry that is as if it had come just before another one, or last.
    pub(super) fn add_before(&mut self, links: &mut Links, place: u32, newer: u32) {
        let links = &mut links.0;
        let older = links.get(newer as usize).map_or(self.newest, |link| link.older);
        match links.get_mut(newer as usize) {
            Some(newer) => newer.older = place,
            None => self.newest = place,
        }
        match links.get_mut(older as usize) {
            Some(older) => older.newer = place,
            None => self.oldest = place,
        }
        if place as usize >= links.len() {
            links.resize(place as usize + 1, NO_LINK);
        }
        links[place as usize] = Link { newer, older };
    }

    /// Takes the place of an entry out, which was added.
    pub(super) fn remove(&mut self, links: &mut Links, place: u32) {
        let links = &mut links.0;
        let Some(Link { newer, older }) = links.get(place as usize).copied() else { return };
        match links.get_mut(newer as usize) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
        match links.get_mut(older as usize) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
    }

    /// The places, that of the newest entry first.
    pub(super) fn newest(&self, links: &Links) -> impl Iterator<Item = u32> {
        steps(links, self.newest, |link| link.older)
    }

    /// The places, that of the oldest entry first.
    pub(super) fn oldest(&self, links: &Links) -> impl Iterator<Item = u32> {
        steps(links, self.oldest, |link| link.newer)
    }
}

fn steps(links: &Links, first: u32, next: fn(&Link) -> u32) -> impl Iterator<Item = u32> {
    let link = move |place: u32| links.0.get(place as usize).map(|link| (place, next(link)));
    std::iter::successors(link(first), move |(_, next)| link(*next)).map(|(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newest(links: &Links, it: &Arrivals) -> Vec<u32> {
        let newest: Vec<_> = it.newest(links).collect();
        let mut oldest: Vec<_> = it.oldest(links).collect();
        oldest.reverse();
        assert_eq!(newest, oldest);
        newest
    }

    #[test]
    fn places_are_in_the_order_in_which_they_were_taken() {
        let (mut links, mut it) = (Links::default(), Arrivals::default());
        assert!(newest(&links, &it).is_empty());
        (0..4).for_each(|place| it.add(&mut links, place));
        assert_eq!(newest(&links, &it), [3, 2, 1, 0]);
        // Of the middle, the newest, the oldest, the last.
        for (place, left) in [(1, &[3, 2, 0][..]), (3, &[2, 0]), (0, &[2]), (2, &[])] {
            it.remove(&mut links, place);
            assert_eq!(newest(&links, &it), left);
        }
        [2, 0, 3, 1, 4].into_iter().for_each(|place| it.add(&mut links, place));
        assert_eq!(newest(&links, &it), [4, 1, 3, 0, 2]);
    }

    #[test]
    fn several_lists_share_links_and_a_place_goes_before_another() {
        let mut links = Links::default();
        let (mut a, mut b) = (Arrivals::default(), Arrivals::default());
        a.add(&mut links, 3);
        b.add(&mut links, 0);
        a.add(&mut links, 5);
        a.add_before(&mut links, 1, 3);
        a.add_before(&mut links, 2, 5);
        b.add_before(&mut links, 4, 0);
        assert_eq!((newest(&links, &a), newest(&links, &b)), (vec![5, 2, 3, 1], vec![0, 4]));
    }
}
