//! Handlers that wait for tasks of their own, and take no slot meanwhile.

use std::mem;
use std::time::Instant;

use bytes::Bytes;
use mcp_proto::{AttemptId, Message, Park};
use tokio_util::sync::CancellationToken;

use super::{Attempts, Start};
use crate::connection::Outbox;

/// Whether a handler that runs takes a slot.
#[derive(Debug, Default)]
pub(super) enum Slot {
    #[default]
    Taken,
    /// It is parked.
    Free,
    /// It could go on, and waits for its turn; then this is cancelled.
    Wanted(CancellationToken),
}

impl Attempts {
    /// A handler begins to wait: its slot is free.
    pub(in crate::worker) fn park(
        &mut self,
        id: AttemptId,
        now: Instant,
        mut out: impl Outbox,
        starts: &mut Vec<Start>,
    ) {
        let Some(attempt) = self.held.get_mut(&id) else { return };
        if !matches!(attempt.slot, Slot::Taken) {
            return;
        }
        attempt.slot = Slot::Free;
        attempt.has_parked = true;
        self.running -= 1;
        self.say_parked(id, true, &mut out);
        self.start_waiting(now, &mut out, starts);
    }

    /// A handler wants to go on. Returns what tells its turn, unless it is its turn now.
    pub(in crate::worker) fn unpark(
        &mut self,
        id: AttemptId,
        mut out: impl Outbox,
    ) -> Option<CancellationToken> {
        let attempt = self.held.get_mut(&id)?;
        match &attempt.slot {
            Slot::Taken => None,
            Slot::Wanted(turn) => Some(turn.clone()),
            Slot::Free => {
                let is_its_turn = self.running < self.slots;
                let turn = CancellationToken::new();
                attempt.slot = Slot::Wanted(turn.clone());
                self.say_parked(id, false, &mut out);
                if is_its_turn {
                    self.take_slot(id);
                    return None;
                }
                self.returning.push_back(id);
                Some(turn)
            }
        }
    }

    /// A handler goes on without waiting for its turn: for a while, more than `slots` may run.
    pub(in crate::worker) fn reclaim(&mut self, id: AttemptId, mut out: impl Outbox) {
        let Some(attempt) = self.held.get(&id) else { return };
        match attempt.slot {
            Slot::Taken => return,
            Slot::Free => self.say_parked(id, false, &mut out),
            Slot::Wanted(_) => self.returning.retain(|other| *other != id),
        }
        self.take_slot(id);
    }

    /// Lets handlers go on whose turn it is.
    pub(super) fn end_parking(&mut self) {
        while self.running < self.slots
            && let Some(id) = self.returning.pop_front()
        {
            self.take_slot(id);
        }
    }

    fn take_slot(&mut self, id: AttemptId) {
        let Some(attempt) = self.held.get_mut(&id) else { return };
        self.running += 1;
        if let Slot::Wanted(turn) = mem::take(&mut attempt.slot) {
            turn.cancel();
        }
    }

    /// A handler has ended: what it took is free.
    pub(super) fn leave_slot(&mut self, id: AttemptId, slot: Slot) {
        match slot {
            Slot::Taken => self.running -= 1,
            Slot::Free => {}
            Slot::Wanted(turn) => {
                self.returning.retain(|other| *other != id);
                turn.cancel();
            }
        }
    }

    /// The broker has forgotten what is parked.
    pub(super) fn park_again(&mut self, out: &mut impl Outbox) {
        for (id, attempt) in &self.held {
            if matches!(attempt.slot, Slot::Free) {
                self.say_parked(*id, true, out);
            }
        }
    }

    pub(super) fn parked(&self) -> usize {
        self.held.values().filter(|attempt| !matches!(attempt.slot, Slot::Taken)).count()
    }

    /// Tells the broker, unless the attempt is being stopped: its RESULT follows, or it is not the
    /// broker's any more.
    fn say_parked(&self, attempt_id: AttemptId, parked: bool, out: &mut impl Outbox) {
        let is_stopping = self.held.get(&attempt_id).is_none_or(|it| it.ending.is_some());
        if self.connection.is_some() && !is_stopping {
            out.push(&Message::Park(Park { attempt_id, parked }), &Bytes::new());
        }
    }
}
