//! What operators ask of agents, and how they keep new tasks from one.

mod view;

use std::collections::BTreeMap;
use std::ops::Bound;

use mcp_proto::{AgentId, ErrorInfo, Readiness};
use serde::{Deserialize, Serialize};

use super::{check_why, json, limit, push_rows};
use crate::broker::registry::{Agent, Presence};
use crate::broker::{AgentState, AgentView, Core, Drained, Now};

/// Agents that one list looks at: it takes about a millisecond of the core, however many there are.
const LOOKED_AT: usize = 10_000;

/// For what a list of agents has besides its rows: two numbers, and the name to go on after.
const OVERHEAD_BYTES: usize = 512;

/// Which agents to list: those that are all of what is given.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Filter {
    /// That serve it.
    action: Option<String>,
    state: Option<AskedState>,
    /// That have these labels.
    labels: BTreeMap<String, String>,
    /// Whose own name, or node, has this in it, in any case.
    text: String,
    /// Whose names come after this one.
    after: Option<AgentId>,
    limit: Option<usize>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum AskedState {
    /// Any but lost and offline.
    Online,
    #[serde(untagged)]
    One(AgentState),
}

/// Names an agent by its own name or its node.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    agent: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Drain {
    agent: String,
    #[serde(default)]
    why: String,
}

#[derive(Serialize)]
struct Changed<'a> {
    agent_id: &'a AgentId,
    /// Whether this changed anything.
    changed: bool,
    drained: Option<&'a Drained>,
    /// Attempts that it still has.
    held: usize,
}

/// An agent that is registered, or one that is not and is drained.
#[derive(Clone, Copy)]
enum Known<'a> {
    Registered(&'a Agent),
    Offline(&'a AgentId, &'a Drained),
}

impl Known<'_> {
    fn id(&self) -> &AgentId {
        match self {
            Known::Registered(agent) => &agent.id,
            Known::Offline(id, _) => id,
        }
    }
}

impl Filter {
    fn takes(&self, core: &Core, known: Known<'_>) -> bool {
        let is_state = self.state.is_none_or(|asked| match asked {
            AskedState::Online => core.state_of(known).is_online(),
            AskedState::One(state) => core.state_of(known) == state,
        });
        let Known::Registered(agent) = known else {
            let has_more = self.action.is_some() || !self.labels.is_empty();
            return is_state && !has_more && contains(known.id().as_str(), &self.text);
        };
        let serves = |action: &String| {
            let mut pools = agent.serves.iter().filter_map(|it| core.pools.get(it.pool));
            pools.any(|pool| pool.action.as_str() == action)
        };
        is_state
            && self.action.as_ref().is_none_or(serves)
            && self.labels.iter().all(|(key, value)| agent.labels.0.get(key) == Some(value))
            && (contains(agent.id.as_str(), &self.text)
                || contains(agent.node_id.as_str(), &self.text))
    }
}

impl Core {
    /// The workers, by name: those online, or lost ones too.
    pub fn agents(&self, now: Now, include_lost: bool) -> Vec<AgentView> {
        self.registry
            .by_name(None)
            .filter(|agent| include_lost || agent.presence == Presence::Online)
            .map(|agent| self.view_of_agent(now, Known::Registered(agent)))
            .collect()
    }

    pub(super) fn list_agents(
        &self,
        now: Now,
        filter: &Filter,
        max_bytes: usize,
    ) -> Result<Vec<u8>, ErrorInfo> {
        let limit = limit(filter.limit)?;
        let matching = self
            .known_after(None)
            .take(LOOKED_AT)
            .filter(|known| filter.takes(self, *known))
            .count();
        let mut known = self.known_after(filter.after.as_ref());
        let mut last = None;
        let mut rows: Vec<_> = known
            .by_ref()
            .take(LOOKED_AT)
            .inspect(|known| last = Some(known.id().clone()))
            .filter(|known| filter.takes(self, *known))
            .take(limit + 1)
            .collect();
        let is_over = rows.len() > limit;
        rows.truncate(limit);
        let mut listed = br#"{"agents":["#.to_vec();
        let views = rows.iter().map(|known| self.view_of_agent(now, *known));
        let max_bytes = max_bytes.saturating_sub(OVERHEAD_BYTES);
        let (count, is_all) = push_rows(&mut listed, views, max_bytes, limit)?;
        let next = if is_over || !is_all {
            rows[..count].last().map(|known| known.id().clone())
        } else {
            last.filter(|_| known.next().is_some())
        };
        let total = self.registry.len();
        let rest = Rest { next, matching, total };
        listed.extend_from_slice(b"],");
        // Two objects made one.
        listed.extend_from_slice(&json(&rest)?[1..]);
        Ok(listed)
    }

    pub(super) fn show_agent(
        &self,
        now: Now,
        named: &Named,
        max_bytes: usize,
    ) -> Result<Vec<u8>, ErrorInfo> {
        match self.known_agent(&named.agent) {
            None => json(&None::<()>),
            Some(known) => self.show_known(now, known, max_bytes),
        }
    }

    pub(super) fn drain_for_operator(
        &mut self,
        now: Now,
        by: &str,
        asked: Drain,
    ) -> Result<Vec<u8>, ErrorInfo> {
        check_why(&asked.why)?;
        let Some(agent_id) = self.known_agent(&asked.agent).map(|it| it.id().clone()) else {
            return json(&None::<Changed<'_>>);
        };
        let changed = self.drain(now, &agent_id, by, asked.why)?;
        self.told_of(&agent_id, changed)
    }

    pub(super) fn undrain_for_operator(
        &mut self,
        now: Now,
        by: &str,
        named: &Named,
    ) -> Result<Vec<u8>, ErrorInfo> {
        let Some(agent_id) = self.known_agent(&named.agent).map(|it| it.id().clone()) else {
            return json(&None::<Changed<'_>>);
        };
        let changed = self.undrain(now, &agent_id, by);
        self.told_of(&agent_id, changed)
    }

    fn told_of(&self, agent_id: &AgentId, changed: bool) -> Result<Vec<u8>, ErrorInfo> {
        let agent = self.registry.find(agent_id).and_then(|key| self.registry.get(key));
        json(&Changed {
            agent_id,
            changed,
            drained: self.drained.get(agent_id),
            held: agent.map_or(0, |agent| agent.attempts.len()),
        })
    }

    /// How many agents there are of each state, those that are drained and not registered aside, and
    /// the attempts charged to those online; of as many agents as a list looks at.
    pub(super) fn count_agents(&self) -> ([u64; AgentState::ALL.len()], u64) {
        let mut counts = [0; AgentState::ALL.len()];
        let mut in_flight = 0;
        for agent in self.registry.iter().take(LOOKED_AT) {
            let state = self.state_of(Known::Registered(agent));
            counts[state as usize] += 1;
            if state.is_online() {
                in_flight += u64::from(agent.in_flight());
            }
        }
        (counts, in_flight)
    }

    /// Agents after this one, by name.
    fn known_after(&self, after: Option<&AgentId>) -> impl Iterator<Item = Known<'_>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut registered = self.registry.by_name(after).peekable();
        let mut offline = self
            .drained
            .range::<AgentId, _>((from, Bound::Unbounded))
            .filter(|(id, _)| self.registry.find(id).is_none())
            .peekable();
        std::iter::from_fn(move || match (registered.peek(), offline.peek()) {
            (Some(agent), Some((id, _))) if agent.id < **id => {
                registered.next().map(Known::Registered)
            }
            (Some(_), None) => registered.next().map(Known::Registered),
            (_, Some(_)) => offline.next().map(|(id, drained)| Known::Offline(id, drained)),
            (None, None) => None,
        })
    }

    fn known_agent(&self, name: &str) -> Option<Known<'_>> {
        let of_node = name.try_into().ok().and_then(|node| self.registry.agent_at(&node));
        let agent_id = match of_node {
            Some(agent_id) => agent_id.clone(),
            None => AgentId::try_from(name).ok()?,
        };
        if let Some(agent) = self.registry.find(&agent_id).and_then(|key| self.registry.get(key)) {
            return Some(Known::Registered(agent));
        }
        let (id, drained) = self.drained.get_key_value(&agent_id)?;
        Some(Known::Offline(id, drained))
    }

    fn state_of(&self, known: Known<'_>) -> AgentState {
        let Known::Registered(agent) = known else { return AgentState::Offline };
        match (agent.presence, agent.readiness()) {
            (Presence::Lost { .. }, _) => AgentState::Lost,
            (Presence::Online, Readiness::Draining) => AgentState::Draining,
            (Presence::Online, Readiness::Standby) => AgentState::Standby,
            (Presence::Online, Readiness::Ready) if agent.probed.is_some() => AgentState::Suspect,
            (Presence::Online, Readiness::Ready) if self.is_left_out(agent) => AgentState::Ejected,
            (Presence::Online, Readiness::Ready) => AgentState::Ready,
        }
    }
}

/// What follows the rows of a list.
#[derive(Serialize)]
struct Rest {
    /// What to ask for those after, if there may be any.
    next: Option<AgentId>,
    /// How many match, of the first that a list looks at.
    matching: usize,
    /// How many are registered.
    total: usize,
}

/// Whether one text has another in it, in any case of its ASCII letters.
fn contains(text: &str, part: &str) -> bool {
    let (text, part) = (text.as_bytes(), part.as_bytes());
    part.is_empty() || text.windows(part.len()).any(|it| it.eq_ignore_ascii_case(part))
}
