//! Workers that failed and are gone, so that whoever fails, ends and comes back is not trusted as
//! one that is new.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use mcp_proto::{ActionName, AgentId};

use super::Health;

/// As many workers that fail at their actions are known again: more than fail at a time in a fleet
/// that somebody looks after.
const PLACES: usize = 1_024;

/// The health of workers that are gone, by their name and action. Of two that fall into the same
/// place, the later one stays.
#[derive(Debug)]
pub(in crate::broker) struct Memory {
    /// None before the first.
    places: Vec<Option<Box<Entry>>>,
    hash: FixedState,
}

#[derive(Debug)]
struct Entry {
    agent_id: AgentId,
    action: ActionName,
    health: Health,
}

impl Memory {
    pub(in crate::broker) fn new(seed: u64) -> Self {
        Self { places: Vec::new(), hash: FixedState::with_seed(seed) }
    }

    /// A worker is gone. Nothing is kept of one that did not fail lately.
    pub(in crate::broker) fn keep(
        &mut self,
        agent_id: &AgentId,
        action: &ActionName,
        health: Health,
    ) {
        if !health.breaker.is_worth_keeping() {
            return;
        }
        if self.places.is_empty() {
            self.places.resize_with(PLACES, || None);
        }
        let place = self.place(agent_id, action);
        let (agent_id, action) = (agent_id.clone(), action.clone());
        let health = health.of_next_registration();
        self.places[place] = Some(Box::new(Entry { agent_id, action, health }));
    }

    /// What there is of a worker that comes; as new if nothing.
    pub(in crate::broker) fn recall(&mut self, agent_id: &AgentId, action: &ActionName) -> Health {
        let place = self.place(agent_id, action);
        let is_it = |it: &mut Box<Entry>| it.agent_id == *agent_id && it.action == *action;
        let known = self.places.get_mut(place).and_then(|it| it.take_if(|it| is_it(it)));
        known.map(|it| it.health).unwrap_or_default()
    }

    fn place(&self, agent_id: &AgentId, action: &ActionName) -> usize {
        self.hash.hash_one((agent_id.as_str(), action.as_str())) as usize % PLACES
    }
}

#[cfg(test)]
mod tests {
    use super::super::breaker::BreakerRules;
    use super::*;
    use crate::broker::time::Mono;

    fn failing() -> Health {
        let mut health = Health::default();
        health.breaker.note_fault(Mono(1), &BreakerRules::default());
        health
    }

    #[test]
    fn whoever_failed_is_known_again_once_and_nobody_else_is() {
        let mut it = Memory::new(1);
        let name = |name: &str| AgentId::try_from(name).unwrap();
        let action = ActionName::try_from("work").unwrap();
        it.keep(&name("well"), &action, Health::default());
        assert!(it.places.is_empty());
        for n in 0..5_000 {
            it.keep(&name(&format!("w{n}")), &action, failing());
        }
        assert_eq!(it.places.len(), PLACES);
        let play = ActionName::try_from("play").unwrap();
        let mut is_known = |name, action| it.recall(&name, action).breaker.is_worth_keeping();
        assert!(!is_known(name("w4999"), &play));
        assert!(is_known(name("w4999"), &action));
        assert!(!is_known(name("w4999"), &action) && !is_known(name("well"), &action));
    }
}
