//! Whatever happens, in whatever order: each task has one outcome, a slot comes back once, no worker
//! is routed more than its slots and prefetch, and a task that may not run twice does not. No child
//! outlives a parent that was cancelled or expired, nor its time to live.
//!
//! Clients and workers are models: frames wait unread in their connection, are lost when it breaks,
//! and a worker lists what it holds when it comes back.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use mcp_broker::broker::{ActionMetrics, ConnectionId, Disconnect, Now, Policy};
use mcp_proto::{
    AttemptId, Cancel, Deliver, Executed, Message, Nack, Outcome, Readiness, Task, TaskResult,
    TaskState, WorkerHello,
};
use proptest::prelude::*;

use crate::fixture::{
    Fixture, cancelled_result, hello_of, ok_result, report, task, task_id, worker_hello,
};

const WORKERS: usize = 3;
const CLIENTS: usize = 2;

#[derive(Debug, Clone)]
enum Op {
    Send { client: usize, how: How },
    SendChild { client: usize, how: How, worker: usize, held: usize },
    Park { worker: usize, held: usize, is_parked: bool },
    SendAgain { client: usize, task: usize },
    ClientReads { client: usize },
    Cancel { client: usize, task: usize },
    WorkerReads { worker: usize },
    Finish { worker: usize, held: usize, is_ok: bool },
    HandBack { worker: usize, held: usize },
    Forget { worker: usize, held: usize },
    Ping { worker: usize, is_draining: bool },
    Repeat { worker: usize },
    Steal { worker: usize, from: usize, held: usize },
    Break { worker: usize },
    Leave { worker: usize },
    Connect { worker: usize, is_new_process: bool },
    ClientBreaks { client: usize },
    ClientConnects { client: usize },
    Advance { ms: u64 },
}

/// How a task is sent.
#[derive(Debug, Clone, Copy)]
struct How {
    is_idempotent: bool,
    ends_with_connection: bool,
    ttl_ms: u64,
}

fn how() -> impl Strategy<Value = How> {
    let ttl_ms = prop_oneof![Just(50u64), Just(3_000), Just(60_000)];
    (any::<bool>(), prop::bool::weighted(0.2), ttl_ms).prop_map(
        |(is_idempotent, ends_with_connection, ttl_ms)| How {
            is_idempotent,
            ends_with_connection,
            ttl_ms,
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let (w, c, n) = (0..WORKERS, 0..CLIENTS, 0usize..8);
    prop_oneof![
        6 => (c.clone(), how()).prop_map(|(client, how)| Op::Send { client, how }),
        4 => (c.clone(), how(), w.clone(), n.clone())
            .prop_map(|(client, how, worker, held)| Op::SendChild { client, how, worker, held }),
        3 => (w.clone(), n.clone(), any::<bool>())
            .prop_map(|(worker, held, is_parked)| Op::Park { worker, held, is_parked }),
        1 => (c.clone(), n.clone()).prop_map(|(client, task)| Op::SendAgain { client, task }),
        3 => c.clone().prop_map(|client| Op::ClientReads { client }),
        2 => (c.clone(), n.clone()).prop_map(|(client, task)| Op::Cancel { client, task }),
        6 => w.clone().prop_map(|worker| Op::WorkerReads { worker }),
        5 => (w.clone(), n.clone(), any::<bool>())
            .prop_map(|(worker, held, is_ok)| Op::Finish { worker, held, is_ok }),
        1 => (w.clone(), n.clone()).prop_map(|(worker, held)| Op::HandBack { worker, held }),
        1 => (w.clone(), n.clone()).prop_map(|(worker, held)| Op::Forget { worker, held }),
        1 => (w.clone(), w.clone(), n.clone())
            .prop_map(|(worker, from, held)| Op::Steal { worker, from, held }),
        2 => (w.clone(), prop::bool::weighted(0.1))
            .prop_map(|(worker, is_draining)| Op::Ping { worker, is_draining }),
        1 => w.clone().prop_map(|worker| Op::Repeat { worker }),
        1 => w.clone().prop_map(|worker| Op::Break { worker }),
        1 => w.clone().prop_map(|worker| Op::Leave { worker }),
        3 => (w, prop::bool::weighted(0.2))
            .prop_map(|(worker, is_new_process)| Op::Connect { worker, is_new_process }),
        1 => c.clone().prop_map(|client| Op::ClientBreaks { client }),
        2 => c.prop_map(|client| Op::ClientConnects { client }),
        2 => prop_oneof![Just(1u64), Just(60), Just(600), Just(2_500), Just(11_000)]
            .prop_map(|ms| Op::Advance { ms }),
    ]
}

#[derive(Default)]
struct Worker {
    connection: Option<ConnectionId>,
    process: u32,
    slots: u32,
    prefetch: u32,
    unread: VecDeque<Message>,
    routes: u64,
    /// Started attempts, and the task of each.
    held: BTreeMap<AttemptId, String>,
    /// Those of them that are parked, and that ever were.
    parked: BTreeSet<AttemptId>,
    has_parked: BTreeSet<AttemptId>,
    last_result: Option<AttemptId>,
}

#[derive(Default)]
struct Client {
    connection: Option<ConnectionId>,
    unread: VecDeque<(Message, bool)>,
    /// Tasks that it sent and has no outcome of.
    waits: HashSet<String>,
}

/// A task that was sent.
struct Sent {
    id: String,
    is_idempotent: bool,
    parent: Option<String>,
    /// Not later than this it ends, µs.
    deadline: u64,
}

struct World {
    it: Fixture,
    workers: Vec<Worker>,
    clients: Vec<Client>,
    /// Asks only for tasks that must have ended.
    observer: ConnectionId,
    sent: Vec<Sent>,
    /// When outputs were looked at last.
    last_input: Now,
    /// Tasks that are known to have ended.
    ended: HashSet<String>,
    rejected: HashSet<String>,
    /// How often each task was started by a worker.
    started: HashMap<String, u32>,
    outcomes: HashMap<String, Outcome>,
}

impl World {
    fn new(policy: Policy) -> Self {
        let mut it = Fixture::with(|config| config.policy = policy);
        let mut world = World {
            observer: it.client(),
            it,
            workers: Vec::new(),
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            sent: Vec::new(),
            last_input: Now::default(),
            ended: HashSet::new(),
            rejected: HashSet::new(),
            started: HashMap::new(),
            outcomes: HashMap::new(),
        };
        for index in 0..WORKERS {
            let (slots, prefetch) = (index as u32 + 1, index as u32 % 2);
            world.workers.push(Worker { slots, prefetch, ..Default::default() });
            world.connect_worker(index, false);
        }
        (0..CLIENTS).for_each(|index| world.connect_client(index));
        world
    }

    /// Sorts what the core sent into its receivers' connections.
    fn sort(&mut self) {
        for (index, worker) in self.workers.iter_mut().enumerate() {
            let Some(connection) = worker.connection else { continue };
            let before = worker.unread.len();
            while let Some((message, _)) = self.it.next_for(connection) {
                worker.unread.push_back(message);
            }
            let routes = worker.unread.iter().skip(before).filter_map(|message| match message {
                Message::Route(route) => Some(route),
                _ => None,
            });
            let mut was_routed = false;
            for route in routes {
                was_routed = true;
                let id = route.task.decode().unwrap().id;
                let sent = self.sent.iter().find(|it| it.id == id.as_str()).unwrap();
                // It was routed now, or while time passed before.
                let at_most = sent.deadline.max(self.last_input.mono.0 + 1_000);
                assert!(self.last_input.mono.0 + route.ttl_ms * 1_000 <= at_most, "{id}");
            }
            let charged = self.it.in_flight(&format!("w{index}"));
            assert!(!was_routed || charged <= worker.slots + worker.prefetch, "{charged}");
        }
        self.last_input = self.it.now;
        let mut cut_short = Vec::new();
        for client in &mut self.clients {
            let Some(connection) = client.connection else { continue };
            while let Some((message, body)) = self.it.next_for(connection) {
                if let Message::Deliver(deliver) = &message
                    && !goes_on(deliver)
                {
                    let id = deliver.task_id.to_string();
                    match deliver.outcome {
                        Outcome::Cancelled | Outcome::Expired => cut_short.push(id.clone()),
                        Outcome::Rejected => drop(self.rejected.insert(id.clone())),
                        _ => {}
                    }
                    self.ended.insert(id);
                }
                client.unread.push_back((message, &body[..] == b"output"));
            }
        }
        self.it.discard();
        cut_short.iter().for_each(|parent| self.check_no_child_is_left(parent));
    }

    fn check_no_child_is_left(&mut self, parent: &str) {
        let children = self.sent.iter().filter(|it| it.parent.as_deref() == Some(parent));
        for child in children {
            self.it.give(self.observer, Message::Fetch(task_id(&child.id)));
            match self.it.next_for(self.observer) {
                Some((Message::Deliver(_) | Message::Status(_, TaskState::Unknown), _)) => {}
                other => panic!("{} outlives its parent {parent}: {other:?}", child.id),
            }
        }
    }

    fn send(&mut self, client: usize, parent: Option<String>, how: How) {
        let Some(connection) = self.clients[client].connection else { return };
        let How { is_idempotent, ends_with_connection, ttl_ms } = how;
        let id = format!("t{}", self.sent.len());
        let mut deadline = self.it.now.mono.plus_ms(ttl_ms).0;
        // When its parent has ended it is on its own, or refused.
        let above = parent.as_ref().filter(|it| !self.may_have_ended(it));
        if let Some(parent) = above.and_then(|id| self.sent.iter().find(|it| it.id == *id)) {
            deadline = deadline.min(parent.deadline);
        }
        let task = Task {
            idempotent: is_idempotent,
            cancel_on_disconnect: ends_with_connection,
            parent: parent.as_deref().map(task_id),
            ..task(&id)
        };
        self.sent.push(Sent { id: id.clone(), is_idempotent, parent, deadline });
        self.clients[client].waits.insert(id);
        self.it.send_task(connection, task, ttl_ms);
    }

    /// Whether a task has ended, as far as can be told: somebody connected would have heard.
    fn may_have_ended(&self, id: &str) -> bool {
        let hears = |client: &Client| client.connection.is_some() && client.waits.contains(id);
        self.ended.contains(id) || !self.clients.iter().any(hears)
    }

    fn connect_worker(&mut self, index: usize, is_new_process: bool) {
        let worker = &mut self.workers[index];
        if is_new_process {
            worker.process += 1;
            worker.held.clear();
            worker.parked.clear();
        }
        // What was routed and not read is lost with the old connection.
        worker.unread.clear();
        worker.routes = 0;
        let hello = WorkerHello {
            instance_id: format!("process-{}", worker.process).try_into().unwrap(),
            prefetch: worker.prefetch,
            held: worker.held.keys().copied().collect(),
            ..worker_hello(&format!("w{index}"), worker.slots)
        };
        let connection = self.it.connect();
        self.workers[index].connection = Some(connection);
        self.it.give(connection, hello_of(hello));
        let ack = self.it.expect_ack(connection);
        self.workers[index].held.retain(|id, _| ack.keep.contains(id));
        self.workers[index].parked.retain(|id| ack.keep.contains(id));
        for attempt in self.workers[index].parked.clone() {
            self.it.park(connection, attempt, true);
        }
    }

    fn connect_client(&mut self, index: usize) {
        let (connection, _) = self.it.client_of(Some(&format!("session-{index}")));
        let client = &mut self.clients[index];
        client.connection = Some(connection);
        client.unread.clear();
        let waits: Vec<_> = client.waits.iter().cloned().collect();
        self.sort();
        for id in waits {
            self.it.give(connection, Message::Fetch(task_id(&id)));
        }
    }

    fn client_reads(&mut self, index: usize) {
        while let Some((message, has_output)) = self.clients[index].unread.pop_front() {
            match message {
                Message::Deliver(deliver) => {
                    let id = deliver.task_id.to_string();
                    assert_eq!(deliver.outcome == Outcome::Ok, has_output);
                    if self.clients[index].waits.remove(&id) {
                        // Whoever cancelled while another waits has an outcome of its own.
                        if deliver.outcome != Outcome::Cancelled {
                            let first = *self.outcomes.entry(id).or_insert(deliver.outcome);
                            assert_eq!(first, deliver.outcome);
                        }
                        let was_started = self.started.contains_key(deliver.task_id.as_str());
                        assert!(deliver.executed != Executed::No || !was_started);
                    }
                }
                Message::Status(id, TaskState::Unknown) => {
                    // Its SEND was lost, or its outcome is no longer kept: the SDK says lost.
                    self.clients[index].waits.remove(id.as_str());
                }
                Message::Status(..) | Message::Pong(_) | Message::Goaway(_) => {}
                other => panic!("a client got {other:?}"),
            }
        }
    }

    fn worker_reads(&mut self, index: usize) {
        while let Some(message) = self.workers[index].unread.pop_front() {
            let worker = &mut self.workers[index];
            let Some(connection) = worker.connection else { continue };
            match message {
                Message::Route(route) => {
                    worker.routes += 1;
                    let id = route.task.decode().unwrap().id.to_string();
                    worker.held.insert(route.attempt_id, id.clone());
                    let counts = |id: &&AttemptId| !worker.has_parked.contains(id);
                    let count = worker.held.keys().filter(counts).count() as u32;
                    assert!(count <= worker.slots + worker.prefetch);
                    *self.started.entry(id).or_default() += 1;
                }
                Message::Cancel(Cancel::Attempt(id, _)) => {
                    worker.parked.remove(&id);
                    if worker.held.remove(&id).is_some() {
                        self.it.give(connection, Message::Result(cancelled_result(id)));
                        self.sort();
                    }
                }
                Message::Ping(ping) => {
                    self.it.give(connection, Message::Pong(ping.seq));
                    self.sort();
                }
                Message::Pong(_) | Message::Error(_) | Message::Goaway(_) => {}
                other => panic!("a worker got {other:?}"),
            }
        }
    }

    fn held(&self, worker: usize, held: usize) -> Option<(ConnectionId, AttemptId)> {
        let worker = &self.workers[worker];
        let count = worker.held.len().max(1);
        Some((worker.connection?, *worker.held.keys().nth(held % count)?))
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Send { client, how } => self.send(client, None, how),
            Op::SendChild { client, how, worker, held } => {
                let parent = self.held(worker, held).map(|(_, id)| id);
                let parent = parent.and_then(|id| self.workers[worker].held.get(&id).cloned());
                if parent.is_some() {
                    self.send(client, parent, how);
                }
            }
            Op::Park { worker, held, is_parked } => {
                if let Some((connection, attempt)) = self.held(worker, held) {
                    let model = &mut self.workers[worker];
                    if is_parked {
                        model.parked.insert(attempt);
                        model.has_parked.insert(attempt);
                    } else {
                        model.parked.remove(&attempt);
                    }
                    self.it.park(connection, attempt, is_parked);
                }
            }
            Op::SendAgain { client, task: index } => {
                // One that was rejected would be a new task.
                if let (Some(sent), Some(connection)) =
                    (self.sent.iter().rev().nth(index), self.clients[client].connection)
                    && !self.rejected.contains(&sent.id)
                    && self.it.core.stats().rejected == self.rejected.len() as u64
                {
                    let task = Task { idempotent: sent.is_idempotent, ..task(&sent.id) };
                    self.clients[client].waits.insert(sent.id.clone());
                    self.it.send_task(connection, task, 60_000);
                }
            }
            Op::ClientReads { client } => self.client_reads(client),
            Op::Cancel { client, task: index } => {
                let mut waits: Vec<_> = self.clients[client].waits.iter().cloned().collect();
                waits.sort();
                if let (Some(id), Some(connection)) =
                    (waits.get(index), self.clients[client].connection)
                {
                    self.it.give(connection, Message::Cancel(Cancel::Task(task_id(id))));
                }
            }
            Op::WorkerReads { worker } => self.worker_reads(worker),
            Op::Finish { worker, held, is_ok } => {
                if let Some((connection, attempt)) = self.held(worker, held) {
                    self.workers[worker].held.remove(&attempt);
                    self.workers[worker].parked.remove(&attempt);
                    self.workers[worker].last_result = Some(attempt);
                    if is_ok {
                        self.it.result(connection, attempt);
                    } else {
                        let outcome = Outcome::Failed;
                        let result = TaskResult { outcome, ..ok_result(attempt) };
                        self.it.give(connection, Message::Result(result));
                    }
                }
            }
            Op::HandBack { worker, held } => {
                if let Some((connection, attempt)) = self.held(worker, held)
                    && let Some(id) = self.workers[worker].held.remove(&attempt)
                {
                    self.workers[worker].parked.remove(&attempt);
                    // It was only waiting there: it did not start.
                    match self.started.get_mut(&id) {
                        Some(count) if *count > 1 => *count -= 1,
                        _ => drop(self.started.remove(&id)),
                    }
                    let nack = Nack { attempt_id: attempt, error: None };
                    self.it.give(connection, Message::Nack(nack));
                }
            }
            Op::Forget { worker, held } => {
                if let Some((_, attempt)) = self.held(worker, held) {
                    self.workers[worker].held.remove(&attempt);
                    self.workers[worker].parked.remove(&attempt);
                }
            }
            Op::Ping { worker, is_draining } => {
                let model = &self.workers[worker];
                if let Some(connection) = model.connection {
                    let held: Vec<_> = model.held.keys().copied().collect();
                    let readiness =
                        if is_draining { Readiness::Draining } else { Readiness::Ready };
                    self.it.give(connection, report(model.routes, &held, readiness));
                }
            }
            Op::Repeat { worker } => {
                let model = &self.workers[worker];
                if let (Some(connection), Some(attempt)) = (model.connection, model.last_result) {
                    self.it.result(connection, attempt);
                }
            }
            Op::Steal { worker, from, held } => {
                if let (Some(thief), Some((_, attempt))) =
                    (self.workers[worker].connection, self.held(from, held))
                    && worker != from
                {
                    let before = self.it.core.stats();
                    self.it.result(thief, attempt);
                    let after = self.it.core.stats();
                    assert_eq!((before.ok, before.late_results), (after.ok, after.late_results));
                }
            }
            Op::Break { worker } => self.end_worker(worker, Disconnect::Broken),
            Op::Leave { worker } => {
                self.end_worker(worker, Disconnect::Orderly);
                self.workers[worker].held.clear();
            }
            Op::Connect { worker, is_new_process } => self.connect_worker(worker, is_new_process),
            Op::ClientBreaks { client } => {
                if let Some(connection) = self.clients[client].connection.take() {
                    self.clients[client].unread.clear();
                    self.it.disconnect(connection, Disconnect::Broken);
                }
            }
            Op::ClientConnects { client } => self.connect_client(client),
            Op::Advance { ms } => self.it.advance(ms),
        }
        self.sort();
        self.check();
    }

    fn end_worker(&mut self, index: usize, how: Disconnect) {
        if let Some(connection) = self.workers[index].connection.take() {
            self.workers[index].unread.clear();
            self.it.disconnect(connection, how);
        }
    }

    /// What is kept up to date with each step is what counting comes to.
    fn check_gauges(&self) {
        let metrics = self.it.core.metrics(self.it.now);
        let online = self.it.core.agents(self.it.now, false);
        assert_eq!(metrics.stats.agents_online, online.len() as u64);
        assert_eq!(metrics.slots, online.iter().map(|agent| u64::from(agent.slots)).sum::<u64>());
        let sum = |of: fn(&ActionMetrics) -> u64| metrics.actions.iter().map(of).sum::<u64>();
        assert_eq!(sum(|it| it.queued), metrics.stats.queued);
        assert_eq!(sum(|it| it.running), metrics.stats.running);
        for action in &metrics.actions {
            assert_eq!(action.queued > 0, action.queued_bytes > 0, "{action:?}");
        }
    }

    fn check(&self) {
        let mut charged = 0;
        for agent in self.it.core.agents(self.it.now, true) {
            let index: usize = agent.agent_id.as_str()[1..].parse().unwrap();
            let worker = &self.workers[index];
            let can_be_over = worker.has_parked.len() as u32;
            let max = worker.slots + worker.prefetch + can_be_over;
            assert!(agent.in_flight <= max, "{agent:?}");
            charged += u64::from(agent.in_flight + agent.parked);
        }
        assert_eq!(charged, self.it.core.stats().in_flight);
        self.check_gauges();
        for Sent { id, is_idempotent, .. } in &self.sent {
            let started = self.started.get(id).copied().unwrap_or(0);
            assert!(*is_idempotent || started <= 1, "{id} ran {started} times");
        }
    }

    /// Lets everything come to its end, and looks whether anything is left.
    fn settle(mut self) {
        (0..CLIENTS).for_each(|client| self.connect_client(client));
        self.sort();
        for _ in 0..4 {
            (0..WORKERS).for_each(|worker| self.worker_reads(worker));
            self.it.advance(20_000);
            self.sort();
        }
        (0..CLIENTS).for_each(|client| self.client_reads(client));
        for client in &self.clients {
            assert!(client.waits.is_empty(), "no outcome for {:?}", client.waits);
        }
        (0..WORKERS).for_each(|worker| self.end_worker(worker, Disconnect::Orderly));
        self.it.discard();
        self.it.advance(20_000);
        self.it.discard();
        let stats = self.it.core.stats();
        assert_eq!((stats.queued, stats.running, stats.in_flight), (0, 0, 0));
        assert!(self.it.core.agents(self.it.now, true).is_empty());
    }
}

/// Whether only one of several sessions has this outcome, as it cancelled.
fn goes_on(deliver: &Deliver) -> bool {
    deliver.error.as_ref().is_some_and(|error| error.message.contains("so it goes on"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn each_task_has_one_outcome_and_each_slot_comes_back_once(
        ops in prop::collection::vec(op(), 1..160),
        is_round_robin in any::<bool>(),
    ) {
        let policy = if is_round_robin { Policy::RoundRobin } else { Policy::LeastLoaded };
        let mut world = World::new(policy);
        for op in ops {
            world.apply(op);
        }
        world.settle();
    }
}
