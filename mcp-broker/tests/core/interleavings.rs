//! Whatever happens, in whatever order: each task has one outcome, a slot comes back once, no worker
//! holds more than its slots and prefetch, a task that may not run twice does not, and one that is
//! tried again is so after its wait, no more often than it asked for, and as its trace tells. An input
//! in chunks reaches each attempt in order, from its beginning, within bounds.
//!
//! Clients and workers are models: frames wait unread in their connection, are lost when it breaks,
//! and a worker lists what it holds when it comes back.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use mcp_broker::broker::{ActionMetrics, ConnectionId, Disconnect, Mono, Policy};
use mcp_proto::limits::{CHUNK_OVERHEAD_BYTES, INPUT_WINDOW_BYTES, MAX_STREAM_WINDOW_BYTES};
use mcp_proto::{
    AttemptId, Cancel, Chunk, Credit, Deliver, ErrorCode, Executed, HopEvent, InputLength, Message,
    Nack, Outcome, Progress, Readiness, Retry, Send, Subject, Task, TaskResult, TaskState,
    WorkerHello,
};
use proptest::prelude::*;

use crate::fixture::{
    Fixture, cancelled_result, failed_result, hello_of, report, task, task_id, worker_hello,
};

const WORKERS: usize = 3;

const CHUNK: &[u8] = &[7; 8 * 1024];
const CHUNK_COUNTS: u64 = CHUNK.len() as u64 + CHUNK_OVERHEAD_BYTES;
const CLIENTS: usize = 2;

#[derive(Debug, Clone)]
enum Op {
    Send { client: usize, asks: Asks, ttl_ms: u64 },
    SendAgain { client: usize, task: usize },
    ClientReads { client: usize },
    Upload { client: usize, task: usize, chunks: u32, is_end: bool },
    ReadInput { worker: usize, held: usize },
    Cancel { client: usize, task: usize },
    WorkerReads { worker: usize },
    Finish { worker: usize, held: usize, how: How },
    HandBack { worker: usize, held: usize },
    PutOff { worker: usize, held: usize, ms: u64 },
    Sign { worker: usize, held: usize, is_start: bool },
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

/// What a task asks for.
#[derive(Debug, Clone, Copy)]
struct Asks {
    is_idempotent: bool,
    retry: Option<Retry>,
    attempt_timeout_ms: u32,
    /// Its input comes in chunks.
    is_upload: bool,
}

impl Asks {
    fn task(&self, id: &str) -> Task {
        let Asks { is_idempotent: idempotent, retry, attempt_timeout_ms, .. } = *self;
        Task { idempotent, retry, attempt_timeout_ms, ..task(id) }
    }

    fn send(&self, it: &mut Fixture, from: ConnectionId, id: &str, ttl_ms: u64) {
        let input_follows = self.is_upload.then_some(InputLength::Unknown);
        let send = Send { input_follows, ..Send::new(self.task(id).encode(), ttl_ms) };
        it.give_body(from, Message::Send(send), "input");
    }
}

fn asks() -> impl Strategy<Value = Asks> {
    let retry = |max_attempts| Retry {
        max_attempts,
        initial_ms: 50,
        coefficient_percent: 300,
        cap_ms: 400,
    };
    let retry = prop::option::of((1..4u32).prop_map(retry));
    let timeout = prop_oneof![2 => Just(0u32), 1 => Just(30), 1 => Just(1_000)];
    (any::<bool>(), retry, timeout, prop::bool::weighted(0.4)).prop_map(
        |(is_idempotent, retry, attempt_timeout_ms, is_upload)| Asks {
            is_idempotent,
            retry,
            attempt_timeout_ms,
            is_upload,
        },
    )
}

/// How a handler ends.
#[derive(Debug, Clone, Copy)]
enum How {
    Ok,
    Failed,
    FailedForGood,
    FailedUnstarted,
}

fn op() -> impl Strategy<Value = Op> {
    let (w, c, n) = (0..WORKERS, 0..CLIENTS, 0usize..8);
    prop_oneof![
        6 => (c.clone(), asks(), prop_oneof![Just(50u64), Just(3_000), Just(60_000)])
            .prop_map(|(client, asks, ttl_ms)| Op::Send { client, asks, ttl_ms }),
        1 => (c.clone(), n.clone()).prop_map(|(client, task)| Op::SendAgain { client, task }),
        3 => c.clone().prop_map(|client| Op::ClientReads { client }),
        4 => (c.clone(), n.clone(), 1..20u32, prop::bool::weighted(0.2)).prop_map(
            |(client, task, chunks, is_end)| Op::Upload { client, task, chunks, is_end }
        ),
        3 => (w.clone(), n.clone()).prop_map(|(worker, held)| Op::ReadInput { worker, held }),
        2 => (c.clone(), n.clone()).prop_map(|(client, task)| Op::Cancel { client, task }),
        6 => w.clone().prop_map(|worker| Op::WorkerReads { worker }),
        5 => (w.clone(), n.clone(), prop_oneof![
                3 => Just(How::Ok),
                3 => Just(How::Failed),
                1 => Just(How::FailedForGood),
                1 => Just(How::FailedUnstarted),
            ])
            .prop_map(|(worker, held, how)| Op::Finish { worker, held, how }),
        1 => (w.clone(), n.clone(), prop_oneof![Just(0u64), Just(40), Just(700), Just(u64::MAX)])
            .prop_map(|(worker, held, ms)| Op::PutOff { worker, held, ms }),
        1 => (w.clone(), n.clone(), any::<bool>())
            .prop_map(|(worker, held, is_start)| Op::Sign { worker, held, is_start }),
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
    /// Started attempts, the task of each, and its number.
    held: BTreeMap<AttemptId, (String, u32)>,
    /// The chunk of its input that each attempt gets next.
    inputs: HashMap<AttemptId, u32>,
    last_result: Option<AttemptId>,
}

#[derive(Default)]
struct Client {
    connection: Option<ConnectionId>,
    unread: VecDeque<(Message, bool)>,
    /// Tasks that it sent and has no outcome of.
    waits: HashSet<String>,
}

/// What a client has sent of an input.
#[derive(Default)]
struct Upload {
    client: usize,
    /// The next chunk; none until the broker has said where to go on.
    next: Option<u32>,
    /// With this one it ends.
    last: Option<u32>,
    limit_bytes: u64,
}

struct World {
    it: Fixture,
    workers: Vec<Worker>,
    clients: Vec<Client>,
    sent: Vec<(String, Asks)>,
    /// How often each task was started by a worker.
    started: HashMap<String, u32>,
    /// When each attempt was routed, by task and number.
    routed: HashMap<(String, u32), Mono>,
    /// By how much an attempt was put off, ms.
    put_off: HashMap<(String, u32), u64>,
    outcomes: HashMap<String, Outcome>,
    uploads: BTreeMap<String, Upload>,
}

impl World {
    fn new(policy: Policy, retry_budget_percent: u32, max_upload_bytes: usize) -> Self {
        let mut world = World {
            it: Fixture::with(|config| {
                config.policy = policy;
                config.retry_budget_percent = retry_budget_percent;
                config.max_upload_bytes = max_upload_bytes;
            }),
            workers: Vec::new(),
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            sent: Vec::new(),
            started: HashMap::new(),
            routed: HashMap::new(),
            put_off: HashMap::new(),
            outcomes: HashMap::new(),
            uploads: BTreeMap::new(),
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
        for worker in &mut self.workers {
            let Some(connection) = worker.connection else { continue };
            while let Some((message, _)) = self.it.next_for(connection) {
                if let Message::Route(route) = &message {
                    let id = route.task.decode().unwrap().id.to_string();
                    let at = self.it.routed[&route.attempt_id];
                    assert_eq!(self.routed.insert((id, route.attempt), at), None);
                }
                worker.unread.push_back(message);
            }
        }
        for client in &mut self.clients {
            let Some(connection) = client.connection else { continue };
            while let Some((message, body)) = self.it.next_for(connection) {
                client.unread.push_back((message, &body[..] == b"output"));
            }
        }
        self.it.discard();
    }

    fn connect_worker(&mut self, index: usize, is_new_process: bool) {
        let worker = &mut self.workers[index];
        if is_new_process {
            worker.process += 1;
            worker.held.clear();
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
    }

    fn connect_client(&mut self, index: usize) {
        let (connection, _) = self.it.client_of(Some(&format!("session-{index}")));
        let client = &mut self.clients[index];
        client.connection = Some(connection);
        client.unread.clear();
        let waits: Vec<_> = client.waits.iter().cloned().collect();
        for upload in self.uploads.values_mut().filter(|upload| upload.client == index) {
            upload.next = None;
        }
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
                    let code = deliver.error.as_ref().map(|error| error.code);
                    assert_ne!(code, Some(ErrorCode::LimitExceeded), "a client kept to the rules");
                    self.check_trace(&deliver);
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
                Message::Credit(Credit { of: Subject::Task(id, 0), next_seq, limit_bytes }) => {
                    let upload = self.uploads.get_mut(id.as_str()).unwrap();
                    assert_eq!(upload.client, index);
                    upload.next.get_or_insert(next_seq);
                    upload.limit_bytes = upload.limit_bytes.max(limit_bytes);
                }
                Message::Status(..) | Message::Pong(_) | Message::Goaway(_) => {}
                other => panic!("a client got {other:?}"),
            }
        }
    }

    /// A task was tried again after its waits and no more often than it asked for, and its trace
    /// adds up.
    fn check_trace(&self, deliver: &Deliver) {
        let trace = deliver.trace.decode();
        let Some(asks) = self.asks(deliver.task_id.as_str()) else { return };
        if trace.truncated || deliver.executed == Executed::No && trace.hops.is_empty() {
            return;
        }
        let spent = |hop: &mcp_proto::Hop| hop.network_us + hop.worker_queue_us + hop.work_us;
        let sum: u64 = trace.hops.iter().map(|hop| hop.queue_us + spent(hop)).sum();
        assert!(sum + trace.queue_us <= trace.total_us, "{trace:?}");
        let is_try = |hop: &&mcp_proto::Hop| hop.event != HopEvent::Nacked;
        let tries = trace.hops.iter().filter(is_try).count() as u32;
        assert!(asks.retry.is_none_or(|retry| tries <= retry.max_attempts), "{trace:?}");
        for (index, pair) in trace.hops.windows(2).enumerate() {
            let [hop, next] = pair else { unreachable!() };
            assert_eq!(hop.attempt + 1, next.attempt);
            let at = |attempt| self.routed.get(&(deliver.task_id.to_string(), attempt));
            // Unless its ROUTE was lost with its connection.
            if let (Some(first), Some(second)) = (at(hop.attempt), at(next.attempt)) {
                assert_eq!(second.since(*first), spent(hop) + next.queue_us, "{trace:?}");
            }
            let tries = trace.hops[..=index].iter().filter(is_try).count() as u32;
            if let Some(retry) = asks.retry.filter(|_| hop.reason.ends_with("; tried again")) {
                assert!(next.queue_us >= retry.wait_ms(tries) * 1000, "{trace:?}");
            }
            let put_off = self.put_off.get(&(deliver.task_id.to_string(), hop.attempt));
            if let Some(ms) = put_off.filter(|_| hop.event == HopEvent::Nacked) {
                let has_waited = next.queue_us >= (*ms).clamp(10, 60_000) * 1000;
                assert!(has_waited || next.node_id != hop.node_id, "{trace:?}");
            }
        }
    }

    fn asks(&self, id: &str) -> Option<Asks> {
        self.sent.iter().find(|(sent, _)| sent == id).map(|(_, asks)| *asks)
    }

    /// An attempt that a worker held did not start after all.
    fn unstarted(&mut self, id: &str) {
        match self.started.get_mut(id) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.started.remove(id)),
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
                    worker.held.insert(route.attempt_id, (id.clone(), route.attempt));
                    if route.input_follows.is_some() {
                        worker.inputs.insert(route.attempt_id, 0);
                    }
                    assert!(worker.held.len() as u32 <= worker.slots + worker.prefetch);
                    *self.started.entry(id).or_default() += 1;
                }
                Message::Cancel(Cancel::Attempt(id, _)) => {
                    if worker.held.remove(&id).is_some() {
                        self.it.give(connection, Message::Result(cancelled_result(id)));
                        self.sort();
                    }
                }
                Message::Chunk(Chunk { of: Subject::Attempt(id), seq, .. }) => {
                    // Some may come once more.
                    let next = worker.inputs.get_mut(&id).unwrap();
                    assert!(seq <= *next, "{seq} came for {next}");
                    *next = (seq + 1).max(*next);
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
            Op::Send { client, asks, ttl_ms } => {
                let id = format!("t{}", self.sent.len());
                if let Some(connection) = self.clients[client].connection {
                    self.sent.push((id.clone(), asks));
                    if asks.is_upload {
                        let limit_bytes = INPUT_WINDOW_BYTES.into();
                        let upload = Upload { client, next: Some(0), last: None, limit_bytes };
                        self.uploads.insert(id.clone(), upload);
                    }
                    asks.send(&mut self.it, connection, &id, ttl_ms);
                    self.clients[client].waits.insert(id);
                }
            }
            Op::SendAgain { client, task: index } => {
                let known = self.sent.iter().rev().nth(index).cloned();
                if let (Some((id, asks)), Some(connection)) =
                    (known, self.clients[client].connection)
                    && self.outcomes.get(&id).is_none_or(|it| *it != Outcome::Rejected)
                    && (self.it.core.stats().rejected == 0)
                {
                    asks.send(&mut self.it, connection, &id, 60_000);
                    self.clients[client].waits.insert(id);
                }
            }
            Op::ClientReads { client } => self.client_reads(client),
            Op::Upload { client, task, chunks, is_end } => {
                self.upload(client, task, chunks, is_end);
            }
            Op::ReadInput { worker, held } => {
                if let Some((connection, attempt)) = self.held(worker, held)
                    && let Some(next_seq) = self.workers[worker].inputs.get(&attempt).copied()
                {
                    let window = u64::from(MAX_STREAM_WINDOW_BYTES);
                    let limit_bytes = window + u64::from(next_seq) * CHUNK_COUNTS;
                    let of = Subject::Attempt(attempt);
                    let credit = Credit { of, next_seq, limit_bytes };
                    self.it.give(connection, Message::Credit(credit));
                }
            }
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
            Op::Finish { worker, held, how } => {
                if let Some((connection, attempt)) = self.held(worker, held)
                    && let Some((id, _)) = self.workers[worker].held.remove(&attempt)
                {
                    self.workers[worker].last_result = Some(attempt);
                    let failed = failed_result(attempt);
                    let failed = match how {
                        How::Ok => None,
                        How::Failed => Some(failed),
                        How::FailedForGood => Some(TaskResult { permanent: true, ..failed }),
                        How::FailedUnstarted => {
                            self.unstarted(&id);
                            Some(TaskResult { executed: Executed::No, ..failed })
                        }
                    };
                    match failed {
                        None => self.it.result(connection, attempt),
                        Some(failed) => self.it.give(connection, Message::Result(failed)),
                    }
                }
            }
            Op::HandBack { worker, held } => {
                if let Some((connection, attempt)) = self.held(worker, held)
                    && let Some((id, _)) = self.workers[worker].held.remove(&attempt)
                {
                    // It was only waiting there: it did not start.
                    self.unstarted(&id);
                    let nack = Nack { attempt_id: attempt, error: None };
                    self.it.give(connection, Message::Nack(nack));
                }
            }
            Op::PutOff { worker, held, ms } => {
                if let Some((connection, attempt)) = self.held(worker, held)
                    && let Some((id, number)) = self.workers[worker].held.remove(&attempt)
                {
                    self.unstarted(&id);
                    self.put_off.insert((id, number), ms);
                    self.it.put_off(connection, attempt, ms);
                }
            }
            Op::Sign { worker, held, is_start } => {
                if let Some((connection, attempt)) = self.held(worker, held) {
                    let (of, message) = (Subject::Attempt(attempt), Default::default());
                    let progress = Progress { of, permille: None, message };
                    let sign = if is_start {
                        Message::Started(attempt)
                    } else {
                        Message::Progress(progress)
                    };
                    self.it.give(connection, sign);
                }
            }
            Op::Forget { worker, held } => {
                if let Some((_, attempt)) = self.held(worker, held) {
                    self.workers[worker].held.remove(&attempt);
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

    /// A client goes on with one of its inputs, as far as it has credit.
    fn upload(&mut self, client: usize, index: usize, chunks: u32, is_end: bool) {
        let Some(connection) = self.clients[client].connection else { return };
        let waits = &self.clients[client].waits;
        let is_its = |id: &str, it: &Upload| it.client == client && waits.contains(id);
        let its = self.uploads.iter_mut().filter(|(id, upload)| is_its(id, upload));
        let mut its: Vec<_> = its.collect();
        let count = its.len().max(1);
        let Some((id, upload)) = its.get_mut(index % count) else { return };
        let of = Subject::Task(task_id(id), 0);
        let Some(mut seq) = upload.next else { return };
        for number in 0..chunks {
            let is_over = upload.last.is_some_and(|last| seq > last);
            if is_over || u64::from(seq + 1) * CHUNK_COUNTS > upload.limit_bytes {
                break;
            }
            if is_end && number + 1 == chunks {
                upload.last.get_or_insert(seq);
            }
            let last = upload.last == Some(seq);
            let chunk = Chunk { last, ..Chunk::new(of.clone(), seq) };
            self.it.give_body(connection, Message::Chunk(chunk), CHUNK);
            seq += 1;
        }
        upload.next = Some(seq);
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
        assert_eq!(sum(|it| it.delayed), metrics.stats.delayed);
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
            assert!(agent.in_flight <= worker.slots + worker.prefetch, "{agent:?}");
            charged += u64::from(agent.in_flight);
        }
        assert_eq!(charged, self.it.core.stats().in_flight);
        assert!(self.it.core.stats().upload_bytes <= self.it.core.config().max_upload_bytes as u64);
        self.check_gauges();
        for (id, asks) in &self.sent {
            let started = self.started.get(id).copied().unwrap_or(0);
            assert!(asks.is_idempotent || started <= 1, "{id} ran {started} times");
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
        let left = (stats.queued, stats.delayed, stats.running, stats.in_flight);
        assert_eq!(left, (0, 0, 0, 0));
        assert_eq!((stats.uploads, stats.upload_bytes), (0, 0));
        assert!(self.it.core.agents(self.it.now, true).is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn each_task_has_one_outcome_and_each_slot_comes_back_once(
        ops in prop::collection::vec(op(), 1..160),
        is_round_robin in any::<bool>(),
        retry_budget_percent in prop_oneof![Just(0u32), Just(1_000)],
        // Enough for some with much room, or for few with little.
        max_upload_bytes in prop_oneof![Just(1024 * 1024_usize), Just(300 * 1024)],
    ) {
        let policy = if is_round_robin { Policy::RoundRobin } else { Policy::LeastLoaded };
        let mut world = World::new(policy, retry_budget_percent, max_upload_bytes);
        for op in ops {
            world.apply(op);
        }
        world.settle();
    }
}
