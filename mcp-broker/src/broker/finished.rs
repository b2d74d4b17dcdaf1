//! Outcomes kept for a while: they answer duplicates, and clients that ask again.

use hashbrown::HashTable;
use mcp_proto::{EncodedFrame, TaskId};
use std::collections::VecDeque;

use super::inflight::Name;
use super::sessions::IdentityKey;

/// What a kept outcome costs besides its frame: about the size of its entry, and of its place in the
/// index.
const ENTRY_BYTES: usize = 192;

/// A ring of outcomes, bounded in number and bytes; the oldest goes first.
#[derive(Debug)]
pub(super) struct Finished {
    ring: VecDeque<Kept>,
    /// Number of the ring's first entry, counted from the start.
    first: u64,
    /// Entry numbers by identity and id.
    names: HashTable<u64>,
    bytes: usize,
    max_entries: usize,
    max_bytes: usize,
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
}

impl Kept {
    fn bytes(&self) -> usize {
        ENTRY_BYTES + self.frame.len()
    }
}

impl Finished {
    pub(super) fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self {
            ring: VecDeque::new(),
            first: 0,
            names: HashTable::new(),
            bytes: 0,
            max_entries,
            max_bytes,
        }
    }

    pub(super) fn push(&mut self, kept: Kept) {
        if kept.bytes() > self.max_bytes || self.max_entries == 0 {
            return;
        }
        self.bytes += kept.bytes();
        while self.ring.len() >= self.max_entries || self.bytes > self.max_bytes {
            self.pop();
        }
        let number = self.first + self.ring.len() as u64;
        let hash = kept.name_hash;
        // A task id that is used again after its outcome: the newer outcome counts.
        if let Ok(entry) = self.names.find_entry(hash, |it| {
            is_kept(&self.ring, self.first, *it, kept.identity, &kept.task_id)
        }) {
            entry.remove();
        }
        self.ring.push_back(kept);
        let (ring, first) = (&self.ring, self.first);
        self.names.insert_unique(hash, number, |it| ring[(*it - first) as usize].name_hash);
    }

    pub(super) fn find(&self, name: Name<'_>) -> Option<&Kept> {
        let is_it = |it: &u64| is_kept(&self.ring, self.first, *it, name.identity, name.id);
        let number = self.names.find(name.hash, is_it)?;
        self.ring.get((number - self.first) as usize)
    }

    fn pop(&mut self) {
        let Some(kept) = self.ring.pop_front() else { return };
        self.bytes -= kept.bytes();
        let number = self.first;
        if let Ok(entry) = self.names.find_entry(kept.name_hash, |it| *it == number) {
            entry.remove();
        }
        self.first += 1;
    }
}

fn is_kept(
    ring: &VecDeque<Kept>,
    first: u64,
    number: u64,
    identity: IdentityKey,
    id: &TaskId,
) -> bool {
    ring.get((number - first) as usize)
        .is_some_and(|kept| kept.identity == identity && kept.task_id == *id)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use mcp_proto::{Deliver, Executed, Outcome};

    use super::super::identity::Identity;
    use super::super::sessions::Sessions;
    use super::*;

    fn hash(id: &str) -> u64 {
        id.as_bytes()[0].into()
    }

    fn kept(identity: IdentityKey, id: &str, fingerprint: u64, body: usize) -> Kept {
        let deliver = Deliver::new(TaskId::try_from(id).unwrap(), Outcome::Ok, Executed::Yes);
        let frame = EncodedFrame::deliver(&deliver, vec![0; body].into(), &mut BytesMut::new());
        Kept {
            identity,
            name_hash: hash(id),
            fingerprint,
            task_id: deliver.task_id,
            is_refusal: false,
            ends_children: false,
            frame,
        }
    }

    #[test]
    fn it_keeps_the_newest_within_its_bounds() {
        let identity = Sessions::new(1).identity(&Identity::anonymous());
        let mut it = Finished::new(3, 10_000);
        let find = |it: &Finished, id: &str| {
            let name = Name { identity, id: &TaskId::try_from(id).unwrap(), hash: hash(id) };
            it.find(name).map(|kept| kept.fingerprint)
        };
        for (name, fingerprint) in [("a", 1), ("b", 2), ("a", 3), ("c", 4)] {
            it.push(kept(identity, name, fingerprint, 10));
        }
        // The older "a" went; the newer one is found.
        assert_eq!(find(&it, "a"), Some(3));
        it.push(kept(identity, "d", 5, 9_700));
        assert!(find(&it, "b").is_none() && find(&it, "a").is_none());
        assert!(find(&it, "d").is_some() && it.bytes <= 10_000);
        it.push(kept(identity, "e", 6, 10_000));
        assert!(find(&it, "e").is_none() && find(&it, "d").is_some());
    }
}
