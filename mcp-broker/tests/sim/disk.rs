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
    seen: BTreeMap<u64, Vec<u8>>,
    /// As they are after a crash that loses all that it may.
    kept: BTreeMap<u64, Vec<u8>>,
    /// From what is kept to what is seen.
    operations: Vec<Operation>,
    /// Operations until the next one fails.
    fails_in: Option<u64>,
    /// A planted fault: a sync does nothing.
    pub(crate) lies: bool,
}

#[derive(Debug)]
enum Operation {
    Create(u64),
    Append(u64, Vec<u8>),
    Sync(u64),
    Truncate(u64, u64),
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
        it.fails_in = None;
    }

    /// The power fails: of what was not synced any part is lost.
    pub(crate) fn crash(&self, rng: &mut Rng) {
        let mut it = self.segments();
        let done = rng.index(it.operations.len() + 1);
        it.operations.truncate(done);
        it.settle();
        for operation in std::mem::take(&mut it.operations) {
            let Operation::Append(number, mut bytes) = operation else { continue };
            if rng.chance(50) {
                bytes.truncate(rng.index(bytes.len() + 1));
            }
            if rng.chance(50) {
                for sector in bytes.chunks_mut(SECTOR_BYTES) {
                    if rng.chance(25) {
                        sector.fill(0);
                    }
                }
            }
            Operation::Append(number, bytes).apply(&mut it.kept);
        }
        it.seen = it.kept.clone();
        it.fails_in = None;
    }

    /// An operation soon fails, and all after it.
    pub(crate) fn fail_soon(&self, operations: u64) {
        self.segments().fails_in = Some(operations);
    }

    /// It works again, whatever it did.
    pub(crate) fn repair(&self) {
        self.segments().fails_in = None;
    }

    /// From now on a sync is said to be done, and is not.
    pub(crate) fn lie(&self) {
        self.segments().lies = true;
    }
}

impl Operation {
    fn apply(&self, segments: &mut BTreeMap<u64, Vec<u8>>) {
        match self {
            Operation::Create(number) => {
                segments.insert(*number, Vec::new());
            }
            Operation::Append(number, bytes) => {
                if let Some(segment) = segments.get_mut(number) {
                    segment.extend_from_slice(bytes);
                }
            }
            Operation::Sync(_) => {}
            Operation::Truncate(number, bytes) => {
                if let Some(segment) = segments.get_mut(number) {
                    segment.truncate(*bytes as usize);
                }
            }
            Operation::Remove(number) => {
                segments.remove(number);
            }
        }
    }

    /// The segment of which this is synced, with all before it.
    fn syncs(&self) -> Option<u64> {
        match self {
            Operation::Sync(number) | Operation::Truncate(number, _) => Some(*number),
            Operation::Create(_) | Operation::Append(..) | Operation::Remove(_) => None,
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
                Operation::Append(number, _) if synced.get(number).is_none_or(|at| *at < index) => {
                    self.operations.push(operation);
                }
                _ => operation.apply(&mut self.kept),
            }
        }
    }

    fn operate(&mut self, operation: Operation) -> io::Result<()> {
        if let Some(left) = &mut self.fails_in {
            if *left == 0 {
                return Err(io::Error::other("the disk is broken"));
            }
            *left -= 1;
        }
        if self.lies && matches!(operation, Operation::Sync(_)) {
            return Ok(());
        }
        self.operations.push(operation);
        Ok(())
    }
}

fn is_missing(number: u64) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("there is no segment {number}"))
}

impl Storage for Disk {
    type File = Segment;

    fn list(&self) -> io::Result<Vec<u64>> {
        Ok(self.segments().seen.keys().copied().collect())
    }

    fn read(&self, number: u64) -> io::Result<Bytes> {
        let it = self.segments();
        it.seen.get(&number).map(|it| Bytes::copy_from_slice(it)).ok_or_else(|| is_missing(number))
    }

    fn read_at(&self, number: u64, offset: u64, bytes: usize) -> io::Result<Bytes> {
        let segment = self.read(number)?;
        let start = (offset as usize).min(segment.len());
        Ok(segment.slice(start..segment.len().min(start + bytes)))
    }

    fn create(&mut self, number: u64) -> io::Result<Segment> {
        let mut it = self.segments();
        it.operate(Operation::Create(number))?;
        assert!(it.seen.insert(number, Vec::new()).is_none(), "segment {number} is there");
        drop(it);
        Ok(Segment(self.clone(), number))
    }

    fn truncate(&mut self, number: u64, bytes: u64) -> io::Result<()> {
        let mut it = self.segments();
        it.operate(Operation::Truncate(number, bytes))?;
        let segment = it.seen.get_mut(&number).ok_or_else(|| is_missing(number))?;
        segment.truncate(bytes as usize);
        Ok(())
    }

    fn remove(&mut self, number: u64) -> io::Result<()> {
        let mut it = self.segments();
        it.operate(Operation::Remove(number))?;
        it.seen.remove(&number).map(|_| ()).ok_or_else(|| is_missing(number))
    }
}

/// A segment that is written to.
#[derive(Debug)]
pub(crate) struct Segment(Disk, u64);

impl SegmentFile for Segment {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut it = self.0.segments();
        let segment = it.seen.get_mut(&self.1).ok_or_else(|| is_missing(self.1))?;
        segment.extend_from_slice(bytes);
        it.operate(Operation::Append(self.1, bytes.to_vec()))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.segments().operate(Operation::Sync(self.1))
    }
}
