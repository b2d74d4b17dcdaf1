//! A disk in memory that forgets what was not synced, and can fail.
//!
//! While a step of the journal is under way, all that it does is noted, and counts only once the
//! step is settled. A crash before that ends it after any of its operations; of what was appended
//! and not synced by then, any part is lost.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use mcp_broker::journal::{SegmentFile, Storage};

use crate::rng::Rng;

/// The journal's segments. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<Segments>>);

#[derive(Debug, Default)]
struct Segments {
    /// As they are read.
    seen: Files,
    /// As they are after a crash that loses all that it may.
    kept: Files,
    /// From what is kept to what is seen.
    operations: Vec<Operation>,
    /// So many operations go well, and so many after them fail.
    fails: Option<(u64, u64)>,
    /// A planted fault: a sync does nothing.
    lies: bool,
}

/// Segments by number, and the one that was removed last, which is used again.
#[derive(Debug, Clone, Default)]
struct Files {
    segments: BTreeMap<u64, Vec<u8>>,
    spare: Vec<u8>,
}

#[derive(Debug)]
enum Operation {
    Create(u64, Vec<u8>),
    /// From a place on.
    Write(u64, usize, Vec<u8>),
    Sync(u64),
    Truncate(u64, usize),
    Remove(u64),
}

/// Written as one, or not at all.
const SECTOR_BYTES: usize = 16;

impl Disk {
    fn segments(&self) -> MutexGuard<'_, Segments> {
        self.0.lock().unwrap()
    }

    /// All that was done so far has reached the disk; what was appended and not synced may.
    pub(crate) fn settle(&self) {
        self.segments().settle();
    }

    /// The process is killed: what it did is there, as far as it got.
    pub(crate) fn kill(&self, rng: &mut Rng) {
        let mut it = self.segments();
        let done = rng.index(it.operations.len() + 1);
        it.operations.truncate(done);
        it.seen = it.kept.clone();
        let Segments { operations, seen, .. } = &mut *it;
        operations.iter().for_each(|operation| operation.apply(seen));
    }

    /// The power fails: of what was not synced any part is lost.
    pub(crate) fn crash(&self, rng: &mut Rng) {
        let mut it = self.segments();
        let done = rng.index(it.operations.len() + 1);
        it.operations.truncate(done);
        it.settle();
        for operation in std::mem::take(&mut it.operations) {
            let Operation::Write(number, place, mut bytes) = operation else { continue };
            if rng.chance(50) {
                bytes.truncate(rng.index(bytes.len() + 1));
            }
            let loses = rng.chance(50);
            for (index, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                if !loses || rng.chance(75) {
                    let place = place + index * SECTOR_BYTES;
                    Operation::Write(number, place, sector.to_vec()).apply(&mut it.kept);
                }
            }
        }
        it.seen = it.kept.clone();
    }

    /// After some operations, some fail.
    pub(crate) fn fail(&self, after: u64, count: u64) {
        self.segments().fails = Some((after, count));
    }

    /// It works again, whatever it did.
    pub(crate) fn repair(&self) {
        self.segments().fails = None;
    }

    /// From now on a sync is said to be done, and is not.
    pub(crate) fn lie(&self) {
        self.segments().lies = true;
    }
}

impl Operation {
    fn apply(&self, files: &mut Files) {
        let Files { segments, spare } = files;
        match self {
            Operation::Create(number, header) => {
                let mut segment = std::mem::take(spare);
                write(&mut segment, 0, header);
                segments.insert(*number, segment);
            }
            Operation::Write(number, place, bytes) => {
                if let Some(segment) = segments.get_mut(number) {
                    write(segment, *place, bytes);
                }
            }
            Operation::Sync(_) => {}
            Operation::Truncate(number, bytes) => {
                if let Some(segment) = segments.get_mut(number) {
                    segment.truncate(*bytes);
                }
            }
            Operation::Remove(number) => {
                *spare = segments.remove(number).unwrap_or_default();
            }
        }
    }

    /// The segment of which this is synced, with all before it.
    fn syncs(&self) -> Option<u64> {
        match self {
            Operation::Sync(number) | Operation::Truncate(number, _) => Some(*number),
            Operation::Create(..) | Operation::Write(..) | Operation::Remove(_) => None,
        }
    }
}

impl Segments {
    fn settle(&mut self) {
        let operations = std::mem::take(&mut self.operations);
        let mut synced = BTreeMap::new();
        for (index, operation) in operations.iter().enumerate() {
            if let Some(number) = operation.syncs() {
                synced.insert(number, index);
            }
        }
        for (index, operation) in operations.into_iter().enumerate() {
            match &operation {
                Operation::Write(number, ..) if synced.get(number).is_none_or(|at| *at < index) => {
                    self.operations.push(operation);
                }
                _ => operation.apply(&mut self.kept),
            }
        }
    }

    fn operate(&mut self, operation: Operation) -> io::Result<()> {
        match &mut self.fails {
            Some((0, 0)) => self.fails = None,
            Some((0, left)) => {
                *left -= 1;
                return Err(io::Error::other("the disk is broken"));
            }
            Some((after, _)) => *after -= 1,
            None => {}
        }
        if self.lies && matches!(operation, Operation::Sync(_)) {
            return Ok(());
        }
        operation.apply(&mut self.seen);
        self.operations.push(operation);
        Ok(())
    }
}

/// Writes over what a file has from there on, if it has anything.
fn write(file: &mut Vec<u8>, place: usize, bytes: &[u8]) {
    if file.len() < place + bytes.len() {
        file.resize(place + bytes.len(), 0);
    }
    file[place..place + bytes.len()].copy_from_slice(bytes);
}

fn is_missing(number: u64) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("there is no segment {number}"))
}

impl Storage for Disk {
    type File = Segment;

    fn list(&self) -> io::Result<Vec<u64>> {
        Ok(self.segments().seen.segments.keys().copied().collect())
    }

    fn read(&self, number: u64) -> io::Result<Bytes> {
        let it = self.segments();
        let segment = it.seen.segments.get(&number).ok_or_else(|| is_missing(number))?;
        Ok(Bytes::copy_from_slice(segment))
    }

    fn read_at(&self, number: u64, offset: u64, bytes: usize) -> io::Result<Bytes> {
        let segment = self.read(number)?;
        let start = (offset as usize).min(segment.len());
        Ok(segment.slice(start..segment.len().min(start + bytes)))
    }

    fn create(&mut self, number: u64, header: &[u8]) -> io::Result<Segment> {
        let mut it = self.segments();
        assert!(!it.seen.segments.contains_key(&number), "segment {number} is there");
        it.operate(Operation::Create(number, header.to_vec()))?;
        drop(it);
        Ok(Segment { disk: self.clone(), number, place: header.len() })
    }

    fn truncate(&mut self, number: u64, bytes: u64) -> io::Result<()> {
        self.segments().operate(Operation::Truncate(number, bytes as usize))
    }

    fn remove(&mut self, number: u64) -> io::Result<()> {
        self.segments().operate(Operation::Remove(number))
    }
}

/// A segment that is written to.
#[derive(Debug)]
pub(crate) struct Segment {
    disk: Disk,
    number: u64,
    place: usize,
}

impl SegmentFile for Segment {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let write = Operation::Write(self.number, self.place, bytes.to_vec());
        self.place += bytes.len();
        self.disk.segments().operate(write)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.segments().operate(Operation::Sync(self.number))
    }
}
