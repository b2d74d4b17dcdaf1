//! Outcomes kept for a while: they answer duplicates, and clients that ask again.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use mcp_proto::{Deliver, Executed, Outcome, TaskId};

use super::sessions::IdentityKey;

/// What a kept outcome costs besides its body: about the size of its parts.
const ENTRY_BYTES: usize = 512;

/// A ring of outcomes, bounded in number and bytes; the oldest goes first.
#[derive(Debug)]
pub(super) struct Finished {
    ring: VecDeque<Kept>,
    /// Number of the ring's first entry, counted from the start.
    first: u64,
    /// Entry numbers by identity and id.
    names: HashTable<u64>,
    hash: FixedState,
    bytes: usize,
    max_entries: usize,
    max_bytes: usize,
}

/// A kept outcome.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) identity: IdentityKey,
    pub(super) fingerprint: u64,
    pub(super) deliver: Deliver,
    pub(super) body: Bytes,
}

impl Kept {
    /// Whether the task did not run because there was no place for it: sent again, it is a new one.
    pub(super) fn is_refusal(&self) -> bool {
        self.deliver.outcome == Outcome::Rejected && self.deliver.executed == Executed::No
    }

    fn bytes(&self) -> usize {
        ENTRY_BYTES + self.body.len()
    }
}

impl Finished {
    pub(super) fn new(seed: u64, max_entries: usize, max_bytes: usize) -> Self {
        Self {
            ring: VecDeque::new(),
            first: 0,
            names: HashTable::new(),
            hash: FixedState::with_seed(seed),
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
        let hash = self.hash_of(kept.identity, &kept.deliver.task_id);
        // A task id that is used again after its outcome: the newer outcome counts.
        if let Ok(entry) = self.names.find_entry(hash, |it| {
            is_kept(&self.ring, self.first, *it, kept.identity, &kept.deliver.task_id)
        }) {
            entry.remove();
        }
        self.ring.push_back(kept);
        let (ring, first, build) = (&self.ring, self.first, &self.hash);
        self.names.insert_unique(hash, number, |it| {
            let kept = &ring[(*it - first) as usize];
            build.hash_one((kept.identity, kept.deliver.task_id.as_str()))
        });
    }

    pub(super) fn find(&self, identity: IdentityKey, id: &TaskId) -> Option<&Kept> {
        let hash = self.hash_of(identity, id);
        let is_it = |it: &u64| is_kept(&self.ring, self.first, *it, identity, id);
        let number = self.names.find(hash, is_it)?;
        self.ring.get((number - self.first) as usize)
    }

    fn pop(&mut self) {
        let Some(kept) = self.ring.pop_front() else { return };
        self.bytes -= kept.bytes();
        let hash = self.hash_of(kept.identity, &kept.deliver.task_id);
        let number = self.first;
        if let Ok(entry) = self.names.find_entry(hash, |it| *it == number) {
            entry.remove();
        }
        self.first += 1;
    }

    fn hash_of(&self, identity: IdentityKey, id: &TaskId) -> u64 {
        self.hash.hash_one((identity, id.as_str()))
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
        .is_some_and(|kept| kept.identity == identity && kept.deliver.task_id == *id)
}

#[cfg(test)]
mod tests {
    use mcp_proto::ContextTrace;

    use super::super::identity::Identity;
    use super::super::sessions::Sessions;
    use super::*;

    fn kept(identity: IdentityKey, id: &str, fingerprint: u64, body: usize) -> Kept {
        let deliver = Deliver {
            task_id: TaskId::try_from(id).unwrap(),
            outcome: Outcome::Ok,
            executed: Executed::Yes,
            content_type: Default::default(),
            error: None,
            trace: ContextTrace::default(),
        };
        Kept { identity, fingerprint, deliver, body: vec![0; body].into() }
    }

    #[test]
    fn it_keeps_the_newest_within_its_bounds() {
        let identity = Sessions::new(1).identity(&Identity::anonymous());
        let mut it = Finished::new(1, 3, 10_000);
        let id = |id: &str| TaskId::try_from(id).unwrap();
        for (name, fingerprint) in [("a", 1), ("b", 2), ("a", 3), ("c", 4)] {
            it.push(kept(identity, name, fingerprint, 10));
        }
        // The older "a" went; the newer one is found.
        assert_eq!(it.find(identity, &id("a")).map(|kept| kept.fingerprint), Some(3));
        it.push(kept(identity, "d", 5, 9_000));
        assert!(it.find(identity, &id("b")).is_none() && it.find(identity, &id("a")).is_none());
        assert!(it.find(identity, &id("d")).is_some() && it.bytes <= 10_000);
        it.push(kept(identity, "e", 6, 10_000));
        assert!(it.find(identity, &id("e")).is_none() && it.find(identity, &id("d")).is_some());
    }
}
