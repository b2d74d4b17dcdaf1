//! The journal seam: what must be on disk before a durable task is acknowledged.
//!
//! The core emits records in order; whoever holds it appends them, syncs, and reports how far that
//! got. ROUTE may precede the sync of its task's record; ACCEPTED and DELIVER may not.
//!
//! Records are about a task, by identity and id, or about a dead letter of it. Of each only the newest
//! counts: what [`Journal::load`] gives back is what [`Core::restore`](crate::broker::Core::restore_from_journal)
//! takes.

use std::io;

use bytes::Bytes;
use mcp_proto::{Deliver, Executed, Payload, TaskId};

use crate::broker::identity::Identity;

/// Whose task, and which.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TaskName {
    /// Whose it is.
    pub identity: Identity,
    /// Which.
    pub task_id: TaskId,
}

/// What the journal keeps.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// A durable task was taken.
    Accepted(TaskName, AcceptedTask),
    /// A durable task has its outcome, in place of what was before.
    Ended(TaskName, EndedTask),
    /// The client is done with the outcome, which is no longer kept; the id is, for a while.
    Settled(TaskName, SettledTask),
    /// Nothing is kept of the task.
    Forgotten(TaskName),
    /// A durable task ended otherwise than it should have.
    Dead(TaskName, DeadLetter),
    /// A task's dead letter is no longer kept.
    DeadForgotten(TaskName),
}

/// A durable task without an outcome.
#[derive(Debug, Clone, PartialEq)]
pub struct AcceptedTask {
    /// The task as it came, and its input.
    pub payload: Payload,
    /// When it came, ms since 1970.
    pub received_wall_ms: u64,
    /// When it may go to a worker, ms since 1970.
    pub start_wall_ms: u64,
    /// When its time to live runs out, ms since 1970.
    pub deadline_wall_ms: u64,
}

/// The outcome of a durable task.
#[derive(Debug, Clone, PartialEq)]
pub struct EndedTask {
    /// Of its action and input: what tells it from another task of the same id.
    pub fingerprint: u64,
    /// How it ended.
    pub deliver: Box<Deliver>,
    /// Its result.
    pub body: Bytes,
    /// When, ms since 1970.
    pub ended_wall_ms: u64,
}

/// A durable task with whose outcome its client is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettledTask {
    /// As in [`EndedTask`].
    pub fingerprint: u64,
    /// Whether it ran.
    pub executed: Executed,
    /// When it was settled, ms since 1970.
    pub settled_wall_ms: u64,
}

/// A durable task that ended otherwise than ok or cancelled.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    /// The task as it came, and its input.
    pub payload: Payload,
    /// How it ended, with its trace.
    pub deliver: Box<Deliver>,
    /// Its time to live, ms.
    pub ttl_ms: u64,
    /// Attempts since it was accepted, or since the broker's last start.
    pub attempts: u32,
    /// When it ended, ms since 1970.
    pub died_wall_ms: u64,
}

/// Keeps records. Implementations may block; they are called off the core's lock.
pub trait Journal: Send + 'static {
    /// Appends a record; it need not be on disk yet.
    ///
    /// # Errors
    /// When it can't be written. The journal is not used again.
    fn append(&mut self, record: &Record) -> io::Result<()>;

    /// Brings everything appended to disk.
    ///
    /// # Errors
    /// When that can't be said for sure. The journal is not used again.
    fn sync(&mut self) -> io::Result<()>;

    /// Called after each sync, when those who waited for it were told, and before the next record: time
    /// for upkeep, such as compaction. Default: nothing.
    ///
    /// # Errors
    /// When the journal is not to be used again. What was synced is on disk all the same.
    fn tidy(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Whether what is synced outlives the process. Only then durable tasks are taken.
    fn is_durable(&self) -> bool;

    /// What counts of what was synced before the journal was opened, in the order in which it was
    /// appended. Called once, before anything is appended.
    ///
    /// # Errors
    /// When it can't be read, or is damaged.
    fn load(&mut self) -> io::Result<Vec<Record>>;
}
