//! What outlives the process: a log of keys and values in segments, each entry checked.
//!
//! ```text
//!  0000000000000001.seg   0000000000000002.seg   0000000000000003.seg
//! ┌────────┬───┬───┬───┐ ┌────────┬───┬───┬───┐ ┌────────┬───┬──
//! │ header │put│put│del│ │ header │del│put│put│ │ header │put│  ◀── append, sync
//! └────────┴───┴───┴───┘ └────────┴───┴───┴───┘ └────────┴───┴──
//!  ▲ the oldest is emptied: what still counts is put again at the end, then the segment is removed
//! ```
//!
//! A put replaces what was put under its key before; a delete ends it. All that counts is named in
//! an index in memory; values stay on disk. Only the last segment is written to, and a start begins a
//! new one. The file of a removed segment is kept as `spare` and overwritten to be the next one.
//!
//! **After a crash** the last segment may end in entries that were written in part, or in any order:
//! whatever came after the last sync. Those are dropped, and what was dropped is told. Anything else
//! that does not check is damage, and [`Log::open`] refuses it: each entry tells where the entries
//! that were not synced with it began, so that a hole before that place can't be mistaken for an
//! unfinished write.

mod compaction;
mod entry;
mod inspection;
mod log;
mod record;
mod recovery;
mod segment_journal;
mod storage;
#[cfg(test)]
mod tests;

pub use entry::{Damage, MAX_KEY_BYTES, MAX_VALUE_BYTES};
pub use inspection::{Found, Inspection, SegmentView, inspect};
pub use log::{Dropped, Entry, Log, OpenError};
pub use record::{EncodedRecord, InvalidRecord, decode};
pub use recovery::Recovery;
pub use segment_journal::{ReadJournal, SegmentJournal};
pub use storage::{Directory, SegmentFile, Storage};
