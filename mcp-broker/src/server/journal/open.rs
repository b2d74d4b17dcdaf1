//! Opening the journal of the state directory.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::MemoryJournal;
use crate::broker::{Journal, Record};
use crate::journal::{Directory, Dropped, ReadJournal};
use crate::server::error::StartError;

/// A journal at the start of a broker.
pub(in crate::server) struct Opened {
    pub(in crate::server) journal: Box<dyn Journal>,
    /// What it kept.
    pub(in crate::server) records: Vec<Record>,
    /// Why nothing can be added to that.
    pub(in crate::server) unwritable: Option<String>,
    /// Its size, kept up to date.
    pub(in crate::server) bytes: Option<Arc<AtomicU64>>,
}

impl Opened {
    /// The journal in a directory, which is made if it isn't there. Blocks.
    pub(in crate::server) fn directory(path: &Path) -> Result<Self, StartError> {
        let directory = Directory::open(path).map_err(|source| match source.kind() {
            io::ErrorKind::ResourceBusy => StartError::JournalInUse { path: path.to_owned() },
            _ => StartError::JournalDir { path: path.to_owned(), source },
        })?;
        let mut read = ReadJournal::read(directory)
            .map_err(|source| StartError::Journal { path: path.to_owned(), source })?;
        if let Some(Dropped { segment, kept_bytes, dropped_bytes }) = read.dropped() {
            tracing::info!(
                "the journal's segment {segment:016} ended in {dropped_bytes} bytes, from byte \
                 {kept_bytes} on, that were not on disk when the broker ended: they are dropped, \
                 nothing of them was acknowledged"
            );
        }
        let records = read.take_records();
        Ok(match read.begin() {
            Ok(journal) => Self {
                bytes: Some(journal.bytes()),
                journal: Box::new(journal),
                records,
                unwritable: None,
            },
            Err(error) => Self {
                journal: Box::new(MemoryJournal),
                records,
                unwritable: Some(format!("cannot write to {}: {error}", path.display())),
                bytes: None,
            },
        })
    }

    /// One that an embedding program gives. Blocks.
    pub(in crate::server) fn given(mut journal: Box<dyn Journal>) -> Result<Self, StartError> {
        let records = journal.load().map_err(StartError::LoadJournal)?;
        Ok(Self { journal, records, unwritable: None, bytes: None })
    }
}
