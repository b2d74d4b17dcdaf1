//! A task that was sent, and what became of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use mcp_broker::broker::{ConnectionId, Mono};
use mcp_proto::Outcome;

use super::ops::Asks;

pub(super) struct Sent {
    pub(super) id: String,
    pub(super) asks: Asks,
    pub(super) parent: Option<String>,
    /// Not later than this it ends.
    pub(super) deadline: Mono,
    /// How often it was started by a worker.
    pub(super) started: u32,
    /// What was told of it, unless it was cancelled.
    pub(super) outcome: Option<Outcome>,
    /// Whether its outcome was on its way to somebody.
    pub(super) has_ended: bool,
    pub(super) is_rejected: bool,
    /// Its attempts, by number.
    pub(super) attempts: BTreeMap<u32, Attempt>,
    /// The client that takes its parts.
    pub(super) reader: Option<usize>,
    /// Whether that has ever been another one than its sender.
    pub(super) was_taken_over: bool,
}

pub(super) struct Attempt {
    pub(super) routed: Mono,
    /// By how much its worker put it off, ms.
    pub(super) put_off: Option<u64>,
    /// The parts that its worker emitted.
    pub(super) emitted: Vec<Bytes>,
    /// Its reader and that one's connection, if chunks reached it from the first on.
    pub(super) read_on: Option<(usize, ConnectionId)>,
    /// Whether it was one of the other action.
    pub(super) is_spare: bool,
}

impl Sent {
    /// An attempt that a worker had did not start after all.
    pub(super) fn did_not_start(&mut self) {
        self.started = self.started.saturating_sub(1);
    }
}
