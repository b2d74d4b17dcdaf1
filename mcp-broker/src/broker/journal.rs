//! The journal seam: what must be on disk before a durable task is acknowledged.
//!
//! The core emits records in order; whoever holds it appends them, syncs, and reports how far that
//! got. ROUTE may precede the sync of its task's record; ACCEPTED and DELIVER may not.

use std::io;

use bytes::Bytes;
use mcp_proto::{Deliver, EncodedTask, TaskId};

use super::identity::Identity;

/// What the journal keeps.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// A durable task was taken.
    Accepted {
        /// Whose it is.
        identity: Identity,
        /// The task as it came.
        task: EncodedTask,
        /// Its input.
        body: Bytes,
        /// When its time to live runs out, ms since 1970.
        deadline_wall_ms: u64,
    },
    /// A durable task has its outcome.
    Ended {
        /// Whose it is.
        identity: Identity,
        /// Which.
        task_id: TaskId,
        /// How it ended.
        deliver: Box<Deliver>,
        /// Its result.
        body: Bytes,
    },
}

/// Keeps records in order. Implementations may block; they are called off the core's lock.
pub trait Journal: Send + 'static {
    /// Appends a record; it need not be on disk yet. `seq` grows by one with each.
    ///
    /// # Errors
    /// When it can't be written. The journal is not used again.
    fn append(&mut self, seq: u64, record: &Record) -> io::Result<()>;

    /// Brings everything appended to disk and returns the last `seq` that is.
    ///
    /// # Errors
    /// When that can't be said for sure. The journal is not used again.
    fn sync(&mut self) -> io::Result<u64>;

    /// Whether what is synced outlives the process. Only then durable tasks are taken.
    fn is_durable(&self) -> bool;

    /// Reads everything kept, oldest first.
    ///
    /// # Errors
    /// When it can't be read, or is damaged.
    fn load(&mut self) -> io::Result<Vec<Record>>;
}
