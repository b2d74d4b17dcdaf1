//! The thread that writes.

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use super::line::{Record, write_lost};
use super::{Entry, State, Target};
use crate::server::clock;

/// Records that are written at once.
const BATCH: usize = 256;

pub(super) struct Writer {
    state: Arc<State>,
    target: Option<Target>,
    bytes: Vec<u8>,
    /// Lost ones of which there is a record.
    told: u64,
    /// The last write failed: its last line may have no end, and the log knows that it did.
    has_failed: bool,
}

impl Writer {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self { state, target: None, bytes: Vec::new(), told: 0, has_failed: false }
    }

    /// Runs until it is told to end, or nobody records any more.
    pub(super) fn run(mut self, entries: &Receiver<Entry>) {
        while let Ok(first) = entries.recv() {
            let mut batch = Vec::new();
            let mut is_over = false;
            for entry in std::iter::once(first).chain(entries.try_iter().take(BATCH - 1)) {
                match entry {
                    Entry::Record(record) => batch.push(record),
                    Entry::Look => break,
                    Entry::End => is_over = true,
                }
            }
            // What came before another target is for the one of before.
            self.write(&batch);
            self.look();
            if is_over {
                return;
            }
        }
    }

    /// Takes another target, if there is one.
    fn look(&mut self) {
        let mut next = self.state.next.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(target) = next.take() {
            self.target = target;
            self.has_failed = false;
        }
    }

    fn write(&mut self, batch: &[Box<Record>]) {
        let lost = self.state.lost.load(Ordering::Relaxed);
        if batch.is_empty() && lost == self.told {
            return;
        }
        let count = batch.len() as u64;
        let Some(target) = &mut self.target else {
            self.state.lost.fetch_add(count, Ordering::Relaxed);
            return;
        };
        self.bytes.clear();
        if self.has_failed {
            self.bytes.push(b'\n');
        }
        for record in batch {
            record.write(&mut self.bytes);
        }
        if lost > self.told {
            let now_ms = clock::since_1970().as_millis() as u64;
            write_lost(now_ms, lost - self.told, &mut self.bytes);
        }
        match target.write(&self.bytes) {
            Ok(()) => {
                self.told = lost;
                self.state.written.fetch_add(count, Ordering::Relaxed);
                if std::mem::take(&mut self.has_failed) {
                    tracing::info!("the audit log is written again");
                }
            }
            Err(error) => {
                self.state.lost.fetch_add(count, Ordering::Relaxed);
                if !std::mem::replace(&mut self.has_failed, true) {
                    tracing::error!(%error, "the audit log can't be written: its records are lost");
                }
            }
        }
    }
}
