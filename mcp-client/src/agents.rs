//! The broker's list of agents.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::builtin::ask;
use crate::client::Client;
use crate::error::CallError;

/// The built-in action that lists agents.
const AGENTS_LIST: &str = "mcp.admin.agents.list";

/// An agent as the broker sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentInfo {
    /// The broker's name for it.
    pub node_id: String,
    /// Its own name.
    pub agent_id: String,
    /// `online`, `lost` or `offline`.
    pub presence: String,
    /// `standby`, `ready` or `draining`.
    pub readiness: String,
    /// `suspect` while it does not answer; otherwise how it is at the action at which it is worst:
    /// `ok`, `slow start`, `ejected`, `half-open`, `probing` or `breaker open`.
    pub health: String,
    /// The actions at which it is not ok.
    #[serde(default)]
    pub unwell: Vec<ActionHealth>,
    /// What it serves.
    pub actions: Vec<String>,
    /// Its capability labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Handlers that may run at once.
    pub slots: u32,
    /// Attempts that take its slots.
    pub in_flight: u32,
    /// Attempts that it has besides, whose handlers wait for other tasks.
    #[serde(default)]
    pub parked: u32,
    /// Since the last sign of life, ms.
    pub last_seen_ms: u64,
}

/// How an agent is at one action, where that is not well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionHealth {
    /// The action.
    pub action: String,
    /// As in [`AgentInfo::health`].
    pub health: String,
    /// Until time ends that, if it does, ms.
    #[serde(default)]
    pub for_ms: Option<u64>,
}

/// Which agents to list.
#[derive(Serialize)]
struct Filter {
    all: bool,
}

impl Client {
    /// The agents that the broker knows: those online, or, with `all`, also the lost ones.
    pub async fn agents(&self, all: bool) -> Result<Vec<AgentInfo>, CallError> {
        ask(self, AGENTS_LIST, &Filter { all }).await
    }
}
