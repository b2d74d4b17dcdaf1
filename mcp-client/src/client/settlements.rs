//! The durable tasks whose outcomes were taken: the broker need not keep them any longer.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bytes::Bytes;
use mcp_proto::{Message, TaskId};

use crate::connection::Outbox;

/// As many wait for a connection; of more, the oldest are forgotten, and the broker keeps their
/// outcomes for as long as it does.
const MAX_WAITING: usize = 10_000;

/// What to tell the broker by SETTLE.
#[derive(Debug, Default)]
pub(super) struct Settlements {
    /// There was no connection.
    waiting: VecDeque<TaskId>,
    /// On this connection, which is not to be closed before they have arrived.
    is_sent: bool,
}

impl Settlements {
    /// Whether SETTLE may be under way.
    pub(super) fn are_sent(&self) -> bool {
        self.is_sent
    }

    /// Sends SETTLE, or keeps it for the next connection.
    pub(super) fn settle(&mut self, id: TaskId, out: Option<impl Outbox>) {
        match out {
            Some(out) => self.send(id, out),
            None => {
                if self.waiting.len() == MAX_WAITING {
                    self.waiting.pop_front();
                }
                self.waiting.push_back(id);
            }
        }
    }

    /// There is a connection.
    pub(super) fn connected(&mut self, mut out: impl Outbox) {
        for id in std::mem::take(&mut self.waiting) {
            self.send(id, &mut out);
        }
    }

    /// There is none any more.
    pub(super) fn disconnected(&mut self) {
        self.is_sent = false;
    }

    fn send(&mut self, id: TaskId, mut out: impl Outbox) {
        out.push(&Message::Settle(id), &Bytes::new());
        self.is_sent = true;
    }
}
