//! The broker's agents, as an operator sees them, and keeps new tasks from them.

use std::collections::BTreeMap;
use std::fmt;

use mcp_proto::{ActionName, AgentId};
use serde::{Deserialize, Serialize};

use crate::builtin::ask;
use crate::client::Client;
use crate::error::CallError;
use crate::tasks::TaskSummary;

const LIST: &str = "mcp.admin.agents.list";
const SHOW: &str = "mcp.admin.agents.show";
const DRAIN: &str = "mcp.admin.agents.drain";
const RESUME: &str = "mcp.admin.agents.resume";

/// Agents that are asked for at once: as many as may be; a frame carries some hundreds.
const PAGE: u32 = 1_000;

/// Which agents to list: those that are all of what is given; all when nothing is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct AgentFilter {
    /// That serve this action.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<ActionName>,
    /// `online` (any but lost and offline), or one state of [`AgentInfo::state`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// That have these labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Whose name, or node, has this in it, in upper or lower case.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// Whose names come after this one: [`AgentList::next`] of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<AgentId>,
    /// At most so many, 1 to 1,000; 100 when not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A page of agents, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentList {
    /// What matched, as many as were asked for and fit into a frame.
    pub agents: Vec<AgentInfo>,
    /// What to list [after](AgentFilter::after) for the next page; none when this is the last.
    pub next: Option<AgentId>,
    /// How many match, on all pages, of the first 10,000 that the broker knows.
    pub matching: u64,
    /// How many are registered.
    pub total: u64,
}

/// An agent as the broker sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentInfo {
    /// The broker's name for it.
    pub node_id: String,
    /// Its own name.
    pub agent_id: String,
    /// How it is, in a word: `ready`, `standby`, `draining`, `suspect` (it does not answer), `ejected`
    /// (left out of an action for its failures or for being slow), `lost` (it may come back) or
    /// `offline` (not registered, and drained).
    pub state: String,
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
    /// Since the last sign of life, ms; none of one that is offline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_ms: Option<u64>,
    /// The operator who keeps new tasks from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained: Option<Drained>,
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

/// Who keeps new tasks from an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// The operator's identity.
    pub by: String,
    /// What the operator said; may be empty.
    pub why: String,
    /// Since when, ms since 1970, UTC.
    pub since_wall_ms: u64,
}

impl fmt::Display for Drained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "by {}", self.by)?;
        if self.why.is_empty() { Ok(()) } else { write!(f, ": {}", self.why) }
    }
}

/// All that the broker tells of one agent. What is not known of one that is offline is absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentDetails {
    /// What a list has.
    #[serde(flatten)]
    pub agent: AgentInfo,
    /// The identity that it proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// What it says that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_type: Option<String>,
    /// What it says that it is written with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sdk: Option<String>,
    /// Which registration this is; grows with each of any agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Attempts that it takes beyond its slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefetch: Option<u32>,
    /// Since its process registered first, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered_ms: Option<u64>,
    /// Since it came with its present connection, ms; none when that broke.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected_ms: Option<u64>,
    /// How it is at each action.
    #[serde(default)]
    pub serves: Vec<AgentAction>,
    /// The tasks that it holds, the newest first, at most 100.
    pub holds: Vec<TaskSummary>,
    /// Whether it holds more.
    pub more_held: bool,
    /// The tasks that it had last, the newest first, at most 100.
    pub recent: Vec<TaskSummary>,
    /// Whether it had more.
    pub more_recent: bool,
    /// How its last tasks ended, as far as their outcomes are kept: at most 1,001 of them.
    pub outcomes: BTreeMap<String, u64>,
}

/// How an agent is at one action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentAction {
    /// The action.
    pub action: String,
    /// As in [`AgentInfo::health`].
    pub health: String,
    /// Until time ends that, if it does, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
    /// How long it has a task that goes well, smoothed, µs; none before there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_us: Option<u64>,
    /// The smoothed share of its attempts that ended ok, 0 to 1.
    pub ok_share: f64,
    /// Whether it gets only shadow tasks of it.
    pub is_shadow: bool,
}

/// An agent that was drained, or resumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentChanged {
    /// Which.
    pub agent_id: String,
    /// Whether this changed anything; otherwise it was so already.
    pub changed: bool,
    /// Who keeps new tasks from it now.
    pub drained: Option<Drained>,
    /// Tasks that it still has.
    pub held: u64,
}

#[derive(Serialize)]
struct Named<'a> {
    agent: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
}

impl AgentFilter {
    /// Those that are online.
    pub fn online() -> Self {
        Self { state: Some("online".to_owned()), ..Self::default() }
    }
}

impl Client {
    /// Agents that the broker knows, one page of them.
    ///
    /// # Errors
    /// How the question ended, if not ok. Dropping the future asks no more.
    pub async fn agents(&self, filter: &AgentFilter) -> Result<AgentList, CallError> {
        ask(self, LIST, filter).await
    }

    /// The same, page by page, until they are all, or [`AgentFilter::limit`], of any size here.
    ///
    /// # Errors
    /// As of [`agents`](Self::agents).
    pub async fn all_agents(&self, filter: &AgentFilter) -> Result<AgentList, CallError> {
        let wanted = filter.limit.map_or(usize::MAX, |limit| limit as usize);
        let page = |after, limit: usize| {
            let limit = u32::try_from(limit).unwrap_or(PAGE).clamp(1, PAGE);
            AgentFilter { after, limit: Some(limit), ..filter.clone() }
        };
        let mut all = self.agents(&page(filter.after.clone(), wanted)).await?;
        while all.agents.len() < wanted
            && let Some(next) = all.next.take()
        {
            let more = self.agents(&page(Some(next), wanted - all.agents.len())).await?;
            all.agents.extend(more.agents);
            all.next = more.next;
        }
        Ok(all)
    }

    /// One agent, by its own name or its node; none when the broker does not know it.
    ///
    /// # Errors
    /// As of [`agents`](Self::agents).
    pub async fn agent_info(&self, agent: &str) -> Result<Option<AgentDetails>, CallError> {
        ask(self, SHOW, &Named { agent, why: None }).await
    }

    /// Keeps new tasks from an agent: what it has goes on. It holds for its name, whichever process or
    /// connection it comes with, until it is [resumed](Self::resume_agent), also when a broker with a
    /// state directory is started again. None when the broker does not know the agent.
    ///
    /// # Errors
    /// As of [`agents`](Self::agents); LIMIT_EXCEEDED when 10,000 agents are drained.
    pub async fn drain_agent(
        &self,
        agent: &str,
        why: Option<&str>,
    ) -> Result<Option<AgentChanged>, CallError> {
        ask(self, DRAIN, &Named { agent, why }).await
    }

    /// Lets an agent have tasks again. None when the broker does not know it.
    ///
    /// # Errors
    /// As of [`agents`](Self::agents).
    pub async fn resume_agent(&self, agent: &str) -> Result<Option<AgentChanged>, CallError> {
        ask(self, RESUME, &Named { agent, why: None }).await
    }
}
