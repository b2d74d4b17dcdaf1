//! The broker at a glance, as an operator sees it.

use serde::{Deserialize, Serialize};

use crate::actions::Breakers;
use crate::builtin::ask;
use crate::client::Client;
use crate::error::CallError;

const OVERVIEW: &str = "mcp.admin.overview";

/// The broker at a glance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    /// The broker's name.
    pub broker_id: String,
    /// Which start of it this is.
    pub epoch: u64,
    /// Since its start, ms.
    pub uptime_ms: u64,
    /// Its time of day, ms since 1970, UTC.
    pub wall_ms: u64,
    /// Whether it stops and takes no new tasks.
    pub is_shutting_down: bool,
    /// Whether actions that are not core take no tasks, for want of room.
    pub is_shedding: bool,
    /// Why durable tasks are refused; none while they are taken.
    pub why_not_durable: Option<String>,
    /// Its agents.
    pub agents: AgentCounts,
    /// Tasks without an outcome.
    pub tasks: TaskCounts,
    /// Of all actions together.
    pub rates: Spans,
    /// Durable tasks.
    pub durable: DurableCounts,
    /// Durable tasks that did not end well and are kept.
    pub dead_letters: u64,
    /// Client sessions, detached ones included.
    pub sessions: u64,
    /// Connections.
    pub connections: u64,
    /// The actions that are told one by one, the one with the longest waiting task first.
    pub actions: Vec<ActionOverview>,
    /// Whether there are more than a frame carries.
    pub more_actions: bool,
}

/// How many agents there are, by state; see [`AgentInfo::state`](crate::AgentInfo::state).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentCounts {
    /// Registered.
    pub total: u64,
    /// They take tasks.
    pub ready: u64,
    /// They take none for now.
    pub standby: u64,
    /// They take no more.
    pub draining: u64,
    /// They do not answer.
    pub suspect: u64,
    /// Left out of an action for their failures or for being slow.
    pub ejected: u64,
    /// They may come back.
    pub lost: u64,
    /// Slots of those online.
    pub slots: u64,
    /// Attempts that take these slots.
    pub in_flight: u64,
    /// Drained by operators, those that are not registered included.
    pub drained: u64,
}

/// Tasks without an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskCounts {
    /// They wait for a worker with room.
    pub queued: u64,
    /// Bytes of these.
    pub queued_bytes: u64,
    /// They wait for their next attempt.
    pub delayed: u64,
    /// At workers.
    pub running: u64,
}

/// Durable tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DurableCounts {
    /// Whether they are taken.
    pub is_available: bool,
    /// Without an outcome.
    pub in_flight: u64,
    /// Outcomes that are kept until they are settled.
    pub kept_outcomes: u64,
    /// Of both.
    pub bytes: u64,
}

/// Rates over two spans of time.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Spans {
    /// Over the last 10 whole seconds.
    pub s10: Rates,
    /// Over the last 60.
    pub s60: Rates,
}

/// Tasks a second.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Rates {
    /// Taken.
    pub taken: f64,
    /// Ended ok.
    pub ok: f64,
    /// Failed or expired.
    pub error: f64,
    /// Cancelled.
    pub cancelled: f64,
    /// Refused, at once or later.
    pub rejected: f64,
}

/// One action at a glance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActionOverview {
    /// Its name.
    pub action: String,
    /// Its tasks that wait for a worker with room.
    pub queued: u64,
    /// Bytes of these.
    pub queued_bytes: u64,
    /// Since the longest waiting of them was taken, ms; none when none waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_ms: Option<u64>,
    /// Its tasks that wait for their next attempt.
    pub delayed: u64,
    /// Its tasks at workers.
    pub running: u64,
    /// Workers registered for it.
    pub workers: u64,
    /// Those of them that take tasks.
    pub ready: u64,
    /// Slots of its workers that are online. Their other actions use them, too.
    pub slots: u64,
    /// Its workers that take tasks, or would, by the state of their breaker.
    #[serde(default)]
    pub breakers: Breakers,
    /// Whether an operator keeps its tasks from its workers.
    pub is_degraded: bool,
    /// Of its tasks.
    pub rates: Spans,
    /// Half of its tasks of the last minute took no longer from SEND to outcome, about, µs.
    pub p50_us: Option<u64>,
    /// 99 % of them.
    pub p99_us: Option<u64>,
}

impl Client {
    /// The broker at a glance: backlog, rates and times by action, agents by state, health.
    ///
    /// # Errors
    /// How the question ended, if not ok. Dropping the future asks no more.
    pub async fn overview(&self) -> Result<Overview, CallError> {
        ask(self, OVERVIEW, &serde_json::Map::new()).await
    }
}
