//! What hostile peers do.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What each of them does on its connection, for as long as it has it; then it connects again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Attack {
    /// Nothing at all
    Silent,
    /// A HELLO of one byte a second
    SlowHello,
    /// After HELLO, a frame of one byte a second
    SlowFrame,
    /// After HELLO, the lengths of the longest frame, and no more
    Promise,
    /// Almost all of the longest frame
    Unfinished,
    /// Tasks, none of whose results it reads
    Deaf,
    /// PINGs without end, whose PONGs it reads
    Pings,
    /// PINGs without end, whose PONGs it does not read
    DeafPings,
    /// Frames of no known kind, without end, whose ERRORs it reads
    Unknown,
    /// Streams without end, of both kinds
    Streams,
    /// Bytes that are no frame, and so one handshake after the other
    Handshakes,
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Attack::Silent => "no HELLO",
            Attack::SlowHello => "HELLO, a byte a second",
            Attack::SlowFrame => "a frame, a byte a second",
            Attack::Promise => "the longest frame promised",
            Attack::Unfinished => "the longest frame, unfinished",
            Attack::Deaf => "results not read",
            Attack::Pings => "PINGs",
            Attack::DeafPings => "PINGs, PONGs not read",
            Attack::Unknown => "unknown frames",
            Attack::Streams => "streams",
            Attack::Handshakes => "handshakes",
        })
    }
}
