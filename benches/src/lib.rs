//! What the benchmarks share: the broker's core with a client and workers, without sockets, and the
//! frames that those begin with.

use std::collections::VecDeque;

use bytes::Bytes;
use mcp_broker::broker::{
    AccessPolicy, ConnectionId, Core, CoreConfig, Identity, Now, Output, Policy,
};
use mcp_proto::{
    ActionName, AgentId, AttemptId, Executed, Frame, Hello, Incoming, InstanceId, MCP_VERSION,
    Message, NodeId, Outcome, Readiness, Send, Task, TaskId, TaskResult, WorkerHello,
};

/// Slots of each worker.
pub const SLOTS: u32 = 4;

/// Time to live of each task: long enough for all that is measured.
const TTL_MS: u64 = 60 * 60 * 1000;

/// How fast time passes for the core: a task each µs.
const STEP_US: u64 = 1;

const ACTION: &str = "echo";

const CLIENT: ConnectionId = ConnectionId(0);

/// Affinity keys of the tasks.
#[derive(Debug, Clone, Copy)]
pub enum Keys {
    /// None.
    None,
    /// As many different ones, again and again.
    Repeating(u64),
    /// Another one for each task.
    Different,
}

/// A core in a steady state: as many tasks end as come.
pub struct CoreLoop {
    core: Core,
    now: Now,
    tasks: u64,
    keys: Keys,
    body: Bytes,
    /// Attempts at workers, oldest first.
    running: VecDeque<(ConnectionId, AttemptId)>,
    delivered: u64,
}

impl CoreLoop {
    /// A core with one client, `workers` of [`SLOTS`] slots each, half of which are in use (at
    /// least one; at most 512), and no task queued.
    ///
    /// # Panics
    /// When the core does not do what it should.
    pub fn new(workers: usize) -> Self {
        Self::under(Policy::default(), workers, Keys::None)
    }

    /// The same under this policy, with tasks of these keys.
    ///
    /// # Panics
    /// When the core does not do what it should.
    pub fn under(policy: Policy, workers: usize, keys: Keys) -> Self {
        let mut this = Self::idle(policy, workers);
        this.keys = keys;
        let in_use = (workers * SLOTS as usize / 2).clamp(1, 512);
        for _ in 0..in_use {
            let send = this.send();
            this.give(CLIENT, send);
        }
        assert_eq!(this.running.len(), in_use);
        this
    }

    /// A core with one client, 10 workers of [`SLOTS`] slots each, all of which are in use, and so
    /// many tasks queued.
    ///
    /// # Panics
    /// When the core does not do what it should.
    pub fn queued(tasks: usize) -> Self {
        let mut this = Self::idle(Policy::default(), 10);
        for _ in 0..10 * SLOTS as usize + tasks {
            let send = this.send();
            this.give(CLIENT, send);
        }
        assert_eq!(this.core.stats().queued, tasks as u64);
        this
    }

    fn idle(policy: Policy, workers: usize) -> Self {
        let mut config = CoreConfig::new(id("broker", NodeId::try_from), 1, 1);
        config.rules.policy = policy;
        config.max_queue_tasks = usize::MAX;
        config.max_queue_bytes = usize::MAX;
        config.limits.max_session_tasks = u32::MAX;
        let mut this = Self {
            core: Core::new(config),
            now: Now::default(),
            tasks: 0,
            keys: Keys::None,
            body: Bytes::from_static(&[b'm'; 128]),
            running: VecDeque::new(),
            delivered: 0,
        };
        this.connect(CLIENT, None);
        for number in 0..workers as u64 {
            let weight = 1 + number as u32 % 4;
            let worker = WorkerHello { weight, ..worker_hello(number, ACTION, SLOTS) };
            this.connect(ConnectionId(1 + number), Some(worker));
        }
        assert_eq!(this.core.stats().agents_online, workers as u64);
        this
    }

    /// From now on under a policy of roles, which allows what is done here by a pattern that is no plain
    /// name.
    ///
    /// # Panics
    /// Never: the policy is valid.
    pub fn under_roles(&mut self) {
        let roles = serde_json::json!({ "roles": { "all": {
            "members": ["*"],
            "allow": { "send": ["text/*", format!("{}*", &ACTION[..2])], "serve": ["*"], "agent_ids": ["*"] },
            "deny": { "send": ["secret/*"] },
        }}});
        let roles = serde_json::from_value(roles).expect("a policy");
        self.core.set_policy(self.now, AccessPolicy::Roles(roles));
    }

    fn connect(&mut self, connection: ConnectionId, worker: Option<WorkerHello>) {
        self.core.handle_connected(self.now, connection, Identity::anonymous());
        self.give(connection, hello(worker));
    }

    /// The SEND of a new task, as it comes from the codec.
    ///
    /// # Panics
    /// Never: its id is valid.
    pub fn send(&mut self) -> Frame {
        self.tasks += 1;
        let affinity_key = match self.keys {
            Keys::None => String::new(),
            Keys::Repeating(keys) => format!("session-{:012}", self.tasks % keys),
            Keys::Different => format!("session-{:012}", self.tasks),
        };
        let affinity_key = affinity_key.into();
        let task = Task::new(task_id(self.tasks), id(ACTION, ActionName::try_from));
        let task = Task { affinity_key, ..task };
        let message = Message::Send(Send::new(task.encode(), TTL_MS));
        Frame { message, body: self.body.clone() }
    }

    /// A task comes, and the oldest running one ends: SEND, RESULT, DELIVER, and the ROUTE of the
    /// task that came or of the next in line.
    ///
    /// # Panics
    /// When no task runs.
    #[inline(never)] // What `callgrind.sh` counts.
    pub fn step(&mut self, send: Frame) {
        self.give(CLIENT, send);
        let (worker, attempt_id) = self.running.pop_front().expect("a running task");
        let message = Message::Result(result(attempt_id));
        self.give(worker, Frame { message, body: self.body.clone() });
        self.now.mono = self.now.mono + STEP_US;
        if self.core.poll_timeout().is_some_and(|at| at <= self.now.mono) {
            self.core.handle_timeout(self.now);
            self.collect();
        }
    }

    /// DELIVERs so far.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    fn give(&mut self, from: ConnectionId, frame: Frame) {
        self.core.handle_incoming(self.now, from, Incoming::Frame(frame));
        self.collect();
    }

    fn collect(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Route { to, route, .. } => self.running.push_back((to, route.attempt_id)),
                Output::Deliver { .. } => self.delivered += 1,
                Output::Send { .. }
                | Output::Chunk { .. }
                | Output::Close { .. }
                | Output::Journal { .. }
                | Output::Event(_)
                | Output::Audit(_)
                | Output::Orders
                | Output::Traced(_) => {}
            }
        }
    }
}

/// The RESULT of an attempt that went well.
pub fn result(attempt_id: AttemptId) -> TaskResult {
    TaskResult {
        queue_us: 3,
        work_us: 100,
        ..TaskResult::new(attempt_id, Outcome::Ok, Executed::Yes)
    }
}

/// The HELLO of a worker, or of a client.
pub fn hello(worker: Option<WorkerHello>) -> Frame {
    let hello = Hello {
        mcp_version: MCP_VERSION.into(),
        sdk: "bench".into(),
        features: Vec::new(),
        client: worker.is_none(),
        session_id: None,
        token: None,
        worker,
    };
    Message::Hello(Box::new(hello)).into()
}

/// What a worker says of itself that takes tasks of one action at once.
///
/// # Panics
/// When `action` is no valid name.
pub fn worker_hello(number: u64, action: &str, slots: u32) -> WorkerHello {
    let name = format!("worker-{number}");
    WorkerHello {
        agent_id: id(&name, AgentId::try_from),
        instance_id: id(&name, InstanceId::try_from),
        service_type: "bench".into(),
        labels: Default::default(),
        actions: vec![id(action, ActionName::try_from)],
        slots,
        prefetch: 0,
        weight: 1,
        held: Vec::new(),
        received: None,
        readiness: Readiness::Ready,
    }
}

/// The id of a task by its number, as long as ids usually are.
///
/// # Panics
/// Never: it is valid.
pub fn task_id(number: u64) -> TaskId {
    id(&format!("0192b1f0-0000-7000-8000-{number:012x}"), TaskId::try_from)
}

/// A constant name or id.
///
/// # Panics
/// When it is not valid.
pub fn id<'a, I, E>(text: &'a str, parse: impl FnOnce(&'a str) -> Result<I, E>) -> I {
    parse(text).unwrap_or_else(|_| panic!("{text:?} is a valid id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_tasks_end_as_come() {
        for mut it in [CoreLoop::new(1), CoreLoop::new(10), CoreLoop::queued(100)] {
            let before = it.core.stats();
            for _ in 0..1000 {
                let send = it.send();
                it.step(send);
            }
            let after = it.core.stats();
            assert_eq!((after.queued, after.in_flight), (before.queued, before.in_flight));
            assert_eq!((it.delivered(), after.ok), (1000, 1000));
        }
    }
}
