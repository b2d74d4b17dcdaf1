//! Durable tasks that ended otherwise than they should have, for operators.

use std::collections::BTreeMap;

use super::journal::{DeadLetter, TaskName};
use crate::broker::timers::TimerKey;

/// Dead letters, bounded in number and bytes; the oldest go first.
#[derive(Debug, Default)]
pub(in crate::broker) struct DeadLetters {
    letters: BTreeMap<u64, Kept>,
    next: u64,
    bytes: usize,
}

/// A dead letter that is kept.
#[derive(Debug)]
pub(in crate::broker) struct Kept {
    pub(in crate::broker) name: TaskName,
    pub(in crate::broker) letter: DeadLetter,
    /// Ends it.
    pub(in crate::broker) timer: TimerKey,
}

impl Kept {
    fn bytes(&self) -> usize {
        /// About the size of an entry, and of a trace.
        const ENTRY_BYTES: usize = 1024;
        ENTRY_BYTES + self.letter.payload.len()
    }
}

impl DeadLetters {
    /// The number that the next one will have: they grow.
    pub(in crate::broker) fn next(&self) -> u64 {
        self.next
    }

    pub(in crate::broker) fn push(&mut self, kept: Kept) {
        self.bytes += kept.bytes();
        self.letters.insert(self.next, kept);
        self.next += 1;
    }

    /// The oldest, if there are more than so many, or more bytes of them.
    pub(in crate::broker) fn over(&self, max: usize, max_bytes: usize) -> Option<u64> {
        let is_over = self.letters.len() > max || self.bytes > max_bytes;
        is_over.then(|| self.letters.first_key_value().map(|(number, _)| *number)).flatten()
    }

    /// Looks through all of them.
    pub(in crate::broker) fn find(&self, name: &TaskName) -> Option<u64> {
        let mut letters = self.letters.iter();
        letters.find(|(_, kept)| kept.name == *name).map(|(number, _)| *number)
    }

    pub(in crate::broker) fn get(&self, number: u64) -> Option<&Kept> {
        self.letters.get(&number)
    }

    pub(in crate::broker) fn remove(&mut self, number: u64) -> Option<Kept> {
        let kept = self.letters.remove(&number)?;
        self.bytes -= kept.bytes();
        Some(kept)
    }

    /// All of them with their numbers, or those before one of this number; the newest first.
    pub(in crate::broker) fn newest(
        &self,
        before: Option<u64>,
    ) -> impl Iterator<Item = (u64, &Kept)> {
        let letters = self.letters.range(..before.unwrap_or(u64::MAX));
        letters.rev().map(|(number, kept)| (*number, kept))
    }

    pub(in crate::broker) fn len(&self) -> usize {
        self.letters.len()
    }
}
