//! The header of a frame, by itself.

use bytes::{BufMut, BytesMut};
use mcp_proto::limits::MAX_HEADER_BYTES;
use mcp_proto::{FrameCodec, Incoming, Limits};

use crate::{memory, round_trip};

const LENGTH_DELIMITED: u64 = 2;

/// What a message's tag and length take at most.
const TAG_BYTES: usize = 8;

const BODY: &[u8] = b"body";

/// A message of any kind is read or refused; what is read encodes again to the same meaning.
///
/// The first byte is the number of the kind, the rest the message, without its length.
pub fn header(data: &[u8]) {
    let Some((kind, message)) = data.split_first() else { return };
    let message = &message[..message.len().min(MAX_HEADER_BYTES - TAG_BYTES)];
    let limits = Limits::default();
    let mut bytes = frame(*kind, message, BODY);
    let mut codec = FrameCodec::new(&limits);
    match memory::within(memory::of_frame(&limits), || codec.decode(&mut bytes)) {
        Ok(Some(Incoming::Frame(frame))) => round_trip::check(&frame),
        Ok(Some(Incoming::Unknown { .. } | Incoming::Invalid(_))) | Err(_) => {}
        Ok(other) => panic!("{other:?}"),
    }
}

/// A frame of a kind, with a message that may be anything.
pub(crate) fn frame(kind: u8, message: &[u8], body: &[u8]) -> BytesMut {
    let mut header = BytesMut::new();
    put_varint(u64::from(kind) << 3 | LENGTH_DELIMITED, &mut header);
    put_varint(message.len() as u64, &mut header);
    header.extend_from_slice(message);
    let mut bytes = BytesMut::new();
    bytes.put_u32((2 + header.len() + body.len()) as u32);
    bytes.put_u16(header.len() as u16);
    bytes.extend_from_slice(&header);
    bytes.extend_from_slice(body);
    bytes
}

fn put_varint(mut value: u64, to: &mut BytesMut) {
    while value >= 0x80 {
        to.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    to.put_u8(value as u8);
}
