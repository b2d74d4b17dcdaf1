//! The parts of a result on their way: what may be sent, and what is kept until it is done with.

use std::collections::VecDeque;

use bytes::Bytes;
use mcp_proto::limits::CHUNK_OVERHEAD_BYTES;
use mcp_proto::{AttemptId, Chunk, Message, Subject};

use crate::connection::Outbox;

/// Largest part that goes in one frame: what small tasks wait behind.
const CHUNK_BYTES: usize = 16 * 1024;

/// What became of a part.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::worker) enum Emitted {
    /// Some of it was taken.
    Some,
    /// None, for now.
    NoCredit,
    /// The attempt is over.
    Over,
}

/// The parts of one attempt's result.
#[derive(Debug)]
pub(super) struct Parts {
    next_seq: u32,
    sent_bytes: u64,
    limit_bytes: u64,
    /// The last ones before `next_seq`: nobody has said yet that they are done with.
    kept: VecDeque<Bytes>,
}

impl Parts {
    pub(super) fn new(window_bytes: u32) -> Self {
        Self { next_seq: 0, sent_bytes: 0, limit_bytes: window_bytes.into(), kept: VecDeque::new() }
    }

    /// How many were sent.
    pub(super) fn count(&self) -> u32 {
        self.next_seq
    }

    /// Sends as much from the front of `part` as there is credit for, up to a frame.
    pub(super) fn emit(
        &mut self,
        id: AttemptId,
        part: &mut Bytes,
        out: &mut impl Outbox,
    ) -> Emitted {
        let credit = self.limit_bytes.saturating_sub(self.sent_bytes);
        let room =
            usize::try_from(credit.saturating_sub(CHUNK_OVERHEAD_BYTES)).unwrap_or(usize::MAX);
        let bytes = part.len().min(room).min(CHUNK_BYTES);
        if bytes == 0 || self.next_seq == u32::MAX {
            return Emitted::NoCredit;
        }
        let chunk = part.split_to(bytes);
        self.sent_bytes += bytes as u64 + CHUNK_OVERHEAD_BYTES;
        out.push(&frame(id, self.next_seq), &chunk);
        self.kept.push_back(chunk);
        self.next_seq += 1;
        Emitted::Some
    }

    /// CREDIT.
    pub(super) fn credit(&mut self, next_seq: u32, limit_bytes: u64) {
        self.limit_bytes = self.limit_bytes.max(limit_bytes);
        let first = self.next_seq - self.kept.len() as u32;
        let done = (next_seq.saturating_sub(first) as usize).min(self.kept.len());
        self.kept.drain(..done);
    }

    /// There is a new connection: sends again what may be lost.
    pub(super) fn resend(&self, id: AttemptId, out: &mut impl Outbox) {
        let first = self.next_seq - self.kept.len() as u32;
        for (seq, chunk) in (first..).zip(&self.kept) {
            out.push(&frame(id, seq), chunk);
        }
    }
}

fn frame(id: AttemptId, seq: u32) -> Message {
    Message::Chunk(Chunk { of: Subject::Attempt(id), seq, gap: None })
}

#[cfg(test)]
mod tests {
    use mcp_proto::Frame;

    use super::*;

    const ID: AttemptId = AttemptId(7);

    fn sent(out: &[Frame]) -> Vec<(u32, usize)> {
        let of = |frame: &Frame| match &frame.message {
            Message::Chunk(Chunk { seq, .. }) => (*seq, frame.body.len()),
            other => panic!("{other:?}"),
        };
        out.iter().map(of).collect()
    }

    #[test]
    fn as_much_is_sent_as_there_is_credit_for() {
        let (mut parts, mut out) = (Parts::new(1000), Vec::new());
        let mut part = Bytes::from(vec![7; 2000]);
        assert_eq!(parts.emit(ID, &mut part, &mut out), Emitted::Some);
        assert_eq!(parts.emit(ID, &mut part, &mut out), Emitted::NoCredit);
        assert_eq!(part.len(), 2000 - 936);
        parts.credit(1, 1063);
        // Not even a byte goes with what a chunk counts besides.
        assert_eq!(parts.emit(ID, &mut part, &mut out), Emitted::NoCredit);
        parts.credit(1, 1_000_000);
        while !part.is_empty() {
            assert_eq!(parts.emit(ID, &mut part, &mut out), Emitted::Some);
        }
        assert_eq!(sent(&out), [(0, 936), (1, 1064)]);
    }

    #[test]
    fn large_parts_go_in_several_frames() {
        let (mut parts, mut out) = (Parts::new(256 * 1024), Vec::new());
        let mut part = Bytes::from(vec![7; CHUNK_BYTES + 1]);
        while !part.is_empty() {
            parts.emit(ID, &mut part, &mut out);
        }
        assert_eq!(sent(&out), [(0, CHUNK_BYTES), (1, 1)]);
    }

    #[test]
    fn what_is_not_done_with_is_sent_again() {
        let (mut parts, mut out) = (Parts::new(10_000), Vec::new());
        for _ in 0..3 {
            parts.emit(ID, &mut Bytes::from_static(b"x"), &mut out);
        }
        parts.credit(1, 0);
        out.clear();
        parts.resend(ID, &mut out);
        assert_eq!(sent(&out), [(1, 1), (2, 1)]);
        // More than was sent, and less than before: survived.
        parts.credit(9, 0);
        parts.credit(0, 0);
        out.clear();
        parts.resend(ID, &mut out);
        assert!(out.is_empty() && parts.count() == 3);
    }
}
