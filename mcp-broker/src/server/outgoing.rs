//! How much may wait for peers that do not read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mcp_proto::limits::{MAX_BODY_BYTES, MAX_HEADER_BYTES};

use super::config::LimitsConfig;

/// What may wait for a peer whatever waits for others: two of the largest frames.
const LEAST_BYTES: usize = 2 * (MAX_HEADER_BYTES + MAX_BODY_BYTES);

/// A peer may have so many times as much as is free. So one alone has its own bound, and many that
/// don't read can't take the room of those who do.
const SHARE: usize = 8;

/// The part of what may wait for all that tasks which a worker holds may take besides its own bound: twice
/// what 1,024 tasks of 60 kB need, with the defaults.
const TASKS_PART: usize = 8;

/// The bounds of what waits.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// For a client beyond which it is not read from.
    soft_bytes: AtomicUsize,
    /// For a peer beyond which it is closed.
    hard_bytes: AtomicUsize,
    /// For all peers together.
    max_bytes: AtomicUsize,
    /// In lanes that are blocked.
    waiting_bytes: Arc<AtomicUsize>,
}

impl Outgoing {
    pub(super) fn new(soft_bytes: usize, hard_bytes: usize, max_bytes: usize) -> Self {
        Self {
            soft_bytes: soft_bytes.into(),
            hard_bytes: hard_bytes.into(),
            max_bytes: max_bytes.into(),
            waiting_bytes: Arc::default(),
        }
    }

    /// Other bounds, from now on.
    pub(super) fn set_bounds(&self, limits: &LimitsConfig) {
        self.soft_bytes.store(limits.outgoing_soft_bytes, Ordering::Relaxed);
        self.hard_bytes.store(limits.outgoing_hard_bytes, Ordering::Relaxed);
        self.max_bytes.store(limits.outgoing_bytes, Ordering::Relaxed);
    }

    /// Where lanes count what waits in them.
    pub(super) fn waiting_bytes(&self) -> &Arc<AtomicUsize> {
        &self.waiting_bytes
    }

    /// What may wait for a client now before it is not read from.
    pub(super) fn soft_bytes(&self) -> usize {
        self.soft_bytes.load(Ordering::Relaxed).min(self.bound() / 2)
    }

    /// Of the tasks that a worker holds, so many bytes may wait for it besides: they are in memory anyway,
    /// mostly as the same bytes. A worker that takes none of them leaves most of what is for all to others.
    pub(super) fn tasks_bytes(&self) -> usize {
        self.max_bytes.load(Ordering::Relaxed) / TASKS_PART
    }

    /// Whether a peer for which so much waits is to be closed.
    #[inline]
    pub(super) fn is_too_much(&self, bytes: usize) -> bool {
        bytes > self.hard_bytes().min(LEAST_BYTES) && bytes > self.bound()
    }

    fn bound(&self) -> usize {
        let waiting_bytes = self.waiting_bytes.load(Ordering::Relaxed);
        let free = self.max_bytes.load(Ordering::Relaxed).saturating_sub(waiting_bytes);
        self.hard_bytes().min(free.saturating_mul(SHARE).max(LEAST_BYTES))
    }

    fn hard_bytes(&self) -> usize {
        self.hard_bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn a_peer_has_its_own_bound_while_there_is_room_and_less_when_many_wait() {
        let it = Outgoing::new(4 * MIB, 32 * MIB, 1024 * MIB);
        assert!(!it.is_too_much(32 * MIB) && it.is_too_much(32 * MIB + 1));
        assert_eq!(it.soft_bytes(), 4 * MIB);
        it.waiting_bytes.store(1020 * MIB, Ordering::Relaxed);
        assert!(!it.is_too_much(32 * MIB));
        it.waiting_bytes.store(1023 * MIB, Ordering::Relaxed);
        assert!(!it.is_too_much(8 * MIB) && it.is_too_much(8 * MIB + 1));
        it.waiting_bytes.store(2048 * MIB, Ordering::Relaxed);
        assert!(!it.is_too_much(LEAST_BYTES) && it.is_too_much(LEAST_BYTES + 1));
        assert_eq!(it.soft_bytes(), LEAST_BYTES / 2);
    }
}
