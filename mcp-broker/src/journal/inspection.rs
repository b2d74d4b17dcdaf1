//! Looking at a journal without changing it: also at one that is damaged, or in use.

use std::collections::HashMap;
use std::io;
use std::ops::Range;

use bytes::Bytes;
use foldhash::fast::RandomState;

use super::entry::{self, Damage, Operation, Parsed};
use super::record::{self, InvalidRecord};
use super::storage::Storage;
use crate::broker::Record;

/// What is in a journal's segments.
#[derive(Debug)]
pub struct Inspection {
    /// The segments, oldest first.
    pub segments: Vec<SegmentView>,
    /// Segments that are not there, although older and newer ones are.
    pub missing: Vec<u64>,
    /// What counts of all that can be read, in the order in which it was appended. In a damaged
    /// journal, something newer about the same task may be lost.
    pub records: Vec<Found>,
}

/// What is in a segment.
#[derive(Debug)]
pub struct SegmentView {
    /// Which.
    pub number: u64,
    /// Of its layout; none when that can't be told.
    pub schema: Option<u32>,
    /// Bytes of its file.
    pub file_bytes: u64,
    /// Entries that check.
    pub entries: usize,
    /// Of these, such as still count.
    pub live_entries: usize,
    /// Why the journal can't be opened with it.
    pub damage: Option<Damage>,
    /// Where a damaged one has bytes that are no entry.
    pub unreadable: Vec<Range<u64>>,
    /// The end that was not synced. The next start drops it.
    pub torn: Option<Range<u64>>,
}

/// An entry that counts.
#[derive(Debug)]
pub struct Found {
    /// Its segment.
    pub segment: u64,
    /// Where in it.
    pub offset: u64,
    /// Bytes of its key and value.
    pub bytes: u64,
    /// What it is, or why it is no record.
    pub record: Result<Record, InvalidRecord>,
}

impl Inspection {
    /// Whether the journal can be opened.
    pub fn is_sound(&self) -> bool {
        self.missing.is_empty()
            && self.segments.iter().all(|segment| segment.damage.is_none())
            && self.records.iter().all(|found| found.record.is_ok())
    }
}

/// Reads all that a journal has. If it is written to meanwhile, the result is what it was at some
/// moment, more or less: what is recorded twice may be missed, and nothing else.
///
/// # Errors
/// When the segments can't be listed or read.
pub fn inspect(storage: &impl Storage) -> io::Result<Inspection> {
    let numbers = storage.list()?;
    let gaps = numbers.windows(2).flat_map(|pair| pair[0] + 1..pair[1]);
    let missing = gaps.take(MAX_MISSING).collect();
    let mut live = HashMap::<Bytes, Live, RandomState>::default();
    let mut segments = Vec::new();
    for &number in &numbers {
        let bytes = match storage.read(number) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        // A file that is given to another segment is renamed first.
        if !storage.list()?.contains(&number) {
            continue;
        }
        let (view, entries) = look(&bytes, number, Some(&number) == numbers.last());
        segments.push(view);
        for (place, Parsed { operation, sequence, key, value, .. }) in entries {
            let key = Bytes::copy_from_slice(&key);
            if operation == Operation::Delete {
                live.remove(&key);
                continue;
            }
            let value = Bytes::copy_from_slice(&value);
            live.insert(key, Live { sequence, segment: number, offset: place.start as u64, value });
        }
    }
    let mut live: Vec<_> = live.into_iter().collect();
    live.sort_unstable_by_key(|(_, it)| it.sequence);
    let records = live.into_iter().map(|(key, it)| {
        let of_it = |view: &&mut SegmentView| view.number == it.segment;
        if let Some(view) = segments.iter_mut().find(of_it) {
            view.live_entries += 1;
        }
        Found {
            segment: it.segment,
            offset: it.offset,
            bytes: (key.len() + it.value.len()) as u64,
            record: record::decode(&key, &it.value),
        }
    });
    let records = records.collect();
    Ok(Inspection { segments, missing, records })
}

/// Missing segments that are listed, of a directory with strange names.
const MAX_MISSING: usize = 1000;

struct Live {
    sequence: u64,
    segment: u64,
    offset: u64,
    value: Bytes,
}

type Entries = Vec<(Range<usize>, Parsed)>;

fn look(bytes: &Bytes, number: u64, is_last: bool) -> (SegmentView, Entries) {
    let (layout, entries, damage, torn) = match entry::scan(bytes, number, is_last) {
        Ok(scan) => (scan.layout, scan.entries, None, Some(scan.torn)),
        Err(damage) => {
            let (layout, entries) = entry::salvage(bytes, number);
            (layout, entries, Some(damage), None)
        }
    };
    let mut unreadable = Vec::new();
    if damage.is_some() {
        let mut at = layout.map_or(0, |layout| layout.header_bytes);
        for (place, _) in &entries {
            unreadable.push(at..place.start);
            at = place.end;
        }
        // The last one may have remains of another segment there.
        if !is_last || entries.is_empty() {
            unreadable.push(at..bytes.len());
        }
    }
    let wide = |range: Range<usize>| range.start as u64..range.end as u64;
    let view = SegmentView {
        number,
        schema: layout.map(|layout| layout.schema),
        file_bytes: bytes.len() as u64,
        entries: entries.len(),
        live_entries: 0,
        damage,
        unreadable: unreadable.into_iter().filter(|it| !it.is_empty()).map(wide).collect(),
        torn: torn.filter(|it| !it.is_empty()).map(wide),
    };
    (view, entries)
}
