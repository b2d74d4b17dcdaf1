//! New task ids: UUIDv7, without asking the system for randomness each time.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use mcp_proto::TaskId;
use uuid::fmt::Hyphenated;

/// Makes ids that differ from each other and, by a key from the system, from everybody else's, and
/// can't be guessed from each other.
pub(super) struct TaskIds {
    key: RandomState,
    made: AtomicU64,
}

impl TaskIds {
    pub(super) fn new() -> Self {
        Self { key: RandomState::new(), made: AtomicU64::new(0) }
    }

    pub(super) fn next(&self) -> Option<TaskId> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut random = [0; 10];
        random[..2].copy_from_slice(&(number as u16).to_be_bytes());
        random[2..].copy_from_slice(&self.key.hash_one(number).to_be_bytes());
        let id = uuid::Builder::from_unix_timestamp_millis(now.as_millis() as u64, &random);
        let mut text = [0; Hyphenated::LENGTH];
        let text: &str = id.into_uuid().hyphenated().encode_lower(&mut text);
        // Always a valid id: 36 printable bytes.
        TaskId::try_from(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids_and_differ() {
        let (one, other) = (TaskIds::new(), TaskIds::new());
        let mut all = std::collections::HashSet::new();
        for _ in 0..10_000 {
            assert!(all.insert(one.next().unwrap()));
            assert!(all.insert(other.next().unwrap()));
        }
        let id = one.next().unwrap();
        assert_eq!(uuid::Uuid::parse_str(id.as_str()).unwrap().get_version_num(), 7);
    }
}
