//! The log: appending, syncing, and what it held at its start.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::io;

use bytes::Bytes;
use foldhash::fast::RandomState;

use super::compaction::Compaction;
use super::entry::{
    self, Damage, Layout, MAX_KEY_BYTES, MAX_VALUE_BYTES, Operation, SEGMENT_HEADER_BYTES,
};
use super::recovery::Recovery;
use super::storage::{SegmentFile, Storage};

/// A segment is ended once it has this many bytes: what one start reads at once, and what is emptied
/// and removed in one piece.
pub(super) const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes that are gathered before they are written.
const BUFFER_BYTES: usize = 1024 * 1024;

/// What counts, at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Grows with each put of a new value.
    pub sequence: u64,
    /// As it was put.
    pub key: Bytes,
    /// As it was put.
    pub value: Bytes,
}

/// The end of the last segment, which was never synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    /// The segment.
    pub segment: u64,
    /// Bytes from its beginning that were kept.
    pub kept_bytes: u64,
    /// Bytes after them.
    pub dropped_bytes: u64,
}

/// Why a log can't be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A segment can't be read or written.
    #[error("segment {segment:016}: {source}")]
    Io {
        /// The segment.
        segment: u64,
        /// Why.
        source: io::Error,
    },
    /// The segments can't be listed.
    #[error("{0}")]
    List(io::Error),
    /// A segment is not what was written.
    #[error("segment {segment:016} is damaged: {damage}")]
    Damaged {
        /// The segment.
        segment: u64,
        /// How.
        damage: Damage,
    },
    /// A segment is not there, and older ones are.
    #[error("segment {segment:016} is missing")]
    Missing {
        /// The segment.
        segment: u64,
    },
    /// An entry is as it was written, and yet is not what this log is for.
    #[error("segment {segment:016} has an entry at byte {offset} that is no record: {problem}")]
    Entry {
        /// The segment.
        segment: u64,
        /// Where it begins.
        offset: u64,
        /// What is wrong with it.
        problem: String,
    },
}

/// A log of keys and values. See the [module](super).
#[derive(Debug)]
pub struct Log<S: Storage> {
    pub(super) storage: S,
    active: S::File,
    pub(super) number: u64,
    salt: u32,
    /// Bytes of the active segment, those included that are still in the buffer.
    length: u64,
    buffer: Vec<u8>,
    /// Where in the active segment the first entry lies that is not synced.
    batch: u64,
    /// The last segment and its bytes, as of the last sync.
    synced: (u64, u64),
    sequence: u64,
    /// What counts, and where it is.
    pub(super) index: HashMap<Bytes, Place, RandomState>,
    /// Bytes of entries that count, by segment; every segment has an entry.
    pub(super) live: BTreeMap<u64, Usage>,
    compaction: Compaction,
    /// Bytes that were put or deleted since old segments were emptied last.
    put_bytes: u64,
    pub(super) segment_bytes: u64,
}

/// Where the put of a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

/// How full a segment is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    /// None of one that was cut off within its header.
    pub(super) layout: Option<Layout>,
    pub(super) bytes: u64,
    pub(super) live_bytes: u64,
}

impl<S: Storage> Log<S> {
    /// Opens a log, or begins one. Returns what counts, in the order in which it was put, and what
    /// was dropped of the last segment.
    ///
    /// # Errors
    /// When a segment can't be read, or is damaged; nothing has been changed then.
    pub fn open(storage: S) -> Result<(Self, Vec<Entry>, Option<Dropped>), OpenError> {
        Self::open_with(storage, SEGMENT_BYTES)
    }

    pub(super) fn open_with(
        storage: S,
        segment_bytes: u64,
    ) -> Result<(Self, Vec<Entry>, Option<Dropped>), OpenError> {
        let mut entries = Vec::new();
        let recovery = Recovery::read(storage, |entry| {
            entries.push(entry);
            Ok(())
        })?;
        entries.sort_unstable_by_key(|entry| entry.sequence);
        let dropped = recovery.dropped();
        Ok((recovery.begin_with(segment_bytes)?, entries, dropped))
    }

    /// Goes on in a new segment.
    pub(super) fn begin(read: Recovery<S>, number: u64, segment_bytes: u64) -> io::Result<Self> {
        let Recovery { mut storage, index, live, sequence, .. } = read;
        let (active, salt) = begin(&mut storage, number)?;
        let mut log = Self {
            storage,
            active,
            number,
            salt,
            length: 0,
            buffer: Vec::new(),
            batch: 0,
            synced: (number, SEGMENT_HEADER_BYTES as u64),
            sequence,
            index,
            live,
            compaction: Compaction::default(),
            put_bytes: 0,
            segment_bytes,
        };
        log.is_begun();
        Ok(log)
    }

    /// Puts a value under a key, in place of the one before. It counts after a crash once it is
    /// synced.
    ///
    /// # Errors
    /// When it can't be written; the log is not to be used any more. When the key or the value is
    /// too long; nothing has changed then.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if key.len() > MAX_KEY_BYTES || value.len() > MAX_VALUE_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a key of {} bytes with a value of {}", key.len(), value.len()),
            ));
        }
        self.sequence = following(self.sequence)?;
        self.put_bytes += self.put_as(self.sequence, key, value)?;
        Ok(())
    }

    /// Returns how many bytes it takes.
    pub(super) fn put_as(&mut self, sequence: u64, key: &[u8], value: &[u8]) -> io::Result<u64> {
        let (offset, bytes) = self.write(Operation::Put, sequence, key, value)?;
        let place = Place { segment: self.number, offset, bytes };
        if let Some(usage) = self.live.get_mut(&self.number) {
            usage.live_bytes += bytes;
        }
        let before = match self.index.get_mut(key) {
            Some(known) => Some(std::mem::replace(known, place)),
            None => self.index.insert(Bytes::copy_from_slice(key), place),
        };
        self.forget(before);
        Ok(bytes)
    }

    /// Ends what was put under a key; of one that has nothing, nothing is written.
    ///
    /// # Errors
    /// When it can't be written; the log is not to be used any more.
    pub fn delete(&mut self, key: &[u8]) -> io::Result<()> {
        let Some(place) = self.index.remove(key) else { return Ok(()) };
        self.forget(Some(place));
        let (_, bytes) = self.write(Operation::Delete, self.sequence, key, &[])?;
        self.put_bytes += bytes;
        Ok(())
    }

    fn forget(&mut self, place: Option<Place>) {
        if let Some(place) = place
            && let Some(usage) = self.live.get_mut(&place.segment)
        {
            usage.live_bytes -= place.bytes;
        }
    }

    /// Brings everything to disk that was put or deleted.
    ///
    /// # Errors
    /// When that can't be said for sure; the log is not to be used any more.
    pub fn sync(&mut self) -> io::Result<()> {
        self.sync_active()?;
        self.synced = (self.number, self.length);
        Ok(())
    }

    /// Empties old segments a little: some MiB, or twice as many bytes as were put since the last time.
    /// Does nothing while something is not synced.
    ///
    /// # Errors
    /// When a segment can't be read, written or removed; the log is not to be used any more. Whatever
    /// was synced is on disk all the same.
    pub fn compact(&mut self) -> io::Result<()> {
        if self.batch != self.length {
            return Ok(());
        }
        let put_bytes = std::mem::take(&mut self.put_bytes);
        let mut compaction = std::mem::take(&mut self.compaction);
        compaction.go_on(self, put_bytes)?;
        self.compaction = compaction;
        Ok(())
    }

    /// After a failure: removes what was put or deleted since the last sync that did not fail. Nobody
    /// was told that it is on disk, and after a failed sync it can be read from the system's memory
    /// and yet not be there, which a later start could not tell.
    ///
    /// # Errors
    /// When that can't be done for sure.
    pub fn take_back(&mut self) -> io::Result<()> {
        let (last, bytes) = self.synced;
        for later in self.storage.list()?.into_iter().rev().take_while(|it| *it > last) {
            self.storage.remove(later)?;
        }
        self.storage.truncate(last, bytes)
    }

    /// Bytes of all segments, and of those entries that count.
    pub fn bytes(&self) -> (u64, u64) {
        self.live
            .values()
            .fold((0, 0), |(bytes, live), usage| (bytes + usage.bytes, live + usage.live_bytes))
    }

    /// How many keys have a value.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether no key has a value.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    pub(super) fn remove(&mut self, segment: u64) -> io::Result<()> {
        self.storage.remove(segment)?;
        self.live.remove(&segment);
        Ok(())
    }

    pub(super) fn sync_active(&mut self) -> io::Result<()> {
        if self.batch == self.length {
            return Ok(());
        }
        self.flush()?;
        self.active.sync()?;
        self.batch = self.length;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.active.append(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    fn write(
        &mut self,
        operation: Operation,
        sequence: u64,
        key: &[u8],
        value: &[u8],
    ) -> io::Result<(u64, u64)> {
        if self.length >= self.segment_bytes {
            self.roll()?;
        }
        let offset = self.length;
        let batch = self.batch as u32;
        let bytes =
            entry::write(&mut self.buffer, self.salt, batch, operation, sequence, key, value);
        let bytes = bytes as u64;
        self.length += bytes;
        if let Some(usage) = self.live.get_mut(&self.number) {
            usage.bytes = self.length;
        }
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        Ok((offset, bytes))
    }

    /// Goes on in a new segment. The one before is on disk first: only the last one may end in what
    /// is not.
    fn roll(&mut self) -> io::Result<()> {
        self.sync_active()?;
        self.storage.truncate(self.number, self.length)?;
        self.number = following(self.number)?;
        (self.active, self.salt) = begin(&mut self.storage, self.number)?;
        self.is_begun();
        Ok(())
    }

    fn is_begun(&mut self) {
        self.length = SEGMENT_HEADER_BYTES as u64;
        self.batch = self.length;
        let layout = Some(Layout::new(self.salt));
        self.live.insert(self.number, Usage { layout, bytes: self.length, live_bytes: 0 });
    }
}

/// The next segment's number, or the next put's. A log that was not tampered with never runs out of them.
pub(super) fn following(number: u64) -> io::Result<u64> {
    number.checked_add(1).ok_or_else(|| io::Error::other(format!("no number follows {number}")))
}

fn begin<S: Storage>(storage: &mut S, number: u64) -> io::Result<(S::File, u32)> {
    // Not zero, which holes consist of.
    let salt = std::hash::RandomState::new().hash_one(number) as u32 | 1;
    let file = storage.create(number, &entry::segment_header(number, salt))?;
    Ok((file, salt))
}
