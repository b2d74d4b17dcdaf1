//! Who would get a task, and why, without sending it.

use std::collections::BTreeMap;

use mcp_proto::{ActionName, Priority};
use serde::Serialize;

use crate::builtin::ask;
use crate::client::Client;
use crate::error::CallError;

pub use mcp_proto::{Decision, ExplainedWorker, Explanation, Score};

const EXPLAIN: &str = "mcp.admin.explain";

/// A task to ask about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Question {
    /// What it would ask for.
    pub action: ActionName,
    /// Labels that its worker would have to have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Whether it would be for shadow workers.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub shadow: bool,
    /// Its affinity key.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub affinity_key: String,
    /// On whose account.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tenant: String,
    /// Which of the waiting tasks goes first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// Its time to live, ms; 30,000 when not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
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
            priority: None,
            ttl_ms: None,
        }
    }
}

impl Client {
    /// Who would get a task now, and why; or why it would wait, or be refused. Nothing is run, and
    /// nothing changes. The answer is true when it is made: another client's task may come before
    /// one's own.
    ///
    /// To learn why a task went where it went, [ask for that](crate::TaskBuilder::explain) with it.
    pub async fn explain(&self, question: &Question) -> Result<Explanation, CallError> {
        ask(self, EXPLAIN, question).await
    }
}
