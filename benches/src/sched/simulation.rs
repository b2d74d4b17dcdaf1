//! The broker's core with simulated peers, in virtual time.

use bytes::Bytes;
use mcp_bench::{hello, id, task_id, worker_hello};
use mcp_broker::broker::{
    ActionRules, ConnectionId, Core, CoreConfig, Identity, Mono, Now, Output,
};
use mcp_proto::{
    ActionName, AttemptId, Cancel, Deliver, ErrorCode, ErrorInfo, Executed, Frame, FrameCodec,
    Incoming, Limits, Message, NodeId, Outcome, Send, Task, TaskResult, WorkerHello,
};

use super::events::Events;
use super::fleet::WorkerState;
use super::traffic::SimTask;
use super::workload::Workload;
use super::{NETWORK_US, Run};

const ACTION: &str = "work";

/// What became of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// A worker did it; its client has had the result for so long since it sent the task.
    Done { latency_us: u64, worker: usize },
    /// The broker did not take it.
    Refused,
    /// A worker failed it.
    Failed,
    /// It came to no end in time.
    Late,
}

/// What will happen next.
enum Event {
    /// The next task reaches the broker.
    Arrival,
    /// A frame of a peer does.
    Frame(ConnectionId, Message),
    /// An attempt reaches its worker.
    Route { worker: usize, attempt: AttemptId, task: usize },
    /// A CANCEL does.
    Cancel { worker: usize, attempt: AttemptId },
    /// A handler is done.
    Finished { worker: usize, attempt: AttemptId, task: usize },
    /// A worker's PING is due.
    Ping { worker: usize },
}

/// Has the broker's core deal with all tasks under these rules.
pub(super) fn run(workload: &Workload, rules: ActionRules, tasks: &[SimTask], seed: u64) -> Run {
    let mut simulation = Simulation::new(workload, rules, tasks, seed);
    simulation.connect();
    simulation.go();
    let over_assigned = simulation.workers.iter().map(|it| it.over_assigned).sum();
    let fates = simulation.fates.into_iter().map(|fate| fate.unwrap_or(Fate::Late)).collect();
    Run { fates, over_assigned }
}

struct Simulation<'a> {
    workload: &'a Workload,
    core: Core,
    now_us: u64,
    events: Events<Event>,
    workers: Vec<WorkerState>,
    tasks: &'a [SimTask],
    sent: usize,
    /// The worker that did each task.
    done_by: Vec<Option<usize>>,
    fates: Vec<Option<Fate>>,
    open: usize,
    ping_interval_us: u64,
    codec: FrameCodec,
}

impl<'a> Simulation<'a> {
    fn new(workload: &'a Workload, rules: ActionRules, tasks: &'a [SimTask], seed: u64) -> Self {
        let mut config = CoreConfig::new(id("broker", NodeId::try_from), 1, seed);
        config.rules = rules;
        // A client stands for many.
        config.limits.max_session_tasks = u32::MAX;
        Self {
            workload,
            ping_interval_us: config.ping_interval_ms * 1000,
            core: Core::new(config),
            now_us: 0,
            events: Events::new(),
            workers: workload.workers.iter().map(WorkerState::new).collect(),
            tasks,
            sent: 0,
            done_by: vec![None; tasks.len()],
            fates: vec![None; tasks.len()],
            open: tasks.len(),
            codec: FrameCodec::new(&Limits::default()),
        }
    }

    /// A client for each traffic, then the workers.
    fn connect(&mut self) {
        for group in 0..self.workload.traffic.len() {
            self.hello(ConnectionId(group as u64), None);
        }
        for (worker, make) in self.workload.workers.iter().enumerate() {
            let hello = worker_hello(worker as u64, ACTION, make.slots);
            self.hello(self.connection_of(worker), Some(hello));
            self.events.add(self.ping_interval_us, Event::Ping { worker });
        }
    }

    fn hello(&mut self, connection: ConnectionId, worker: Option<WorkerHello>) {
        self.core.handle_connected(self.now(), connection, Identity::anonymous());
        self.give(connection, hello(worker));
    }

    /// Until all tasks have come to an end.
    fn go(&mut self) {
        self.next_arrival();
        while self.open > 0 {
            let timer = self.core.poll_timeout().map(|at| at.0);
            let event = self.events.next_at_us();
            match (timer, event) {
                (None, None) => return,
                (Some(timer), event) if event.is_none_or(|event| timer <= event) => {
                    self.now_us = self.now_us.max(timer);
                    self.core.handle_timeout(self.now());
                    self.collect();
                }
                (_, event) => {
                    self.now_us = event.unwrap_or(self.now_us);
                    if let Some(event) = self.events.pop() {
                        self.happen(event);
                    }
                }
            }
        }
    }

    fn next_arrival(&mut self) {
        if let Some(task) = self.tasks.get(self.sent) {
            self.events.add(task.at_us + NETWORK_US, Event::Arrival);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrival => {
                let task = self.sent;
                self.sent += 1;
                self.next_arrival();
                self.send(task);
            }
            Event::Frame(from, message) => self.give(from, message.into()),
            Event::Route { worker, attempt, task } => {
                self.workers[worker].take(attempt);
                let (work_us, _) = self.workload.workers[worker].works(&self.tasks[task]);
                let finished = Event::Finished { worker, attempt, task };
                self.events.add(self.now_us + work_us, finished);
            }
            Event::Cancel { worker, attempt } => {
                if self.workers[worker].end(attempt) {
                    let result = TaskResult::new(attempt, Outcome::Cancelled, Executed::Maybe);
                    self.say(worker, Message::Result(result));
                }
            }
            Event::Finished { worker, attempt, task } => {
                if self.workers[worker].end(attempt) {
                    self.finish(worker, attempt, task);
                }
            }
            Event::Ping { worker } => {
                let ping = self.workers[worker].ping();
                self.say(worker, ping);
                self.events.add(self.now_us + self.ping_interval_us, Event::Ping { worker });
            }
        }
    }

    /// A client's task has come.
    fn send(&mut self, index: usize) {
        let SimTask { group, key, .. } = self.tasks[index];
        let traffic = &self.workload.traffic[group];
        let mut task = Task::new(task_id(index as u64), id(ACTION, ActionName::try_from));
        task.priority = traffic.priority;
        task.tenant = traffic.tenant.into();
        if let Some(key) = key {
            task.affinity_key = format!("session-{key}").into();
        }
        let message = Message::Send(Send::new(task.encode(), self.workload.ttl_ms));
        let body = Bytes::copy_from_slice(&(index as u64).to_be_bytes());
        self.give(ConnectionId(group as u64), Frame { message, body });
    }

    /// A handler's RESULT.
    fn finish(&mut self, worker: usize, attempt: AttemptId, task: usize) {
        let (work_us, is_done) = self.workload.workers[worker].works(&self.tasks[task]);
        let outcome = if is_done { Outcome::Ok } else { Outcome::Failed };
        let mut result = TaskResult { work_us, ..TaskResult::new(attempt, outcome, Executed::Yes) };
        if is_done {
            self.done_by[task].get_or_insert(worker);
        } else {
            let error = ErrorInfo::new(ErrorCode::HandlerFailed, "it fails now and then");
            result.error = Some(Box::new(error));
        }
        self.say(worker, Message::Result(result));
    }

    /// A worker sends a frame.
    fn say(&mut self, worker: usize, message: Message) {
        let frame = Event::Frame(self.connection_of(worker), message);
        self.events.add(self.now_us + NETWORK_US, frame);
    }

    fn give(&mut self, from: ConnectionId, frame: Frame) {
        self.core.handle_incoming(self.now(), from, Incoming::Frame(frame));
        self.collect();
    }

    fn collect(&mut self) {
        while let Some(output) = self.core.poll_output() {
            let at_us = self.now_us + NETWORK_US;
            match output {
                Output::Route { to, route, payload } => {
                    let (worker, attempt) = (self.worker_of(to), route.attempt_id);
                    let number: [u8; 8] = payload.body().try_into().expect("the body as sent");
                    let task = u64::from_be_bytes(number) as usize;
                    self.events.add(at_us, Event::Route { worker, attempt, task });
                }
                Output::Send { to, message: Message::Cancel(Cancel::Attempt(attempt, _)) } => {
                    let worker = self.worker_of(to);
                    self.events.add(at_us, Event::Cancel { worker, attempt });
                }
                Output::Send { to, message: Message::Ping(ping) } => {
                    let pong = Event::Frame(to, Message::Pong(ping.seq));
                    self.events.add(at_us + NETWORK_US, pong);
                }
                Output::Deliver { frame, .. } => match self.codec.decode(&mut frame.to_bytes()) {
                    Ok(Some(Incoming::Frame(Frame { message: Message::Deliver(it), .. }))) => {
                        self.delivered(at_us, &it);
                    }
                    other => panic!("not a DELIVER: {other:?}"),
                },
                Output::Close { connection, message, .. } => {
                    panic!("{connection:?} is closed: {message}")
                }
                Output::Send { .. }
                | Output::Chunk { .. }
                | Output::Journal { .. }
                | Output::Event(_)
                | Output::Audit(_)
                | Output::Orders
                | Output::Traced(_) => {}
            }
        }
    }

    /// A client learns how its task ended.
    fn delivered(&mut self, at_us: u64, deliver: &Deliver) {
        let digits = deliver.task_id.as_str().rsplit('-').next().unwrap_or_default();
        let task = usize::from_str_radix(digits, 16).expect("an id as sent");
        let fate = match (deliver.outcome, self.done_by[task]) {
            (Outcome::Ok, Some(worker)) => {
                Fate::Done { latency_us: at_us - self.tasks[task].at_us, worker }
            }
            (Outcome::Rejected, _) => Fate::Refused,
            (Outcome::Failed, _) => Fate::Failed,
            _ => Fate::Late,
        };
        if self.fates[task].replace(fate).is_none() {
            self.open -= 1;
        }
    }

    fn now(&self) -> Now {
        Now { mono: Mono(self.now_us), wall_ms: self.now_us / 1000 }
    }

    fn connection_of(&self, worker: usize) -> ConnectionId {
        ConnectionId((self.workload.traffic.len() + worker) as u64)
    }

    fn worker_of(&self, connection: ConnectionId) -> usize {
        connection.0 as usize - self.workload.traffic.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::workloads;
    use super::*;

    #[test]
    fn all_tasks_come_to_an_end_within_slots_and_the_same_again() {
        let workload = workloads::all().into_iter().find(|it| it.name == "bursts").unwrap();
        let tasks = workload.tasks(1_000_000, 3);
        let run = || run(&workload, ActionRules::default(), &tasks, 3);
        let first = run();
        let shortest_us = tasks[0].service_us + 4 * NETWORK_US;
        for fate in &first.fates {
            let Fate::Done { latency_us, .. } = fate else { panic!("{fate:?}") };
            assert!((shortest_us..workload.ttl_ms * 1000).contains(latency_us));
        }
        assert_eq!((first.fates.len(), first.over_assigned), (tasks.len(), 0));
        assert_eq!(first.fates, run().fates);
    }
}
