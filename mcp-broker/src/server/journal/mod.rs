//! Drives a [`Journal`]: appends what the core emits and syncs it on a thread of its own, off the
//! core's lock, then tells the core how far that got.
//!
//! One sync covers whatever gathered while the last one ran; there is no timer.

mod memory;

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};

use super::shared::{Outbox, Shared};
use crate::broker::{Journal, Record};

pub use memory::MemoryJournal;

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
    shared: &Arc<Shared>,
) -> io::Result<JoinHandle<()>> {
    let shared = Arc::downgrade(shared);
    thread::Builder::new()
        .name("mcp-journal".to_owned())
        .spawn(move || run(journal, &entries, &shared))
}

fn run(mut journal: Box<dyn Journal>, entries: &Receiver<Entry>, shared: &Weak<Shared>) {
    let mut outbox = Outbox::default();
    while let Ok(first) = entries.recv() {
        let kept = keep(&mut *journal, first, entries);
        let Some(shared) = shared.upgrade() else {
            return;
        };
        match kept {
            Ok(up_to) => {
                shared.hold(&mut outbox, |core, now| core.journal_synced(now, up_to));
            }
            Err(error) => {
                // What a failed write or sync left on disk is anyone's guess: it is not used again.
                shared.hold(&mut outbox, |core, now| core.journal_failed(now, &error.to_string()));
                drop(shared);
                while entries.recv().is_ok() {}
                return;
            }
        }
    }
}

/// Appends everything that waits and syncs it. Returns the number of the last one.
fn keep(journal: &mut dyn Journal, first: Entry, entries: &Receiver<Entry>) -> io::Result<u64> {
    let mut last = first.0;
    for (seq, record) in std::iter::once(first).chain(entries.try_iter()) {
        journal.append(&record)?;
        last = seq;
    }
    journal.sync()?;
    Ok(last)
}
