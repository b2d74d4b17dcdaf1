//! The log on a storage that forgets what was not synced.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use proptest::prelude::*;

use super::entry::{self, Operation};
use super::log::Log;
use super::storage::{SegmentFile, Storage};
use super::{Damage, Directory, Entry, OpenError};

/// So short that there are many.
const SEGMENT_BYTES: u64 = 400;

/// Segments in memory, which outlive the log that writes them.
#[derive(Debug, Clone, Default)]
pub(super) struct Forgetful(Arc<Mutex<Disk>>);

#[derive(Debug, Default)]
pub(super) struct Disk {
    segments: BTreeMap<u64, Kept>,
    /// One that was removed, to be the next one.
    spare: Vec<u8>,
}

#[derive(Debug, Clone, Default)]
struct Kept {
    bytes: Vec<u8>,
    /// What a crash leaves for sure.
    synced: Vec<u8>,
    /// Where the next bytes are written.
    end: usize,
}

impl Kept {
    fn sync(&mut self) {
        self.synced.clone_from(&self.bytes);
    }
}

impl Forgetful {
    /// Segments as they are.
    pub(super) fn of(segments: &BTreeMap<u64, Vec<u8>>) -> Self {
        let kept = |bytes: &Vec<u8>| Kept { bytes: bytes.clone(), synced: bytes.clone(), end: 0 };
        let segments = segments.iter().map(|(number, bytes)| (*number, kept(bytes))).collect();
        Self(Arc::new(Mutex::new(Disk { segments, spare: Vec::new() })))
    }

    /// All bytes.
    pub(super) fn segments(&self) -> BTreeMap<u64, Vec<u8>> {
        self.disk().segments.iter().map(|(number, kept)| (*number, kept.bytes.clone())).collect()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }

    /// Of each part of 16 bytes that was not synced, some are lost: what was there before is, or zeros
    /// are. So is the end, maybe.
    fn crash(&self, random: u64) {
        let mut random = random;
        let mut next = move || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) as usize
        };
        for kept in self.disk().segments.values_mut() {
            let grown = kept.bytes.len() - kept.synced.len();
            if next() % 2 == 0 {
                kept.bytes.truncate(kept.synced.len() + next() % (grown + 1));
            }
            kept.synced.resize(kept.bytes.len(), 0);
            for (part, before) in kept.bytes.chunks_mut(16).zip(kept.synced.chunks(16)) {
                if next() % 4 == 0 {
                    part.copy_from_slice(before);
                }
            }
            kept.sync();
        }
    }
}

pub(super) struct OpenSegment(Forgetful, u64);

impl Storage for Forgetful {
    type File = OpenSegment;

    fn list(&self) -> io::Result<Vec<u64>> {
        Ok(self.disk().segments.keys().copied().collect())
    }

    fn read(&self, number: u64) -> io::Result<Bytes> {
        Ok(Bytes::copy_from_slice(&self.disk().segments[&number].bytes))
    }

    fn read_at(&self, number: u64, offset: u64, bytes: usize) -> io::Result<Bytes> {
        let segment = self.read(number)?;
        let start = offset as usize;
        Ok(segment.slice(start..segment.len().min(start + bytes)))
    }

    fn create(&mut self, number: u64, header: &[u8]) -> io::Result<OpenSegment> {
        let mut disk = self.disk();
        let mut bytes = std::mem::take(&mut disk.spare);
        bytes.resize(bytes.len().max(header.len()), 0);
        bytes[..header.len()].copy_from_slice(header);
        let kept = Kept { synced: bytes.clone(), bytes, end: header.len() };
        assert!(disk.segments.insert(number, kept).is_none());
        Ok(OpenSegment(self.clone(), number))
    }

    fn truncate(&mut self, number: u64, bytes: u64) -> io::Result<()> {
        let mut disk = self.disk();
        let kept = disk.segments.get_mut(&number).unwrap();
        kept.bytes.truncate(bytes as usize);
        kept.sync();
        Ok(())
    }

    fn remove(&mut self, number: u64) -> io::Result<()> {
        let mut disk = self.disk();
        disk.spare = disk.segments.remove(&number).unwrap().bytes;
        Ok(())
    }
}

impl SegmentFile for OpenSegment {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.0.disk();
        let kept = disk.segments.get_mut(&self.1).unwrap();
        let end = kept.end + bytes.len();
        kept.bytes.resize(kept.bytes.len().max(end), 0);
        kept.bytes[kept.end..end].copy_from_slice(bytes);
        kept.end = end;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.disk().segments.get_mut(&self.1).unwrap().sync();
        Ok(())
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    Sync,
    Compact,
    Restart,
    Crash(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..12u8, any::<u8>()).prop_map(|(key, length)| Step::Put(key, length)),
        4 => (0..12u8).prop_map(Step::Delete),
        4 => Just(Step::Sync),
        4 => Just(Step::Compact),
        1 => Just(Step::Restart),
        1 => any::<u64>().prop_map(Step::Crash),
    ];
    prop::collection::vec(step, 1..200)
}

type Model = BTreeMap<u8, (u64, Vec<u8>)>;

fn model_of(entries: &[Entry]) -> Model {
    let ordered: Vec<_> = entries.iter().map(|entry| entry.sequence).collect();
    assert!(ordered.is_sorted(), "{ordered:?}");
    entries.iter().map(|it| (it.key[0], (it.sequence, it.value.to_vec()))).collect()
}

fn values(model: &Model) -> BTreeMap<u8, Vec<u8>> {
    model.iter().map(|(key, (_, value))| (*key, value.clone())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// What was synced is there after a crash, and of what was not a beginning, in order.
    #[test]
    fn a_crash_loses_nothing_that_was_synced(steps in steps()) {
        let storage = Forgetful::default();
        let open = || Log::open_with(storage.clone(), SEGMENT_BYTES).unwrap();
        let (mut log, ..) = open();
        let mut sequence = 0;
        // The state after each step since the last sync, the oldest is the one that was synced.
        let mut states = vec![Model::new()];
        for step in steps {
            let mut state = states.last().unwrap().clone();
            match step {
                Step::Put(key, length) => {
                    sequence += 1;
                    let value = vec![length; length.into()];
                    log.put(&[key], &value).unwrap();
                    state.insert(key, (sequence, value));
                    states.push(state);
                }
                Step::Delete(key) => {
                    log.delete(&[key]).unwrap();
                    state.remove(&key);
                    states.push(state);
                }
                Step::Sync => {
                    log.sync().unwrap();
                    states = vec![state];
                }
                Step::Compact => log.compact().unwrap(),
                Step::Restart => {
                    log.sync().unwrap();
                    let (next, entries, dropped) = open();
                    prop_assert_eq!(dropped, None);
                    prop_assert_eq!(values(&model_of(&entries)), values(&state));
                    (log, states) = (next, vec![model_of(&entries)]);
                }
                Step::Crash(random) => {
                    storage.crash(random);
                    let (next, entries, _) = open();
                    let found = model_of(&entries);
                    let is_one = states.iter().any(|state| values(state) == values(&found));
                    prop_assert!(is_one, "{:?} is none of {:?}", found, states);
                    (log, states) = (next, vec![found]);
                }
            }
            sequence = sequence.max(states.last().unwrap().values().map(|it| it.0).max().unwrap_or(0));
            prop_assert_eq!(log.len(), states.last().unwrap().len());
        }
    }
}

#[test]
fn old_segments_are_emptied() {
    let storage = Forgetful::default();
    let (mut log, ..) = Log::open_with(storage.clone(), 1024 * 1024).unwrap();
    log.put(b"kept", b"forever").unwrap();
    let value = vec![7; 100_000];
    for round in 0..5_000u32 {
        log.put(&(round % 10).to_le_bytes(), &value).unwrap();
        if round % 10 == 0 {
            log.sync().unwrap();
            log.compact().unwrap();
        }
    }
    let (bytes, live) = log.bytes();
    assert!(live > 1_000_000 && bytes < 200 * 1024 * 1024, "{bytes} bytes for {live}");
    let (_, entries, _) = Log::open_with(storage, 1024 * 1024).unwrap();
    assert_eq!((&*entries[0].key, entries.len()), (&b"kept"[..], 11));
}

#[test]
fn segments_are_emptied_as_fast_as_others_are_filled() {
    const SEGMENT_BYTES: u64 = 64 * 1024;
    let (mut log, ..) = Log::open_with(Forgetful::default(), SEGMENT_BYTES).unwrap();
    let value = vec![7; 1_000];
    let mut most = 0;
    for round in 0..1_000u32 {
        // In each segment, something counts to the end.
        log.put(&(1_000_000 + round).to_le_bytes(), &[1; 100]).unwrap();
        for key in 0..256u32 {
            log.put(&key.to_le_bytes(), &value).unwrap();
        }
        log.sync().unwrap();
        log.compact().unwrap();
        most = most.max(log.bytes().0);
    }
    let (_, live) = log.bytes();
    // What is written between two syncs comes on top: 4 segments.
    assert!(most < 2 * live + 10 * SEGMENT_BYTES, "{most} bytes for {live}");
}

#[test]
fn a_directory_keeps_it_and_a_flipped_bit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Directory::open(&dir.path().join("journal")).map(Log::open).unwrap();
    let (mut log, entries, _) = open().unwrap();
    assert!(entries.is_empty());
    log.put(b"a", b"1").unwrap();
    log.sync().unwrap();
    log.put(b"b", b"2").unwrap();
    log.delete(b"a").unwrap();
    log.sync().unwrap();
    drop(log);
    let (log, entries, dropped) = open().unwrap();
    assert_eq!((entries.len(), &*entries[0].key, dropped), (1, &b"b"[..], None));
    drop(log);

    let file = dir.path().join("journal/0000000000000001.seg");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[49] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let error = open().unwrap_err();
    let is_named = matches!(
        error,
        OpenError::Damaged { segment: 1, damage: Damage::Entries(ref place) } if place.start == 28
    );
    assert!(is_named, "{error}");
}

#[test]
fn numbers_that_end_are_refused() {
    let segment_of = |number: u64, sequence: u64| {
        let mut bytes = entry::segment_header(number, 1).to_vec();
        entry::write(&mut bytes, 1, 0, Operation::Put, sequence, b"key", b"value");
        let storage = Forgetful::default();
        storage.disk().segments.insert(number, Kept { bytes, ..Kept::default() });
        storage
    };
    let (mut log, entries, _) = Log::open(segment_of(1, u64::MAX)).unwrap();
    assert_eq!(entries[0].sequence, u64::MAX);
    assert!(log.put(b"other", b"value").is_err());
    log.delete(b"key").unwrap();
    let error = Log::open(segment_of(u64::MAX, 1)).err().unwrap();
    assert!(matches!(error, OpenError::Io { segment: u64::MAX, .. }), "{error}");
}

#[test]
fn the_file_of_a_removed_segment_is_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Log::open_with(Directory::open(dir.path()).unwrap(), SEGMENT_BYTES).unwrap();
    let (mut log, ..) = open();
    for round in 0..20u8 {
        log.put(b"key", &[round; 150]).unwrap();
        log.sync().unwrap();
        log.compact().unwrap();
    }
    drop(log);
    let files = std::fs::read_dir(dir.path()).unwrap().count();
    assert!(files <= 3, "{files} files");
    let (_, entries, dropped) = open();
    assert_eq!((entries.len(), entries[0].value[0], dropped), (1, 19, None));
}
