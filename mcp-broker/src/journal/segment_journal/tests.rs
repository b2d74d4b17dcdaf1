use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use mcp_proto::{Executed, Outcome, Payload, Task, TaskId};
use proptest::prelude::*;

use super::*;
use crate::broker::{AcceptedTask, Identity, SettledTask, TaskName};
use crate::journal::record::tests::record;
use crate::journal::tests::Forgetful;
use crate::journal::{Damage, Directory, Log, SegmentFile, inspect};

fn name(id: &str) -> TaskName {
    TaskName { identity: Identity::anonymous(), task_id: TaskId::try_from(id).unwrap() }
}

fn accepted(id: &str) -> Record {
    let task = Task::new(id.try_into().unwrap(), "a".try_into().unwrap());
    let payload = Payload::new(&task.encode(), "input".into(), &mut BytesMut::new());
    let task = AcceptedTask { payload, received_wall_ms: 1, start_wall_ms: 2, deadline_wall_ms: 3 };
    Record::Accepted(name(id), task)
}

fn settled(id: &str) -> Record {
    let settled = SettledTask { fingerprint: 1, executed: Executed::Yes, settled_wall_ms: 4 };
    Record::Settled(name(id), settled)
}

fn load<S: Storage>(storage: S) -> Result<(Vec<Record>, Option<Dropped>), OpenError> {
    let mut read = ReadJournal::read(storage)?;
    Ok((read.take_records(), read.dropped()))
}

/// Three batches of two records each in one segment.
fn written() -> (BTreeMap<u64, Vec<u8>>, Vec<Record>) {
    let storage = Forgetful::default();
    let (mut journal, _) = SegmentJournal::open(storage.clone()).unwrap();
    let records: Vec<_> = (0..6).map(|index| accepted(&format!("t-{index}"))).collect();
    for batch in records.chunks(2) {
        batch.iter().for_each(|record| journal.append(record).unwrap());
        journal.sync().unwrap();
    }
    (storage.segments(), records)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Of each task the newest record, and of each dead letter; in order.
    #[test]
    fn what_counts_is_loaded_once(records in proptest::collection::vec(record(), 0..20)) {
        let storage = Forgetful::default();
        let (mut journal, _) = SegmentJournal::open(storage.clone()).unwrap();
        let mut expected = Vec::<Record>::new();
        let is_dead = |it: &Record| matches!(it, Record::Dead(..) | Record::DeadForgotten(_));
        for record in &records {
            journal.append(record).unwrap();
            expected.retain(|it| (name_of(it), is_dead(it)) != (name_of(record), is_dead(record)));
            if !matches!(record, Record::Forgotten(_) | Record::DeadForgotten(_)) {
                expected.push(record.clone());
            }
        }
        journal.sync().unwrap();
        drop(journal);
        let (mut journal, dropped) = SegmentJournal::open(storage).unwrap();
        prop_assert_eq!(dropped, None);
        prop_assert_eq!(journal.load().unwrap(), expected);
        prop_assert_eq!(journal.load().unwrap(), vec![]);
    }
}

fn name_of(record: &Record) -> &TaskName {
    match record {
        Record::Accepted(name, _)
        | Record::Ended(name, _)
        | Record::Settled(name, _)
        | Record::Forgotten(name)
        | Record::Dead(name, _)
        | Record::DeadForgotten(name) => name,
    }
}

#[test]
fn cut_at_any_byte_it_has_what_is_whole_before_it_and_says_what_was_dropped() {
    let (segments, records) = written();
    let view = inspect(&Forgetful::of(&segments)).unwrap();
    let ends = view.records.iter().skip(1).map(|found| found.offset as usize);
    let whole = &segments[&1];
    let ends: Vec<_> = ends.chain([whole.len()]).collect();
    for cut in 0..whole.len() {
        let storage = Forgetful::of(&[(1, whole[..cut].to_vec())].into());
        let (mut journal, dropped) = SegmentJournal::open(storage.clone()).unwrap();
        let kept = ends.iter().filter(|end| **end <= cut).count();
        assert_eq!(journal.load().unwrap(), records[..kept], "cut at {cut}");
        let dropped = dropped.map_or(0, |it| {
            assert_eq!((it.segment, it.kept_bytes + it.dropped_bytes), (1, cut as u64));
            it.dropped_bytes
        });
        let start = if kept > 0 { ends[kept - 1] } else { view.records[0].offset as usize };
        let expected = if cut < start { cut } else { cut - start };
        assert_eq!(dropped, expected as u64, "cut at {cut}");
        // And it goes on.
        journal.append(&accepted("later")).unwrap();
        journal.sync().unwrap();
        assert_eq!(load(storage).unwrap().0.len(), kept + 1);
    }
}

#[test]
fn a_flipped_bit_before_a_later_batch_is_refused_with_its_place_and_nothing_is_changed() {
    let (segments, _) = written();
    let view = inspect(&Forgetful::of(&segments)).unwrap();
    let starts: Vec<_> = view.records.iter().map(|found| found.offset as usize).collect();
    let header = starts[0];
    for bit in 0..starts[4] * 8 {
        let mut damaged = segments.clone();
        damaged.get_mut(&1).unwrap()[bit / 8] ^= 1 << (bit % 8);
        let storage = Forgetful::of(&damaged);
        let error = SegmentJournal::open(storage.clone()).map(|_| ()).unwrap_err();
        match &error {
            OpenError::Damaged { segment: 1, damage: Damage::Header } => assert!(bit / 8 < header),
            OpenError::Damaged { segment: 1, damage: Damage::Entries(place) } => {
                let of_entry = starts.iter().rfind(|start| **start <= bit / 8).unwrap();
                assert_eq!(place.start, *of_entry, "bit {bit}");
                let told = format!("from byte {of_entry} on");
                assert!(error.to_string().contains(&told), "{error}");
            }
            other => panic!("bit {bit}: {other}"),
        }
        assert_eq!(storage.segments(), damaged);
    }
}

#[test]
fn an_entry_that_is_no_record_is_refused_with_its_place_and_nothing_is_changed() {
    let (segments, _) = written();
    let storage = Forgetful::of(&segments);
    let (mut log, ..) = Log::open(storage.clone()).unwrap();
    log.put(b"\x01\x01tanonymous", b"\x0a\x03abc").unwrap();
    log.sync().unwrap();
    let mut segments = storage.segments();
    // A torn end, which is not to be dropped either.
    let length = segments[&2].len();
    segments.get_mut(&2).unwrap().extend_from_within(28..60);
    let storage = Forgetful::of(&segments);
    let error = SegmentJournal::open(storage.clone()).map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::Entry { segment: 2, offset: 28, .. }), "{error}");
    assert_eq!(storage.segments(), segments);
    let view = inspect(&storage).unwrap();
    assert!(!view.is_sound());
    assert_eq!(view.segments[1].torn, Some(length as u64..length as u64 + 32));
}

#[test]
fn a_segment_that_is_missing_is_told() {
    let (mut segments, _) = written();
    let storage = Forgetful::of(&segments);
    drop(SegmentJournal::open(storage.clone()).unwrap());
    drop(SegmentJournal::open(storage.clone()).unwrap());
    segments = storage.segments();
    segments.remove(&2);
    let error = load(Forgetful::of(&segments)).unwrap_err();
    assert_eq!(error.to_string(), "segment 0000000000000002 is missing");
    assert_eq!(inspect(&Forgetful::of(&segments)).unwrap().missing, [2]);
}

/// A storage of which one operation fails, and those after it, too, when `for_good`.
struct Failing {
    storage: Forgetful,
    fuse: Fuse,
}

#[derive(Clone)]
struct Fuse {
    left: Arc<AtomicU64>,
    for_good: bool,
}

impl Fuse {
    fn burns(&self) -> io::Result<()> {
        match self.left.fetch_sub(1, Ordering::Relaxed) {
            0 => {}
            left if self.for_good && left > u64::MAX / 2 => {}
            _ => return Ok(()),
        }
        Err(io::ErrorKind::StorageFull.into())
    }
}

struct FailingFile(<Forgetful as Storage>::File, Fuse);

impl Storage for Failing {
    type File = FailingFile;

    fn list(&self) -> io::Result<Vec<u64>> {
        self.storage.list()
    }

    fn read(&self, number: u64) -> io::Result<Bytes> {
        self.storage.read(number)
    }

    fn read_at(&self, number: u64, offset: u64, bytes: usize) -> io::Result<Bytes> {
        self.storage.read_at(number, offset, bytes)
    }

    fn create(&mut self, number: u64, header: &[u8]) -> io::Result<FailingFile> {
        self.fuse.burns()?;
        Ok(FailingFile(self.storage.create(number, header)?, self.fuse.clone()))
    }

    fn truncate(&mut self, number: u64, bytes: u64) -> io::Result<()> {
        self.fuse.burns()?;
        self.storage.truncate(number, bytes)
    }

    fn remove(&mut self, number: u64) -> io::Result<()> {
        self.fuse.burns()?;
        self.storage.remove(number)
    }
}

impl SegmentFile for FailingFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let is_whole = self.1.burns();
        let part = if is_whole.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
        self.0.append(part)?;
        is_whole
    }

    fn sync(&mut self) -> io::Result<()> {
        self.1.burns()?;
        self.0.sync()
    }
}

fn failing_at(at: u64, storage: &Forgetful, for_good: bool) -> Failing {
    let left = Arc::new(AtomicU64::new(at));
    Failing { storage: storage.clone(), fuse: Fuse { left, for_good } }
}

/// Appends and syncs until it fails. Returns what was synced, and what was appended.
fn use_until_it_fails(storage: Failing) -> (usize, usize) {
    let Ok(read) = ReadJournal::read(storage) else { return (0, 0) };
    // So short that segments end within a batch.
    let Ok(log) = read.recovery.begin_with(150) else { return (0, 0) };
    let mut journal = SegmentJournal {
        log,
        records: Vec::new(),
        scratch: EncodedRecord::default(),
        bytes: Arc::default(),
    };
    let mut synced = 0;
    for index in 0..12 {
        if journal.append(&accepted(&format!("t-{index}"))).is_err() {
            return (synced, index + 1);
        }
        if index % 4 == 3 {
            if journal.sync().is_err() {
                return (synced, index + 1);
            }
            synced = index + 1;
            if journal.tidy().is_err() {
                return (synced, index + 1);
            }
        }
    }
    (synced, 12)
}

#[test]
fn whatever_fails_what_was_synced_is_there_and_of_the_rest_nothing_if_it_can_be_removed() {
    let mut fails = 0;
    for (at, for_good) in (0..).flat_map(|at| [(at, false), (at, true)]) {
        let storage = Forgetful::default();
        let (synced, appended) = use_until_it_fails(failing_at(at, &storage, for_good));
        let (found, _) = load(storage).unwrap();
        let all: Vec<_> = (0..12).map(|index| accepted(&format!("t-{index}"))).collect();
        assert!(found.len() >= synced && found == all[..found.len()], "{at}: {found:?}");
        if !for_good {
            assert_eq!(found.len(), synced, "{at}");
        }
        if (synced, appended) == (12, 12) {
            break;
        }
        fails += 1;
    }
    assert!(fails > 40, "{fails}");
}

#[test]
fn a_start_that_fails_loses_nothing() {
    let old =
        BTreeMap::from([(1, std::fs::read(schema_1().join("0000000000000001.seg")).unwrap())]);
    let expected = load(Forgetful::of(&old)).unwrap().0;
    let mut fails = 0;
    for at in 0.. {
        let storage = Forgetful::of(&old);
        let read = ReadJournal::read(failing_at(at, &storage, true)).unwrap();
        let begun = read.begin();
        assert_eq!(load(storage).unwrap().0, expected, "{at}");
        if begun.is_ok() {
            break;
        }
        fails += 1;
    }
    assert!(fails >= 4, "{fails}");
}

fn schema_1() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/journal/schema-1")
}

/// The file was written by the code that had schema 1.
#[test]
fn a_journal_of_schema_1_is_read_and_moved_to_the_present_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("0000000000000001.seg");
    std::fs::copy(schema_1().join("0000000000000001.seg"), &file).unwrap();
    let open = || SegmentJournal::open(Directory::open(dir.path()).unwrap()).unwrap();
    let (mut journal, dropped) = open();
    assert_eq!(dropped, None);
    let records = journal.load().unwrap();
    let ids: Vec<_> = records.iter().map(|it| name_of(it).task_id.as_str()).collect();
    assert_eq!(ids, ["waits", "ended", "settled", "dead"]);
    let Record::Accepted(name, task) = &records[0] else { panic!("{records:?}") };
    assert_eq!(
        (name.identity.as_str(), task.payload.body()),
        ("anonymous", &b"input of waits"[..])
    );
    assert_eq!(task.deadline_wall_ms, 1_700_000_060_001);
    let Record::Ended(_, ended) = &records[1] else { panic!("{records:?}") };
    assert_eq!((ended.fingerprint, &ended.body[..]), (7, &b"result"[..]));
    assert_eq!(ended.deliver.outcome, Outcome::Ok);
    let Record::Settled(name, settled) = &records[2] else { panic!("{records:?}") };
    assert_eq!((name.identity.as_str(), settled.executed), ("acme", Executed::Yes));
    let Record::Dead(_, letter) = &records[3] else { panic!("{records:?}") };
    assert_eq!((letter.attempts, letter.payload.body()), (3, &b"{\"a\":1}"[..]));
    drop(journal);

    assert!(!file.exists());
    let view = inspect(&Directory::look(dir.path())).unwrap();
    let schemas: Vec<_> = view.segments.iter().map(|it| (it.number, it.schema)).collect();
    assert_eq!(schemas, [(2, Some(2))]);
    let (mut journal, _) = open();
    assert_eq!(journal.load().unwrap(), records);
}

#[test]
fn an_old_journal_can_be_cut_and_damaged_like_any() {
    let whole = std::fs::read(schema_1().join("0000000000000001.seg")).unwrap();
    for cut in 0..whole.len() {
        load(Forgetful::of(&[(1, whole[..cut].to_vec())].into())).unwrap();
    }
    for byte in 0..300 {
        let mut damaged = whole.clone();
        damaged[byte] ^= 4;
        load(Forgetful::of(&[(1, damaged)].into())).unwrap_err();
    }
}

#[test]
fn what_can_only_be_looked_at_is_read_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = SegmentJournal::open(Directory::open(dir.path()).unwrap()).unwrap();
    journal.append(&accepted("t")).unwrap();
    journal.append(&settled("s")).unwrap();
    journal.sync().unwrap();
    assert!(Directory::look(dir.path()).is_in_use().unwrap());
    let busy = Directory::open(dir.path()).unwrap_err();
    assert_eq!(busy.kind(), io::ErrorKind::ResourceBusy);
    drop(journal);
    assert!(!Directory::look(dir.path()).is_in_use().unwrap());

    let before = std::fs::read(dir.path().join("0000000000000001.seg")).unwrap();
    let mut read = ReadJournal::read(Directory::look(dir.path())).unwrap();
    assert_eq!(read.take_records(), [accepted("t"), settled("s")]);
    let refused = read.begin().map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("only looked at"), "{refused}");
    assert_eq!(std::fs::read(dir.path().join("0000000000000001.seg")).unwrap(), before);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
}
