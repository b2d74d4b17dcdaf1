//! Bytes of a lane, in any pieces.

use bytes::Bytes;
use mcp_proto::{DecodeError, Frame, FrameCodec, Incoming, InvalidMessage, Limits, Message};

use crate::input::Input;
use crate::{memory, round_trip};

/// The bytes of a lane are read without a panic and within bounded memory, and give the same however
/// they are cut; what decodes encodes again to the same meaning.
///
/// The first byte has a bit for each setting of the codec, the second one is the longest piece.
pub fn frames(data: &[u8]) {
    let mut input = Input::new(data);
    let (setting, longest) = (input.byte(), usize::from(input.byte()) + 1);
    let bytes = Bytes::copy_from_slice(input.rest());
    let limits = match setting & 1 {
        0 => Limits::default(),
        _ => Limits { max_header_bytes: 256, max_body_bytes: 64, ..Limits::default() },
    };
    let codec = || match setting & 2 {
        0 => FrameCodec::new(&limits),
        _ => FrameCodec::new(&limits).with_bodies_apart(),
    };
    let whole = read(codec(), &limits, &bytes, bytes.len().max(1));
    assert_eq!(read(codec(), &limits, &bytes, longest), whole);
    for it in &whole.0 {
        if let Seen::Frame(frame) = it {
            round_trip::check(frame);
        }
    }
}

/// `Incoming`, comparable.
#[derive(Debug, PartialEq)]
enum Seen {
    Frame(Frame),
    Unknown(u32),
    Invalid(InvalidMessage),
    BodyTooLarge(Message, usize),
}

/// What came of a lane, and why no more did.
fn read(
    mut codec: FrameCodec,
    limits: &Limits,
    bytes: &Bytes,
    longest: usize,
) -> (Vec<Seen>, Option<DecodeError>) {
    let max_bytes = memory::of_frame(limits);
    let mut seen = Vec::new();
    let mut rest = bytes.clone();
    // Pieces of all lengths, in an order that looks like none.
    for number in 1.. {
        let length = if longest < bytes.len() { 1 + (number * 7919) % longest } else { longest };
        let mut piece = rest.split_to(length.min(rest.len()));
        loop {
            match memory::within(max_bytes, || codec.decode(&mut piece)) {
                Ok(Some(incoming)) => seen.push(match incoming {
                    Incoming::Frame(frame) => Seen::Frame(frame),
                    Incoming::Unknown { kind } => Seen::Unknown(kind),
                    Incoming::Invalid(invalid) => Seen::Invalid(invalid),
                    Incoming::BodyTooLarge { message, body_bytes } => {
                        Seen::BodyTooLarge(message, body_bytes)
                    }
                }),
                Ok(None) => break,
                Err(error) => return (seen, Some(error)),
            }
        }
        assert!(piece.is_empty(), "bytes are left over");
        if rest.is_empty() {
            return (seen, None);
        }
    }
    unreachable!()
}
