//! What must hold of any bytes that MCP's programs read. Each target takes bytes and panics if it does
//! not hold: under a fuzzer, which looks for such bytes (`fuzz/`), and in `tests/corpus.rs`, which
//! replays those that are kept.

#![allow(clippy::unwrap_used)]

mod core_ops;
mod driver;
mod frames;
mod header;
mod hello;
mod input;
mod journal_record;
mod journal_segment;
mod json;
mod memory;
mod round_trip;

pub use core_ops::core_ops;
pub use frames::frames;
pub use header::header;
pub use hello::hello;
pub use journal_record::journal_record;
pub use journal_segment::journal_segment;
pub use json::json;

/// What is to hold of all bytes.
pub type Target = fn(&[u8]);

/// Each target by its name: that of its binary and of its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("core_ops", core_ops),
    ("frames", frames),
    ("header", header),
    ("hello", hello),
    ("journal_record", journal_record),
    ("journal_segment", journal_segment),
    ("json", json),
];
