//! Drives a [`Journal`]: appends what the core emits and syncs it on a thread of its own, off the
//! core's lock, then tells the core how far that got.
//!
//! One sync covers whatever gathered while the last one ran; there is no timer.

mod gauges;
mod memory;
mod open;
mod slice;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};

use super::clock::Clock;
use super::shared::{Outbox, Shared};
use crate::broker::{Journal, Record};

pub(super) use gauges::{Figures, Gauges};
pub use memory::MemoryJournal;
pub(super) use open::Opened;

/// Records that the core is told of in one hold. What they cause is on its way while the core is told of the
/// rest, and other connections get their turn in between.
const TOLD_AT_ONCE: u64 = 128;

/// A record to keep, with its number.
pub(super) type Entry = (u64, Record);

/// Records on their way to the journal's thread. Bounded by the core, which bounds the tasks.
pub(super) fn entries() -> (Sender<Entry>, Receiver<Entry>) {
    channel()
}

/// Starts the thread. It ends when the sending side of `entries` is dropped, after the last sync.
pub(super) fn spawn(
    journal: Box<dyn Journal>,
    entries: Receiver<Entry>,
    gauges: Option<Arc<Gauges>>,
    shared: &Arc<Shared>,
) -> io::Result<JoinHandle<()>> {
    let shared = Arc::downgrade(shared);
    let mut keeper = Keeper { journal, gauges, clock: Clock::start() };
    thread::Builder::new().name("mcp-journal".to_owned()).spawn(move || {
        slice::shorten();
        keeper.run(&entries, &shared);
    })
}

struct Keeper {
    journal: Box<dyn Journal>,
    gauges: Option<Arc<Gauges>>,
    clock: Clock,
}

impl Keeper {
    fn run(&mut self, entries: &Receiver<Entry>, shared: &Weak<Shared>) {
        let mut outbox = Outbox::default();
        while let Ok(first) = entries.recv() {
            let mut told = first.0;
            let kept = self.guarded(|it| it.keep(first, entries));
            let Some(shared) = shared.upgrade() else {
                return;
            };
            let done = kept.and_then(|up_to| {
                loop {
                    told = up_to.min(told + TOLD_AT_ONCE);
                    shared.hold(&mut outbox, |core, now| core.journal_synced(now, told));
                    if told == up_to {
                        break;
                    }
                }
                self.guarded(|it| it.journal.tidy())
            });
            if let Err(error) = done {
                // What a failed write or sync left on disk is anyone's guess: it is not used again.
                let why = error.to_string();
                shared.hold(&mut outbox, |core, now| core.journal_failed(now, &why));
                if let Some(gauges) = &self.gauges {
                    gauges.failed();
                }
                drop(shared);
                while entries.recv().is_ok() {}
                return;
            }
        }
    }

    /// A panic of the journal is a failure of it.
    fn guarded<T>(&mut self, act: impl FnOnce(&mut Self) -> io::Result<T>) -> io::Result<T> {
        catch_unwind(AssertUnwindSafe(|| act(self)))
            .unwrap_or_else(|_| Err(io::Error::other("a fault of the journal itself")))
    }

    /// Appends everything that waits and syncs it. Returns the number of the last one.
    fn keep(&mut self, first: Entry, entries: &Receiver<Entry>) -> io::Result<u64> {
        let (mut last, mut count) = (first.0, 0);
        for (seq, record) in std::iter::once(first).chain(entries.try_iter()) {
            self.journal.append(&record)?;
            last = seq;
            count += 1;
        }
        let start = self.clock.now().mono;
        self.journal.sync()?;
        if let Some(gauges) = &self.gauges {
            gauges.synced(count, self.clock.now().mono.since(start));
        }
        Ok(last)
    }
}
