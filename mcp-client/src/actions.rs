//! The broker's actions, as an operator changes them.

use mcp_proto::ActionName;
use serde::{Deserialize, Serialize};

use crate::builtin::ask;
use crate::client::Client;
use crate::error::CallError;

const DEGRADE: &str = "mcp.admin.actions.degrade";
const RESTORE: &str = "mcp.admin.actions.restore";

/// An action whose tasks were kept from its workers, or given to them again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionDegraded {
    /// Which.
    pub action: ActionName,
    /// Whether this changed anything; otherwise it was so already.
    pub changed: bool,
    /// Who keeps its tasks from its workers now, and why; none when nobody does.
    pub degraded: Option<Degraded>,
}

/// Who keeps an action's tasks from its workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Degraded {
    /// The operator's identity.
    pub by: String,
    /// What the operator said; may be empty.
    pub why: String,
    /// Since when, ms since 1970, UTC.
    pub since_wall_ms: u64,
}

#[derive(Serialize)]
struct Degrade<'a> {
    action: &'a ActionName,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
}

#[derive(Serialize)]
struct Restore<'a> {
    action: &'a ActionName,
}

impl Client {
    /// Keeps an action's tasks from its workers: those that come and those that wait take the
    /// action's fallback chain, and are rejected(DEGRADED) where nothing in it answers. What runs goes
    /// on. Until [`restore_action`](Self::restore_action), or until the broker is started again.
    ///
    /// `why`, at most 1024 bytes, is told to operators, and to clients whose tasks are refused.
    pub async fn degrade_action(
        &self,
        action: &ActionName,
        why: Option<&str>,
    ) -> Result<ActionDegraded, CallError> {
        ask(self, DEGRADE, &Degrade { action, why }).await
    }

    /// Gives an action's tasks to its workers again.
    pub async fn restore_action(&self, action: &ActionName) -> Result<ActionDegraded, CallError> {
        ask(self, RESTORE, &Restore { action }).await
    }
}
