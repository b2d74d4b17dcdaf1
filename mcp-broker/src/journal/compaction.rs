//! Emptying the oldest segment, a part after each sync: what still counts in it is put again, and the
//! file removed once that is synced.

use std::io;

use super::entry::{self, Layout, MAX_ENTRY_BYTES, Operation, SCHEMA};
use super::log::{Log, Usage};
use super::storage::Storage;

/// Bytes of a segment that are looked through after one sync. What counts of them, mostly little, is
/// written with the next batch.
const STEP_BYTES: usize = 2 * 1024 * 1024;

/// Segments are emptied while what does not count is more than what does, and so many segments.
const TOLERATED_SEGMENTS: u64 = 2;

/// A segment that is being emptied.
#[derive(Debug)]
pub(super) struct Compaction {
    segment: u64,
    salt: u32,
    offset: u64,
    /// All of it is put again; with the next sync it may go.
    is_through: bool,
}

impl Compaction {
    /// Does the next part. Everything written so far is synced.
    pub(super) fn go_on<S: Storage>(of: &mut Option<Self>, log: &mut Log<S>) -> io::Result<()> {
        if let Some(it) = of.take_if(|it| it.is_through) {
            log.storage.remove(it.segment)?;
            log.live.remove(&it.segment);
        }
        loop {
            let Some((&oldest, usage)) = log.live.first_key_value() else { return Ok(()) };
            if oldest == log.number || of.is_some() {
                break;
            }
            if usage.live_bytes > 0 {
                if is_wasteful(log) {
                    *of = Self::new(oldest, usage);
                }
                break;
            }
            // Nothing in it counts, and its deletes have nothing before them to end.
            log.storage.remove(oldest)?;
            log.live.remove(&oldest);
        }
        let Some(it) = of else { return Ok(()) };
        it.step(log)
    }

    fn new(segment: u64, usage: &Usage) -> Option<Self> {
        let Layout { salt, header_bytes, .. } = usage.layout?;
        Some(Self { segment, salt, offset: header_bytes as u64, is_through: false })
    }

    fn step<S: Storage>(&mut self, log: &mut Log<S>) -> io::Result<()> {
        let part = log.storage.read_at(self.segment, self.offset, STEP_BYTES + MAX_ENTRY_BYTES)?;
        let mut at = 0;
        while at < STEP_BYTES
            && let Some((end, parsed)) = entry::read(&part, self.salt, at)
        {
            let offset = self.offset + at as u64;
            let counts = parsed.operation == Operation::Put
                && log
                    .index
                    .get(&parsed.key)
                    .is_some_and(|place| place.segment == self.segment && place.offset == offset);
            if counts {
                log.put_as(parsed.sequence, &parsed.key, &parsed.value)?;
            }
            at = end;
        }
        self.offset += at as u64;
        let bytes = log.live.get(&self.segment).map_or(0, |usage| usage.bytes);
        self.is_through = self.offset >= bytes;
        if !self.is_through && at == 0 {
            let message = format!("segment {} is damaged at byte {}", self.segment, self.offset);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(())
    }
}

/// Empties and removes the segments of an older schema. They are the oldest: a later schema is not read.
pub(super) fn leave_older_schemas<S: Storage>(log: &mut Log<S>) -> io::Result<()> {
    while let Some((&segment, usage)) = log.live.first_key_value()
        && usage.layout.is_some_and(|layout| layout.schema < SCHEMA)
        && let Some(mut it) = Compaction::new(segment, usage)
    {
        while !it.is_through {
            it.step(log)?;
        }
        log.sync_active()?;
        log.storage.remove(segment)?;
        log.live.remove(&segment);
    }
    Ok(())
}

fn is_wasteful<S: Storage>(log: &Log<S>) -> bool {
    let (bytes, live) = log.bytes();
    bytes - live > live + TOLERATED_SEGMENTS * log.segment_bytes
}
