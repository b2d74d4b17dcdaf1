//! Segments and entries as bytes.
//!
//! ```text
//! segment:  "MCPJRNL\n"  schema u32  number u64  salt u32  crc u32    then entries
//! entry:    salt u32     length u32  batch u32   crc u32              then length bytes:
//!           operation u8 sequence u64  key length u16  key  value
//! ```
//!
//! Numbers are little-endian. `crc` is CRC-32 (ISO-HDLC, of Ethernet and zlib) of what stands before
//! it, for an entry also of what follows. `batch` is where, in this segment, the first entry lies that
//! was written after the sync before this entry.
//!
//! `salt` is a random number of the segment, with which each of its entries begins: so neither the
//! remains of a segment that lay in the same file before (as in SQLite's write-ahead log:
//! <https://www.sqlite.org/fileformat.html#the_write_ahead_log>) nor what a client sends as a body are
//! ever taken for one.
//!
//! In schema 1, a segment's header has no salt, and every entry begins with the same number.

use std::ops::Range;

use bytes::Bytes;
use memchr::memmem;

/// The present layout. A segment of an older one is read as such and never written to; the next start
/// moves what counts of it to a new one.
pub(super) const SCHEMA: u32 = 2;

/// Large enough for an identity and a task id.
pub const MAX_KEY_BYTES: usize = 4 * 1024;
/// Large enough for a frame's header and body, with what is told of them.
pub const MAX_VALUE_BYTES: usize = 1024 * 1024;

const MAGIC: &[u8; 8] = b"MCPJRNL\n";
pub(super) const SEGMENT_HEADER_BYTES: usize = 8 + 4 + 8 + 4 + 4;
/// What the entries of schema 1 begin with.
const MARKER_1: u32 = 0xfa5e_57ed;
const HEADER_BYTES: usize = 16;
/// Of the payload before its key.
const FIXED_BYTES: usize = 1 + 8 + 2;
/// The longest entry.
pub(super) const MAX_ENTRY_BYTES: usize =
    HEADER_BYTES + FIXED_BYTES + MAX_KEY_BYTES + MAX_VALUE_BYTES;

/// What an entry does with its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Put = 1,
    Delete = 2,
}

/// An entry as it lies in its segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parsed {
    pub(super) operation: Operation,
    /// Of the put that it is, or of its first if it was put again to empty a segment.
    pub(super) sequence: u64,
    pub(super) key: Bytes,
    pub(super) value: Bytes,
    batch: u32,
}

/// Why a segment can't be what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// It does not begin as a segment does.
    #[error("it does not begin as a segment of a journal does")]
    Header,
    /// It is of a later version.
    #[error(
        "it was written by a later version (schema {schema}; this version reads up to {SCHEMA})"
    )]
    Schema {
        /// Its layout's number.
        schema: u32,
    },
    /// Bytes that were synced are not what was written.
    #[error("{} bytes from byte {} on do not check, and entries follow that do", .0.len(), .0.start)]
    Entries(Range<usize>),
}

/// How a segment is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) schema: u32,
    /// What its entries begin with.
    pub(super) salt: u32,
    pub(super) header_bytes: usize,
}

impl Layout {
    /// Of a segment that is written here.
    pub(super) fn new(salt: u32) -> Self {
        Self { schema: SCHEMA, salt, header_bytes: SEGMENT_HEADER_BYTES }
    }

    fn schema_1() -> Self {
        Self { schema: 1, salt: MARKER_1, header_bytes: SEGMENT_HEADER_BYTES - 4 }
    }

    /// Of a segment that was written some time.
    pub(super) fn read(segment: &[u8], number: u64) -> Result<Self, Damage> {
        let schema = word(segment, 8).ok_or(Damage::Header)?;
        let layout = match schema {
            1 => Self::schema_1(),
            _ => Self { schema, ..Self::new(word(segment, 20).ok_or(Damage::Header)?) },
        };
        let before_crc = layout.header_bytes - 4;
        let checks = segment.starts_with(MAGIC)
            && segment.get(12..20) == Some(&number.to_le_bytes())
            && segment.get(..before_crc).map(crc32fast::hash) == word(segment, before_crc);
        match schema {
            _ if !checks => Err(Damage::Header),
            1..=SCHEMA => Ok(layout),
            _ => Err(Damage::Schema { schema }),
        }
    }
}

/// The entries of a segment that count, and what lies behind them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scan {
    /// None of a segment that was cut off within its header.
    pub(super) layout: Option<Layout>,
    /// The place and length of each, in their order.
    pub(super) entries: Vec<(Range<usize>, Parsed)>,
    /// From where they end to where what can be told ends that was written after them and never
    /// synced. Whatever else the segment has is of no meaning.
    pub(super) torn: Range<usize>,
}

pub(super) fn segment_header(number: u64, salt: u32) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut header = [0; SEGMENT_HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&SCHEMA.to_le_bytes());
    header[12..20].copy_from_slice(&number.to_le_bytes());
    header[20..24].copy_from_slice(&salt.to_le_bytes());
    let crc = crc32fast::hash(&header[..24]);
    header[24..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Appends an entry, and returns its length.
pub(super) fn write(
    to: &mut Vec<u8>,
    salt: u32,
    batch: u32,
    operation: Operation,
    sequence: u64,
    key: &[u8],
    value: &[u8],
) -> usize {
    debug_assert!(key.len() <= MAX_KEY_BYTES && value.len() <= MAX_VALUE_BYTES);
    let start = to.len();
    let length = FIXED_BYTES + key.len() + value.len();
    to.reserve(HEADER_BYTES + length);
    to.extend_from_slice(&salt.to_le_bytes());
    to.extend_from_slice(&(length as u32).to_le_bytes());
    to.extend_from_slice(&batch.to_le_bytes());
    to.extend_from_slice(&[0; 4]);
    to.push(operation as u8);
    to.extend_from_slice(&sequence.to_le_bytes());
    to.extend_from_slice(&(key.len() as u16).to_le_bytes());
    to.extend_from_slice(key);
    to.extend_from_slice(value);
    let crc = checksum(&to[start..]);
    to[start + 12..start + HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    to.len() - start
}

fn checksum(entry: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&entry[..12]);
    hasher.update(&entry[HEADER_BYTES..]);
    hasher.finalize()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|it| u32::from_le_bytes(*it))
}

/// The entry that begins at `at`, and where it ends; none if what lies there does not check.
pub(super) fn read(segment: &Bytes, salt: u32, at: usize) -> Option<(usize, Parsed)> {
    if word(segment, at)? != salt {
        return None;
    }
    let length = word(segment, at + 4)? as usize;
    if !(FIXED_BYTES..=MAX_ENTRY_BYTES - HEADER_BYTES).contains(&length) {
        return None;
    }
    let end = at + HEADER_BYTES + length;
    let entry = segment.get(at..end)?;
    if checksum(entry) != word(segment, at + 12)? {
        return None;
    }
    let payload = at + HEADER_BYTES;
    let operation = match segment[payload] {
        1 => Operation::Put,
        2 => Operation::Delete,
        _ => return None,
    };
    let sequence = u64::from_le_bytes(segment.get(payload + 1..payload + 9)?.try_into().ok()?);
    let key_bytes = u16::from_le_bytes(segment.get(payload + 9..payload + 11)?.try_into().ok()?);
    let key = payload + FIXED_BYTES;
    let value = key + usize::from(key_bytes);
    if value > end {
        return None;
    }
    let parsed = Parsed {
        operation,
        sequence,
        key: segment.slice(key..value),
        value: segment.slice(value..end),
        batch: word(segment, at + 8)?,
    };
    Some((end, parsed))
}

/// Reads a segment. `is_last` says that nothing was written after it: only then it may end in what
/// was not synced.
///
/// # Errors
/// When something that was synced is not as it was written.
pub(super) fn scan(segment: &Bytes, number: u64, is_last: bool) -> Result<Scan, Damage> {
    let layout = match Layout::read(segment, number) {
        Ok(layout) => layout,
        // It was cut off, since a segment has its name only once it has its header.
        Err(_) if is_last && segment.len() < SEGMENT_HEADER_BYTES => {
            return Ok(Scan { layout: None, entries: Vec::new(), torn: 0..segment.len() });
        }
        Err(damage) => return Err(damage),
    };
    let (mut entries, mut at) = (Vec::new(), layout.header_bytes);
    while let Some((end, parsed)) = read(segment, layout.salt, at) {
        entries.push((at..end, parsed));
        at = end;
    }
    let mut torn = at..begun(segment, layout.salt, at);
    let mut following = following(segment, layout.salt, at).peekable();
    let hole = at..following.peek().map_or(segment.len(), |(next, _)| next.start);
    if !is_last && !hole.is_empty() {
        return Err(Damage::Entries(hole));
    }
    for (place, parsed) in following {
        // Else it was written in the same go as what is missing: after the sync before that.
        if parsed.batch as usize > at {
            return Err(Damage::Entries(hole));
        }
        torn.end = torn.end.max(place.end);
    }
    Ok(Scan { layout: Some(layout), entries, torn })
}

/// All entries of a damaged segment that check, and how it was read.
pub(super) fn salvage(
    segment: &Bytes,
    number: u64,
) -> (Option<Layout>, Vec<(Range<usize>, Parsed)>) {
    let layout = match Layout::read(segment, number) {
        Ok(layout) => Some(layout),
        Err(Damage::Schema { .. }) => None,
        Err(_) => first_salt(segment).map(|salt| match salt {
            MARKER_1 => Layout::schema_1(),
            salt => Layout::new(salt),
        }),
    };
    let entries = layout.map(|it| following(segment, it.salt, it.header_bytes).collect());
    (layout, entries.unwrap_or_default())
}

/// What the first entry begins with that checks. Behind those of the segment may be remains of
/// others.
fn first_salt(segment: &Bytes) -> Option<u32> {
    let salts = (0..segment.len()).map_while(|at| Some((at, word(segment, at)?)));
    let mut of_entries = salts.filter(|(at, salt)| read(segment, *salt, *at).is_some());
    of_entries.next().map(|(_, salt)| salt)
}

/// Where an entry would end that begins at `at` but does not check; `at` if none begins there.
fn begun(segment: &[u8], salt: u32, at: usize) -> usize {
    let rest = &segment[at..];
    let marker = &salt.to_le_bytes()[..rest.len().min(4)];
    if !rest.starts_with(marker) {
        return at;
    }
    let length =
        word(rest, 4).map_or(rest.len(), |length| HEADER_BYTES.saturating_add(length as usize));
    at + length.min(rest.len())
}

/// The entries that check behind a place that does not.
fn following(
    segment: &Bytes,
    salt: u32,
    mut at: usize,
) -> impl Iterator<Item = (Range<usize>, Parsed)> {
    // There may be megabytes of remains.
    let salts = memmem::Finder::new(&salt.to_le_bytes()).into_owned();
    std::iter::from_fn(move || {
        loop {
            let start = at + salts.find(segment.get(at..)?)?;
            if let Some((end, parsed)) = read(segment, salt, start) {
                at = end;
                return Some((start..end, parsed));
            }
            at = start + 1;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: u32 = 0x5a17_5a17;

    /// Three entries: two of one batch, and one of a second.
    fn segment() -> (Vec<u8>, [Range<usize>; 3]) {
        let mut to = segment_header(7, SALT).to_vec();
        let first = to.len() as u32;
        let mut places = Vec::new();
        for (index, batch_of_second) in [false, false, true].into_iter().enumerate() {
            let start = to.len();
            let batch = if batch_of_second { start as u32 } else { first };
            write(&mut to, SALT, batch, Operation::Put, index as u64, b"key", &[index as u8; 40]);
            places.push(start..to.len());
        }
        (to, places.try_into().unwrap())
    }

    fn scanned(bytes: &[u8], is_last: bool) -> Result<usize, Damage> {
        scan(&Bytes::copy_from_slice(bytes), 7, is_last).map(|it| it.entries.len())
    }

    #[test]
    fn what_was_written_is_read() {
        let (bytes, places) = segment();
        let it = scan(&Bytes::from(bytes), 7, false).unwrap();
        let read: Vec<_> = it.entries.iter().map(|(place, _)| place.clone()).collect();
        assert_eq!(read, places);
        assert!(it.torn.is_empty());
        let (_, last) = &it.entries[2];
        assert_eq!((last.sequence, &*last.key, last.value.len()), (2, &b"key"[..], 40));
    }

    #[test]
    fn cut_anywhere_the_last_segment_ends_before_the_cut_and_another_is_damaged() {
        let (bytes, places) = segment();
        for cut in 0..bytes.len() {
            let whole = places.iter().filter(|place| place.end <= cut).count();
            assert_eq!(scanned(&bytes[..cut], true), Ok(whole), "cut at {cut}");
            let is_between = cut == SEGMENT_HEADER_BYTES || places.iter().any(|it| it.end == cut);
            assert_eq!(scanned(&bytes[..cut], false).is_ok(), is_between, "cut at {cut}");
        }
    }

    #[test]
    fn a_flipped_bit_before_a_later_batch_is_damage() {
        let (bytes, places) = segment();
        for bit in (SEGMENT_HEADER_BYTES * 8)..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let result = scanned(&flipped, true);
            match places.iter().position(|place| place.contains(&(bit / 8))) {
                Some(2) => assert_eq!(result, Ok(2), "bit {bit}"),
                _ => assert!(matches!(result, Err(Damage::Entries(_))), "bit {bit}: {result:?}"),
            }
        }
    }

    #[test]
    fn a_hole_within_the_last_batch_is_an_unfinished_write() {
        let mut bytes = segment_header(7, SALT).to_vec();
        let batch = bytes.len() as u32;
        for index in 0..3 {
            write(&mut bytes, SALT, batch, Operation::Put, index, b"key", &[1; 40]);
        }
        let length = (bytes.len() - batch as usize) / 3;
        let second = batch as usize + length;
        bytes[second..second + length].fill(0);
        assert_eq!(scanned(&bytes, true), Ok(1));
        assert!(scanned(&bytes, false).is_err());
    }

    #[test]
    fn remains_of_another_segment_are_not_taken_for_entries() {
        let (mut bytes, places) = segment();
        let end = bytes.len();
        let mut before = segment_header(6, SALT + 1).to_vec();
        while before.len() < 2 * end {
            let batch = before.len() as u32;
            write(&mut before, SALT + 1, batch, Operation::Put, 9, b"key", &[7; 51]);
        }
        bytes.extend_from_slice(&before[end..]);
        let torn = |bytes: &[u8]| scan(&Bytes::copy_from_slice(bytes), 7, true).unwrap().torn;
        assert_eq!(scanned(&bytes, true), Ok(3));
        assert_eq!(torn(&bytes), end..end);
        assert!(scanned(&bytes, false).is_err());
        // The last entry was written in part.
        let last = places[2].clone();
        bytes[end - 8..end].copy_from_slice(&before[end - 8..end]);
        assert_eq!(scanned(&bytes, true), Ok(2));
        assert_eq!(torn(&bytes), last);
        assert_eq!(torn(&bytes[..last.start + 2]), last.start..last.start + 2);
    }

    #[test]
    fn a_later_schema_is_named() {
        let mut bytes = segment().0;
        bytes[8..12].copy_from_slice(&9u32.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..24]);
        bytes[24..28].copy_from_slice(&crc.to_le_bytes());
        let refused = Damage::Schema { schema: 9 };
        assert!(refused.to_string().contains("later version (schema 9"), "{refused}");
        assert_eq!(scanned(&bytes, true), Err(refused));
        bytes[0] = b'X';
        assert_eq!(scanned(&bytes, true), Err(Damage::Header));
    }
}
