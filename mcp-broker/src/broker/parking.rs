//! Attempts whose handlers wait for tasks of their own: a worker's slot is free meanwhile.

use mcp_proto::Park;

use super::registry::AgentKey;
use super::{ConnectionId, Core, Now};

impl Core {
    /// A handler waits, or goes on. One that goes on is charged at once, also over what its worker
    /// takes: then the next slot that becomes free is its.
    pub(super) fn handle_park(
        &mut self,
        now: Now,
        from: ConnectionId,
        agent: AgentKey,
        Park { attempt_id, parked }: Park,
    ) {
        let Some(key) = self.held_by(from, agent, attempt_id) else { return };
        let Some(attempt) = self.attempts.get_mut(key) else { return };
        if attempt.set_parked(now.mono, parked) == parked {
            return;
        }
        let Some(it) = self.registry.get_mut(agent) else { return };
        if parked {
            it.parked += 1;
        } else {
            it.parked -= 1;
        }
        self.room_changed(agent);
        self.fill(now, agent);
    }
}
