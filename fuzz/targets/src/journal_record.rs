//! A record of the journal, as its log has it.

use bytes::Bytes;
use mcp_broker::journal::{EncodedRecord, decode};
use mcp_proto::Limits;

use crate::input::Input;
use crate::memory;

/// What there is of a record's bytes while it is read: its value, and parts of it apart from that.
const COPIES: usize = 8;

/// Whatever lies under whatever key: it is a record or refused, and a record is written as it was read.
///
/// The first byte is the length of the key; the value follows it. Or it tells that the key is that of
/// `TASK_ID`, or of its dead letter.
pub fn journal_record(data: &[u8]) {
    let mut input = Input::new(data);
    let key = match input.byte() {
        kind @ 0..=2 => key(kind),
        length => input.bytes(length.into()).to_vec(),
    };
    let value = Bytes::copy_from_slice(input.rest());
    let max_bytes = memory::of_frame(&Limits::default()) + COPIES * data.len();
    let Ok(record) = memory::within(max_bytes, || decode(&key, &value)) else { return };
    let mut encoded = EncodedRecord::default();
    encoded.set(&record);
    assert_eq!(encoded.key(), key);
    let value = Bytes::copy_from_slice(encoded.value().unwrap());
    assert_eq!(decode(&key, &value).unwrap(), record);
    encoded.set(&record);
    assert_eq!(encoded.value(), Some(&value[..]));
}

const TASK_ID: &[u8] = b"t1";

fn key(kind: u8) -> Vec<u8> {
    [&[kind, TASK_ID.len() as u8], TASK_ID, b"anonymous"].concat()
}
