//! How much memory something takes.

use mcp_proto::Limits;

/// Runs `act`, of which at no time more than `max_bytes` may be allocated, what it returns included.
#[track_caller]
pub(crate) fn within<T>(max_bytes: usize, act: impl FnOnce() -> T) -> T {
    let mut result = None;
    let taken = allocation_counter::measure(|| result = Some(act()));
    let bytes = taken.bytes_max;
    assert!(bytes <= max_bytes as u64, "{bytes} bytes allocated; at most {max_bytes} are allowed");
    result.unwrap()
}

/// What one byte of a header takes at most, once it is read: an empty cause of an ERROR has two and takes
/// 72 in a list, which is copied when it grows.
const MAX_PER_HEADER_BYTE: usize = 128;

/// What reading a frame takes at most: its bytes, and what its header says.
pub(crate) fn of_frame(limits: &Limits) -> usize {
    let (header, body) = (limits.max_header_bytes as usize, limits.max_body_bytes as usize);
    2 * (header + body) + MAX_PER_HEADER_BYTE * header + 4096
}
