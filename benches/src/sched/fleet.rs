//! Simulated workers: what they hold, and what they say of it.

use mcp_proto::{AttemptId, Message, Ping, Readiness};

use super::workload::SimWorker;

/// A worker as an actor: it starts each attempt as it comes, and forgets it when it ends.
pub(super) struct WorkerState {
    slots: usize,
    held: Vec<AttemptId>,
    routes: u64,
    pings: u64,
    /// Attempts that came while all slots were in use.
    pub(super) over_assigned: u64,
}

impl WorkerState {
    pub(super) fn new(make: &SimWorker) -> Self {
        Self { slots: make.slots as usize, held: Vec::new(), routes: 0, pings: 0, over_assigned: 0 }
    }

    /// Takes an attempt.
    pub(super) fn take(&mut self, attempt: AttemptId) {
        self.routes += 1;
        self.over_assigned += u64::from(self.held.len() >= self.slots);
        self.held.push(attempt);
    }

    /// Ends an attempt; says whether it was there.
    pub(super) fn end(&mut self, attempt: AttemptId) -> bool {
        let index = self.held.iter().position(|held| *held == attempt);
        index.map(|index| self.held.swap_remove(index)).is_some()
    }

    /// Its next report.
    pub(super) fn ping(&mut self) -> Message {
        self.pings += 1;
        Message::Ping(Ping {
            seq: self.pings,
            readiness: Some(Readiness::Ready),
            routes_received: self.routes,
            held: self.held.clone(),
        })
    }
}
