//! Drives a [`Journal`]: appends what the core emits and syncs it on a thread of its own, off the
//! core's lock; a task of the runtime tells the core how far that got, while the thread goes on with
//! what has gathered.
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

use tokio::sync::watch;

use super::clock::Clock;
use super::shared::{Outbox, Shared};
use crate::broker::{Journal, Record};

pub(super) use gauges::{Figures, Gauges};
pub use memory::MemoryJournal;
pub(super) use open::Opened;

/// A record to keep, with its number.
pub(super) type Entry = (u64, Record);

/// Records on their way to the journal's thread. Bounded by the core, which bounds the tasks.
pub(super) fn entries() -> (Sender<Entry>, Receiver<Entry>) {
    channel()
}

/// How far the thread got.
#[derive(Debug, Default)]
struct Progress {
    /// The number of the last record that is on disk.
    synced: u64,
    /// Why none are written any more.
    failed: Option<String>,
}

/// Starts the thread, and the task that tells the core. They end when the sending side of `entries` is
/// dropped, after the last sync. Must be called within a runtime.
pub(super) fn spawn(
    journal: Box<dyn Journal>,
    entries: Receiver<Entry>,
    gauges: Option<Arc<Gauges>>,
    shared: &Arc<Shared>,
) -> io::Result<JoinHandle<()>> {
    let (progress, seen) = watch::channel(Progress::default());
    let mut keeper = Keeper { journal, gauges, clock: Clock::start(), progress };
    let thread = thread::Builder::new().name("mcp-journal".to_owned()).spawn(move || {
        slice::shorten();
        keeper.run(&entries);
    })?;
    tokio::spawn(tell(seen, Arc::downgrade(shared)));
    Ok(thread)
}

/// Not the thread itself: while it would, the disk would have nothing to do.
async fn tell(mut seen: watch::Receiver<Progress>, shared: Weak<Shared>) {
    let mut outbox = Outbox::default();
    while seen.changed().await.is_ok() {
        let (synced, failed) = {
            let progress = seen.borrow_and_update();
            (progress.synced, progress.failed.clone())
        };
        let Some(shared) = shared.upgrade() else { return };
        shared.hold(&mut outbox, |core, now| core.journal_synced(now, synced));
        if let Some(why) = failed {
            shared.hold(&mut outbox, |core, now| core.journal_failed(now, &why));
        }
    }
}

struct Keeper {
    journal: Box<dyn Journal>,
    gauges: Option<Arc<Gauges>>,
    clock: Clock,
    progress: watch::Sender<Progress>,
}

impl Keeper {
    fn run(&mut self, entries: &Receiver<Entry>) {
        while let Ok(first) = entries.recv() {
            let kept = self.guarded(|it| it.keep(first, entries));
            let done = kept.and_then(|synced| {
                self.progress.send_modify(|it| it.synced = synced);
                self.guarded(|it| it.journal.tidy())
            });
            if let Err(error) = done {
                // What a failed write or sync left on disk is anyone's guess: it is not used again.
                self.progress.send_modify(|it| it.failed = Some(error.to_string()));
                if let Some(gauges) = &self.gauges {
                    gauges.failed();
                }
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
