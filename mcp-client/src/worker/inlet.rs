//! The rest of an attempt's input as it comes: in order, each part once, within a window.
//!
//! Told of frames by the registration, and asked by the handler: which is another task, so the state
//! is behind a lock of its own.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use mcp_proto::InputLength;
use mcp_proto::limits::{CHUNK_OVERHEAD_BYTES, MAX_STREAM_WINDOW_BYTES};

use super::input::InputError;

const WINDOW_BYTES: u64 = MAX_STREAM_WINDOW_BYTES as u64;

/// Credit for less is not worth a frame while there is more to read.
const WORTH_BYTES: u64 = WINDOW_BYTES / 4;

/// The chunks of one attempt's input.
#[derive(Debug)]
pub(super) struct Inlet {
    length: InputLength,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    next_seq: u32,
    received_bytes: u64,
    /// What was read, and what the broker was last told of it.
    read_bytes: u64,
    told: Told,
    unread: VecDeque<Bytes>,
    end: Option<End>,
    /// Whether the handler asked for it.
    is_wanted: bool,
    reader: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Complete,
    Over,
    Broken,
}

/// What to tell the broker: chunks before `next_seq` are read, and so much may come in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) next_seq: u32,
    pub(super) limit_bytes: u64,
}

impl Inlet {
    pub(super) fn new(length: InputLength) -> Self {
        Self {
            length,
            state: Mutex::new(State {
                next_seq: 0,
                received_bytes: 0,
                read_bytes: 0,
                told: Told { next_seq: 0, limit_bytes: WINDOW_BYTES },
                unread: VecDeque::new(),
                end: None,
                is_wanted: false,
                reader: None,
            }),
        }
    }

    pub(super) fn length(&self) -> InputLength {
        self.length
    }

    /// CHUNK.
    pub(super) fn chunk(&self, seq: u32, is_last: bool, body: Bytes) {
        self.change(|state| {
            // Once more, as after a break; or nobody reads any more.
            if seq < state.next_seq || state.end.is_some() {
                return;
            }
            let received_bytes = state.received_bytes + counted(&body);
            if seq > state.next_seq || seq == u32::MAX || received_bytes > state.told.limit_bytes {
                state.end = Some(End::Broken);
                return;
            }
            state.next_seq += 1;
            state.received_bytes = received_bytes;
            state.unread.push_back(body);
            if is_last {
                state.end = Some(End::Complete);
            }
        });
    }

    /// The attempt is over: what was not read is not wanted any more.
    pub(super) fn end(&self) {
        self.change(|state| {
            state.unread.clear();
            state.end = Some(End::Over);
        });
    }

    /// What the broker knows: to be told again on another connection.
    pub(super) fn told(&self) -> Told {
        self.lock().told
    }

    /// The handler asks for it.
    pub(super) fn want(&self) {
        self.lock().is_wanted = true;
    }

    /// Whether the handler never did.
    pub(super) fn is_unwanted(&self) -> bool {
        !self.lock().is_wanted
    }

    /// The next part; none at the end. With it, what to tell the broker.
    pub(super) fn poll(
        &self,
        cx: &mut Context<'_>,
    ) -> (Poll<Option<Result<Bytes, InputError>>>, Option<Told>) {
        let mut state = self.lock();
        while let Some(part) = state.unread.pop_front() {
            state.read_bytes += counted(&part);
            // The last one may be empty.
            if !part.is_empty() {
                let told = state.tell(WORTH_BYTES);
                return (Poll::Ready(Some(Ok(part))), told);
            }
        }
        let ready = match state.end {
            None => {
                state.reader = Some(cx.waker().clone());
                // The broker may keep from sending what it does not know to be read.
                return (Poll::Pending, state.tell(1));
            }
            Some(End::Complete) => None,
            Some(End::Over) => Some(Err(InputError::Over)),
            Some(End::Broken) => Some(Err(InputError::Broken)),
        };
        (Poll::Ready(ready), None)
    }

    /// Changes the state, and wakes who reads.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let reader = {
            let mut state = self.lock();
            change(&mut state);
            state.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every critical section leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What to tell, if at least so much was read since the last time and more is to come.
    fn tell(&mut self, worth_bytes: u64) -> Option<Told> {
        let limit_bytes = self.read_bytes + WINDOW_BYTES;
        if self.end.is_some() || limit_bytes - self.told.limit_bytes < worth_bytes {
            return None;
        }
        let next_seq = self.next_seq - self.unread.len() as u32;
        self.told = Told { next_seq, limit_bytes };
        Some(self.told)
    }
}

fn counted(part: &Bytes) -> u64 {
    part.len() as u64 + CHUNK_OVERHEAD_BYTES
}
