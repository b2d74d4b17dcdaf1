//! A task that nobody sent.

use std::collections::BTreeMap;

use mcp_proto::{ActionName, Priority};
use serde::Deserialize;

/// A task to ask about: see [`Core::explain`](crate::broker::Core::explain).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Question {
    /// What it asks for.
    pub action: ActionName,
    /// Labels that its worker must have.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Whether it is for shadow workers.
    #[serde(default)]
    pub shadow: bool,
    /// Its affinity key; empty for none.
    #[serde(default)]
    pub affinity_key: String,
    /// On whose account; empty for none.
    #[serde(default)]
    pub tenant: String,
    /// Which of the waiting tasks goes first.
    #[serde(default = "normal")]
    pub priority: Priority,
    /// Its time to live, ms; 30,000 when not said.
    #[serde(default = "half_a_minute")]
    pub ttl_ms: u64,
}

fn normal() -> Priority {
    Priority::Normal
}

/// As long as the SDK gives a task that does not say.
fn half_a_minute() -> u64 {
    30_000
}

impl Question {
    /// About a task of an action that says nothing else.
    pub fn new(action: ActionName) -> Self {
        Self {
            action,
            labels: BTreeMap::new(),
            shadow: false,
            affinity_key: String::new(),
            tenant: String::new(),
            priority: normal(),
            ttl_ms: half_a_minute(),
        }
    }
}
