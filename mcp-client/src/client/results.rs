//! Outcomes of tasks that another process sent, and the end of their keeping.

use mcp_proto::{TaskId, TaskState};

use super::Client;
use super::fetches::Answer;
use super::pending::whole;
use crate::error::CallError;
use crate::task::TaskEnd;

/// What the broker has of a task that was asked for by its id.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Fetched {
    /// Its end.
    Ended(Box<TaskEnd>),
    /// It waits for a worker, or for its time.
    Queued,
    /// A worker has it.
    Running,
    /// There is no such task of this identity: it never came to this broker, its outcome is no longer
    /// kept, or the broker has lost its journal.
    Unknown,
}

impl From<Answer> for Fetched {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Ended(end) => Fetched::Ended(Box::new(whole(end).into())),
            Answer::State(TaskState::Queued) => Fetched::Queued,
            Answer::State(TaskState::Running) => Fetched::Running,
            Answer::State(TaskState::Unknown) => Fetched::Unknown,
        }
    }
}

impl Client {
    /// The end of a task by its id, whichever process of this identity sent it: waits for it if need
    /// be, also while the connection is made anew. None as for [`Fetched::Unknown`].
    ///
    /// The outcome of a durable task is kept until somebody [settles](Self::settle) it, or for as long
    /// as its broker keeps outcomes (24 h when its operator does not say otherwise); that of another
    /// one perhaps for a while. This does not settle it. A task that was settled lately ends
    /// rejected(SETTLED) here.
    ///
    /// Waits for as long as the task lives, which may be days. Dropping the future ends the waiting,
    /// and changes nothing about the task.
    ///
    /// # Errors
    /// [`CallError::Connect`] when there is no connection, and none will be made.
    pub async fn result(&self, task_id: &TaskId) -> Result<Option<TaskEnd>, CallError> {
        match self.session().fetch(task_id, true).await?.into() {
            Fetched::Ended(end) => Ok(Some(*end)),
            Fetched::Queued | Fetched::Running | Fetched::Unknown => Ok(None),
        }
    }

    /// As [`result`](Self::result), but without an outcome it says where the task is, and does not
    /// wait; except for a connection, while there is none.
    ///
    /// # Errors
    /// As [`result`](Self::result).
    pub async fn try_result(&self, task_id: &TaskId) -> Result<Fetched, CallError> {
        Ok(self.session().fetch(task_id, false).await?.into())
    }

    /// Says that the outcome of a durable task was taken: the broker need not keep it any longer. For
    /// tasks that were sent with [`settle_manually`](crate::TaskBuilder::settle_manually), and those
    /// asked for by [`result`](Self::result). Of a task without an outcome, that is not durable, or
    /// not known, it has no effect.
    ///
    /// Not answered: it is sent at once, or over the next connection (the last 10,000 of them), and
    /// [`close`](Self::close) waits until it has arrived. Should it be lost with a connection, the
    /// broker keeps the outcome as long as others.
    pub fn settle(&self, task_id: &TaskId) {
        self.session().settle(task_id);
    }
}
