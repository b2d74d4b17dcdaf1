//! The model of a worker: what it holds, and the parts of results that it keeps.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use mcp_broker::broker::ConnectionId;
use mcp_proto::limits::CHUNK_OVERHEAD_BYTES;
use mcp_proto::{AttemptId, Labels, Message, TaskResult, WorkerHello};

use super::SHADOW_WORKER;
use crate::fixture::worker_hello;
use crate::shadow::labels;

/// By which the arms of a split are told apart.
pub(super) fn arm_labels(worker: usize) -> Labels {
    labels("arm", &worker.to_string())
}

#[derive(Default)]
pub(super) struct Worker {
    pub(super) connection: Option<ConnectionId>,
    pub(super) process: u32,
    pub(super) slots: u32,
    pub(super) prefetch: u32,
    pub(super) actions: Vec<&'static str>,
    pub(super) unread: VecDeque<Message>,
    pub(super) routes: u64,
    pub(super) held: BTreeMap<AttemptId, Held>,
    /// Attempts that ever were parked.
    pub(super) has_parked: BTreeSet<AttemptId>,
    /// A handler goes on after it was parked, in this step: it takes a slot after all that was
    /// routed in the step.
    pub(super) goes_on: bool,
    pub(super) last_result: Option<AttemptId>,
}

/// An attempt that has started.
pub(super) struct Held {
    pub(super) task: String,
    pub(super) number: u32,
    pub(super) is_parked: bool,
    pub(super) parts: Parts,
    /// The chunk of its input that comes next, if it comes in chunks.
    pub(super) next_input: Option<u32>,
    /// How it ended, while there is no connection to tell that on.
    pub(super) result: Option<TaskResult>,
}

impl Worker {
    /// The attempts whose handlers run.
    pub(super) fn running(&self) -> impl Iterator<Item = AttemptId> {
        self.held.iter().filter(|(_, held)| held.result.is_none()).map(|(id, _)| *id)
    }

    pub(super) fn hello(&self, index: usize) -> WorkerHello {
        WorkerHello {
            instance_id: format!("process-{}", self.process).try_into().unwrap(),
            prefetch: self.prefetch,
            actions: self.actions.iter().map(|it| (*it).try_into().unwrap()).collect(),
            held: self.held.keys().copied().collect(),
            labels: match index {
                SHADOW_WORKER => labels("shadow", "true"),
                _ => arm_labels(index),
            },
            weight: 3 - index as u32,
            ..worker_hello(&format!("w{index}"), self.slots)
        }
    }

    /// Attempts that take a slot at the broker as well, since they were never parked.
    pub(super) fn never_parked(&self) -> usize {
        self.held.keys().filter(|id| !self.has_parked.contains(id)).count()
    }
}

/// The parts of one attempt's result.
pub(super) struct Parts {
    pub(super) next_seq: u32,
    sent_bytes: u64,
    limit_bytes: u64,
    /// The last ones before `next_seq`, which are not done with.
    kept: VecDeque<Bytes>,
}

impl Parts {
    pub(super) fn new(window_bytes: u32) -> Self {
        let limit_bytes = window_bytes.into();
        Self { next_seq: 0, sent_bytes: 0, limit_bytes, kept: VecDeque::new() }
    }

    fn credit_left(&self) -> u64 {
        self.limit_bytes - self.sent_bytes
    }

    /// Whether at least a byte may be sent.
    pub(super) fn has_credit(&self) -> bool {
        self.credit_left() > CHUNK_OVERHEAD_BYTES
    }

    /// A part of so many bytes, or of those that there is credit for.
    pub(super) fn emit(&mut self, bytes: usize, seed: u32) -> Option<Bytes> {
        let room = self.credit_left().checked_sub(CHUNK_OVERHEAD_BYTES)?;
        let bytes = bytes.min(room.try_into().unwrap_or(usize::MAX));
        let part = Bytes::from(vec![(seed + self.next_seq) as u8; bytes]);
        self.sent_bytes += bytes as u64 + CHUNK_OVERHEAD_BYTES;
        self.next_seq += 1;
        self.kept.push_back(part.clone());
        Some(part)
    }

    pub(super) fn credit(&mut self, next_seq: u32, limit_bytes: u64) {
        assert!(next_seq <= self.next_seq, "done with parts that were never sent");
        self.limit_bytes = self.limit_bytes.max(limit_bytes);
        let first = self.next_seq - self.kept.len() as u32;
        self.kept.drain(..next_seq.saturating_sub(first) as usize);
    }

    /// What may be lost with the connection before.
    pub(super) fn kept(&self) -> Vec<(u32, Bytes)> {
        let first = self.next_seq - self.kept.len() as u32;
        (first..).zip(self.kept.iter().cloned()).collect()
    }
}
