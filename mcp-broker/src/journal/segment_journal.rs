//! The journal of durable tasks, in a log.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::log::{Dropped, Log, OpenError, SEGMENT_BYTES};
use super::record::{self, EncodedRecord};
use super::recovery::Recovery;
use super::storage::Storage;
use crate::broker::{Journal, Record};

/// A [`Journal`] in the segments of a storage, such as a [`Directory`](super::Directory).
pub struct SegmentJournal<S: Storage> {
    log: Log<S>,
    /// What counted when it was opened, until that is loaded.
    records: Vec<Record>,
    scratch: EncodedRecord,
    bytes: Arc<AtomicU64>,
}

/// A journal that was read, and not written to yet.
#[derive(Debug)]
pub struct ReadJournal<S: Storage> {
    recovery: Recovery<S>,
    records: Vec<Record>,
}

impl<S: Storage> ReadJournal<S> {
    /// Reads a journal, and changes nothing. Of a storage without segments, that is an empty one.
    ///
    /// # Errors
    /// When it can't be read, is damaged, or has an entry that is no record.
    pub fn read(storage: S) -> Result<Self, OpenError> {
        let mut found = Vec::new();
        let recovery = Recovery::read(storage, |entry| {
            let record = record::decode(&entry.key, &entry.value);
            found.push((entry.sequence, record.map_err(|invalid| invalid.to_string())?));
            Ok(())
        })?;
        found.sort_unstable_by_key(|(sequence, _)| *sequence);
        let records = found.into_iter().map(|(_, record)| record).collect();
        Ok(Self { recovery, records })
    }

    /// What was written last and never synced, which does not count: after a crash there may be some.
    pub fn dropped(&self) -> Option<Dropped> {
        self.recovery.dropped()
    }

    /// What counts, in the order in which it was appended. Once: what is taken here is not loaded
    /// again.
    pub fn take_records(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }

    /// Begins to write.
    ///
    /// # Errors
    /// When it can't be written to. What counts is as it was.
    pub fn begin(self) -> Result<SegmentJournal<S>, OpenError> {
        self.begin_with(SEGMENT_BYTES)
    }

    /// As [`ReadJournal::begin`], with segments that are ended at so many bytes.
    ///
    /// # Errors
    /// As there.
    pub fn begin_with(self, segment_bytes: u64) -> Result<SegmentJournal<S>, OpenError> {
        let log = self.recovery.begin_with(segment_bytes)?;
        let bytes = Arc::new(AtomicU64::new(log.bytes().0));
        Ok(SegmentJournal { log, records: self.records, scratch: EncodedRecord::default(), bytes })
    }
}

impl<S: Storage> SegmentJournal<S> {
    /// Reads a journal, or begins one, to be written to.
    ///
    /// # Errors
    /// As [`ReadJournal::read`] and [`ReadJournal::begin`].
    pub fn open(storage: S) -> Result<(Self, Option<Dropped>), OpenError> {
        let read = ReadJournal::read(storage)?;
        let dropped = read.dropped();
        Ok((read.begin()?, dropped))
    }

    /// How many bytes its segments have, as of the last sync; it goes on to say so when the journal
    /// has been handed over.
    pub fn bytes(&self) -> Arc<AtomicU64> {
        self.bytes.clone()
    }

    fn try_append(&mut self, record: &Record) -> io::Result<()> {
        self.scratch.set(record);
        match self.scratch.value() {
            Some(value) => self.log.put(self.scratch.key(), value),
            None => self.log.delete(self.scratch.key()),
        }
    }

    fn count_bytes(&self) {
        self.bytes.store(self.log.bytes().0, Ordering::Relaxed);
    }

    /// Nothing was told of what was not synced: it shall not count at the next start.
    fn take_back(&mut self, error: io::Error) -> io::Error {
        match self.log.take_back() {
            Ok(()) => error,
            Err(second) => {
                let message = format!("{error}; nor can what was not synced be removed: {second}");
                io::Error::new(error.kind(), message)
            }
        }
    }
}

impl<S: Storage> Journal for SegmentJournal<S> {
    fn append(&mut self, record: &Record) -> io::Result<()> {
        self.try_append(record).map_err(|error| self.take_back(error))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.log.sync().map_err(|error| self.take_back(error))?;
        self.count_bytes();
        Ok(())
    }

    fn tidy(&mut self) -> io::Result<()> {
        self.log.compact().map_err(|error| self.take_back(error))?;
        self.count_bytes();
        Ok(())
    }

    fn is_durable(&self) -> bool {
        true
    }

    fn load(&mut self) -> io::Result<Vec<Record>> {
        Ok(std::mem::take(&mut self.records))
    }
}

#[cfg(test)]
mod tests;
