//! Names and ids, checked once and cheap to clone.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use bytes::Bytes;
use bytestring::ByteString;
use smol_str::SmolStr;

use crate::limits::{MAX_ACTION_BYTES, MAX_ID_BYTES, MAX_TASK_ID_BYTES};

/// Why a text is not a valid id of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// It has no characters.
    #[error("is empty")]
    Empty,
    /// It is longer than its kind may be.
    #[error("has {len} bytes; at most {max} are allowed")]
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// The limit of its kind.
        max: usize,
    },
    /// It has a byte that its kind does not allow.
    #[error("has byte 0x{byte:02x} at {at}; allowed are {allowed}")]
    Byte {
        /// The offending byte.
        byte: u8,
        /// Its offset.
        at: usize,
        /// What its kind allows, for people.
        allowed: &'static str,
    },
}

const PRINTABLE: &str = "printable ASCII without spaces";

#[inline(always)]
fn is_printable(byte: u8) -> bool {
    (0x21..=0x7e).contains(&byte)
}

const ACTION_BYTES: &str = "letters, digits and . _ : / -";

/// By value: names are short, so a look at each byte costs less than comparing with all ranges.
const IS_ACTION: [bool; 256] = {
    let mut is_action = [false; 256];
    let mut byte = 0;
    while byte < is_action.len() {
        let it = byte as u8;
        is_action[byte] =
            it.is_ascii_alphanumeric() || matches!(it, b'.' | b'_' | b':' | b'/' | b'-');
        byte += 1;
    }
    is_action
};

#[inline(always)]
fn is_action(byte: u8) -> bool {
    IS_ACTION[usize::from(byte)]
}

#[inline(always)]
fn check(
    text: &[u8],
    max: usize,
    is_allowed: impl Fn(u8) -> bool,
    allowed: &'static str,
) -> Result<(), InvalidId> {
    if text.is_empty() {
        return Err(InvalidId::Empty);
    }
    if text.len() > max {
        return Err(InvalidId::TooLong { len: text.len(), max });
    }
    // All at once, which vectorizes; where the fault is, if there is one, is looked for afterwards.
    if text.iter().fold(true, |all, byte| all & is_allowed(*byte)) {
        return Ok(());
    }
    let at = text.iter().position(|byte| !is_allowed(*byte)).unwrap_or_default();
    Err(InvalidId::Byte { byte: text[at], at, allowed })
}

/// Checks a text of printable ASCII.
pub(crate) fn check_printable(text: &[u8], max: usize) -> Result<(), InvalidId> {
    check(text, max, is_printable, PRINTABLE)
}

/// What all ids can do, given `from_bytes`, `as_str` and `as_bytes`.
macro_rules! id_traits {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.as_str().try_into()
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                text.try_into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
                (*text).try_into().map_err(serde::de::Error::custom)
            }
        }
    };
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $max:expr, $is_allowed:path, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(ByteString);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The id as bytes, all of them ASCII.
            pub fn as_bytes(&self) -> &[u8] {
                self.0.as_bytes()
            }

            pub(crate) fn to_bytes(&self) -> Bytes {
                self.0.as_bytes().clone()
            }

            pub(crate) fn from_bytes(bytes: Bytes) -> Result<Self, InvalidId> {
                check(&bytes, $max, $is_allowed, $allowed)?;
                let text = ByteString::try_from(bytes).map_err(|_| InvalidId::Empty)?;
                Ok(Self(text))
            }
        }

        impl TryFrom<&str> for $name {
            type Error = InvalidId;
            fn try_from(text: &str) -> Result<Self, InvalidId> {
                Self::from_bytes(Bytes::copy_from_slice(text.as_bytes()))
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }

        id_traits!($name);
    };
}

/// Names a task among those of its client's identity. 1 to 64 printable ASCII bytes, held in place:
/// every task has its own, and it outlives the buffer that it came in.
#[derive(Clone)]
pub struct TaskId {
    len: u8,
    bytes: [u8; MAX_TASK_ID_BYTES],
}

impl TaskId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        // Not empty: what is here is ASCII.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The id as bytes, all of them ASCII.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    #[inline]
    pub(crate) fn from_bytes(text: &[u8]) -> Result<Self, InvalidId> {
        check(text, MAX_TASK_ID_BYTES, is_printable, PRINTABLE)?;
        let mut bytes = [0; MAX_TASK_ID_BYTES];
        bytes[..text.len()].copy_from_slice(text);
        Ok(Self { len: text.len() as u8, bytes })
    }
}

impl TryFrom<&str> for TaskId {
    type Error = InvalidId;
    fn try_from(text: &str) -> Result<Self, InvalidId> {
        Self::from_bytes(text.as_bytes())
    }
}

impl PartialEq for TaskId {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for TaskId {}

impl PartialOrd for TaskId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for TaskId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for TaskId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

id_traits!(TaskId);

text_id!(
    /// What a task asks for and a worker serves, `"generate"`. 1 to 128 of `[A-Za-z0-9._:/-]`.
    ActionName, MAX_ACTION_BYTES, is_action, ACTION_BYTES);
/// An [`ActionName`] where it lies: checked, and neither copied nor counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActionRef<'a>(&'a str);

impl<'a> ActionRef<'a> {
    /// The name as text.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// A copy.
    pub fn to_name(self) -> ActionName {
        ActionName(self.0.into())
    }

    pub(crate) fn from_bytes(text: &'a [u8]) -> Result<Self, InvalidId> {
        check(text, MAX_ACTION_BYTES, is_action, ACTION_BYTES)?;
        // Not empty: what is here is ASCII.
        Ok(Self(std::str::from_utf8(text).unwrap_or_default()))
    }
}

impl fmt::Display for ActionRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl<'a> From<&'a ActionName> for ActionRef<'a> {
    fn from(name: &'a ActionName) -> Self {
        Self(name.as_str())
    }
}

text_id!(
    /// An agent's own stable name. 1 to 128 printable ASCII bytes.
    AgentId, MAX_ID_BYTES, is_printable, PRINTABLE);
text_id!(
    /// One process of an agent. 1 to 128 printable ASCII bytes.
    InstanceId, MAX_ID_BYTES, is_printable, PRINTABLE);
text_id!(
    /// A client's session. 1 to 128 printable ASCII bytes.
    SessionId, MAX_ID_BYTES, is_printable, PRINTABLE);

/// The broker's name for a broker or worker. 1 to 128 printable ASCII bytes. One of up to 23 is held
/// in place: every outcome names two, and a counted reference costs more than such a copy.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(SmolStr);

impl NodeId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as bytes, all of them ASCII.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    pub(crate) fn to_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.as_bytes())
    }

    pub(crate) fn from_bytes(text: Bytes) -> Result<Self, InvalidId> {
        check(&text, MAX_ID_BYTES, is_printable, PRINTABLE)?;
        // Not empty: what is here is ASCII.
        Ok(Self(std::str::from_utf8(&text).unwrap_or_default().into()))
    }
}

impl TryFrom<&str> for NodeId {
    type Error = InvalidId;
    fn try_from(text: &str) -> Result<Self, InvalidId> {
        Self::from_bytes(Bytes::copy_from_slice(text.as_bytes()))
    }
}

id_traits!(NodeId);

/// Names one attempt at a task in every frame about it. Opaque to all but its broker, and unique
/// across the broker's epochs, so a stale one can't name another attempt.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId(pub u64);

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_checked_when_it_is_made() {
        assert_eq!(TaskId::try_from("a-1").unwrap().as_str(), "a-1");
        assert_eq!(TaskId::try_from(""), Err(InvalidId::Empty));
        assert_eq!(
            TaskId::try_from("x".repeat(65)),
            Err(InvalidId::TooLong { len: 65, max: MAX_TASK_ID_BYTES })
        );
        assert!(matches!(TaskId::try_from("a b"), Err(InvalidId::Byte { byte: b' ', at: 1, .. })));
        assert!(TaskId::try_from("é").is_err());
        assert!(ActionName::try_from("mcp.admin/agents:list").is_ok());
        assert!(ActionName::try_from("no*").is_err());
    }
}
