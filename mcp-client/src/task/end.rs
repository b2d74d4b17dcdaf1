//! How a task ended.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;
use mcp_proto::{Deliver, ErrorInfo, Executed, LazyTrace, Outcome, TaskId};

use crate::error::CallError;

/// How a task ended.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskEnd {
    /// Which.
    pub task_id: TaskId,
    /// How.
    pub outcome: Outcome,
    /// Whether its handler ran: what decides if sending it again is safe.
    pub executed: Executed,
    /// The result.
    pub body: Bytes,
    /// Of the result.
    pub content_type: ByteString,
    /// Of the result, such as usage numbers.
    pub headers: BTreeMap<String, String>,
    /// Set when it got no worker of its action, or not at first: the step of the action's fallback
    /// chain that this is of, `"cached"`, `"action:NAME"` or `"default"`.
    pub fallback: Option<Box<str>>,
    /// Why, for all but `ok`.
    pub error: Option<Box<ErrorInfo>>,
    /// What happened on its way. Empty when the broker did not answer.
    pub trace: LazyTrace,
}

/// The result of a task that ended `ok`.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The result.
    pub body: Bytes,
    /// Of the result.
    pub content_type: ByteString,
    /// Of the result, such as usage numbers.
    pub headers: BTreeMap<String, String>,
    /// Set when it is not of a worker of the action: the step of the action's fallback chain that gave
    /// it, `"cached"` (an earlier answer), `"action:NAME"` (a worker of another action) or
    /// `"default"`.
    pub fallback: Option<Box<str>>,
    /// What happened on its way.
    pub trace: LazyTrace,
}

/// A task's end on its way to who waits for it: as it arrived, which is little to move and to keep.
#[derive(Debug, Clone)]
pub(crate) struct Delivered {
    pub(crate) deliver: Box<Deliver>,
    pub(crate) body: Bytes,
}

impl From<Delivered> for TaskEnd {
    fn from(Delivered { deliver, body }: Delivered) -> Self {
        let Deliver { task_id, outcome, executed, content_type, error, trace, .. } = *deliver;
        let headers = deliver.headers.map(|headers| *headers).unwrap_or_default();
        let fallback = deliver.fallback;
        Self { task_id, outcome, executed, body, content_type, headers, fallback, error, trace }
    }
}

impl TaskEnd {
    /// The reply, if it ended `ok`.
    pub fn into_reply(self) -> Result<Reply, CallError> {
        match self.outcome {
            Outcome::Ok => {
                let Self { body, content_type, headers, fallback, trace, .. } = self;
                Ok(Reply { body, content_type, headers, fallback, trace })
            }
            Outcome::Failed
            | Outcome::Expired
            | Outcome::Cancelled
            | Outcome::Rejected
            | Outcome::Lost => Err(self.into()),
        }
    }
}

impl fmt::Display for TaskEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {} {}", self.task_id, self.outcome)?;
        if self.outcome != Outcome::Ok {
            write!(f, " (executed: {})", self.executed)?;
        }
        match &self.error {
            Some(error) => write!(f, ": {error}"),
            None => Ok(()),
        }
    }
}
