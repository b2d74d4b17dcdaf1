//! W3C Trace Context: which trace a task belongs to, and which span of it sent it.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};
use std::str::FromStr;

use crate::id::TaskId;

/// Of a `traceparent` of version 00; later versions may be longer.
const TRACEPARENT_BYTES: usize = 55;

/// Parameters of FNV-1a with 128 bits (Fowler, Noll, Vo; RFC 9923).
const FNV_BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const FNV_PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

/// The name of a trace: 16 bytes, not all zero; 32 lower-case hexadecimal digits as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(NonZeroU128);

/// The name of a span in its trace: 8 bytes, not all zero; 16 lower-case hexadecimal digits as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(NonZeroU64);

/// What `traceparent` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The span that sent what carries this.
    pub span_id: SpanId,
    /// Whether whoever began the trace records it.
    pub is_sampled: bool,
}

/// A text is not the name of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not 32 lower-case hexadecimal digits that are not all 0")]
pub struct InvalidTraceId;

impl TraceId {
    /// One of these bytes. `None` when all are zero.
    pub fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
        NonZeroU128::new(u128::from_be_bytes(bytes)).map(Self)
    }

    /// Its bytes.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.get().to_be_bytes()
    }

    /// The trace of a task that has no valid `traceparent`: the bytes of its id, when that is a UUID
    /// (8-4-4-4-12 hexadecimal digits), else the id's FNV-1a hash of 128 bits. So all who know the
    /// task know its trace, and nothing has to be sent.
    pub fn of_task(id: &TaskId) -> Self {
        let hashed = || {
            let bytes = id.as_bytes().iter();
            bytes.fold(FNV_BASIS, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(FNV_PRIME))
        };
        let number = uuid(id.as_bytes()).unwrap_or_else(hashed);
        Self(NonZeroU128::new(number).unwrap_or(NonZeroU128::MIN))
    }
}

impl SpanId {
    /// The span of this number. `None` of 0.
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// Its number; its bytes are this in big-endian order.
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl TraceContext {
    /// Reads a `traceparent`. `None` when it is not valid: W3C has it ignored then.
    pub fn parse(traceparent: &[u8]) -> Option<Self> {
        let (head, rest) = traceparent.split_at_checked(TRACEPARENT_BYTES)?;
        let is_longer_version = matches!(rest, [b'-', ..]) && head[..2] != *b"00";
        if !rest.is_empty() && !is_longer_version || head[..2] == *b"ff" {
            return None;
        }
        if [head[2], head[35], head[52]] != [b'-'; 3] {
            return None;
        }
        hex(&head[..2])?;
        let trace_id = NonZeroU128::new(hex(&head[3..35])?).map(TraceId)?;
        let span_id = SpanId::new(hex(&head[36..52])? as u64)?;
        Some(Self { trace_id, span_id, is_sampled: hex(&head[53..55])? & 1 == 1 })
    }
}

/// As `traceparent`, of version 00.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.is_sampled);
        write!(f, "00-{}-{}-{flags:02x}", self.trace_id, self.span_id)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for TraceId {
    type Err = InvalidTraceId;

    fn from_str(text: &str) -> Result<Self, InvalidTraceId> {
        let number = (text.len() == 32).then(|| hex(text.as_bytes())).flatten();
        number.and_then(NonZeroU128::new).map(Self).ok_or(InvalidTraceId)
    }
}

impl serde::Serialize for TraceId {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for TraceId {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Lower case only, as W3C wants it. At most 32 digits.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

/// In either case.
fn uuid(text: &[u8]) -> Option<u128> {
    if text.len() != 36 || [8, 13, 18, 23].iter().any(|at| text[*at] != b'-') {
        return None;
    }
    let mut digits = [0; 32];
    let mut others = text.iter().enumerate().filter(|(at, _)| ![8, 13, 18, 23].contains(at));
    for digit in &mut digits {
        *digit = others.next()?.1.to_ascii_lowercase();
    }
    hex(&digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_and_written() {
        let context = TraceContext::parse(VALID.as_bytes()).unwrap();
        assert!(context.is_sampled);
        assert_eq!(context.trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.trace_id, "4bf92f3577b34da6a3ce929d0e0e4736".parse().unwrap());
        assert_eq!(context.span_id.get(), 0x00f0_67aa_0ba9_02b7);
        assert_eq!(context.to_string(), VALID);
        assert_eq!(TraceId::from_bytes(context.trace_id.to_bytes()), Some(context.trace_id));
        // Other flags are not known, and a later version may say more.
        let later = VALID.replacen("00", "cc", 1) + "-more";
        assert_eq!(TraceContext::parse(later.as_bytes()), Some(context));
        let not_sampled = VALID.replace("-01", "-02");
        assert!(!TraceContext::parse(not_sampled.as_bytes()).unwrap().is_sampled);
    }

    #[test]
    fn one_that_is_not_valid_is_ignored() {
        for text in [
            "",
            "00-a-b-01",
            &VALID.to_uppercase(),
            &VALID.replace("00f067aa0ba902b7", "0000000000000000"),
            &VALID.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &VALID.replacen("00", "ff", 1),
            &VALID.replacen("00", "0x", 1),
            &VALID.replace('-', "_"),
            &format!("{VALID}-more"),
            &format!("{VALID}0"),
            &VALID[..54],
        ] {
            assert_eq!(TraceContext::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!("0".repeat(32).parse::<TraceId>(), Err(InvalidTraceId));
        assert_eq!("abc".parse::<TraceId>(), Err(InvalidTraceId));
    }

    #[test]
    fn a_tasks_id_names_its_trace() {
        let trace = |id: &str| TraceId::of_task(&TaskId::try_from(id).unwrap()).to_string();
        let uuid = "0195f3a0-7c1e-7b2a-9d4e-0123456789AB";
        assert_eq!(trace(uuid), "0195f3a07c1e7b2a9d4e0123456789ab");
        // FNV-1a's own test vector.
        assert_eq!(trace("foobar"), "343e1662793c64bf6f0d3597ba446f18");
        assert_eq!(trace("00000000-0000-0000-0000-000000000000"), format!("{:032x}", 1));
        for odd in ["0195f3a0-7c1e-7b2a-9d4e_0123456789ab", "0195f3a0-7c1e-7b2a-9d4e-0123456789ag"]
        {
            assert_ne!(trace(odd)[..8], trace(uuid)[..8], "{odd}");
        }
    }
}
