//! The broker's actions, as an operator sees and changes them while it runs.

use std::collections::BTreeMap;
use std::fmt;

use mcp_proto::ActionName;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::builtin::ask;
use crate::client::Client;
use crate::error::CallError;

const LIST: &str = "mcp.admin.actions.list";
const SHOW: &str = "mcp.admin.actions.show";
const SET: &str = "mcp.admin.actions.set";
const RESET: &str = "mcp.admin.actions.reset";
const DEGRADE: &str = "mcp.admin.actions.degrade";
const RESTORE: &str = "mcp.admin.actions.restore";

/// Which actions to list; all when nothing is given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ActionFilter {
    /// Those whose name begins so.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// At most so many, 1 to 1,000; 100 when not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A list of actions, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionList {
    /// What matched, as many as were asked for and fit into a frame.
    pub actions: Vec<ActionSummary>,
    /// Whether more may match: the list is full, or the broker has more than it looks at for one.
    pub more: bool,
}

/// An action in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionSummary {
    /// Its name.
    pub action: ActionName,
    /// Workers registered for it, those included that take no tasks now.
    pub workers: u32,
    /// Those of them that take tasks.
    pub ready: u32,
    /// Slots of its workers that are online. Their other actions use them, too.
    pub slots: u64,
    /// Its tasks at workers.
    pub running: u64,
    /// Its tasks that wait for a worker with room.
    pub queued: u64,
    /// Its tasks that wait for their next attempt.
    pub delayed: u64,
    /// How its workers are chosen.
    pub policy: String,
    /// Where its rules come from.
    pub rules_from: RulesFrom,
    /// Its workers that take tasks, or would, by the state of their breaker.
    #[serde(default)]
    pub breakers: Breakers,
    /// Besides all these, workers that get only shadow tasks.
    #[serde(default)]
    pub shadow_workers: u32,
    /// Shadow tasks without an outcome.
    #[serde(default)]
    pub shadow_tasks: u64,
    /// Who keeps its tasks from its workers; none when nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degraded: Option<Degraded>,
}

/// Workers of an action by the state of their breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Breakers {
    /// As they should be.
    pub closed: u32,
    /// Being probed.
    pub half_open: u32,
    /// They get no tasks.
    pub open: u32,
}

/// Where the rules of an action come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum RulesFrom {
    /// It has none of its own: those of all such actions, `[scheduling]` in the broker's
    /// configuration.
    Common,
    /// The broker's configuration has rules for it, `[actions."NAME"]`.
    File,
    /// An operator changed them since the broker started; they are gone when it is started again.
    Operator,
    /// From where a later broker has them.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for RulesFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RulesFrom::Common => "common",
            RulesFrom::File => "file",
            RulesFrom::Operator => "operator",
            RulesFrom::Unknown => "unknown",
        })
    }
}

/// All that the broker tells of one action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActionInfo {
    /// What a list has.
    #[serde(flatten)]
    pub summary: ActionSummary,
    /// All its rules, as in the broker's configuration.
    pub rules: Map<String, Value>,
    /// How long its workers have one of its tasks that goes well, smoothed, on average, µs; none
    /// before there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_us: Option<u64>,
    /// Its queues: one for each set of required labels of tasks in flight. The first is that of tasks
    /// without.
    pub queues: Vec<ActionQueue>,
    /// Whether there are more queues than fit into a frame.
    pub more_queues: bool,
}

/// The tasks of an action that require the same labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionQueue {
    /// Labels that a worker must have.
    pub required_labels: BTreeMap<String, String>,
    /// Tasks that wait for a worker with room.
    pub queued: u64,
    /// Workers with these labels.
    pub workers: u32,
    /// Those of them that take tasks.
    pub ready: u32,
    /// Those of them that have room now.
    pub with_room: u32,
}

/// The rules of an action after a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActionRules {
    /// Whose.
    pub action: ActionName,
    /// All of them, as in the broker's configuration.
    pub rules: Map<String, Value>,
    /// Where they come from now.
    pub rules_from: RulesFrom,
    /// After [`set_action_rules`](Client::set_action_rules): what to put into the broker's
    /// configuration file, TOML, for them to outlive the broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub toml: Option<String>,
}

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
struct Named<'a> {
    action: &'a ActionName,
}

#[derive(Serialize)]
struct Set<'a> {
    action: &'a ActionName,
    rules: &'a Map<String, Value>,
}

impl Client {
    /// The actions that the broker knows: those with workers, tasks, or rules of their own.
    pub async fn actions(&self, filter: &ActionFilter) -> Result<ActionList, CallError> {
        ask(self, LIST, filter).await
    }

    /// One action; none when it has neither workers nor tasks nor rules of its own.
    pub async fn action_info(&self, action: &ActionName) -> Result<Option<ActionInfo>, CallError> {
        ask(self, SHOW, &Named { action }).await
    }

    /// Changes the rules of an action, for what waits and for what comes; what runs goes on. Only the
    /// keys in `rules` change, also within tables; one that is null has its default again. All is
    /// checked before anything changes: what is not allowed is failed(INVALID_TASK).
    ///
    /// The rules hold until they are changed again, or until the broker is started again: to keep
    /// them, put the [`toml`](ActionRules::toml) of the answer into its configuration file.
    pub async fn set_action_rules(
        &self,
        action: &ActionName,
        rules: &Map<String, Value>,
    ) -> Result<ActionRules, CallError> {
        ask(self, SET, &Set { action, rules }).await
    }

    /// Gives an action the rules back that the broker's configuration has for it.
    pub async fn reset_action_rules(&self, action: &ActionName) -> Result<ActionRules, CallError> {
        ask(self, RESET, &Named { action }).await
    }

    /// Keeps an action's tasks from its workers: those that come and those that wait take the
    /// action's fallback chain, and are rejected(DEGRADED) where nothing in it answers. What runs goes
    /// on. Until [`restore_action`](Self::restore_action), also when a broker with a state directory is
    /// started again.
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
        ask(self, RESTORE, &Named { action }).await
    }
}
