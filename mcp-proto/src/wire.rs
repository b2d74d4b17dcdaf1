//! Protobuf by hand, for the frames that every task needs: SEND, ROUTE, RESULT and DELIVER, and the
//! frame around each. Generated code computes the length of each nested message before it writes it
//! and copies every field into a struct first, which together cost more than all of the core's work
//! for a task. `tests/properties.rs` compares it with a protobuf library.

use bytes::{BufMut, Bytes, BytesMut};

const VARINT: u32 = 0;
const FIXED_64: u32 = 1;
const LENGTH_DELIMITED: u32 = 2;
const FIXED_32: u32 = 5;

/// Why bytes are not a protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("it ends within a field")]
    Truncated,
    #[error("a number has more than 64 bits")]
    VarintTooLong,
    #[error("field {field} has wire type {wire_type}, which is not expected")]
    WireType { field: u32, wire_type: u32 },
    #[error("a field has a number that protobuf does not have")]
    FieldNumber,
}

/// Appends fields. Those with the default value are left out, as proto3 has it.
pub(crate) struct Writer<'a>(pub(crate) &'a mut BytesMut);

impl Writer<'_> {
    #[inline(always)]
    pub(crate) fn uint(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.present_uint(field, value);
        }
    }

    /// Of a field that tells zero from absence.
    #[inline(always)]
    pub(crate) fn present_uint(&mut self, field: u32, value: u64) {
        self.tag_and(field, VARINT, value);
    }

    pub(crate) fn fixed64(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.tag(field, FIXED_64);
            self.0.put_u64_le(value);
        }
    }

    #[inline(always)]
    pub(crate) fn bytes(&mut self, field: u32, value: &[u8]) {
        if !value.is_empty() {
            self.tag_and(field, LENGTH_DELIMITED, value.len() as u64);
            self.0.extend_from_slice(value);
        }
    }

    /// A message of generated code, also an empty one.
    pub(crate) fn generated(&mut self, field: u32, message: &impl prost::Message) {
        self.message(field, |to| {
            to.0.reserve(message.encoded_len());
            message.encode_raw(to.0);
        });
    }

    /// A nested message, also an empty one.
    #[inline(always)]
    pub(crate) fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        self.tag(field, LENGTH_DELIMITED);
        let start = self.0.len();
        // Most lengths take one byte. For a longer one the message makes room afterwards.
        self.0.put_u8(0);
        write(self);
        let len = self.0.len() - start - 1;
        if len < 0x80 {
            self.0[start] = len as u8;
        } else {
            self.lengthen(start, len);
        }
    }

    /// Puts the length of a message before it, which begins after the placeholder at `start`.
    #[cold]
    fn lengthen(&mut self, start: usize, len: usize) {
        let end = self.0.len();
        self.varint(len as u64);
        let width = self.0.len() - end;
        self.0[start + 1..].rotate_right(width);
        // The length now stands in front, with the placeholder before it.
        self.0.copy_within(start + 1.., start);
        self.0.truncate(end + width - 1);
    }

    #[inline]
    fn tag_and(&mut self, field: u32, wire_type: u32, value: u64) {
        let tag = field << 3 | wire_type;
        // Nearly all have one byte each.
        if tag < 0x80 && value < 0x80 {
            self.0.put_slice(&[tag as u8, value as u8]);
        } else {
            self.varint(tag.into());
            self.varint(value);
        }
    }

    #[inline(always)]
    fn tag(&mut self, field: u32, wire_type: u32) {
        self.varint(u64::from(field << 3 | wire_type));
    }

    #[inline(always)]
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.put_u8(value as u8);
    }
}

/// The value of a field.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'a> {
    Uint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

/// A field of a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field<'a> {
    pub(crate) number: u32,
    pub(crate) value: Value<'a>,
}

impl<'a> Field<'a> {
    pub(crate) fn uint(self) -> Result<u64, WireError> {
        match self.value {
            Value::Uint(value) => Ok(value),
            _ => Err(self.unexpected()),
        }
    }

    pub(crate) fn enumeration(self) -> Result<i32, WireError> {
        self.uint().map(|value| value as i32)
    }

    pub(crate) fn fixed64(self) -> Result<u64, WireError> {
        match self.value {
            Value::Fixed64(value) => Ok(value),
            _ => Err(self.unexpected()),
        }
    }

    pub(crate) fn bytes(self) -> Result<&'a [u8], WireError> {
        match self.value {
            Value::Bytes(value) => Ok(value),
            _ => Err(self.unexpected()),
        }
    }

    fn unexpected(self) -> WireError {
        let wire_type = match self.value {
            Value::Uint(_) => VARINT,
            Value::Fixed64(_) => FIXED_64,
            Value::Fixed32 => FIXED_32,
            Value::Bytes(_) => LENGTH_DELIMITED,
        };
        WireError::WireType { field: self.number, wire_type }
    }
}

/// Takes the fields of a message in turn. Groups, which proto3 doesn't have, are refused.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Result<Option<Field<'a>>, WireError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let (number, wire_type) = ((tag >> 3) as u32, (tag & 7) as u32);
        if number == 0 || tag > u64::from(u32::MAX) {
            return Err(WireError::FieldNumber);
        }
        let value = match wire_type {
            VARINT => Value::Uint(self.varint()?),
            FIXED_64 => {
                let (value, rest) = self.0.split_first_chunk::<8>().ok_or(WireError::Truncated)?;
                self.0 = rest;
                Value::Fixed64(u64::from_le_bytes(*value))
            }
            LENGTH_DELIMITED => {
                let len = usize::try_from(self.varint()?).map_err(|_| WireError::Truncated)?;
                Value::Bytes(self.take(len)?)
            }
            FIXED_32 => {
                self.take(4)?;
                Value::Fixed32
            }
            _ => return Err(WireError::WireType { field: number, wire_type }),
        };
        Ok(Some(Field { number, value }))
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(WireError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, WireError> {
        // Nearly all have one byte.
        match *self.0 {
            [byte, ref rest @ ..] if byte < 0x80 => {
                self.0 = rest;
                Ok(byte.into())
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0;
        for (at, byte) in self.0.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if *byte < 0x80 {
                self.0 = &self.0[at + 1..];
                return Ok(value);
            }
        }
        Err(if self.0.len() < 10 { WireError::Truncated } else { WireError::VarintTooLong })
    }
}

/// A part of `whole`, which it keeps allocated; nothing of an empty one.
pub(crate) fn part(whole: &Bytes, part: &[u8]) -> Bytes {
    if part.is_empty() { Bytes::new() } else { whole.slice_ref(part) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_messages_have_lengths_of_any_width() {
        for len in [0, 1, 126, 127, 128, 200, 16_383, 16_384, 70_000] {
            let content = vec![7; len];
            let mut bytes = BytesMut::new();
            let mut to = Writer(&mut bytes);
            to.uint(1, 300);
            to.message(2, |to| to.bytes(3, &content));
            to.uint(4, 5);
            let mut fields = Reader(&bytes);
            assert_eq!(fields.next().unwrap().unwrap().uint(), Ok(300));
            let nested = fields.next().unwrap().unwrap().bytes().unwrap();
            match Reader(nested).next().unwrap() {
                Some(field) => assert_eq!(field.bytes().unwrap(), content),
                None => assert_eq!(len, 0),
            }
            assert_eq!(fields.next().unwrap().unwrap().uint(), Ok(5));
            assert!(fields.next().unwrap().is_none());
        }
    }

    #[test]
    fn what_is_not_protobuf_is_refused() {
        let error = |bytes: &[u8]| Reader(bytes).next().unwrap_err();
        assert_eq!(error(&[0x08]), WireError::Truncated);
        assert_eq!(error(&[0x0a, 5, 1]), WireError::Truncated);
        assert_eq!(error(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]), WireError::Truncated);
        assert_eq!(error(&[0x09, 1, 2, 3]), WireError::Truncated);
        assert_eq!(error(&[0x00, 0]), WireError::FieldNumber);
        // Cut to 32 bits, it would be field 1.
        assert_eq!(error(&[0x88, 0x80, 0x80, 0x80, 0x80, 0x01, 1]), WireError::FieldNumber);
        assert_eq!(error(&[0xff; 11]), WireError::VarintTooLong);
        assert_eq!(error(&[0x0b]), WireError::WireType { field: 1, wire_type: 3 });
        let field = Reader(&[0x08, 1]).next().unwrap().unwrap();
        assert_eq!(field.bytes(), Err(WireError::WireType { field: 1, wire_type: 0 }));
    }
}
