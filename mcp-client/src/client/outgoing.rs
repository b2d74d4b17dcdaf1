//! The rest of a task's input on its way: what may be sent, and what is kept until the broker has it.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use mcp_proto::limits::{CHUNK_OVERHEAD_BYTES, INPUT_WINDOW_BYTES};
use mcp_proto::{Chunk, InputLength, Message, Subject, TaskId};
use tokio::sync::Notify;

use crate::connection::Outbox;

/// Largest part that goes in one frame: what small tasks wait behind.
const CHUNK_BYTES: usize = 16 * 1024;

/// Tells who feeds an input that there may be something to do.
#[derive(Debug, Default)]
pub(super) struct Signal {
    is_over: AtomicBool,
    changed: Notify,
}

impl Signal {
    /// Whether no more of the input is wanted.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    fn end(&self) {
        self.is_over.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Waits until no more of the input is wanted. Cancel-safe.
    pub(super) async fn over(&self) {
        self.wait(|| self.is_over().then_some(())).await;
    }

    /// Tries until it comes to something, again whenever there is credit.
    pub(super) async fn wait<T>(&self, mut attempt: impl FnMut() -> Option<T>) -> T {
        loop {
            let mut changed = pin!(self.changed.notified());
            // Listens before it tries, so that nothing is missed in between.
            changed.as_mut().enable();
            if let Some(result) = attempt() {
                return result;
            }
            changed.await;
        }
    }
}

/// What became of a part.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// All of it, or some from its front, was taken.
    Some,
    /// None, for now.
    NoCredit,
    /// No more of the input is wanted.
    Over,
}

/// The rest of one task's input.
#[derive(Debug)]
pub(super) struct Outgoing {
    id: TaskId,
    length: InputLength,
    /// Whether all of it stays here, so that it can begin again at any time.
    keeps_all: bool,
    max_chunk_bytes: usize,
    /// The chunk that is made next, and what those before it count.
    next_seq: u32,
    made_bytes: u64,
    is_complete: bool,
    /// The last ones before `next_seq`: the broker has not said that it has them.
    kept: VecDeque<Bytes>,
    /// Of this connection, once it is known where to go on.
    sending: Option<Sending>,
    signal: Arc<Signal>,
}

#[derive(Debug)]
struct Sending {
    next_seq: u32,
    sent_bytes: u64,
    limit_bytes: u64,
}

impl Outgoing {
    pub(super) fn new(
        id: TaskId,
        length: InputLength,
        keeps_all: bool,
        max_body_bytes: usize,
    ) -> Self {
        Self {
            id,
            length,
            keeps_all,
            max_chunk_bytes: CHUNK_BYTES.min(max_body_bytes),
            next_seq: 0,
            made_bytes: 0,
            is_complete: false,
            kept: VecDeque::new(),
            sending: None,
            signal: Arc::default(),
        }
    }

    pub(super) fn length(&self) -> InputLength {
        self.length
    }

    pub(super) fn signal(&self) -> Arc<Signal> {
        self.signal.clone()
    }

    fn first_kept(&self) -> u32 {
        self.next_seq - self.kept.len() as u32
    }

    /// Whether it can be sent anew.
    pub(super) fn can_begin(&self) -> bool {
        self.first_kept() == 0
    }

    /// SEND was pushed: its chunks follow.
    pub(super) fn begin(&mut self, out: &mut impl Outbox) {
        let limit_bytes = INPUT_WINDOW_BYTES.into();
        self.sending = Some(Sending { next_seq: 0, sent_bytes: 0, limit_bytes });
        self.send(out);
    }

    /// There is another connection: CREDIT says where to go on.
    pub(super) fn interrupt(&mut self) {
        self.sending = None;
    }

    /// The task is being cancelled.
    pub(super) fn stop(&mut self) {
        self.sending = None;
        self.signal.end();
    }

    /// CREDIT.
    pub(super) fn credit(&mut self, next_seq: u32, limit_bytes: u64, out: &mut impl Outbox) {
        if self.signal.is_over() {
            return;
        }
        if !self.keeps_all {
            let done = next_seq.min(self.next_seq).saturating_sub(self.first_kept());
            self.kept.drain(..done as usize);
        }
        match &mut self.sending {
            Some(sending) => sending.limit_bytes = sending.limit_bytes.max(limit_bytes),
            None => {
                let next_seq = next_seq.clamp(self.first_kept(), self.next_seq);
                let skip = (next_seq - self.first_kept()) as usize;
                let rest: u64 = self.kept.iter().skip(skip).map(counted).sum();
                let sent_bytes = self.made_bytes - rest;
                self.sending = Some(Sending { next_seq, sent_bytes, limit_bytes });
            }
        }
        self.send(out);
    }

    /// Sends what was made and not sent, as far as there is credit.
    fn send(&mut self, out: &mut impl Outbox) {
        let first = self.first_kept();
        let Some(sending) = &mut self.sending else { return };
        while let Some(chunk) = self.kept.get((sending.next_seq - first) as usize)
            && sending.sent_bytes + counted(chunk) <= sending.limit_bytes
        {
            let seq = sending.next_seq;
            let last = self.is_complete && seq + 1 == self.next_seq;
            let of = Subject::Task(self.id.clone(), 0);
            out.push(&Message::Chunk(Chunk { last, ..Chunk::new(of, seq) }), chunk);
            sending.next_seq += 1;
            sending.sent_bytes += counted(chunk);
        }
        self.signal.changed.notify_waiters();
    }

    /// Sends as much from the front of `part` as there is credit for, up to a frame. Nothing follows
    /// the part that `is_last`, which may be empty.
    pub(super) fn push(
        &mut self,
        part: &mut Bytes,
        is_last: bool,
        out: &mut impl Outbox,
    ) -> Pushed {
        if self.signal.is_over() || self.is_complete {
            return Pushed::Over;
        }
        let Some(sending) = self.sending.as_ref().filter(|it| it.next_seq == self.next_seq) else {
            return Pushed::NoCredit;
        };
        let credit = sending.limit_bytes.saturating_sub(sending.sent_bytes);
        let Some(room) = credit.checked_sub(CHUNK_OVERHEAD_BYTES) else { return Pushed::NoCredit };
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let bytes = room.min(part.len()).min(self.max_chunk_bytes);
        if bytes == 0 && !part.is_empty() || self.next_seq == u32::MAX {
            return Pushed::NoCredit;
        }
        let chunk = part.split_to(bytes);
        self.is_complete = is_last && part.is_empty();
        self.made_bytes += counted(&chunk);
        self.kept.push_back(chunk);
        self.next_seq += 1;
        self.send(out);
        Pushed::Some
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.signal.end();
    }
}

fn counted(chunk: &Bytes) -> u64 {
    chunk.len() as u64 + CHUNK_OVERHEAD_BYTES
}
