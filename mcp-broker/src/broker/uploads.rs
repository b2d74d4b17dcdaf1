//! Inputs on their way in chunks: what is kept of each, and how much more may come.
//!
//! ```text
//!                 seq:  0 … first kept … done … sent … next
//!   forgotten, to give the client credit ┘  │      │      └── expected from the client
//!               done with by the worker ────┘      └── sent to the worker
//! ```
//!
//! A client may send as much as there is room set aside for, and more only for what its worker is done
//! with. So what is kept of an input never exceeds its room, and a task that waits costs no more.

use std::collections::VecDeque;

use bytes::Bytes;
use mcp_proto::InputLength;
use mcp_proto::limits::{CHUNK_OVERHEAD_BYTES, INPUT_WINDOW_BYTES, MAX_STREAM_WINDOW_BYTES};

use super::inflight::TaskKey;
use super::sessions::SessionKey;

/// Credit for less is not worth a frame. What the worker's credit, and then the client's, lag behind is
/// together well below a window, so that both can go on meanwhile.
const WORTH_BYTES: u64 = MAX_STREAM_WINDOW_BYTES as u64 / 4;

/// How long chunks are that don't hold up other frames: what the rest of an input is taken to come in.
const CHUNK_BYTES: u64 = 16 * 1024;

/// The input of one task in chunks.
#[derive(Debug)]
pub(super) struct Upload {
    /// The session that sends it.
    pub(super) sender: SessionKey,
    length: InputLength,
    /// What came of it, the beginning included.
    input_bytes: u64,
    /// Set aside for it.
    room_bytes: usize,
    pub(super) next_seq: u32,
    /// What its chunks count so far.
    received_bytes: u64,
    /// What they may count, as the client knows.
    pub(super) limit_bytes: u64,
    pub(super) is_complete: bool,
    /// The chunks before `next_seq`, as far back as they are kept.
    kept: VecDeque<Bytes>,
    kept_bytes: u64,
    /// Of the running attempt: what was sent to its worker, what that may be, and what is done with.
    sent_seq: u32,
    sent_bytes: u64,
    attempt_limit_bytes: u64,
    done_seq: u32,
}

/// What is wrong with a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadInput {
    /// Some before it are missing, or it comes after the last.
    OutOfOrder,
    /// It is more than the credit allows.
    OverCredit,
    /// The input is longer than any may be.
    TooLong,
    /// The input is not as long as its client said.
    NotAsSaid,
}

/// A chunk for a worker.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) seq: u32,
    pub(super) body: Bytes,
    pub(super) is_last: bool,
}

fn counted(chunk: &Bytes) -> u64 {
    chunk.len() as u64 + CHUNK_OVERHEAD_BYTES
}

impl Upload {
    /// One of which the beginning has come.
    pub(super) fn new(
        sender: SessionKey,
        length: InputLength,
        beginning_bytes: usize,
        room_bytes: usize,
    ) -> Self {
        Self {
            sender,
            length,
            input_bytes: beginning_bytes as u64,
            room_bytes,
            next_seq: 0,
            received_bytes: 0,
            limit_bytes: INPUT_WINDOW_BYTES.into(),
            is_complete: false,
            kept: VecDeque::new(),
            kept_bytes: 0,
            sent_seq: 0,
            sent_bytes: 0,
            attempt_limit_bytes: 0,
            done_seq: 0,
        }
    }

    pub(super) fn length(&self) -> InputLength {
        self.length
    }

    pub(super) fn room_bytes(&self) -> usize {
        self.room_bytes
    }

    fn first_kept(&self) -> u32 {
        self.next_seq - self.kept.len() as u32
    }

    /// Whether all that came is still here, so that another attempt can have it.
    pub(super) fn is_whole(&self) -> bool {
        self.first_kept() == 0
    }

    /// Whether its worker waits for what has not come.
    pub(super) fn is_starved(&self) -> bool {
        !self.is_complete && self.done_seq == self.next_seq
    }

    /// Whether all that is to come may come without more credit, in chunks of a usual size.
    fn needs_no_credit(&self) -> bool {
        let InputLength::Bytes(total) = self.length else { return self.is_complete };
        let rest = total.saturating_sub(self.input_bytes);
        let chunks = rest.div_ceil(CHUNK_BYTES).max(1);
        let counted = rest.saturating_add(chunks.saturating_mul(CHUNK_OVERHEAD_BYTES));
        self.is_complete || self.received_bytes.saturating_add(counted) <= self.limit_bytes
    }

    /// Takes a chunk; false: it is here already.
    pub(super) fn take(
        &mut self,
        seq: u32,
        is_last: bool,
        body: Bytes,
        max_input_bytes: u64,
    ) -> Result<bool, BadInput> {
        if seq < self.next_seq {
            return Ok(false);
        }
        if seq > self.next_seq || seq == u32::MAX || self.is_complete {
            return Err(BadInput::OutOfOrder);
        }
        let received_bytes = self.received_bytes + counted(&body);
        if received_bytes > self.limit_bytes {
            return Err(BadInput::OverCredit);
        }
        let input_bytes = self.input_bytes + body.len() as u64;
        if input_bytes > max_input_bytes {
            return Err(BadInput::TooLong);
        }
        if let InputLength::Bytes(total) = self.length
            && (input_bytes > total || is_last && input_bytes < total)
        {
            return Err(BadInput::NotAsSaid);
        }
        (self.received_bytes, self.input_bytes) = (received_bytes, input_bytes);
        self.next_seq += 1;
        self.is_complete = is_last;
        self.kept_bytes += counted(&body);
        self.kept.push_back(body);
        Ok(true)
    }

    /// An attempt begins: it gets all of it.
    pub(super) fn begin(&mut self) {
        debug_assert!(self.is_whole());
        (self.sent_seq, self.sent_bytes, self.done_seq) = (0, 0, 0);
        self.attempt_limit_bytes = MAX_STREAM_WINDOW_BYTES.into();
    }

    /// The worker has a new connection: what it is not done with may be lost.
    pub(super) fn rewind(&mut self) {
        let from = self.done_seq - self.first_kept();
        let rest: u64 = self.kept.iter().skip(from as usize).map(counted).sum();
        (self.sent_seq, self.sent_bytes) = (self.done_seq, self.received_bytes - rest);
    }

    /// The next chunk that its worker takes.
    pub(super) fn next(&mut self) -> Option<Next> {
        let seq = self.sent_seq;
        let body = self.kept.get((seq - self.first_kept()) as usize)?.clone();
        let sent_bytes = self.sent_bytes + counted(&body);
        if sent_bytes > self.attempt_limit_bytes {
            return None;
        }
        self.sent_bytes = sent_bytes;
        self.sent_seq += 1;
        Some(Next { seq, body, is_last: self.is_complete && self.sent_seq == self.next_seq })
    }

    /// What its worker says of the chunks that it was sent.
    pub(super) fn credit(&mut self, next_seq: u32, limit_bytes: u64) {
        self.done_seq = self.done_seq.max(next_seq.min(self.sent_seq));
        self.attempt_limit_bytes = self.attempt_limit_bytes.max(limit_bytes);
    }

    /// Gives the client credit, if that is worth a frame: for the room that it does not know of, and for
    /// what the worker is done with. That is forgotten, if need be.
    pub(super) fn extend(&mut self) -> bool {
        let worth_it = WORTH_BYTES.min(self.room_bytes as u64 / 2);
        if self.needs_no_credit() {
            return false;
        }
        if self.spare_bytes() < worth_it {
            let done = (self.done_seq - self.first_kept()) as usize;
            let done_bytes: u64 = self.kept.iter().take(done).map(counted).sum();
            if self.spare_bytes() + done_bytes < worth_it {
                return false;
            }
            self.forget_done();
        }
        self.limit_bytes += self.spare_bytes();
        true
    }

    /// Room for more than the client has credit for.
    fn spare_bytes(&self) -> u64 {
        self.received_bytes - self.kept_bytes + self.room_bytes as u64 - self.limit_bytes
    }

    pub(super) fn widen(&mut self, more_bytes: usize) {
        self.room_bytes += more_bytes;
    }

    /// All of it has come: returns how much of its room it does not need any more.
    pub(super) fn shrink(&mut self) -> usize {
        if !self.is_whole() {
            self.forget_done();
        }
        let needed = self.kept_bytes as usize;
        let spare = self.room_bytes - needed;
        self.room_bytes = needed;
        spare
    }

    fn forget_done(&mut self) {
        while self.first_kept() < self.done_seq
            && let Some(chunk) = self.kept.pop_front()
        {
            self.kept_bytes -= counted(&chunk);
        }
    }
}

/// The room of all uploads, and which of them are not complete.
#[derive(Debug)]
pub(super) struct Uploads {
    /// At most one for each 64 KiB of the room.
    open: Vec<TaskKey>,
    count: usize,
    set_aside_bytes: usize,
    max_bytes: usize,
}

impl Uploads {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { open: Vec::new(), count: 0, set_aside_bytes: 0, max_bytes }
    }

    /// Another bound, for what comes.
    pub(super) fn set_bound(&mut self, max_bytes: usize) {
        self.max_bytes = max_bytes;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Those that are not complete.
    pub(super) fn open(&self) -> &[TaskKey] {
        &self.open
    }

    pub(super) fn set_aside_bytes(&self) -> usize {
        self.set_aside_bytes
    }

    /// The room that a new one would get: much while at least half is left after it.
    pub(super) fn room_for_another(&self) -> Option<usize> {
        let narrow = INPUT_WINDOW_BYTES as usize;
        match self.room_to_widen(0) {
            Some(wide) => Some(wide),
            None => (self.set_aside_bytes + narrow <= self.max_bytes).then_some(narrow),
        }
    }

    /// By how much the room of one may be widened that has this much.
    fn room_to_widen(&self, has_bytes: usize) -> Option<usize> {
        let more = MAX_STREAM_WINDOW_BYTES as usize - has_bytes;
        (self.set_aside_bytes + more <= self.max_bytes / 2).then_some(more)
    }

    pub(super) fn begin(&mut self, task: TaskKey, room_bytes: usize) {
        self.open.push(task);
        self.count += 1;
        self.set_aside_bytes += room_bytes;
    }

    /// Widens the room of one that has little; returns by how much.
    pub(super) fn widen(&mut self, has_bytes: usize) -> usize {
        let more = self.room_to_widen(has_bytes).unwrap_or(0);
        self.set_aside_bytes += more;
        more
    }

    pub(super) fn give_back(&mut self, bytes: usize) {
        self.set_aside_bytes -= bytes;
    }

    /// All of it has come, or its task has ended.
    pub(super) fn close(&mut self, task: TaskKey) {
        if let Some(at) = self.open.iter().position(|open| *open == task) {
            self.open.swap_remove(at);
        }
    }

    pub(super) fn end(&mut self, task: TaskKey, upload: &Upload) {
        self.close(task);
        self.count -= 1;
        self.give_back(upload.room_bytes);
    }
}
