//! Workers that an operator keeps new tasks from. What they have goes on; what waits for them alone
//! goes elsewhere. It holds for the agent's name, whichever process or connection it comes with, until
//! an operator ends it ([`Orders`](super::Orders)).

use mcp_proto::{AgentId, ErrorCode, ErrorInfo};

use super::{Core, Event, Now};

/// Agents that are drained at one time: more than a fleet has that is replaced agent by agent.
pub(super) const MAX_DRAINED: usize = 10_000;

/// Who keeps new tasks from an agent, and why.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Drained {
    /// The operator's identity.
    pub by: String,
    /// What the operator said; may be empty.
    pub why: String,
    /// Since when, ms since 1970.
    pub since_wall_ms: u64,
}

impl Core {
    /// Keeps new tasks from an agent. Returns whether that is new.
    ///
    /// # Errors
    /// When as many are drained as may be.
    pub(super) fn drain(
        &mut self,
        now: Now,
        agent_id: &AgentId,
        by: &str,
        why: String,
    ) -> Result<bool, ErrorInfo> {
        if self.drained.contains_key(agent_id) {
            return Ok(false);
        }
        if self.drained.len() >= MAX_DRAINED {
            let message = format!("{MAX_DRAINED} agents are drained, the limit");
            return Err(ErrorInfo::new(ErrorCode::LimitExceeded, message));
        }
        let by = by.to_owned();
        let drained = Drained { by: by.clone(), why: why.clone(), since_wall_ms: now.wall_ms };
        self.drained.insert(agent_id.clone(), drained);
        self.event(Event::AgentDrained { agent_id: agent_id.clone(), by, why });
        self.set_drained(now, agent_id, true);
        self.orders_changed();
        Ok(true)
    }

    /// Lets an agent have tasks again. Returns whether they were kept from it.
    pub(super) fn undrain(&mut self, now: Now, agent_id: &AgentId, by: &str) -> bool {
        if self.drained.remove(agent_id).is_none() {
            return false;
        }
        self.event(Event::AgentUndrained { agent_id: agent_id.clone(), by: by.to_owned() });
        self.set_drained(now, agent_id, false);
        self.orders_changed();
        true
    }

    fn set_drained(&mut self, now: Now, agent_id: &AgentId, is_drained: bool) {
        let Some(key) = self.registry.find(agent_id) else { return };
        let Some(agent) = self.registry.get_mut(key) else { return };
        agent.is_drained = is_drained;
        self.readiness_changed(now, key);
        self.fill(now, key);
    }
}
