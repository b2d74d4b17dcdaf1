//! The segments of a journal's log.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use mcp_broker::journal::{Entry, Log, OpenError, SegmentFile, Storage};

use crate::input::Input;
use crate::memory;

/// What opening takes at most for each byte: an entry has 28 or more, and its places in lists and
/// indexes, which are copied when they grow, some 400.
const MAX_PER_BYTE: usize = 64;
const MAX_OTHERWISE: usize = 64 * 1024;

const SCHEMA: u32 = 2;
/// What entries begin with, before that was told by the header of their segment, and since then.
const SALT_1: u32 = 0xfa5e_57ed;
const SALT: u32 = 0x5a17_5a17;

/// Whatever lies in its segments: a log is opened or refused. Refused, nothing of it is changed; opened,
/// it has what was written, takes more, and has the same when it is opened again.
///
/// A sequence of steps that write segments, and damage them; see `Writer::step`.
pub fn journal_segment(data: &[u8]) {
    let mut writer = Writer::new();
    let mut input = Input::new(data);
    while !input.is_empty() {
        writer.step(&mut input);
    }
    let Writer { segments, expected, .. } = writer;
    let bytes: usize = segments.values().map(Vec::len).sum();
    let storage = Memory(Arc::new(Mutex::new(segments.clone())));
    let max_bytes = MAX_PER_BYTE * bytes + MAX_OTHERWISE;
    let (log, entries) = match memory::within(max_bytes, || Log::open(storage.clone())) {
        Ok((log, entries, _)) => (log, entries),
        Err(error) => {
            assert!(expected.is_none(), "{error}");
            if matches!(error, OpenError::Damaged { .. }) {
                assert_eq!(*storage.0.lock().unwrap(), segments);
            }
            return;
        }
    };
    let found = values(&entries);
    assert_eq!((found.len(), log.len()), (entries.len(), entries.len()));
    assert!(entries.is_sorted_by_key(|entry| entry.sequence));
    if let Some(expected) = expected {
        assert_eq!(found, expected);
    }
    // Each opening begins another segment.
    if storage.list().unwrap().last() < Some(&(u64::MAX - 8)) {
        goes_on(log, &storage, found);
    }
}

type Values = BTreeMap<Vec<u8>, Vec<u8>>;

fn values(entries: &[Entry]) -> Values {
    entries.iter().map(|it| (it.key.to_vec(), it.value.to_vec())).collect()
}

/// A log that was opened takes more, and loses nothing.
fn goes_on(mut log: Log<Memory>, storage: &Memory, mut values_now: Values) {
    let again = || Log::open(storage.clone()).unwrap();
    let (_, entries, dropped) = again();
    assert_eq!((values(&entries), dropped), (values_now.clone(), None));
    // The one that was opened last begins another segment, so the first may not go on.
    drop(log);
    (log, ..) = again();
    if let Some(key) = values_now.keys().next().cloned() {
        log.delete(&key).unwrap();
        values_now.remove(&key);
    }
    let is_put = log.put(b"new", b"value").is_ok();
    if is_put {
        values_now.insert(b"new".to_vec(), b"value".to_vec());
    }
    log.sync().unwrap();
    let (_, entries, dropped) = again();
    assert_eq!((values(&entries), dropped), (values_now, None));
    let last = entries.last().map(|entry| &*entry.key);
    assert!(!is_put || last == Some(b"new"), "{last:?}");
}

/// Writes segments as their layout has it, and otherwise.
struct Writer {
    segments: BTreeMap<u64, Vec<u8>>,
    /// The one that is written to.
    number: u64,
    salt: u32,
    sequence: u64,
    /// Where in it the first entry lies that was not synced.
    batch: u32,
    /// What is there as long as nothing was damaged.
    expected: Option<Values>,
}

impl Writer {
    fn new() -> Self {
        let mut writer = Self {
            segments: BTreeMap::new(),
            number: 0,
            salt: 0,
            sequence: 0,
            batch: 0,
            expected: Some(Values::new()),
        };
        writer.begin(1, SCHEMA);
        writer
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let step = input.byte();
        let variant = step >> 4;
        match step & 0xf {
            0..=3 => {
                let (key, length) = (input.byte() % 8, usize::from(input.byte()));
                self.sequence += 1;
                self.entry(1, self.sequence, &[key], &vec![key; length]);
                if let Some(expected) = &mut self.expected {
                    expected.insert(vec![key], vec![key; length]);
                }
            }
            4 => {
                let key = input.byte() % 8;
                self.entry(2, self.sequence, &[key], b"");
                if let Some(expected) = &mut self.expected {
                    expected.remove(&[key][..]);
                }
            }
            5 | 6 => self.batch = self.active().len() as u32,
            7 => self.begin(self.number.saturating_add(1), SCHEMA - u32::from(variant & 1)),
            8 => {
                // Anything that checks.
                self.expected = None;
                let batch = if variant & 1 == 0 { self.batch } else { self.active().len() as u32 };
                let payload = input.bytes(usize::from(variant) * 16);
                self.checked(payload.len() as u32, batch, payload);
            }
            9 => {
                self.expected = None;
                let sequence = u64::MAX - u64::from(variant & 3);
                self.entry(1 + (variant >> 2), sequence, &[input.byte()], b"last");
            }
            10 => {
                self.expected = None;
                let bytes = input.bytes(usize::from(variant) * 8);
                self.active().extend_from_slice(bytes);
            }
            11 => {
                self.expected = None;
                let segment = self.active();
                segment.truncate(segment.len().saturating_sub(input.byte().into()));
            }
            12 => {
                self.expected = None;
                let at = usize::from(input.byte()) << 8 | usize::from(input.byte());
                let segment = self.active();
                if !segment.is_empty() {
                    let at = at % segment.len();
                    segment[at] ^= 1 << (variant & 7);
                }
            }
            13 => {
                self.expected = None;
                let bytes: [u8; 8] = std::array::from_fn(|_| input.byte());
                self.begin(u64::from_le_bytes(bytes), variant.into());
            }
            14 => {
                self.expected = None;
                self.checked(u32::MAX >> variant, self.batch, input.bytes(16));
            }
            _ => {
                self.expected = None;
                self.segments.remove(&self.number);
                self.begin(self.number, SCHEMA);
            }
        }
    }

    fn active(&mut self) -> &mut Vec<u8> {
        self.segments.entry(self.number).or_default()
    }

    fn begin(&mut self, number: u64, schema: u32) {
        let mut header = b"MCPJRNL\n".to_vec();
        header.extend_from_slice(&schema.to_le_bytes());
        header.extend_from_slice(&number.to_le_bytes());
        self.salt = if schema == 1 { SALT_1 } else { SALT };
        if schema > 1 {
            header.extend_from_slice(&self.salt.to_le_bytes());
        }
        let crc = crc32fast::hash(&header);
        header.extend_from_slice(&crc.to_le_bytes());
        (self.number, self.batch) = (number, header.len() as u32);
        self.segments.insert(number, header);
    }

    fn entry(&mut self, operation: u8, sequence: u64, key: &[u8], value: &[u8]) {
        let mut payload = vec![operation];
        payload.extend_from_slice(&sequence.to_le_bytes());
        payload.extend_from_slice(&(key.len() as u16).to_le_bytes());
        payload.extend_from_slice(key);
        payload.extend_from_slice(value);
        self.checked(payload.len() as u32, self.batch, &payload);
    }

    /// An entry whose checksum is right.
    fn checked(&mut self, length: u32, batch: u32, payload: &[u8]) {
        let mut entry = self.salt.to_le_bytes().to_vec();
        entry.extend_from_slice(&length.to_le_bytes());
        entry.extend_from_slice(&batch.to_le_bytes());
        let mut crc = crc32fast::Hasher::new();
        crc.update(&entry);
        crc.update(payload);
        entry.extend_from_slice(&crc.finalize().to_le_bytes());
        entry.extend_from_slice(payload);
        self.active().extend_from_slice(&entry);
    }
}

/// Segments in memory.
#[derive(Debug, Clone)]
struct Memory(Arc<Mutex<BTreeMap<u64, Vec<u8>>>>);

struct Active(Memory, u64);

impl Memory {
    fn with<T>(&self, number: u64, act: impl FnOnce(&mut Vec<u8>) -> T) -> io::Result<T> {
        let mut segments = self.0.lock().unwrap();
        segments.get_mut(&number).map(act).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Storage for Memory {
    type File = Active;

    fn list(&self) -> io::Result<Vec<u64>> {
        Ok(self.0.lock().unwrap().keys().copied().collect())
    }

    fn read(&self, number: u64) -> io::Result<Bytes> {
        self.with(number, |segment| Bytes::copy_from_slice(segment))
    }

    fn read_at(&self, number: u64, offset: u64, bytes: usize) -> io::Result<Bytes> {
        let segment = self.read(number)?;
        let start = segment.len().min(offset as usize);
        Ok(segment.slice(start..segment.len().min(start + bytes)))
    }

    fn create(&mut self, number: u64, header: &[u8]) -> io::Result<Active> {
        let before = self.0.lock().unwrap().insert(number, header.to_vec());
        assert_eq!(before, None, "segment {number} is there");
        Ok(Active(self.clone(), number))
    }

    fn truncate(&mut self, number: u64, bytes: u64) -> io::Result<()> {
        self.with(number, |segment| segment.truncate(bytes as usize))
    }

    fn remove(&mut self, number: u64) -> io::Result<()> {
        self.0.lock().unwrap().remove(&number);
        Ok(())
    }
}

impl SegmentFile for Active {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.with(self.1, |segment| segment.extend_from_slice(bytes))
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}
