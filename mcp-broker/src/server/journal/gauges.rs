//! What is measured of a journal.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::broker::Histogram;

/// Of a journal, for whoever looks on.
#[derive(Debug)]
pub(in crate::server) struct Gauges {
    figures: Mutex<Figures>,
    bytes: Option<Arc<AtomicU64>>,
}

/// How a journal is.
#[derive(Debug, Clone, Default)]
pub(in crate::server) struct Figures {
    /// Whether it can be written to.
    pub(in crate::server) is_up: bool,
    /// How long syncs took.
    pub(in crate::server) syncs: Histogram,
    /// Records that these brought to disk.
    pub(in crate::server) records: u64,
    /// Of its segments; none when the journal does not say.
    pub(in crate::server) bytes: Option<u64>,
}

impl Gauges {
    pub(in crate::server) fn new(is_up: bool, bytes: Option<Arc<AtomicU64>>) -> Self {
        let figures = Figures { is_up, ..Figures::default() };
        Self { figures: Mutex::new(figures), bytes }
    }

    pub(in crate::server) fn figures(&self) -> Figures {
        let figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let bytes = self.bytes.as_ref().map(|bytes| bytes.load(Ordering::Relaxed));
        Figures { bytes, ..figures }
    }

    pub(super) fn synced(&self, records: u64, us: u64) {
        self.change(|it| {
            it.records += records;
            it.syncs.record(us);
        });
    }

    pub(super) fn failed(&self) {
        self.change(|it| it.is_up = false);
    }

    fn change(&self, change: impl FnOnce(&mut Figures)) {
        change(&mut self.figures.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
