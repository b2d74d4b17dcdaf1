//! Whose the names of workers are that are gone: another identity can't take them for a while.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::FixedState;
use mcp_proto::AgentId;

use crate::broker::Mono;
use crate::broker::identities::IdentityKey;

/// A worker that is not back after a day has no claim to its name any more.
const KEPT_MS: u64 = 24 * 60 * 60 * 1000;

/// Names of workers that are gone, the oldest first; bounded in number and time.
#[derive(Debug)]
pub(in crate::broker) struct Owners {
    names: HashMap<AgentId, (IdentityKey, Mono), FixedState>,
    order: VecDeque<(AgentId, Mono)>,
    max: usize,
}

impl Owners {
    pub(in crate::broker) fn new(max: usize, seed: u64) -> Self {
        let names = HashMap::with_hasher(FixedState::with_seed(seed));
        Self { names, order: VecDeque::new(), max }
    }

    /// A worker is gone.
    pub(in crate::broker) fn keep(&mut self, now: Mono, name: AgentId, owner: IdentityKey) {
        // One that comes and goes has one place, and pushes nobody out.
        if self.names.insert(name.clone(), (owner, now)).is_none() {
            self.order.push_back((name, now));
        }
        while let Some((_, since)) = self.order.front() {
            if self.order.len() <= self.max && *since + KEPT_MS * 1000 > now {
                break;
            }
            let Some((name, since)) = self.order.pop_front() else { break };
            match self.names.get(&name) {
                Some((_, at)) if *at != since => self.order.push_back((name, *at)),
                _ => {
                    self.names.remove(&name);
                }
            }
        }
    }

    pub(in crate::broker) fn identities(&self) -> impl Iterator<Item = IdentityKey> {
        self.names.values().map(|(owner, _)| *owner)
    }

    /// Who had it last.
    pub(in crate::broker) fn of(&self, now: Mono, name: &AgentId) -> Option<IdentityKey> {
        let (owner, since) = self.names.get(name)?;
        (*since + KEPT_MS * 1000 > now).then_some(*owner)
    }
}
