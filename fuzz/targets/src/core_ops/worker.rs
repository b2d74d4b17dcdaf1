//! What a worker holds.

use std::collections::BTreeMap;

use mcp_broker::broker::ConnectionId;
use mcp_proto::{
    ActionName, AttemptId, Hello, InstanceId, MCP_VERSION, Message, Readiness, WorkerHello,
};

#[derive(Debug, Default)]
pub(super) struct Worker {
    pub(super) connection: Option<ConnectionId>,
    pub(super) process: u32,
    pub(super) slots: u32,
    pub(super) prefetch: u32,
    /// ROUTEs on this connection.
    pub(super) routes: u64,
    pub(super) held: BTreeMap<AttemptId, Held>,
    /// It does not answer.
    pub(super) is_silent: bool,
}

/// An attempt that a worker has, until it has said how that ended.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) task: usize,
    pub(super) number: u32,
    pub(super) is_parked: bool,
    pub(super) is_cancelled: bool,
    /// The next part of its result.
    pub(super) next_seq: u32,
    pub(super) next_input: u32,
}

impl Worker {
    /// Attempts that take a slot.
    pub(super) fn charged(&self) -> usize {
        self.held.values().filter(|held| !held.is_parked).count()
    }

    pub(super) fn takes(&self) -> usize {
        (self.slots + self.prefetch) as usize
    }

    /// One of its attempts, on its connection.
    pub(super) fn attempt(&mut self, choice: u8) -> Option<(ConnectionId, AttemptId, &mut Held)> {
        let index = usize::from(choice) % self.held.len().max(1);
        let (id, held) = self.held.iter_mut().nth(index)?;
        Some((self.connection?, *id, held))
    }

    pub(super) fn hello(&self, index: usize) -> Message {
        let worker = WorkerHello {
            agent_id: format!("agent-{index}").try_into().unwrap(),
            instance_id: InstanceId::try_from(format!("process-{}", self.process)).unwrap(),
            service_type: "fuzz".into(),
            labels: Default::default(),
            actions: vec![ActionName::try_from("work").unwrap()],
            slots: self.slots,
            prefetch: self.prefetch,
            weight: 1 + index as u32,
            held: self.held.keys().copied().collect(),
            received: None,
            readiness: Readiness::Ready,
        };
        Message::Hello(Box::new(Hello {
            mcp_version: MCP_VERSION.into(),
            sdk: "fuzz".into(),
            features: Vec::new(),
            client: false,
            session_id: None,
            token: None,
            worker: Some(worker),
        }))
    }
}
