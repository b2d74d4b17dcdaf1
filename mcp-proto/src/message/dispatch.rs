//! Messages about tasks and attempts.

use bytes::Bytes;
use bytestring::ByteString;

use super::field::{In, task_id, wire_enum};
use super::task::EncodedTask;
use super::{ContextTrace, MessageKind};
use crate::error::{ErrorInfo, InvalidMessage};
use crate::generated as wire;
use crate::id::{AttemptId, TaskId};
use crate::limits::MAX_TTL_MS;

wire_enum! {
    /// How a task ends: exactly one of these for each task.
    Outcome {
        /// The handler returned a result.
        Ok = 1, "ok";
        /// The handler returned an error, or its worker was lost.
        Failed = 2, "failed";
        /// Its time to live ran out.
        Expired = 3, "expired";
        /// Its client cancelled it.
        Cancelled = 4, "cancelled";
        /// The broker did not take it, or gave up placing it.
        Rejected = 5, "rejected";
        /// Nobody knows: decided by a client whose broker is gone, never sent.
        Lost = 6, "lost";
    }
}

wire_enum! {
    /// Whether the handler ran: what decides if trying again is safe.
    Executed {
        /// It did not start.
        No = 1, "no";
        /// It may have started.
        Maybe = 2, "maybe";
        /// It started.
        Yes = 3, "yes";
    }
}

wire_enum! {
    /// Why a task or attempt shall end.
    CancelReason {
        /// The client asked.
        Client = 1, "client";
        /// The time to live ran out.
        Expired = 2, "expired";
        /// Another attempt took over, or the task has ended otherwise.
        Superseded = 3, "superseded";
        /// The broker is stopping.
        Shutdown = 4, "shutdown";
    }
}

wire_enum! {
    /// What the broker knows of a task without an outcome.
    TaskState {
        /// Nothing, or no longer.
        Unknown = 1, "unknown";
        /// It waits for a worker.
        Queued = 2, "queued";
        /// A worker holds it.
        Running = 3, "running";
    }
}

/// A task for the broker.
#[derive(Debug, Clone, PartialEq)]
pub struct Send {
    /// The task.
    pub task: EncodedTask,
    /// Time to live from now, ms, 1 to 7 days.
    pub ttl_ms: u64,
}

impl Send {
    pub(super) fn from_wire(it: wire::Send) -> Result<Self, InvalidMessage> {
        let task = EncodedTask(it.task);
        if it.ttl_ms == 0 || it.ttl_ms > MAX_TTL_MS {
            let at =
                In { kind: MessageKind::Send, task_id: task.decode().ok().map(|task| task.id) };
            let problem = format!("is {}; 1 to {MAX_TTL_MS} ms are allowed", it.ttl_ms);
            return Err(at.invalid("ttl_ms", problem));
        }
        Ok(Self { task, ttl_ms: it.ttl_ms })
    }

    pub(super) fn to_wire(&self) -> wire::Send {
        wire::Send { task: self.task.0.clone(), ttl_ms: self.ttl_ms }
    }
}

/// An attempt at a task, for a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Names this attempt.
    pub attempt_id: AttemptId,
    /// 1 for the task's first.
    pub attempt: u32,
    /// What remains of the time to live, ms.
    pub ttl_ms: u64,
    /// The task.
    pub task: EncodedTask,
}

impl Route {
    pub(super) fn from_wire(it: wire::Route) -> Self {
        Self {
            attempt_id: AttemptId(it.attempt_id),
            attempt: it.attempt,
            ttl_ms: it.ttl_ms.min(MAX_TTL_MS),
            task: EncodedTask(it.task),
        }
    }

    pub(super) fn to_wire(&self) -> wire::Route {
        wire::Route {
            attempt_id: self.attempt_id.0,
            attempt: self.attempt,
            ttl_ms: self.ttl_ms,
            task: self.task.0.clone(),
        }
    }
}

/// The end of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskResult {
    /// Which.
    pub attempt_id: AttemptId,
    /// Ok or Failed; Cancelled or Expired to confirm a CANCEL.
    pub outcome: Outcome,
    /// Whether the handler ran.
    pub executed: Executed,
    /// Of the result's body.
    pub content_type: ByteString,
    /// For all but Ok.
    pub error: Option<Box<ErrorInfo>>,
    /// From the arrival of ROUTE to the start of the handler, µs.
    pub queue_us: u64,
    /// In the handler, µs.
    pub work_us: u64,
}

impl TaskResult {
    pub(super) fn from_wire(it: wire::Result) -> Result<Self, InvalidMessage> {
        let at = In::new(MessageKind::Result);
        let outcome = match Outcome::from_wire(it.outcome) {
            Some(
                outcome @ (Outcome::Ok | Outcome::Failed | Outcome::Expired | Outcome::Cancelled),
            ) => outcome,
            Some(Outcome::Rejected | Outcome::Lost) | None => {
                let problem = format!("{} is not one that a worker reports", it.outcome);
                return Err(at.invalid("outcome", problem));
            }
        };
        Ok(Self {
            attempt_id: AttemptId(it.attempt_id),
            outcome,
            executed: Executed::from_wire(it.executed).unwrap_or(Executed::Yes),
            content_type: at.text("content_type", it.content_type)?,
            error: it.error.map(|error| Box::new(ErrorInfo::from_wire(error))),
            queue_us: it.queue_us,
            work_us: it.work_us,
        })
    }

    pub(super) fn to_wire(&self) -> wire::Result {
        wire::Result {
            attempt_id: self.attempt_id.0,
            outcome: self.outcome.to_wire(),
            executed: self.executed.to_wire(),
            content_type: self.content_type.as_bytes().clone(),
            error: self.error.as_ref().map(|error| error.to_wire()),
            queue_us: self.queue_us,
            work_us: self.work_us,
        }
    }
}

/// The end of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Deliver {
    /// Which.
    pub task_id: TaskId,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether the handler ran.
    pub executed: Executed,
    /// Of the result's body.
    pub content_type: ByteString,
    /// For all but Ok.
    pub error: Option<Box<ErrorInfo>>,
    /// What happened on its way.
    pub trace: ContextTrace,
}

impl Deliver {
    pub(super) fn from_wire(it: wire::Deliver) -> Result<Self, InvalidMessage> {
        let task_id = task_id(MessageKind::Deliver, it.task_id)?;
        let at = In { kind: MessageKind::Deliver, task_id: Some(task_id.clone()) };
        Ok(Self {
            outcome: Outcome::from_wire(it.outcome).ok_or_else(|| {
                at.invalid("outcome", format!("has unknown value {}", it.outcome))
            })?,
            executed: Executed::from_wire(it.executed).unwrap_or(Executed::Maybe),
            content_type: at.text("content_type", it.content_type)?,
            error: it.error.map(|error| Box::new(ErrorInfo::from_wire(error))),
            trace: it.context_trace.map(ContextTrace::from_wire).unwrap_or_default(),
            task_id,
        })
    }

    pub(super) fn to_wire(&self) -> wire::Deliver {
        wire::Deliver {
            task_id: self.task_id.to_bytes(),
            outcome: self.outcome.to_wire(),
            executed: self.executed.to_wire(),
            content_type: self.content_type.as_bytes().clone(),
            error: self.error.as_ref().map(|error| error.to_wire()),
            context_trace: Some(self.trace.to_wire()),
        }
    }
}

/// End a task, or an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Cancel {
    /// From a client: its task.
    Task(TaskId),
    /// From the broker: this attempt.
    Attempt(AttemptId, CancelReason),
}

impl Cancel {
    pub(super) fn from_wire(it: wire::Cancel) -> Result<Self, InvalidMessage> {
        if it.attempt_id != 0 {
            let reason = CancelReason::from_wire(it.reason).unwrap_or(CancelReason::Superseded);
            return Ok(Cancel::Attempt(AttemptId(it.attempt_id), reason));
        }
        Ok(Cancel::Task(task_id(MessageKind::Cancel, it.task_id)?))
    }

    pub(super) fn to_wire(&self) -> wire::Cancel {
        match self {
            Cancel::Task(id) => wire::Cancel {
                task_id: id.to_bytes(),
                attempt_id: 0,
                reason: CancelReason::Client.to_wire(),
            },
            Cancel::Attempt(id, reason) => {
                wire::Cancel { task_id: Bytes::new(), attempt_id: id.0, reason: reason.to_wire() }
            }
        }
    }
}

/// Hands an attempt back that was not started.
#[derive(Debug, Clone, PartialEq)]
pub struct Nack {
    /// Which.
    pub attempt_id: AttemptId,
    /// Why.
    pub error: Option<Box<ErrorInfo>>,
}

impl Nack {
    pub(super) fn from_wire(it: wire::Nack) -> Self {
        Self {
            attempt_id: AttemptId(it.attempt_id),
            error: it.error.map(|error| Box::new(ErrorInfo::from_wire(error))),
        }
    }

    pub(super) fn to_wire(&self) -> wire::Nack {
        wire::Nack {
            attempt_id: self.attempt_id.0,
            error: self.error.as_ref().map(|error| error.to_wire()),
        }
    }
}
