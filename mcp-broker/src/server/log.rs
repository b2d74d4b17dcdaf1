//! How much of what peers cause is logged.

use std::collections::HashMap;
use std::mem::Discriminant;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use tracing::level_filters::LevelFilter;

use crate::broker::{Event, Level, Mono};

/// Lines of one kind that may come at once, and how often there is another one then. Whoever connects
/// can cause some thousands a second, which would fill a disk; these are 200 MB a day.
const LINES: u64 = 200;
const LINE_EVERY_US: u64 = 100_000;

/// Lines of one kind.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// When all lines may come at once again.
    full_at: Mono,
    left_out: u64,
}

impl Budget {
    /// Whether there may be a line; then how many were left out before it.
    pub(super) fn line(&mut self, now: Mono) -> Option<u64> {
        let full_at = self.full_at.max(now) + LINE_EVERY_US;
        if full_at.since(now) > LINES * LINE_EVERY_US {
            self.left_out += 1;
            return None;
        }
        self.full_at = full_at;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// Logs events of the core, and who does not get as far as that.
#[derive(Debug, Default)]
pub(super) struct Log {
    events: Mutex<HashMap<Discriminant<Event>, Budget>>,
    refusals: Mutex<Budget>,
}

impl Log {
    /// Whether events of this level are logged at all.
    pub(super) fn takes(event: &Event) -> bool {
        LevelFilter::current() >= level(event)
    }

    pub(super) fn event(&self, now: Mono, event: &Event, peer: Option<SocketAddr>) {
        let mut budgets = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let line = budgets.entry(std::mem::discriminant(event)).or_default().line(now);
        drop(budgets);
        let Some(left_out) = line else { return };
        let left_out = (left_out > 0).then_some(left_out);
        let peer = peer.map(tracing::field::display);
        let trace_id = event.trace_id().map(tracing::field::display);
        match event.level() {
            Level::Debug => tracing::debug!(trace_id, peer, left_out, "{event}"),
            Level::Info => tracing::info!(trace_id, peer, left_out, "{event}"),
            Level::Warn => tracing::warn!(trace_id, peer, left_out, "{event}"),
            Level::Error => tracing::error!(trace_id, peer, left_out, "{event}"),
        }
    }

    /// A peer that was refused in the handshake.
    pub(super) fn refusal(&self, now: Mono, peer: SocketAddr, why: &str) {
        let line = self.refusals.lock().unwrap_or_else(PoisonError::into_inner).line(now);
        if let Some(left_out) = line {
            let left_out = (left_out > 0).then_some(left_out);
            tracing::warn!(%peer, left_out, "refused: {why}");
        }
    }
}

fn level(event: &Event) -> tracing::Level {
    match event.level() {
        Level::Debug => tracing::Level::DEBUG,
        Level::Info => tracing::Level::INFO,
        Level::Warn => tracing::Level::WARN,
        Level::Error => tracing::Level::ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_to_its_rate_and_what_was_left_out_is_told() {
        let mut budget = Budget::default();
        let mut at = Mono(5);
        for _ in 0..LINES {
            assert_eq!(budget.line(at), Some(0));
        }
        for _ in 0..1000 {
            assert_eq!(budget.line(at), None);
        }
        at = at + LINE_EVERY_US;
        assert_eq!(budget.line(at), Some(1000));
        assert_eq!(budget.line(at), None);
        at = at + 2 * LINES * LINE_EVERY_US;
        let lines = (0..2 * LINES).filter(|_| budget.line(at).is_some()).count();
        assert_eq!(lines as u64, LINES);
    }
}
