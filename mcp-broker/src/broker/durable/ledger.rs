//! Durable tasks that have ended: their outcomes until they are settled, and then their ids for a
//! while.

use std::collections::VecDeque;

use hashbrown::HashTable;
use mcp_proto::{EncodedFrame, Executed, TaskId};

use crate::broker::identities::IdentityKey;
use crate::broker::inflight::Name;
use crate::broker::slab::{Key, Slab};
use crate::broker::timers::TimerKey;

pub(in crate::broker) type LedgerKey = Key<Entry>;

/// A durable task that has ended.
#[derive(Debug)]
pub(in crate::broker) struct Entry {
    pub(in crate::broker) identity: IdentityKey,
    pub(in crate::broker) task_id: TaskId,
    /// See [`Name::hash`].
    pub(in crate::broker) name_hash: u64,
    /// Of its action and input, the same over restarts.
    pub(in crate::broker) fingerprint: u64,
    pub(in crate::broker) executed: Executed,
    /// Its DELIVER; none once it is settled.
    pub(in crate::broker) outcome: Option<EncodedFrame>,
    /// Ends it.
    pub(in crate::broker) timer: Option<TimerKey>,
}

/// Durable tasks that have ended, by key and by name.
#[derive(Debug, Default)]
pub(in crate::broker) struct Ledger {
    slab: Slab<Entry>,
    names: HashTable<LedgerKey>,
    /// The settled ones, oldest first; some may be gone.
    settled: VecDeque<LedgerKey>,
    settled_count: usize,
    /// Of the outcomes.
    bytes: usize,
}

impl Ledger {
    pub(in crate::broker) fn find(&self, name: Name<'_>) -> Option<LedgerKey> {
        if self.slab.len() == 0 {
            return None;
        }
        let is_it = |key: &LedgerKey| {
            let entry = self.slab.get(*key);
            entry.is_some_and(|it| it.identity == name.identity && it.task_id == *name.id)
        };
        self.names.find(name.hash, is_it).copied()
    }

    pub(in crate::broker) fn identities(&self) -> impl Iterator<Item = IdentityKey> {
        self.slab.iter().map(|(_, entry)| entry.identity)
    }

    pub(in crate::broker) fn get(&self, key: LedgerKey) -> Option<&Entry> {
        self.slab.get(key)
    }

    pub(in crate::broker) fn get_mut(&mut self, key: LedgerKey) -> Option<&mut Entry> {
        self.slab.get_mut(key)
    }

    /// Adds a task of which it has nothing.
    pub(in crate::broker) fn insert(&mut self, entry: Entry) -> LedgerKey {
        self.bytes += entry.outcome.as_ref().map_or(0, EncodedFrame::len);
        let (hash, is_settled) = (entry.name_hash, entry.outcome.is_none());
        let key = self.slab.insert(entry);
        let slab = &self.slab;
        self.names.insert_unique(hash, key, |key| slab.get(*key).map_or(0, |it| it.name_hash));
        if is_settled {
            self.note_settled(key);
        }
        key
    }

    /// Forgets an outcome, but not yet the id. Returns false when there was none.
    pub(in crate::broker) fn settle(&mut self, key: LedgerKey) -> bool {
        let outcome = self.slab.get_mut(key).and_then(|entry| entry.outcome.take());
        let Some(outcome) = outcome else { return false };
        self.bytes -= outcome.len();
        self.note_settled(key);
        true
    }

    fn note_settled(&mut self, key: LedgerKey) {
        self.settled_count += 1;
        self.settled.push_back(key);
    }

    /// The settled task that was settled first, if there are more than so many.
    pub(in crate::broker) fn settled_over(&mut self, max: usize) -> Option<LedgerKey> {
        self.drop_gone();
        if self.settled_count > max { self.settled.front().copied() } else { None }
    }

    pub(in crate::broker) fn remove(&mut self, key: LedgerKey) -> Option<Entry> {
        let entry = self.slab.remove(key)?;
        if let Ok(found) = self.names.find_entry(entry.name_hash, |other| *other == key) {
            found.remove();
        }
        match &entry.outcome {
            Some(outcome) => self.bytes -= outcome.len(),
            None => {
                self.settled_count -= 1;
                self.drop_gone();
            }
        }
        Some(entry)
    }

    /// They go mostly in the order in which they came.
    fn drop_gone(&mut self) {
        while let Some(oldest) = self.settled.front()
            && self.slab.get(*oldest).is_none()
        {
            self.settled.pop_front();
        }
    }

    /// Outcomes that are kept.
    pub(in crate::broker) fn outcomes(&self) -> usize {
        self.slab.len() - self.settled_count
    }

    pub(in crate::broker) fn settled(&self) -> usize {
        self.settled_count
    }

    /// Bytes of the outcomes that are kept.
    pub(in crate::broker) fn bytes(&self) -> usize {
        self.bytes
    }
}
