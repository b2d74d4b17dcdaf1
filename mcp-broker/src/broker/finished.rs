//! Outcomes kept for a while: they answer duplicates, clients that ask again, and operators.

use bytes::BytesMut;
use hashbrown::HashTable;
use mcp_proto::{ActionName, EncodedFrame, ErrorCode, NodeId, Outcome, Priority, TaskId};
use std::collections::VecDeque;

use super::identities::IdentityKey;
use super::inflight::Name;
use super::time::Mono;

/// What a kept outcome costs besides its frame: about the size of its entry, and of its place in the
/// index.
const ENTRY_BYTES: usize = 320;

/// Outcomes, bounded in number and bytes; the oldest go first.
///
/// Those that are ok have a ring, and those that are not another. When there is no more room, the
/// fuller ring makes it: so neither kind pushes the other out of its half. What failed is looked for
/// long after it did, when a thousand times as many tasks have ended ok. A share of a fixed size
/// would be idle where nothing fails, and too small for duplicates where everything does.
#[derive(Debug)]
pub(super) struct Finished {
    /// Of those that are ok, and of those that are not.
    rings: [Ring; 2],
    /// By identity and id.
    names: HashTable<Place>,
    max_entries: usize,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct Ring {
    kept: VecDeque<Kept>,
    /// Number of the first entry, counted from the start.
    first: u64,
    bytes: usize,
    /// Where the frames lie, in the order in which they are forgotten.
    arena: BytesMut,
}

/// Where an outcome is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// Its number in its ring, and below it a bit that says which ring; without what overflows.
    number: u32,
    tag: u32,
}

impl Place {
    fn new(ring: usize, number: u64, hash: u64) -> Self {
        Self { number: (number << 1) as u32 | ring as u32, tag: tag(hash) }
    }

    fn ring(self) -> usize {
        (self.number & 1) as usize
    }

    /// How many entries of its ring, the first of which has this number, are older.
    fn older(self, first: u64) -> usize {
        (self.number.wrapping_sub((first << 1) as u32) >> 1) as usize
    }
}

/// Bits of a hash that the table does not look at itself: its lowest say where an entry is to be, and
/// its highest seven are compared. With these as well, an outcome is hardly ever looked at in vain, and
/// most are no longer in the processor's cache.
fn tag(hash: u64) -> u32 {
    (hash >> 25) as u32
}

/// A kept outcome.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) identity: IdentityKey,
    /// See [`Name::hash`].
    pub(super) name_hash: u64,
    pub(super) fingerprint: u64,
    pub(super) task_id: TaskId,
    /// Whether the task did not run because there was no place for it: sent again, it is a new one.
    pub(super) is_refusal: bool,
    /// Whether what it had sent ended with it: a child that comes too late shall not run.
    pub(super) ends_children: bool,
    pub(super) frame: EncodedFrame,

    // What a list shows, so that nobody decodes the frame for it.
    pub(super) action: ActionName,
    pub(super) priority: Priority,
    pub(super) outcome: Outcome,
    pub(super) error_code: Option<ErrorCode>,
    pub(super) attempts: u32,
    /// The worker of the last attempt.
    pub(super) node_id: Option<NodeId>,
    pub(super) received: Mono,
    pub(super) ended: Mono,
}

impl Kept {
    fn bytes(&self) -> usize {
        ENTRY_BYTES + self.frame.len()
    }
}

impl Finished {
    pub(super) fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self { rings: Default::default(), names: HashTable::new(), max_entries, max_bytes }
    }

    /// Other bounds; what is beyond them goes.
    pub(super) fn set_bounds(&mut self, max_entries: usize, max_bytes: usize) {
        (self.max_entries, self.max_bytes) = (max_entries, max_bytes);
        loop {
            let [ok, others] = &self.rings;
            let fuller = if ok.kept.len() + others.kept.len() > max_entries {
                others.kept.len() > ok.kept.len()
            } else if ok.bytes + others.bytes > max_bytes {
                others.bytes > ok.bytes
            } else {
                return;
            };
            self.make_room(usize::from(fuller));
        }
    }

    /// Where the frame of an outcome is to be encoded that will be kept.
    pub(super) fn arena(&mut self, outcome: Outcome) -> &mut BytesMut {
        &mut self.rings[ring_of(outcome)].arena
    }

    #[inline]
    pub(super) fn push(&mut self, kept: Kept) {
        let bytes = kept.bytes();
        if bytes > self.max_bytes || self.max_entries == 0 {
            return;
        }
        let index = ring_of(kept.outcome);
        while let Some(full) = self.ring_without_room(index, bytes) {
            self.make_room(full);
        }
        let (hash, identity) = (kept.name_hash, kept.identity);
        let ring = &mut self.rings[index];
        let place = Place::new(index, ring.first + ring.kept.len() as u64, hash);
        ring.bytes += bytes;
        ring.kept.push_back(kept);
        let rings = &self.rings;
        // A task id that is used again after its outcome: the newer outcome counts.
        if let Some(new) = at(rings, place)
            && let Ok(old) = self.names.find_entry(hash, |it| {
                it.tag == place.tag && is_kept(rings, *it, identity, &new.task_id)
            })
        {
            old.remove();
        }
        self.names.insert_unique(hash, place, |it| at(rings, *it).map_or(0, |it| it.name_hash));
    }

    pub(super) fn identities(&self) -> impl Iterator<Item = IdentityKey> {
        self.rings.iter().flat_map(|ring| &ring.kept).map(|kept| kept.identity)
    }

    pub(super) fn find(&self, name: Name<'_>) -> Option<&Kept> {
        let tag = tag(name.hash);
        let is_it = |it: &Place| it.tag == tag && is_kept(&self.rings, *it, name.identity, name.id);
        at(&self.rings, *self.names.find(name.hash, is_it)?)
    }

    /// All of them, or those of one outcome's ring, the newest first.
    pub(super) fn newest(&self, only: Option<Outcome>) -> impl Iterator<Item = &Kept> {
        let of = |index: usize| {
            let is_asked_for = only.is_none_or(|outcome| ring_of(outcome) == index);
            self.rings[index].kept.iter().rev().filter(move |_| is_asked_for).peekable()
        };
        let (mut ok, mut others) = (of(0), of(1));
        std::iter::from_fn(move || match (ok.peek(), others.peek()) {
            (Some(ok), Some(other)) if ok.ended < other.ended => others.next(),
            (Some(_), _) => ok.next(),
            (None, _) => others.next(),
        })
    }

    /// The ring that is to make room for an entry of this size in ring `index`, if there is none.
    fn ring_without_room(&self, index: usize, bytes: usize) -> Option<usize> {
        let (own, other) = (&self.rings[index], &self.rings[1 - index]);
        let is_others_turn = if own.kept.len() + other.kept.len() >= self.max_entries {
            other.kept.len() > own.kept.len()
        } else if own.bytes + other.bytes + bytes > self.max_bytes {
            other.bytes > own.bytes
        } else {
            return None;
        };
        Some(if is_others_turn { 1 - index } else { index })
    }

    /// Lets the oldest of a ring go, a small part of them at once: what the processor has to fetch
    /// for one of them, it fetches for several at a time.
    fn make_room(&mut self, index: usize) {
        /// Of so many entries, one.
        const PART: usize = 128;
        let ring = &mut self.rings[index];
        let count = ring.kept.len().div_ceil(PART);
        for (number, kept) in (ring.first..).zip(ring.kept.range(..count)) {
            ring.bytes -= kept.bytes();
            let place = Place::new(index, number, kept.name_hash);
            if let Ok(entry) = self.names.find_entry(kept.name_hash, |it| *it == place) {
                entry.remove();
            }
        }
        ring.kept.drain(..count);
        ring.first += count as u64;
    }
}

fn ring_of(outcome: Outcome) -> usize {
    usize::from(outcome != Outcome::Ok)
}

fn at(rings: &[Ring; 2], place: Place) -> Option<&Kept> {
    let ring = &rings[place.ring()];
    ring.kept.get(place.older(ring.first))
}

fn is_kept(rings: &[Ring; 2], place: Place, identity: IdentityKey, id: &TaskId) -> bool {
    at(rings, place).is_some_and(|kept| kept.identity == identity && kept.task_id == *id)
}

#[cfg(test)]
mod tests {
    use mcp_proto::{Deliver, Executed};

    use super::super::identities::Identities;
    use super::super::identity::Identity;
    use super::*;

    fn hash(id: &str) -> u64 {
        id.as_bytes()[0].into()
    }

    /// Keeps an outcome that ended at `ended`, which is its fingerprint as well.
    fn keep(it: &mut Finished, id: &str, outcome: Outcome, ended: u64, body: usize) {
        let deliver = Deliver::new(TaskId::try_from(id).unwrap(), outcome, Executed::Yes);
        let frame = EncodedFrame::deliver(&deliver, vec![0; body].into(), it.arena(outcome));
        it.push(Kept {
            identity: identity(),
            name_hash: hash(id),
            fingerprint: ended,
            task_id: deliver.task_id,
            is_refusal: false,
            ends_children: false,
            frame,
            action: ActionName::try_from("work").unwrap(),
            priority: Priority::Normal,
            outcome,
            error_code: None,
            attempts: 1,
            node_id: None,
            received: Mono(0),
            ended: Mono(ended),
        });
    }

    fn identity() -> IdentityKey {
        Identities::new(1).key_of(&Identity::anonymous())
    }

    fn find(it: &Finished, id: &str) -> Option<u64> {
        let (identity, id) = (identity(), TaskId::try_from(id).unwrap());
        it.find(Name { identity, id: &id, hash: hash(id.as_str()) }).map(|kept| kept.fingerprint)
    }

    fn newest(it: &Finished, only: Option<Outcome>) -> Vec<u64> {
        it.newest(only).map(|kept| kept.ended.0).collect()
    }

    #[test]
    fn it_keeps_the_newest_within_its_bounds() {
        let mut it = Finished::new(3, 10_000);
        for (id, ended) in [("a", 1), ("b", 2), ("a", 3), ("c", 4)] {
            keep(&mut it, id, Outcome::Ok, ended, 10);
        }
        // The older "a" went; the newer one is found.
        assert_eq!(find(&it, "a"), Some(3));
        keep(&mut it, "d", Outcome::Ok, 5, 9_600);
        assert!(find(&it, "b").is_none() && find(&it, "a").is_none());
        assert!(find(&it, "d").is_some() && it.rings[0].bytes <= 10_000);
        keep(&mut it, "e", Outcome::Ok, 6, 10_000);
        assert!(find(&it, "e").is_none() && find(&it, "d").is_some());
    }

    #[test]
    fn the_oldest_go_a_few_at_a_time_and_the_others_are_found_however_many_there_were() {
        const MAX: u64 = 300;
        let mut it = Finished::new(MAX as usize, 1_000_000);
        // Numbers of places are about to overflow.
        it.rings[0].first = (1 << 31) - 2 * MAX;
        for ended in 1..=4 * MAX {
            keep(&mut it, &ended.to_string(), Outcome::Ok, ended, 10);
            let kept = newest(&it, None);
            let least = ended.min(MAX - MAX / 100) as usize;
            assert!((least..=MAX as usize).contains(&kept.len()), "{} of {ended}", kept.len());
            assert!(kept.iter().rev().copied().eq(ended + 1 - kept.len() as u64..=ended));
        }
        let oldest = 4 * MAX + 1 - newest(&it, None).len() as u64;
        for ended in 1..=4 * MAX {
            let is_kept = ended >= oldest;
            assert_eq!(find(&it, &ended.to_string()), is_kept.then_some(ended));
        }
        assert_eq!(it.names.len(), newest(&it, None).len());
    }

    #[test]
    fn neither_kind_pushes_the_other_out_of_its_half() {
        let mut it = Finished::new(4, 1_000_000);
        for ended in 1..=4 {
            keep(&mut it, "f", Outcome::Failed, ended, 10);
        }
        // All of the room is theirs, until the others want some.
        assert_eq!(newest(&it, None), [4, 3, 2, 1]);
        for ended in 5..=20 {
            keep(&mut it, "o", Outcome::Ok, ended, 10);
        }
        assert_eq!(newest(&it, None), [20, 19, 4, 3]);
        for ended in 21..=40 {
            keep(&mut it, "x", Outcome::Expired, ended, 10);
        }
        assert_eq!(newest(&it, Some(Outcome::Ok)), [20, 19]);
        assert_eq!(newest(&it, Some(Outcome::Rejected)), [40, 39]);
        assert_eq!((find(&it, "o"), find(&it, "x"), find(&it, "f")), (Some(20), Some(40), None));
    }

    #[test]
    fn large_ones_of_one_kind_leave_half_of_the_bytes_to_the_other() {
        let mut it = Finished::new(100, 20_000);
        for ended in 1..=9 {
            keep(&mut it, "f", Outcome::Failed, ended, 10);
        }
        for ended in 10..=99 {
            keep(&mut it, "o", Outcome::Ok, ended, 9_000);
        }
        assert_eq!(newest(&it, Some(Outcome::Failed)).len(), 9);
        assert_eq!(newest(&it, Some(Outcome::Ok)), [99]);
    }

    #[test]
    fn an_id_that_is_used_again_is_found_in_either_ring() {
        let mut it = Finished::new(10, 10_000);
        keep(&mut it, "a", Outcome::Failed, 1, 10);
        keep(&mut it, "a", Outcome::Ok, 2, 10);
        assert_eq!(find(&it, "a"), Some(2));
        keep(&mut it, "a", Outcome::Failed, 3, 10);
        assert_eq!(find(&it, "a"), Some(3));
        assert_eq!(newest(&it, None), [3, 2, 1]);
    }
}
