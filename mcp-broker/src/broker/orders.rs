//! What operators have said that holds until they say otherwise, also when the broker is started again.
//! The core tells that it is another one ([`Output::Orders`]); to keep it is its shell's.

use std::collections::BTreeMap;

use mcp_proto::{ActionName, AgentId};
use serde::{Deserialize, Serialize};

use super::draining::MAX_DRAINED;
use super::fallback::MAX_DEGRADED;
use super::{Core, Degraded, Drained, Output};

/// Agents that are drained, and actions that are degraded. As it is written to a file; what a later
/// version has besides is passed over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Orders {
    /// Agents that get no new tasks.
    pub drained: BTreeMap<AgentId, Drained>,
    /// Actions whose tasks are kept from their workers.
    pub degraded: BTreeMap<ActionName, Degraded>,
}

impl Core {
    /// What holds.
    pub fn orders(&self) -> Orders {
        let degraded = self.degraded.iter().map(|(action, it)| (action.clone(), it.clone()));
        Orders { drained: self.drained.clone(), degraded: degraded.collect() }
    }

    /// Gives a core that has not begun yet what held before; no more of it than there may be.
    pub fn restore_orders(&mut self, orders: Orders) {
        self.drained.extend(orders.drained.into_iter().take(MAX_DRAINED));
        self.degraded.extend(orders.degraded.into_iter().take(MAX_DEGRADED));
    }

    pub(super) fn orders_changed(&mut self) {
        self.outputs.push_back(Output::Orders);
    }
}
