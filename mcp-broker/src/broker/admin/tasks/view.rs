//! What is told of a task: in a list, and of one alone. Never what is in it.

use mcp_proto::limits::MAX_HOPS;
use mcp_proto::{
    ActionName, AgentId, ContextTrace, Deliver, Delivery, ErrorCode, ErrorInfo, Executed, Frame,
    FrameCodec, Incoming, Labels, Limits, Message, NodeId, Outcome, Priority, TaskId, TraceId,
};
use serde::{Deserialize, Serialize};

use crate::broker::fallback::Detour;
use crate::broker::finished::Kept;
use crate::broker::identities::IdentityKey;
use crate::broker::inflight::{Task, TaskState};
use crate::broker::{Core, Now};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Queued,
    Delayed,
    Running,
    Ok,
    Failed,
    Expired,
    Cancelled,
    Rejected,
}

impl Status {
    pub(super) fn ended(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Ok => Status::Ok,
            Outcome::Failed => Status::Failed,
            Outcome::Expired => Status::Expired,
            Outcome::Cancelled => Status::Cancelled,
            // A broker never says lost.
            Outcome::Rejected | Outcome::Lost => Status::Rejected,
        }
    }

    pub(super) fn of(task: &Task) -> Self {
        match &task.state {
            TaskState::Placing { .. } | TaskState::Queued { .. } => Status::Queued,
            TaskState::Delayed { .. } => Status::Delayed,
            TaskState::Running(_) => Status::Running,
            // Decided, and told as soon as it is journalled.
            TaskState::Ending(ending) => Status::ended(ending.0.outcome),
        }
    }

    /// The outcome, of those that are one.
    pub(super) fn outcome(self) -> Option<Outcome> {
        match self {
            Status::Queued | Status::Delayed | Status::Running => None,
            Status::Ok => Some(Outcome::Ok),
            Status::Failed => Some(Outcome::Failed),
            Status::Expired => Some(Outcome::Expired),
            Status::Cancelled => Some(Outcome::Cancelled),
            Status::Rejected => Some(Outcome::Rejected),
        }
    }
}

/// A task in a list.
#[derive(Serialize)]
pub(in crate::broker::admin) struct Row<'a> {
    task_id: &'a TaskId,
    identity: &'a str,
    action: &'a ActionName,
    status: Status,
    priority: Priority,
    /// Since SEND.
    age_ms: u64,
    /// Since it has this status.
    status_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_left_ms: Option<u64>,
    attempts: u32,
    /// The worker that holds it, or had it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_id: Option<&'a AgentId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_id: Option<&'a NodeId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<ErrorCode>,
}

/// All that is told of one task.
#[derive(Serialize)]
pub(super) struct View<'a> {
    #[serde(flatten)]
    row: Row<'a>,
    #[serde(flatten)]
    asked: Option<Asked<'a>>,
    trace_id: TraceId,
    chunks: u32,
    /// The step of the fallback chain that has it, or answered it.
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    executed: Option<Executed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Box<ErrorInfo>>,
    context_trace: ContextTrace,
}

/// What is known only while a task is in flight.
#[derive(Serialize)]
struct Asked<'a> {
    delivery: Delivery,
    idempotent: bool,
    required_labels: &'a Labels,
    /// Sessions that wait for it.
    waiters: usize,
    /// The worker of its second attempt, while it is hedged.
    #[serde(skip_serializing_if = "Option::is_none")]
    hedge_agent_id: Option<&'a AgentId>,
}

impl Core {
    pub(in crate::broker::admin) fn row_of<'a>(
        &'a self,
        now: Now,
        task: &'a Task,
    ) -> Option<Row<'a>> {
        let running = match task.state {
            TaskState::Running(attempt) => self.attempts.get(attempt),
            _ => None,
        };
        let agent = running.and_then(|attempt| self.registry.get(attempt.agent));
        let since = match (&task.state, running) {
            (state, None) => state.waits_since().unwrap_or(now.mono),
            (_, Some(attempt)) => attempt.routed,
        };
        Some(Row {
            task_id: &task.id,
            identity: self.identity_name(task.identity),
            action: self.action_of(task)?,
            status: Status::of(task),
            priority: task.priority,
            age_ms: now.mono.since(task.received) / 1000,
            status_ms: now.mono.since(since) / 1000,
            ttl_left_ms: Some(task.deadline.since(now.mono) / 1000),
            attempts: task.attempts,
            agent_id: agent.map(|agent| &agent.id),
            node_id: agent.map(|agent| &agent.node_id),
            error_code: None,
        })
    }

    pub(in crate::broker::admin) fn row_of_ended<'a>(
        &'a self,
        now: Now,
        kept: &'a Kept,
    ) -> Row<'a> {
        Row {
            task_id: &kept.task_id,
            identity: self.identity_name(kept.identity),
            action: &kept.action,
            status: Status::ended(kept.outcome),
            priority: kept.priority,
            age_ms: now.mono.since(kept.received) / 1000,
            status_ms: now.mono.since(kept.ended) / 1000,
            ttl_left_ms: None,
            attempts: kept.attempts,
            agent_id: kept.node_id.as_ref().and_then(|node| self.registry.agent_at(node)),
            node_id: kept.node_id.as_ref(),
            error_code: kept.error_code,
        }
    }

    pub(super) fn view_of<'a>(&'a self, now: Now, task: &'a Task) -> Option<View<'a>> {
        let queue_us = match &task.state {
            TaskState::Running(attempt) => self.attempts.get(*attempt)?.queue_us,
            state => state.waits_since().map_or(0, |since| now.mono.since(since)),
        };
        let hedge = task.second_attempt().and_then(|hedge| self.attempts.get(hedge));
        let hedge_agent = hedge.and_then(|hedge| self.registry.get(hedge.agent));
        let left_out = task.hops.len().saturating_sub(MAX_HOPS);
        Some(View {
            row: self.row_of(now, task)?,
            asked: Some(Asked {
                delivery: if task.is_durable { Delivery::Durable } else { Delivery::Fast },
                idempotent: task.is_idempotent,
                required_labels: &self.pools.get(task.pool)?.subqueues[task.subqueue].required,
                waiters: task.waiters.len(),
                hedge_agent_id: hedge_agent.map(|agent| &agent.id),
            }),
            trace_id: task.trace_id(),
            chunks: self.streams.chunks(task.stream).0,
            fallback: task.detour().and_then(Detour::told),
            executed: None,
            error: None,
            context_trace: ContextTrace {
                broker_id: Some(self.config.broker_id.clone()),
                total_us: now.mono.since(task.received),
                queue_us,
                hops: task.hops[left_out..].to_vec(),
                truncated: left_out > 0,
                ..ContextTrace::default()
            },
        })
    }

    pub(super) fn view_of_ended<'a>(
        &'a self,
        now: Now,
        kept: &'a Kept,
    ) -> Result<View<'a>, ErrorInfo> {
        let Deliver { executed, error, trace, chunks, fallback, .. } = told(kept)?;
        let context_trace = trace.into_decoded();
        let trace_id = context_trace.trace_id;
        Ok(View {
            row: self.row_of_ended(now, kept),
            asked: None,
            trace_id: trace_id.unwrap_or_else(|| TraceId::of_task(&kept.task_id)),
            chunks,
            fallback,
            executed: Some(executed),
            error,
            context_trace,
        })
    }

    fn identity_name(&self, key: IdentityKey) -> &str {
        self.identities.get(key).as_str()
    }
}

/// What was told of a task when it ended.
fn told(kept: &Kept) -> Result<Deliver, ErrorInfo> {
    match FrameCodec::new(&Limits::default()).decode(&mut kept.frame.to_bytes()) {
        Ok(Some(Incoming::Frame(Frame { message: Message::Deliver(deliver), .. }))) => Ok(*deliver),
        _ => Err(ErrorInfo::new(ErrorCode::Internal, "what is kept of the task can't be read")),
    }
}
