//! The tasks by their ids.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use mcp_proto::TaskId;

use super::entry::Entry;

/// Tasks by id. Of each the table has only where it lies: so it stays in the processor's caches, and a
/// task that comes lies where another has just ended, which is there as well.
pub(super) struct Table<W> {
    entries: HashTable<Box<Entry<W>>>,
    hash: RandomState,
}

impl<W> Table<W> {
    pub(super) fn new() -> Self {
        Self { entries: HashTable::new(), hash: RandomState::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get(&self, id: &TaskId) -> Option<&Entry<W>> {
        self.entries.find(self.hash.hash_one(id), |entry| entry.id == *id).map(|entry| &**entry)
    }

    pub(super) fn get_mut(&mut self, id: &TaskId) -> Option<&mut Entry<W>> {
        let hash = self.hash.hash_one(id);
        self.entries.find_mut(hash, |entry| entry.id == *id).map(|entry| &mut **entry)
    }

    /// Adds a task whose id none of them has.
    pub(super) fn add(&mut self, entry: Box<Entry<W>>) -> &mut Entry<W> {
        let hash = self.hash.hash_one(&entry.id);
        self.entries.insert_unique(hash, entry, |it| self.hash.hash_one(&it.id)).into_mut()
    }

    pub(super) fn remove(&mut self, id: &TaskId) -> Option<Box<Entry<W>>> {
        let hash = self.hash.hash_one(id);
        let found = self.entries.find_entry(hash, |entry| entry.id == *id).ok()?;
        Some(found.remove().0)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry<W>> {
        self.entries.iter().map(|entry| &**entry)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry<W>> {
        self.entries.iter_mut().map(|entry| &mut **entry)
    }

    /// Takes all of them out.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Box<Entry<W>>> {
        self.entries.drain()
    }
}
