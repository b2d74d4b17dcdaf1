//! What was sent and is not known to have arrived.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;
use mcp_proto::{AttemptId, Message};

use super::parts::Parts;
use crate::connection::Outbox;

/// After so many, or so much, a PING is sent to have them confirmed.
const PING_AFTER_ITEMS: usize = 256;
const PING_AFTER_BYTES: usize = 1024 * 1024;

/// A broker that answers no PING does not make this grow for ever: the oldest go. They were sent,
/// and matter only if the connection breaks.
const MAX_ITEMS: usize = 16 * 1024;
const MAX_BYTES: usize = 512 * 1024 * 1024;

/// Frames that end attempts, until a PONG confirms that the broker has processed them.
#[derive(Default)]
pub(super) struct Finished {
    items: VecDeque<Ended>,
    bytes: usize,
    /// How many were dropped from the front of `items` since the beginning.
    gone: u64,
    /// PINGs of this connection without PONG, and how many items came before each in all.
    pings: VecDeque<(u64, u64)>,
    next_seq: u64,
    items_since_ping: usize,
    bytes_since_ping: usize,
}

/// The end of an attempt: RESULT or NACK.
pub(super) struct Ended {
    pub(super) id: AttemptId,
    pub(super) message: Message,
    pub(super) body: Bytes,
    /// What came before it, and may be lost with it.
    pub(super) parts: Option<Box<Parts>>,
}

impl Ended {
    /// What it keeps besides itself.
    fn bytes(&self) -> usize {
        self.body.len() + self.parts.as_ref().map_or(0, |parts| parts.kept_bytes())
    }
}

impl Finished {
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether a PONG is waited for.
    pub(super) fn is_owed(&self) -> bool {
        !self.pings.is_empty()
    }

    /// The attempts, newest first.
    pub(super) fn newest_ids(&self) -> impl Iterator<Item = AttemptId> {
        self.items.iter().rev().map(|item| item.id)
    }

    pub(super) fn add(&mut self, ended: Ended) {
        let bytes = ended.bytes();
        self.bytes += bytes;
        self.items_since_ping += 1;
        self.bytes_since_ping += bytes;
        self.items.push_back(ended);
        while self.items.len() > MAX_ITEMS || self.bytes > MAX_BYTES {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(item) = self.items.pop_front() {
            self.bytes -= item.bytes();
            self.gone += 1;
        }
    }

    /// Whether enough came together since the last PING.
    pub(super) fn wants_ping(&self) -> bool {
        self.items_since_ping >= PING_AFTER_ITEMS || self.bytes_since_ping >= PING_AFTER_BYTES
    }

    /// A PING is sent after all that is here: returns its number.
    pub(super) fn ping(&mut self) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.items_since_ping = 0;
        self.bytes_since_ping = 0;
        self.pings.push_back((seq, self.gone + self.items.len() as u64));
        seq
    }

    /// The broker has processed all that came before PING `seq`.
    pub(super) fn pong(&mut self, seq: u64) {
        let Some(at) = self.pings.iter().position(|(sent, _)| *sent == seq) else { return };
        let (_, confirmed) = self.pings[at];
        self.pings.drain(..=at);
        while self.gone < confirmed && !self.items.is_empty() {
            self.drop_oldest();
        }
    }

    /// PINGs of a connection that is gone are not answered.
    pub(super) fn disconnected(&mut self) {
        self.pings.clear();
    }

    /// There is a new connection: sends again what the broker keeps, and drops the rest.
    pub(super) fn resend(&mut self, keep: &HashSet<AttemptId>, out: &mut impl Outbox) {
        let all = std::mem::take(&mut self.items);
        self.gone += all.len() as u64;
        (self.bytes, self.items_since_ping, self.bytes_since_ping) = (0, 0, 0);
        for item in all.into_iter().filter(|item| keep.contains(&item.id)) {
            if let Some(parts) = &item.parts {
                parts.resend(item.id, out);
            }
            out.push(&item.message, &item.body);
            self.gone -= 1;
            self.add(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(ids: std::ops::Range<u64>) -> Finished {
        let mut finished = Finished::default();
        for id in ids {
            finished.add(ended(id, Bytes::from_static(b"body")));
        }
        finished
    }

    fn ended(id: u64, body: Bytes) -> Ended {
        Ended { id: AttemptId(id), message: Message::Pong(id), body, parts: None }
    }

    #[test]
    fn parts_that_are_kept_count() {
        let mut it = Finished::default();
        let mut parts = Parts::new(u32::MAX);
        let mut large = Bytes::from(vec![0; PING_AFTER_BYTES]);
        while !large.is_empty() {
            parts.emit(AttemptId(1), &mut large, &mut Vec::new());
        }
        it.add(Ended { parts: Some(Box::new(parts)), ..ended(1, Bytes::new()) });
        assert!(it.wants_ping());
        let seq = it.ping();
        it.pong(seq);
        assert_eq!(it.bytes, 0);
    }

    fn ids(finished: &Finished) -> Vec<u64> {
        finished.items.iter().map(|item| item.id.0).collect()
    }

    #[test]
    fn a_pong_confirms_what_came_before_its_ping() {
        let mut it = finished(0..3);
        let first = it.ping();
        it.add(ended(3, Bytes::new()));
        let second = it.ping();
        it.pong(first);
        assert_eq!(ids(&it), [3]);
        it.pong(first);
        it.pong(77);
        assert_eq!(ids(&it), [3]);
        assert!(it.is_owed());
        it.pong(second);
        assert!(it.is_empty() && !it.is_owed());
        assert_eq!(it.bytes, 0);
    }

    #[test]
    fn a_later_pong_confirms_for_an_earlier_ping() {
        let mut it = finished(0..2);
        it.ping();
        let second = it.ping();
        it.pong(second);
        assert!(it.is_empty() && !it.is_owed());
    }

    #[test]
    fn a_ping_is_wanted_after_many_items_or_bytes() {
        assert!(!finished(0..255).wants_ping());
        assert!(finished(0..256).wants_ping());
        let mut it = finished(0..1);
        it.add(ended(1, vec![0; PING_AFTER_BYTES].into()));
        assert!(it.wants_ping());
        it.ping();
        assert!(!it.wants_ping());
    }

    #[test]
    fn after_a_broken_connection_only_what_is_kept_is_sent_again() {
        let mut it = finished(0..4);
        let lost = it.ping();
        it.disconnected();
        assert!(!it.is_owed());
        let mut out = Vec::new();
        it.resend(&[AttemptId(1), AttemptId(3)].into(), &mut &mut out);
        assert_eq!(ids(&it), [1, 3]);
        assert_eq!(out.len(), 2);
        it.pong(lost);
        assert_eq!(ids(&it), [1, 3]);
        let seq = it.ping();
        it.pong(seq);
        assert!(it.is_empty());
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let mut it = finished(0..MAX_ITEMS as u64 + 10);
        assert_eq!(it.items.len(), MAX_ITEMS);
        let seq = it.ping();
        it.pong(seq);
        assert!(it.is_empty());
    }
}
