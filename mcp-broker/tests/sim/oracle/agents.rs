//! What must hold of workers, as the core sees them.

use std::collections::BTreeMap;

use mcp_broker::broker::{ConnectionId, Core, Now};
use mcp_proto::{Readiness, WorkerHello};

use super::Oracle;

/// By the worker's number.
#[derive(Debug, Default)]
pub(super) struct Agents(BTreeMap<usize, Agent>);

#[derive(Debug)]
struct Agent {
    connection: Option<ConnectionId>,
    is_ready: bool,
    is_lost: bool,
    /// Slots and prefetch.
    room: u32,
}

impl Agents {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn check_route(&self, id: &str, worker: usize, to: ConnectionId) {
        let agent = &self.0[&worker];
        let is_there = agent.connection == Some(to) && agent.is_ready && !agent.is_lost;
        assert!(is_there, "{id} is routed to worker {worker} at {to:?}: {agent:?}");
    }

    pub(super) fn is_lost(&self, worker: usize) -> bool {
        self.0.get(&worker).is_some_and(|agent| agent.is_lost)
    }

    pub(super) fn check(&self, core: &Core, now: Now) {
        for agent in core.agents(now, true) {
            let worker: usize = agent.agent_id.as_str()[1..].parse().unwrap();
            let room = self.0[&worker].room;
            assert!(agent.in_flight <= room, "{agent:?} has room for {room}");
        }
    }

    fn at(&mut self, worker: usize, at: ConnectionId) -> Option<&mut Agent> {
        self.0.get_mut(&worker).filter(|agent| agent.connection == Some(at))
    }
}

impl Oracle {
    /// The core reads a worker's HELLO.
    pub(crate) fn registers(&mut self, worker: usize, at: ConnectionId, hello: &WorkerHello) {
        let agent = Agent {
            connection: Some(at),
            is_ready: hello.readiness == Readiness::Ready,
            is_lost: false,
            room: hello.slots + hello.prefetch,
        };
        self.agents.0.insert(worker, agent);
        self.arrives_no_more(worker, at);
    }

    /// The core reads whether a worker takes tasks.
    pub(crate) fn reports(&mut self, worker: usize, at: ConnectionId, readiness: Readiness) {
        if let Some(agent) = self.agents.at(worker, at) {
            agent.is_ready = readiness == Readiness::Ready;
        }
    }

    /// The broker says that a worker is lost, or no longer.
    pub(crate) fn lost(&mut self, worker: usize, is_lost: bool) {
        if let Some(agent) = self.agents.0.get_mut(&worker) {
            agent.is_lost = is_lost;
        }
    }

    /// The core has no such connection any more.
    pub(crate) fn closed(&mut self, connection: ConnectionId) {
        for agent in self.agents.0.values_mut().filter(|it| it.connection == Some(connection)) {
            agent.connection = None;
        }
        self.sessions.closed(connection);
    }
}
