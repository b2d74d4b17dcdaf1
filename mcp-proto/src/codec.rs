//! Frames on a byte stream:
//!
//! ```text
//! u32 length | u16 header length | header (protobuf mcp.v1.Frame) | body
//! ```
//!
//! Both numbers are big-endian; `length` counts all that follows it. This is the one parser: the
//! broker, the SDK and the fuzzers use it.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::encoded::COALESCE_BELOW_BYTES;
use crate::error::{DecodeError, InvalidMessage};
use crate::limits::{Limits, MAX_DISCARDED_FRAME_BYTES};
use crate::message::{Message, Parsed};

const LENGTH_BYTES: usize = 4;
const HEADER_LENGTH_BYTES: usize = 2;
const PREFIX_BYTES: usize = LENGTH_BYTES + HEADER_LENGTH_BYTES;

/// A message and the body that came with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// The parsed header.
    pub message: Message,
    /// What the protocol does not look into.
    pub body: Bytes,
}

impl From<Message> for Frame {
    fn from(message: Message) -> Self {
        Self { message, body: Bytes::new() }
    }
}

/// What a well-formed frame turned out to be.
#[derive(Debug)]
pub enum Incoming {
    /// A message within the limits.
    Frame(Frame),
    /// A kind that is not known here: to be answered with ERROR UNKNOWN_FRAME, and survived.
    Unknown {
        /// The kind's field number.
        kind: u32,
    },
    /// A message with a field that is missing or wrong.
    Invalid(InvalidMessage),
    /// A message whose body is over the limit; the body is skipped.
    BodyTooLarge {
        /// The message without its body.
        message: Message,
        /// The length of the skipped body.
        body_bytes: usize,
    },
}

/// Reads and writes frames. Never holds more than one frame, and never allocates for a length
/// before it was checked.
#[derive(Debug)]
pub struct FrameCodec {
    max_header_bytes: usize,
    max_body_bytes: usize,
    /// Bytes of a refused body still to skip.
    skip_bytes: usize,
    /// Frames up to this are slices of what they came in.
    max_slice_bytes: usize,
    /// The beginning of a frame.
    partial: BytesMut,
}

impl FrameCodec {
    /// A codec that accepts frames within `limits`.
    pub fn new(limits: &Limits) -> Self {
        Self {
            max_header_bytes: limits.max_header_bytes as usize,
            max_body_bytes: limits.max_body_bytes as usize,
            skip_bytes: 0,
            max_slice_bytes: usize::MAX,
            partial: BytesMut::new(),
        }
    }

    /// For one who keeps bodies: each of 8 KiB or more gets an allocation of its own, in which nothing
    /// else stays allocated with it.
    pub fn with_bodies_apart(mut self) -> Self {
        self.max_slice_bytes = COALESCE_BELOW_BYTES;
        self
    }

    /// Appends a frame without its body, whose length the frame tells.
    pub fn encode_head(message: &Message, body_bytes: usize, to: &mut BytesMut) {
        Self::encode_with(body_bytes, to, |to| message.encode_header(to));
    }

    pub(crate) fn encode_with(
        body_bytes: usize,
        to: &mut BytesMut,
        header: impl FnOnce(&mut BytesMut),
    ) {
        let start = to.len();
        to.put_bytes(0, PREFIX_BYTES);
        header(to);
        let header_bytes = to.len() - start - PREFIX_BYTES;
        debug_assert!(header_bytes <= crate::limits::MAX_HEADER_BYTES);
        let length = (HEADER_LENGTH_BYTES + header_bytes + body_bytes) as u32;
        to[start..start + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
        to[start + LENGTH_BYTES..start + PREFIX_BYTES]
            .copy_from_slice(&(header_bytes as u16).to_be_bytes());
    }

    /// Appends a frame.
    pub fn encode(frame: &Frame, to: &mut BytesMut) {
        Self::encode_head(&frame.message, frame.body.len(), to);
        to.extend_from_slice(&frame.body);
    }

    /// Takes the next frame from the front of `src`, a `Bytes` or `BytesMut`. What lies there whole is
    /// not copied: the frame's parts are slices of it. Returns `None` once `src` is used up; the
    /// beginning of a frame is kept here, until more is given.
    pub fn decode(&mut self, src: &mut impl Buf) -> Result<Option<Incoming>, DecodeError> {
        if !self.skip(src) {
            return Ok(None);
        }
        let begun = if self.partial.is_empty() { src.chunk() } else { &self.partial };
        let (layout, mut frame) = match self.layout(begun)? {
            Some(layout) if self.is_taken_whole(layout, src) => {
                (layout, src.copy_to_bytes(layout.taken()))
            }
            layout => match self.assemble(layout, src)? {
                Some(assembled) => assembled,
                None => return Ok(None),
            },
        };
        frame.advance(PREFIX_BYTES);
        let parsed = Message::parse(&frame, layout.header)?;
        frame.advance(layout.header);
        if layout.is_refused {
            self.skip_bytes = layout.body;
            self.skip(src);
        }
        Ok(Some(match parsed {
            Parsed::Unknown { kind } => Incoming::Unknown { kind },
            Parsed::Invalid(invalid) => Incoming::Invalid(invalid),
            Parsed::Message(message) if layout.is_refused => {
                Incoming::BodyTooLarge { message, body_bytes: layout.body }
            }
            Parsed::Message(message) => Incoming::Frame(Frame { message, body: frame }),
        }))
    }

    /// Whether a frame has begun whose end, or the end of whose refused body, has not come.
    pub fn is_within_frame(&self) -> bool {
        !self.partial.is_empty() || self.skip_bytes > 0
    }

    fn skip(&mut self, src: &mut impl Buf) -> bool {
        let skipped = self.skip_bytes.min(src.remaining());
        src.advance(skipped);
        self.skip_bytes -= skipped;
        self.skip_bytes == 0
    }

    fn is_taken_whole(&self, layout: Layout, src: &impl Buf) -> bool {
        self.partial.is_empty() && layout.taken() <= src.remaining().min(self.max_slice_bytes)
    }

    /// Puts a frame together in an allocation of its own.
    fn assemble(
        &mut self,
        mut layout: Option<Layout>,
        src: &mut impl Buf,
    ) -> Result<Option<(Layout, Bytes)>, DecodeError> {
        loop {
            let needed = layout.map_or(PREFIX_BYTES, Layout::taken);
            let missing = needed - self.partial.len();
            self.partial.reserve(missing);
            self.partial.put(src.take(missing));
            if self.partial.len() < needed {
                // What it says of its length is enough to refuse it.
                return self.layout(&self.partial).map(|_| None);
            }
            if let Some(layout) = layout {
                return Ok(Some((layout, std::mem::take(&mut self.partial).freeze())));
            }
            layout = self.layout(&self.partial)?;
        }
    }

    /// The layout of a frame that begins so, once that is known.
    fn layout(&self, src: &[u8]) -> Result<Option<Layout>, DecodeError> {
        let Some((length, rest)) = src.split_first_chunk() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length < HEADER_LENGTH_BYTES {
            return Err(DecodeError::FrameTooShort { len: length });
        }
        let max = self.max_header_bytes + self.max_body_bytes + HEADER_LENGTH_BYTES;
        if length > max.max(MAX_DISCARDED_FRAME_BYTES) {
            return Err(DecodeError::FrameTooLarge { len: length, max });
        }
        let Some(header) = rest.first_chunk() else { return Ok(None) };
        let header = usize::from(u16::from_be_bytes(*header));
        let room = length - HEADER_LENGTH_BYTES;
        if header > room.min(self.max_header_bytes) {
            return Err(DecodeError::HeaderTooLong { header, room });
        }
        let body = room - header;
        Ok(Some(Layout { header, body, is_refused: body > self.max_body_bytes }))
    }
}

/// The lengths in a frame.
#[derive(Clone, Copy)]
struct Layout {
    header: usize,
    body: usize,
    /// Its body is over the limit.
    is_refused: bool,
}

impl Layout {
    /// Bytes of the frame that are taken at once: all but a refused body.
    fn taken(self) -> usize {
        PREFIX_BYTES + self.header + if self.is_refused { 0 } else { self.body }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::{ActionName, TaskId};
    use crate::message::{Send, Task};

    fn send(body: usize) -> Frame {
        let task =
            Task::new(TaskId::try_from("t-1").unwrap(), ActionName::try_from("upper").unwrap());
        Frame { message: Message::Send(Send::new(task.encode(), 1000)), body: vec![7; body].into() }
    }

    fn encoded(frame: &Frame) -> BytesMut {
        let mut bytes = BytesMut::new();
        FrameCodec::encode(frame, &mut bytes);
        bytes
    }

    #[test]
    fn frames_come_back_whole_however_they_are_cut() {
        let frames = [send(0), Message::Pong(7).into(), send(70), send(64 * 1024)];
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| encoded(frame).to_vec()).collect();
        let codecs = || {
            let codec = || FrameCodec::new(&Limits::default());
            [codec(), codec().with_bodies_apart()]
        };
        for (step, mut codec) in [1, 2, 3, 5, 7, 1000, bytes.len()]
            .into_iter()
            .flat_map(|step| codecs().map(|codec| (step, codec)))
        {
            let (mut buffer, mut got) = (BytesMut::new(), Vec::new());
            for piece in bytes.chunks(step) {
                buffer.extend_from_slice(piece);
                while let Some(Incoming::Frame(frame)) = codec.decode(&mut buffer).unwrap() {
                    got.push(frame);
                }
            }
            assert_eq!(got, frames);
        }
    }

    #[test]
    fn a_small_frame_is_a_slice_and_a_large_one_stands_alone_if_asked() {
        for (body, is_slice) in [(100, true), (8 * 1024, false)] {
            let mut chunk = encoded(&send(body)).freeze();
            let range = chunk.as_ptr_range();
            let mut codec = FrameCodec::new(&Limits::default()).with_bodies_apart();
            match codec.decode(&mut chunk).unwrap() {
                Some(Incoming::Frame(frame)) => {
                    assert_eq!(range.contains(&frame.body.as_ptr()), is_slice);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_length_over_any_limit_is_refused_before_it_is_allocated() {
        let mut codec = FrameCodec::new(&Limits::default());
        let mut bytes = BytesMut::from(&[0xff, 0xff, 0xff, 0xff][..]);
        let error = codec.decode(&mut bytes).unwrap_err();
        assert!(matches!(error, DecodeError::FrameTooLarge { len: 0xffff_ffff, .. }));
        assert!(bytes.capacity() < 1024);
    }

    #[test]
    fn a_length_over_any_limit_is_refused_with_its_last_byte() {
        let mut codec = FrameCodec::new(&Limits::default());
        for byte in [&[0xff][..], &[0xff, 0xff]] {
            assert!(codec.decode(&mut &*byte).unwrap().is_none());
        }
        let error = codec.decode(&mut &[0xff][..]).unwrap_err();
        assert!(matches!(error, DecodeError::FrameTooLarge { len: 0xffff_ffff, .. }));
    }

    #[test]
    fn a_header_longer_than_its_frame_is_refused() {
        let mut codec = FrameCodec::new(&Limits::default());
        let mut bytes = BytesMut::from(&[0, 0, 0, 4, 0, 3, 1, 1][..]);
        let error = codec.decode(&mut bytes).unwrap_err();
        assert_eq!(error, DecodeError::HeaderTooLong { header: 3, room: 2 });
    }

    #[test]
    fn a_body_over_the_limit_is_skipped_and_the_next_frame_is_read() {
        let mut codec = FrameCodec::new(&Limits::default());
        let mut bytes = encoded(&send(64 * 1024 + 1));
        bytes.extend_from_slice(&encoded(&send(1)));
        let mut buffer = BytesMut::new();
        let mut got = Vec::new();
        for piece in bytes.chunks(1000) {
            buffer.extend_from_slice(piece);
            while let Some(incoming) = codec.decode(&mut buffer).unwrap() {
                got.push(incoming);
            }
        }
        assert!(matches!(got[0], Incoming::BodyTooLarge { body_bytes: 65_537, .. }));
        assert!(matches!(&got[1], Incoming::Frame(frame) if *frame == send(1)));
        assert_eq!(got.len(), 2);
    }

    #[test]
    fn an_unknown_kind_is_named_by_its_number() {
        // Field 100, length-delimited, empty.
        let mut bytes = BytesMut::from(&[0, 0, 0, 5, 0, 3, 0xa2, 0x06, 0x00][..]);
        let incoming = FrameCodec::new(&Limits::default()).decode(&mut bytes).unwrap();
        assert!(matches!(incoming, Some(Incoming::Unknown { kind: 100 })));
    }

    #[test]
    fn a_wrong_field_names_itself_and_the_task() {
        let Message::Send(mut it) = send(0).message else { unreachable!() };
        it.ttl_ms = 0;
        let mut bytes = encoded(&Message::Send(it).into());
        match FrameCodec::new(&Limits::default()).decode(&mut bytes).unwrap() {
            Some(Incoming::Invalid(invalid)) => {
                assert_eq!(invalid.field, "ttl_ms");
                assert_eq!(invalid.task_id, Some(TaskId::try_from("t-1").unwrap()));
            }
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut codec = FrameCodec::new(&Limits::default());
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = codec.decode(&mut buffer) {}
        }

        #[test]
        fn any_header_is_survived(header in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut buffer = BytesMut::new();
            buffer.put_u32(header.len() as u32 + 2);
            buffer.put_u16(header.len() as u16);
            buffer.extend_from_slice(&header);
            let _ = FrameCodec::new(&Limits::default()).decode(&mut buffer);
        }
    }
}
