//! The broker's tasks, as an operator sees them: what waits, what runs where, what went wrong.

use std::collections::BTreeMap;
use std::fmt;

use mcp_proto::{
    ActionName, AgentId, ContextTrace, ErrorCode, ErrorInfo, Executed, TaskId, TraceId,
};
use mcp_proto::{Delivery, NodeId, Priority};
use serde::{Deserialize, Serialize};

use crate::builtin::{Named, ask};
use crate::client::Client;
use crate::error::CallError;

const LIST: &str = "mcp.admin.tasks.list";
const SHOW: &str = "mcp.admin.tasks.show";
const CANCEL: &str = "mcp.admin.tasks.cancel";

/// Which tasks to list: those that are all of what is given; all when nothing is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct TaskFilter {
    /// Of this action.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<ActionName>,
    /// Of this status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<TaskStatus>,
    /// At this agent, or last at it when they have ended; by its own name or its node's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentId>,
    /// At most so many, 1 to 1,000; 100 when not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Where a task is, or how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TaskStatus {
    /// It waits for a worker with room.
    Queued,
    /// It waits for its next attempt: after a failure, or because it was put off.
    Delayed,
    /// A worker holds it.
    Running,
    /// Ended with a result.
    Ok,
    /// Ended: its handler failed, or its worker was lost.
    Failed,
    /// Ended: its time to live ran out.
    Expired,
    /// Ended: its client or an operator cancelled it.
    Cancelled,
    /// Ended: the broker could not place it.
    Rejected,
    /// One of a later broker.
    #[serde(other)]
    Unknown,
}

impl TaskStatus {
    /// Its name in the protocol, `"queued"`.
    pub fn name(self) -> &'static str {
        match self {
            TaskStatus::Queued => "queued",
            TaskStatus::Delayed => "delayed",
            TaskStatus::Running => "running",
            TaskStatus::Ok => "ok",
            TaskStatus::Failed => "failed",
            TaskStatus::Expired => "expired",
            TaskStatus::Cancelled => "cancelled",
            TaskStatus::Rejected => "rejected",
            TaskStatus::Unknown => "unknown",
        }
    }
}

impl fmt::Display for TaskStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A list of tasks: first those in flight, then those that have ended, in both the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskList {
    /// What matched, as many as were asked for and fit into a frame.
    pub tasks: Vec<TaskSummary>,
    /// Whether more may match: the list is full, or the broker has more tasks than it looks at for
    /// one list. Ask for fewer kinds of them.
    pub more: bool,
}

/// A task in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSummary {
    /// Its name among those of its client's identity.
    pub task_id: TaskId,
    /// Its client's identity.
    pub identity: String,
    /// What it asks for.
    pub action: ActionName,
    /// Where it is, or how it ended.
    pub status: TaskStatus,
    /// Which of the waiting tasks goes first.
    pub priority: Priority,
    /// Since it was sent, ms.
    pub age_ms: u64,
    /// Since it has this status, ms.
    pub status_ms: u64,
    /// What remains of its time to live, ms; only while it is in flight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_left_ms: Option<u64>,
    /// Attempts so far, one that runs included.
    pub attempts: u32,
    /// The agent that holds it, or had it last, if it is still known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
    /// Its node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_id: Option<NodeId>,
    /// Why it did not end ok.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<ErrorCode>,
}

/// All that the broker tells of one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskInfo {
    /// What a list has.
    #[serde(flatten)]
    pub summary: TaskSummary,
    /// What the broker promises for it; only while it is in flight, as the next four.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
    /// Whether running it twice does no harm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotent: Option<bool>,
    /// Labels that a worker must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub required_labels: Option<BTreeMap<String, String>>,
    /// Sessions that wait for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiters: Option<u32>,
    /// The agent of its second attempt, while it has two at once (hedging).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hedge_agent_id: Option<AgentId>,
    /// The trace that it belongs to: it is in the log lines and spans of all that had the task. A
    /// broker of an earlier version does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<TraceId>,
    /// Parts of its result so far, of its latest attempt.
    pub chunks: u32,
    /// The step of its action's fallback chain that has it, or that its end is of: `"cached"`,
    /// `"action:NAME"` or `"default"`; none when it is the action's workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Box<str>>,
    /// Whether its handler ran; only when it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executed: Option<Executed>,
    /// Why it did not end ok.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorInfo>,
    /// Its way so far: an attempt that runs is no hop yet.
    pub context_trace: ContextTrace,
}

/// What became of a cancel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCancelled {
    /// Which task.
    pub task_id: TaskId,
    /// Whether this ended it; otherwise it had ended already.
    pub cancelled: bool,
    /// How it ended.
    pub status: TaskStatus,
}

impl Client {
    /// Tasks of all clients, in flight and among the last that ended. What was refused at once was
    /// no task, and is not among them.
    pub async fn tasks(&self, filter: &TaskFilter) -> Result<TaskList, CallError> {
        ask(self, LIST, filter).await
    }

    /// One task of whatever client; none when it never came here or is no longer kept. Where several
    /// identities have a task of this id, `identity` says whose; without it that is an error.
    pub async fn task_info(
        &self,
        task_id: &TaskId,
        identity: Option<&str>,
    ) -> Result<Option<TaskInfo>, CallError> {
        ask(self, SHOW, &Named { task_id, identity }).await
    }

    /// Ends a task of whatever client for all who wait for it: they get the outcome cancelled, and a
    /// worker that holds it is told. Does nothing to one that has ended. None as for
    /// [`task_info`](Client::task_info).
    ///
    /// To cancel a task of one's own, drop its handle, or call its `cancel`.
    pub async fn cancel_task(
        &self,
        task_id: &TaskId,
        identity: Option<&str>,
    ) -> Result<Option<TaskCancelled>, CallError> {
        ask(self, CANCEL, &Named { task_id, identity }).await
    }
}
