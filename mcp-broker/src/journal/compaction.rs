//! Emptying the oldest segments, a part after each sync: what still counts in them is put again, and a
//! segment removed once that is synced.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::io;

use super::entry::{self, SCHEMA};
use super::log::{Log, Place, Usage};
use super::storage::Storage;

/// The part of a segment that is looked through after one sync: 2 MiB of 64. What counts of it, mostly
/// little, is written with the next batch.
const STEPS: u64 = 32;

/// Of the bytes that were put since the sync before, so many times as many are looked through, if that
/// is more: else segments could fill faster than they are emptied.
const PACE: u64 = 2;

/// Segments are emptied while what does not count is more than what does, and so many segments. Of 1 KiB
/// tasks that are settled at once, only the ids count, which are moved half as often as with 2 segments.
const TOLERATED_SEGMENTS: u64 = 4;

/// How far the emptying is.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    /// The oldest: all that counts of them is put again, and with the next sync they may go.
    through: VecDeque<u64>,
    /// The one after them.
    current: Option<Emptying>,
}

/// A segment that is being emptied.
#[derive(Debug)]
struct Emptying {
    segment: u64,
    salt: u32,
    /// What counted of it when this began and was not looked at yet, the first one last. Looking at the
    /// index once is an order of magnitude cheaper than parsing the segment, of which little counts.
    left: Vec<Place>,
}

impl Compaction {
    /// Does the next part, after so many bytes were put. Everything written so far is synced.
    pub(super) fn go_on<S: Storage>(&mut self, log: &mut Log<S>, put: u64) -> io::Result<()> {
        while let Some(segment) = self.through.pop_front() {
            log.remove(segment)?;
        }
        while self.current.is_none()
            && let Some((&oldest, usage)) = log.live.first_key_value()
            && usage.live_bytes == 0
            && oldest != log.number
        {
            // Nothing in it counts, and its deletes have nothing before them to end.
            log.remove(oldest)?;
        }
        let mut left = (PACE * put).max(step_bytes(log));
        while left > 0
            && let Some(mut it) = self.current.take().or_else(|| self.next(log))
        {
            if !it.is_through(log) {
                left = left.saturating_sub(it.step(log)?);
            }
            if it.is_through(log) {
                self.through.push_back(it.segment);
            } else {
                self.current = Some(it);
            }
        }
        Ok(())
    }

    /// The oldest segment that is not empty, if it is to be emptied.
    fn next<S: Storage>(&self, log: &Log<S>) -> Option<Emptying> {
        let mut void = 0;
        let mut counting = 0;
        for (segment, usage) in &log.live {
            let is_gone = self.through.contains(segment);
            void += if is_gone { 0 } else { usage.bytes - usage.live_bytes };
            counting += usage.live_bytes;
        }
        if void <= counting + TOLERATED_SEGMENTS * log.segment_bytes {
            return None;
        }
        let (segment, usage) = log.live.iter().find(|(it, _)| !self.through.contains(it))?;
        if *segment == log.number { None } else { Emptying::new(*segment, usage, log) }
    }
}

impl Emptying {
    fn new<S: Storage>(segment: u64, usage: &Usage, log: &Log<S>) -> Option<Self> {
        let salt = usage.layout?.salt;
        let places = log.index.values().filter(|place| place.segment == segment);
        let mut left: Vec<_> = places.copied().collect();
        left.sort_unstable_by_key(|place| Reverse(place.offset));
        Some(Self { segment, salt, left })
    }

    /// Whether nothing that counts is left in it.
    fn is_through<S: Storage>(&self, log: &Log<S>) -> bool {
        let usage = log.live.get(&self.segment);
        self.left.is_empty() || usage.is_none_or(|usage| usage.live_bytes == 0)
    }

    /// Returns how many bytes were looked through.
    fn step<S: Storage>(&mut self, log: &mut Log<S>) -> io::Result<u64> {
        let Some(start) = self.left.last().map(|place| place.offset) else { return Ok(0) };
        let step_bytes = step_bytes(log);
        let is_of_this = |place: &&Place| place.offset - start < step_bytes;
        let end = self.left.iter().rev().take_while(is_of_this).last();
        let bytes = end.map_or(0, |place| place.offset + place.bytes - start);
        let part = log.storage.read_at(self.segment, start, bytes as usize)?;
        while let Some(place) = self.left.pop_if(|place| is_of_this(&&*place)) {
            let at = (place.offset - start) as usize;
            let Some((_, entry)) = entry::read(&part, self.salt, at) else {
                let message =
                    format!("segment {} is damaged at byte {}", self.segment, place.offset);
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            };
            if log.index.get(&entry.key) == Some(&place) {
                log.put_as(entry.sequence, &entry.key, &entry.value)?;
            }
        }
        Ok(bytes)
    }
}

fn step_bytes<S: Storage>(log: &Log<S>) -> u64 {
    (log.segment_bytes / STEPS).max(1)
}

/// Empties and removes the segments of an older schema. They are the oldest: a later schema is not read.
pub(super) fn leave_older_schemas<S: Storage>(log: &mut Log<S>) -> io::Result<()> {
    while let Some((&segment, usage)) = log.live.first_key_value()
        && usage.layout.is_some_and(|layout| layout.schema < SCHEMA)
        && let Some(mut it) = Emptying::new(segment, usage, log)
    {
        while !it.is_through(log) {
            it.step(log)?;
        }
        log.sync_active()?;
        log.remove(segment)?;
    }
    Ok(())
}
