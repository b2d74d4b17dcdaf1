//! The parts of a result as they come: in order, each once, within a window.
//!
//! Told of frames by the session, and asked by the one who reads: which is another task, so the
//! state is behind a lock of its own.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::mem::discriminant;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use mcp_proto::limits::{CHUNK_OVERHEAD_BYTES, MAX_STREAM_WINDOW_BYTES};
use mcp_proto::{Outcome, Progress};

use crate::task::{Delivered, StreamEvent};

/// What is taken before the reader has read any: the most that a broker keeps.
pub(crate) const WINDOW_BYTES: u32 = MAX_STREAM_WINDOW_BYTES;

/// The parts of one task's result.
#[derive(Debug)]
pub(crate) struct Incoming(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Whose parts these are; 0 before the first.
    attempt: u32,
    /// The part that is expected next.
    next_seq: u32,
    received_bytes: u64,
    /// What the reader has read.
    read_bytes: u64,
    /// The last that the broker was told of it.
    told_seq: u32,
    told_limit_bytes: u64,
    /// The broker has no more of this attempt than what came.
    is_cut: bool,
    /// Parts can come after the end on this connection: it was asked for them.
    is_resumed: bool,
    events: VecDeque<Unread>,
    /// What the parts among them count.
    unread_bytes: u64,
    reader: Option<Waker>,
    /// The end, which came before all parts had.
    held: Option<Delivered>,
}

/// What is to be read.
#[derive(Debug)]
struct Unread {
    /// The number of the part that follows it.
    next_seq: u32,
    /// What all parts before that one count.
    received_bytes: u64,
    event: StreamEvent,
}

/// What to tell the broker: parts before `next_seq` are read, and so much may come in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) attempt: u32,
    pub(crate) next_seq: u32,
    pub(crate) limit_bytes: u64,
}

impl Incoming {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State {
            attempt: 0,
            next_seq: 0,
            received_bytes: 0,
            read_bytes: 0,
            told_seq: 0,
            told_limit_bytes: WINDOW_BYTES.into(),
            is_cut: false,
            is_resumed: false,
            events: VecDeque::new(),
            unread_bytes: 0,
            reader: None,
            held: None,
        }))
    }

    /// CHUNK. Returns the end of the task, if this was all that it waited for.
    pub(super) fn chunk(
        &self,
        attempt: u32,
        seq: u32,
        gap: Option<u64>,
        body: Bytes,
    ) -> Option<Delivered> {
        self.change(|state| {
            if attempt < state.attempt {
                return None;
            }
            state.begin(attempt);
            // The limit counts what is missing, too.
            state.received_bytes = state.received_bytes.max(gap.unwrap_or(0));
            if seq > state.next_seq {
                state.next_seq = seq;
                state.push(StreamEvent::Gap);
            }
            // Says only that there is no more.
            if gap.is_some() && body.is_empty() {
                state.is_cut = true;
                return state.take_held();
            }
            // Not twice.
            if seq < state.next_seq || seq == u32::MAX {
                return None;
            }
            let counted = counted(&body);
            state.next_seq += 1;
            state.received_bytes = state.received_bytes.saturating_add(counted);
            // A broker may have let more come while nobody read.
            if state.unread_bytes + counted > u64::from(WINDOW_BYTES) {
                state.push(StreamEvent::Gap);
            } else {
                state.unread_bytes += counted;
                state.push(StreamEvent::Part(body));
            }
            state.take_held()
        })
    }

    /// PROGRESS.
    pub(super) fn progress(&self, progress: Progress) {
        self.change(|state| {
            state.push(StreamEvent::Progress {
                fraction: progress.permille.map(|permille| f32::from(permille) / 1000.0),
                message: progress.message,
            });
        });
    }

    /// DELIVER. Returns it when all parts have come; else it is held until they have.
    pub(super) fn end(&self, delivered: Delivered) -> Option<Delivered> {
        self.change(|state| {
            state.held = Some(delivered);
            state.take_held()
        })
    }

    /// The time is up: the end, if it has come, though parts are missing.
    pub(super) fn give_up(&self) -> Option<Delivered> {
        self.change(|state| {
            state.is_cut = true;
            state.take_held()
        })
    }

    /// The task is sent anew: what came so far is void.
    pub(super) fn restart(&self) {
        self.change(|state| {
            state.clear();
            (state.attempt, state.is_resumed) = (0, false);
        });
    }

    /// Where to go on, on another connection.
    pub(super) fn resume(&self) -> Told {
        let mut state = self.lock();
        (state.is_cut, state.is_resumed) = (false, true);
        let next_seq = state.next_seq;
        state.tell(next_seq)
    }

    /// The next event, if there is one; and with it, what to tell the broker.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> (Poll<StreamEvent>, Option<Told>) {
        let mut state = self.lock();
        let Some(Unread { next_seq, received_bytes, event }) = state.events.pop_front() else {
            state.reader = Some(cx.waker().clone());
            return (Poll::Pending, None);
        };
        if let StreamEvent::Part(part) = &event {
            state.unread_bytes -= counted(part);
        }
        state.read_bytes = state.read_bytes.max(received_bytes);
        let is_due = state.limit_bytes() - state.told_limit_bytes >= u64::from(WINDOW_BYTES) / 2;
        (Poll::Ready(event), is_due.then(|| state.tell(next_seq)))
    }

    /// Nothing more is read: what to tell the broker, if it may still keep some.
    pub(crate) fn finish(&self) -> Option<Told> {
        let mut state = self.lock();
        state.events.clear();
        state.unread_bytes = 0;
        let next_seq = state.next_seq;
        (state.told_seq < next_seq).then(|| state.tell(next_seq))
    }

    /// Changes the state, and wakes who reads if there is something to read.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let (result, reader) = {
            let mut state = self.lock();
            let result = change(&mut state);
            let has_news = !state.events.is_empty();
            (result, if has_news { state.reader.take() } else { None })
        };
        if let Some(reader) = reader {
            reader.wake();
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every critical section leaves the state whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What may come in all.
    fn limit_bytes(&self) -> u64 {
        self.read_bytes.saturating_add(WINDOW_BYTES.into())
    }

    fn tell(&mut self, next_seq: u32) -> Told {
        (self.told_seq, self.told_limit_bytes) = (next_seq, self.limit_bytes());
        Told { attempt: self.attempt, next_seq, limit_bytes: self.told_limit_bytes }
    }

    fn push(&mut self, event: StreamEvent) {
        // Without a part between them, two gaps are one, and of progress the latest matters.
        let is_part = |event: &StreamEvent| matches!(event, StreamEvent::Part(_));
        let mut since_part = self.events.iter_mut().rev().take_while(|it| !is_part(&it.event));
        let is_alike = |it: &Unread| discriminant(&it.event) == discriminant(&event);
        let alike = since_part.find(|it| !is_part(&event) && is_alike(it));
        let (next_seq, received_bytes) = (self.next_seq, self.received_bytes);
        let unread = Unread { next_seq, received_bytes, event };
        match alike {
            Some(alike) => *alike = unread,
            None => self.events.push_back(unread),
        }
    }

    /// The parts of an attempt begin, if they have not.
    fn begin(&mut self, attempt: u32) {
        if attempt > self.attempt {
            self.clear();
            self.attempt = attempt;
        }
    }

    /// What came so far is void.
    fn clear(&mut self) {
        let is_restart = self.next_seq > 0;
        self.events.retain(|unread| matches!(unread.event, StreamEvent::Restarted));
        (self.next_seq, self.received_bytes) = (0, 0);
        (self.read_bytes, self.unread_bytes) = (0, 0);
        (self.told_seq, self.told_limit_bytes) = (0, WINDOW_BYTES.into());
        self.is_cut = false;
        // Twice would say no more.
        if is_restart && self.events.is_empty() {
            self.push(StreamEvent::Restarted);
        }
    }

    /// The end, if nothing that belongs before it can still come.
    fn take_held(&mut self) -> Option<Delivered> {
        let Delivered { deliver, .. } = self.held.as_ref()?;
        let (attempt, chunks, is_ok) =
            (deliver.attempt, deliver.chunks, deliver.outcome == Outcome::Ok);
        if chunks == 0 || self.is_cut || !self.is_resumed {
            // None is to come. Perhaps none came of this attempt.
            self.begin(attempt);
        } else if attempt > self.attempt || self.next_seq < chunks {
            return None;
        }
        if self.next_seq < chunks {
            self.next_seq = chunks;
            // Nothing is missing of a result that there is not.
            if is_ok {
                self.push(StreamEvent::Gap);
            }
        }
        self.held.take()
    }
}

fn counted(part: &Bytes) -> u64 {
    part.len() as u64 + CHUNK_OVERHEAD_BYTES
}
