//! The model of a client: what it waits for, and what it has read of results in parts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use mcp_broker::broker::ConnectionId;
use mcp_proto::limits::{CHUNK_OVERHEAD_BYTES, MAX_STREAM_WINDOW_BYTES};
use mcp_proto::{Credit, Message, Resume, Subject};

use super::uploads::Upload;
use crate::fixture::task_id;

#[derive(Default)]
pub(super) struct Client {
    pub(super) connection: Option<ConnectionId>,
    /// It left without a session to come back to.
    pub(super) has_left: bool,
    pub(super) unread: VecDeque<(Message, Bytes)>,
    /// Tasks that it sent and has no outcome of.
    pub(super) waits: BTreeSet<String>,
    /// Tasks whose results it takes in parts, until it has them all.
    pub(super) readings: BTreeMap<String, Reading>,
    /// Inputs that it sends in chunks.
    pub(super) uploads: BTreeMap<String, Upload>,
    /// What it has not asked for on its present connection.
    pub(super) to_resume: BTreeSet<String>,
}

impl Client {
    /// The tasks that it takes parts of now.
    pub(super) fn reads_now(&self) -> Vec<String> {
        self.readings.keys().filter(|id| !self.to_resume.contains(*id)).cloned().collect()
    }
}

/// The parts of one task's result, as far as they have come.
#[derive(Debug)]
pub(super) struct Reading {
    window_bytes: u64,
    pub(super) attempt: u32,
    pub(super) next_seq: u32,
    received_bytes: u64,
    told_seq: u32,
    told_limit_bytes: u64,
    /// Some parts of this attempt were said to be missing.
    pub(super) has_gap: bool,
    /// There are no more than came, as long as nothing is asked for again.
    is_cut: bool,
    /// The attempt that its outcome is of, and how many parts that has.
    end: Option<(u32, u32)>,
    /// For a while somebody else was the reader, or nobody: then chunks may be gone, and its worker
    /// may have got the most credit that there is.
    pub(super) was_interrupted: bool,
}

impl Reading {
    pub(super) fn new(window_bytes: u32) -> Self {
        let window_bytes = window_bytes.min(MAX_STREAM_WINDOW_BYTES).into();
        Self {
            window_bytes,
            attempt: 0,
            next_seq: 0,
            received_bytes: 0,
            told_seq: 0,
            told_limit_bytes: window_bytes,
            has_gap: false,
            is_cut: false,
            end: None,
            was_interrupted: false,
        }
    }

    fn begin(&mut self, attempt: u32) {
        if attempt > self.attempt {
            let Self { end, was_interrupted, .. } = *self;
            let new = Self::new(self.window_bytes as u32);
            *self = Self { attempt, end, was_interrupted, ..new };
            self.expect_more();
        }
    }

    /// CHUNK. Returns whether it is a part, and not only the word that some are missing.
    pub(super) fn take(&mut self, attempt: u32, seq: u32, gap: Option<u64>, body: &Bytes) -> bool {
        assert!(attempt >= self.attempt, "attempt {attempt} after {self:?}");
        self.begin(attempt);
        assert!(seq >= self.next_seq, "{seq} comes twice: {self:?}");
        assert!(seq == self.next_seq || gap.is_some(), "{seq} leaves some out: {self:?}");
        self.has_gap |= seq > self.next_seq;
        self.next_seq = seq;
        if let Some(before_bytes) = gap {
            self.received_bytes = self.received_bytes.max(before_bytes);
            self.expect_more();
        }
        if gap.is_some() && body.is_empty() {
            self.is_cut = true;
            return false;
        }
        self.next_seq += 1;
        self.received_bytes += body.len() as u64 + CHUNK_OVERHEAD_BYTES;
        assert!(self.received_bytes <= self.told_limit_bytes, "{self:?}");
        true
    }

    /// DELIVER.
    pub(super) fn ends(&mut self, attempt: u32, chunks: u32) {
        self.end = Some((attempt, chunks));
    }

    /// Whether nothing is to come any more.
    pub(super) fn is_over(&self) -> bool {
        self.end.is_some_and(|(attempt, chunks)| {
            self.is_cut || chunks == 0 || (self.attempt == attempt && self.next_seq >= chunks)
        })
    }

    /// Whether it has each part of the attempt that its outcome is of.
    pub(super) fn is_whole(&self) -> bool {
        self.end.is_some_and(|(attempt, chunks)| {
            let is_all = self.attempt == attempt && self.next_seq == chunks;
            chunks == 0 || (is_all && !self.has_gap)
        })
    }

    fn expect_more(&mut self) {
        if self.was_interrupted {
            let most = self.received_bytes + u64::from(MAX_STREAM_WINDOW_BYTES);
            self.told_limit_bytes = self.told_limit_bytes.max(most);
        }
    }

    fn tell(&mut self) {
        self.told_seq = self.next_seq;
        let limit_bytes = self.received_bytes + self.window_bytes;
        self.told_limit_bytes = self.told_limit_bytes.max(limit_bytes);
    }

    /// All that came is read.
    pub(super) fn credit(&mut self, id: &str) -> Credit {
        self.tell();
        Credit {
            of: Subject::Task(task_id(id), self.attempt),
            next_seq: self.next_seq,
            limit_bytes: self.told_limit_bytes,
        }
    }

    /// What it says when it is over, if somebody may still keep parts for it.
    pub(super) fn last_credit(&mut self, id: &str) -> Option<Credit> {
        (self.told_seq < self.next_seq).then(|| self.credit(id))
    }

    pub(super) fn resume(&mut self, id: &str) -> Resume {
        self.tell();
        self.is_cut = false;
        let limit_bytes = self.told_limit_bytes;
        self.expect_more();
        let Self { attempt, next_seq, .. } = *self;
        Resume { task_id: task_id(id), attempt, next_seq, limit_bytes }
    }

    /// Whether its window has room for a byte.
    pub(super) fn takes_any(&self) -> bool {
        self.window_bytes > CHUNK_OVERHEAD_BYTES
    }
}
