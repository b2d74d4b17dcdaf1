//! Parsing of single fields.

use std::collections::BTreeMap;

use bytes::Bytes;
use bytestring::ByteString;

use super::MessageKind;
use crate::error::{Cause, ErrorCode, ErrorInfo, InvalidMessage};
use crate::generated as wire;
use crate::id::{InvalidId, NodeId, TaskId};
use crate::limits::{MAX_CAUSES, MAX_ERROR_MESSAGE_BYTES, MAX_TEXT_BYTES};

/// Defines an enum of the wire without its UNSPECIFIED value.
macro_rules! wire_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $number:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vdoc])* $variant = $number,)* }

        impl $name {
            /// Every value.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];

            /// The value's name in JSON and in texts.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }

            pub(crate) fn from_wire(number: i32) -> Option<Self> {
                match number { $($number => Some($name::$variant),)* _ => None }
            }

            pub(crate) fn to_wire(self) -> i32 {
                self as i32
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let name = <std::borrow::Cow<'de, str>>::deserialize(from)?;
                match &*name {
                    $($text => Ok($name::$variant),)*
                    other => Err(serde::de::Error::unknown_variant(other, &[$($text),*])),
                }
            }
        }
    };
}
pub(super) use wire_enum;

/// Where a field is being parsed, for the error.
pub(super) struct In<'a> {
    pub(super) kind: MessageKind,
    pub(super) task_id: Option<&'a TaskId>,
}

impl In<'_> {
    pub(super) fn new(kind: MessageKind) -> Self {
        Self { kind, task_id: None }
    }

    pub(super) fn invalid(&self, field: &'static str, problem: impl ToString) -> InvalidMessage {
        InvalidMessage {
            kind: self.kind,
            field,
            problem: problem.to_string(),
            task_id: self.task_id.cloned(),
        }
    }

    pub(super) fn id<T>(
        &self,
        field: &'static str,
        parse: fn(Bytes) -> Result<T, InvalidId>,
        bytes: Bytes,
    ) -> Result<T, InvalidMessage> {
        parse(bytes).map_err(|error| self.invalid(field, error))
    }

    pub(super) fn optional_id<T>(
        &self,
        field: &'static str,
        parse: fn(Bytes) -> Result<T, InvalidId>,
        bytes: Bytes,
    ) -> Result<Option<T>, InvalidMessage> {
        if bytes.is_empty() { Ok(None) } else { self.id(field, parse, bytes).map(Some) }
    }

    pub(super) fn text(
        &self,
        field: &'static str,
        bytes: Bytes,
    ) -> Result<ByteString, InvalidMessage> {
        if bytes.len() > MAX_TEXT_BYTES {
            return Err(self.too_long(field, bytes.len(), MAX_TEXT_BYTES));
        }
        ByteString::try_from(bytes).map_err(|_| self.invalid(field, "is not UTF-8"))
    }

    pub(super) fn at_most(
        &self,
        field: &'static str,
        count: usize,
        max: usize,
    ) -> Result<(), InvalidMessage> {
        if count > max {
            let problem = format!("has {count} entries; at most {max} are allowed");
            return Err(self.invalid(field, problem));
        }
        Ok(())
    }

    #[inline]
    pub(super) fn check_text(
        &self,
        field: &'static str,
        text: &[u8],
    ) -> Result<(), InvalidMessage> {
        if text.is_empty() {
            return Ok(());
        }
        if text.len() > MAX_TEXT_BYTES {
            return Err(self.too_long(field, text.len(), MAX_TEXT_BYTES));
        }
        match std::str::from_utf8(text) {
            Ok(_) => Ok(()),
            Err(_) => Err(self.invalid(field, "is not UTF-8")),
        }
    }

    #[inline]
    pub(super) fn text_map(
        &self,
        field: &'static str,
        entries: &[(&[u8], &[u8])],
        max: usize,
    ) -> Result<BTreeMap<String, String>, InvalidMessage> {
        if entries.is_empty() {
            return Ok(BTreeMap::new());
        }
        self.some_text_map(field, entries, max)
    }

    fn some_text_map(
        &self,
        field: &'static str,
        entries: &[(&[u8], &[u8])],
        max: usize,
    ) -> Result<BTreeMap<String, String>, InvalidMessage> {
        let text = |it| String::from_utf8_lossy(it).into_owned();
        let mut map = BTreeMap::new();
        for (key, value) in entries {
            self.check_entry(field, key, value)?;
            map.insert(text(key), text(value));
            self.at_most(field, map.len(), max)?;
        }
        Ok(map)
    }

    pub(super) fn check_map(
        &self,
        field: &'static str,
        map: &BTreeMap<String, String>,
        max: usize,
    ) -> Result<(), InvalidMessage> {
        self.at_most(field, map.len(), max)?;
        map.iter()
            .try_for_each(|(key, value)| self.check_entry(field, key.as_bytes(), value.as_bytes()))
    }

    fn check_entry(
        &self,
        field: &'static str,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), InvalidMessage> {
        if key.is_empty() {
            return Err(self.invalid(field, "has an empty key"));
        }
        self.check_text(field, key)?;
        self.check_text(field, value)
    }

    fn too_long(&self, field: &'static str, len: usize, max: usize) -> InvalidMessage {
        self.invalid(field, format!("has a text of {len} bytes; at most {max} are allowed"))
    }
}

#[inline]
pub(super) fn task_id(kind: MessageKind, bytes: &[u8]) -> Result<TaskId, InvalidMessage> {
    TaskId::from_bytes(bytes).map_err(|error| In::new(kind).invalid("task_id", error))
}

/// An error's own fields are read leniently: a peer's error is for people, and must not be lost
/// because a part of it is odd.
impl ErrorInfo {
    pub(crate) fn from_wire(it: wire::Error) -> Self {
        Self {
            code: error_code(it.code),
            message: lossy(&it.message),
            task_id: TaskId::from_bytes(&it.task_id).ok(),
            node_id: NodeId::from_bytes(it.node_id).ok(),
            retry_after_ms: (it.retry_after_ms > 0).then_some(it.retry_after_ms),
            causes: it
                .causes
                .into_iter()
                .take(MAX_CAUSES)
                .map(|cause| Cause {
                    code: error_code(cause.code),
                    message: lossy(&cause.message),
                    node_id: NodeId::from_bytes(cause.node_id).ok(),
                })
                .collect(),
        }
    }

    pub(crate) fn to_wire(&self) -> wire::Error {
        let node = |id: &Option<NodeId>| id.as_ref().map(NodeId::to_bytes).unwrap_or_default();
        wire::Error {
            code: self.code as i32,
            message: cut(&self.message),
            task_id: self
                .task_id
                .as_ref()
                .map(|id| Bytes::copy_from_slice(id.as_bytes()))
                .unwrap_or_default(),
            node_id: node(&self.node_id),
            retry_after_ms: self.retry_after_ms.unwrap_or(0),
            causes: self
                .causes
                .iter()
                .take(MAX_CAUSES)
                .map(|cause| wire::Cause {
                    code: cause.code as i32,
                    message: cut(&cause.message),
                    node_id: node(&cause.node_id),
                })
                .collect(),
        }
    }
}

fn error_code(number: i32) -> ErrorCode {
    u32::try_from(number).ok().and_then(ErrorCode::from_u32).unwrap_or(ErrorCode::Internal)
}

pub(super) fn lossy(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(MAX_ERROR_MESSAGE_BYTES)];
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    // What replaces a byte that is not UTF-8 has three.
    text.truncate(text.floor_char_boundary(MAX_ERROR_MESSAGE_BYTES));
    text
}

pub(super) fn cut(text: &str) -> Bytes {
    let end = text.floor_char_boundary(MAX_ERROR_MESSAGE_BYTES);
    Bytes::copy_from_slice(&text.as_bytes()[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_was_read_is_no_longer_than_one_that_is_written() {
        let e = "\u{e9}".repeat(MAX_ERROR_MESSAGE_BYTES);
        for bytes in [&[0xff; MAX_ERROR_MESSAGE_BYTES][..], e.as_bytes(), &e.as_bytes()[1..]] {
            let text = lossy(bytes);
            assert_eq!(cut(&text), text.as_bytes());
            assert!(text.len() > MAX_ERROR_MESSAGE_BYTES - 3);
        }
    }
}
