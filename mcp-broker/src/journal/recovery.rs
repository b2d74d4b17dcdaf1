//! What a log held when it was last used: read from its segments, of which none is changed.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use foldhash::fast::RandomState;

use super::compaction;
use super::entry::{self, Operation, Parsed};
use super::log::{Dropped, Entry, Log, OpenError, Place, SEGMENT_BYTES, Usage, following};
use super::storage::Storage;

/// A log that was read, and not written to yet.
#[derive(Debug)]
pub struct Recovery<S: Storage> {
    pub(super) storage: S,
    pub(super) index: HashMap<Bytes, Place, RandomState>,
    pub(super) live: BTreeMap<u64, Usage>,
    pub(super) sequence: u64,
    dropped: Option<Dropped>,
}

impl<S: Storage> Recovery<S> {
    /// Reads all segments, and gives each entry that counts to `visit`: the newest first. An entry is
    /// a slice of its segment, which is freed with it.
    ///
    /// # Errors
    /// When a segment can't be read, or is damaged; or what `visit` says of an entry.
    pub fn read(
        storage: S,
        mut visit: impl FnMut(Entry) -> Result<(), String>,
    ) -> Result<Self, OpenError> {
        let numbers = storage.list().map_err(OpenError::List)?;
        // Only the oldest is ever removed.
        if let Some(gap) = numbers.windows(2).find(|pair| pair[0] + 1 < pair[1]) {
            return Err(OpenError::Missing { segment: gap[0] + 1 });
        }
        let mut index = HashMap::<Bytes, Place, RandomState>::default();
        let mut ended = HashSet::<Bytes, RandomState>::default();
        let (mut live, mut sequence, mut dropped) = (BTreeMap::new(), 0, None);
        for &segment in numbers.iter().rev() {
            let bytes =
                storage.read(segment).map_err(|source| OpenError::Io { segment, source })?;
            let scan = entry::scan(&bytes, segment, Some(&segment) == numbers.last())
                .map_err(|damage| OpenError::Damaged { segment, damage })?;
            let kept_bytes = scan.torn.start as u64;
            if !scan.torn.is_empty() {
                let dropped_bytes = scan.torn.len() as u64;
                dropped = Some(Dropped { segment, kept_bytes, dropped_bytes });
            }
            let mut usage = Usage { layout: scan.layout, bytes: kept_bytes, live_bytes: 0 };
            for (place, parsed) in scan.entries.into_iter().rev() {
                let Parsed { operation, sequence: of_entry, key, value, .. } = parsed;
                sequence = sequence.max(of_entry);
                // What is newer counts.
                if index.contains_key(&key) || ended.contains(&key) {
                    continue;
                }
                // Not a slice of its segment, which would stay in memory as long as one key does.
                let name = Bytes::copy_from_slice(&key);
                if operation == Operation::Delete {
                    ended.insert(name);
                    continue;
                }
                let (offset, bytes) = (place.start as u64, place.len() as u64);
                visit(Entry { sequence: of_entry, key, value })
                    .map_err(|problem| OpenError::Entry { segment, offset, problem })?;
                usage.live_bytes += bytes;
                index.insert(name, Place { segment, offset, bytes });
            }
            live.insert(segment, usage);
        }
        Ok(Self { storage, index, live, sequence, dropped })
    }

    /// What [`Recovery::begin`] drops of the last segment.
    pub fn dropped(&self) -> Option<Dropped> {
        self.dropped
    }

    /// Begins a segment to write to. Drops what was never synced of the last one, and moves what
    /// counts of segments of an older schema to the new one.
    ///
    /// # Errors
    /// When that can't be written. What was read counts all the same, and can be read again.
    pub fn begin(self) -> Result<Log<S>, OpenError> {
        self.begin_with(SEGMENT_BYTES)
    }

    /// As [`Recovery::begin`], with segments that are ended at so many bytes: 64 MiB otherwise.
    ///
    /// # Errors
    /// As there.
    pub fn begin_with(mut self, segment_bytes: u64) -> Result<Log<S>, OpenError> {
        let mut number = 1;
        if let Some((&segment, usage)) = self.live.last_key_value() {
            let failed = |source| OpenError::Io { segment, source };
            if usage.bytes == 0 {
                self.storage.remove(segment).map_err(failed)?;
                self.live.remove(&segment);
                number = segment;
            } else {
                number = following(segment).map_err(failed)?;
                // Also what is whole: a process that was killed may not have synced all of it.
                self.storage.truncate(segment, usage.bytes).map_err(failed)?;
            }
        }
        let failed = |source| OpenError::Io { segment: number, source };
        let mut log = Log::begin(self, number, segment_bytes).map_err(failed)?;
        compaction::leave_older_schemas(&mut log).map_err(failed)?;
        Ok(log)
    }
}
