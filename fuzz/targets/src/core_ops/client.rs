//! What a client waits for, and reads.

use std::collections::{BTreeMap, BTreeSet};

use mcp_broker::broker::ConnectionId;
use mcp_proto::Chunk;

#[derive(Debug, Default)]
pub(super) struct Client {
    pub(super) connection: Option<ConnectionId>,
    /// Tasks of which it is to hear an outcome, once.
    pub(super) waits: BTreeSet<usize>,
    /// Tasks whose results it takes in parts.
    pub(super) readings: BTreeMap<usize, Reading>,
}

/// What a client has of a result in parts.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) attempt: u32,
    pub(super) next_seq: u32,
    /// It has said where it stands, and that is not so: anything may come.
    pub(super) is_wild: bool,
}

impl Client {
    /// Its session is over.
    pub(super) fn forget(&mut self) {
        self.waits.clear();
        self.readings.clear();
    }

    /// One of those it waits for.
    pub(super) fn waits_for(&self, choice: u8) -> Option<usize> {
        self.waits.iter().copied().nth(usize::from(choice) % self.waits.len().max(1))
    }

    pub(super) fn reading(&mut self, choice: u8) -> Option<(usize, &mut Reading)> {
        let index = usize::from(choice) % self.readings.len().max(1);
        self.readings.iter_mut().nth(index).map(|(task, reading)| (*task, reading))
    }
}

impl Reading {
    /// Parts come in their order, once, and none is left out without a word.
    pub(super) fn take(&mut self, attempt: u32, chunk: &Chunk, body: &[u8]) {
        if self.is_wild {
            return;
        }
        assert!(attempt >= self.attempt, "{chunk:?} after {self:?}");
        if attempt > self.attempt {
            *self = Self { attempt, ..Self::default() };
        }
        let follows = chunk.seq == self.next_seq;
        assert!(follows || chunk.gap.is_some() && chunk.seq > self.next_seq, "{chunk:?}: {self:?}");
        // With a gap and no body it says which one comes next.
        let is_part = chunk.gap.is_none() || !body.is_empty();
        self.next_seq = chunk.seq.saturating_add(is_part.into());
    }
}
