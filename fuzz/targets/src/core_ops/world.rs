//! A core with its clients and workers, and what they hear.

use bytes::Bytes;
use mcp_broker::broker::{ConnectionId, Disconnect, Record};
use mcp_proto::{
    Ack, Cancel, Chunk, Deliver, ErrorCode, Executed, Message, Outcome, Route, Subject, TaskState,
};

use super::client::Client;
use super::journal::Journal;
use super::setting::Setting;
use super::task::{Sent, number};
use super::worker::{Held, Worker};
use crate::driver::{Driver, Said};

pub(super) const CLIENTS: usize = 2;
pub(super) const WORKERS: usize = 3;

/// Longer than anything lives.
const FOR_GOOD_MS: u64 = 8 * 24 * 60 * 60 * 1000;

pub(super) struct World {
    pub(super) it: Driver,
    pub(super) setting: Setting,
    pub(super) clients: Vec<Client>,
    pub(super) workers: Vec<Worker>,
    pub(super) sent: Vec<Sent>,
    pub(super) journal: Journal,
    /// The core was told that the journal failed.
    pub(super) is_unjournalled: bool,
    /// A client asks for a task that it did not wait for.
    pub(super) is_new_fetch: bool,
}

impl World {
    pub(super) fn new(setting: Setting) -> Self {
        let mut world = Self {
            it: Driver::new(|config| setting.apply(config)),
            setting,
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            workers: (0..WORKERS).map(|_| Worker::default()).collect(),
            sent: Vec::new(),
            journal: Journal::default(),
            is_unjournalled: false,
            is_new_fetch: false,
        };
        (0..CLIENTS).for_each(|index| world.connect_client(index));
        for index in 0..WORKERS {
            (world.workers[index].slots, world.workers[index].prefetch) = (1 + index as u32 % 2, 0);
            world.connect_worker(index);
        }
        world
    }

    /// Hears all that the core says.
    pub(super) fn listen(&mut self) {
        while let Some(said) = self.it.next() {
            match said {
                Said::Frame(to, message, body) => self.hear(to, message, &body),
                Said::Close(connection) => self.is_closed(connection),
                Said::Journal(seq, record) => self.append(seq, record),
            }
        }
    }

    fn append(&mut self, seq: u64, record: Record) {
        let number_of = self.journal.append(seq, record.clone());
        match record {
            Record::Accepted(name, _) => {
                self.sent[number(&name.task_id)].accepted_seq = number_of;
            }
            Record::Ended(name, _) => self.sent[number(&name.task_id)].ended_seq = number_of,
            _ => {}
        }
    }

    fn is_closed(&mut self, connection: ConnectionId) {
        for client in &mut self.clients {
            client.connection.take_if(|it| *it == connection);
        }
        for worker in &mut self.workers {
            worker.connection.take_if(|it| *it == connection);
        }
    }

    fn hear(&mut self, to: ConnectionId, message: Message, body: &Bytes) {
        let is_its = |connection: Option<ConnectionId>| connection == Some(to);
        if let Some(index) = self.clients.iter().position(|it| is_its(it.connection)) {
            self.client_hears(index, message, body);
        } else if let Some(index) = self.workers.iter().position(|it| is_its(it.connection)) {
            self.worker_hears(index, message);
        }
    }

    fn client_hears(&mut self, index: usize, message: Message, body: &Bytes) {
        match message {
            Message::Ack(ack) if !ack.resumed => self.clients[index].forget(),
            Message::Deliver(deliver) => self.check_outcome(index, &deliver),
            Message::Status(id, state) => {
                let waits = &mut self.clients[index].waits;
                match state {
                    TaskState::Unknown => {
                        assert!(self.is_new_fetch, "{id} was forgotten");
                        waits.remove(&number(&id));
                    }
                    TaskState::Queued | TaskState::Running => {
                        assert!(waits.contains(&number(&id)));
                    }
                }
            }
            Message::Accepted(id) => {
                let sent = &self.sent[number(&id)];
                assert!((1..=self.journal.synced).contains(&sent.accepted_seq), "{id}: {sent:?}");
            }
            Message::Chunk(chunk) => self.read(index, &chunk, body),
            _ => {}
        }
    }

    /// A task has one outcome, and each who waits for it hears that once.
    fn check_outcome(&mut self, client: usize, deliver: &Deliver) {
        let task = number(&deliver.task_id);
        assert!(self.clients[client].waits.remove(&task), "nobody waits: {deliver:?}");
        let sent = &mut self.sent[task];
        let may_have_run = sent.begun > 0 || sent.began_before;
        assert!(deliver.executed != Executed::No || !may_have_run, "{sent:?}: {deliver:?}");
        let goes_on = deliver.error.as_ref().is_some_and(|it| it.message.contains("so it goes on"));
        let is_refused = deliver.outcome == Outcome::Rejected && deliver.executed == Executed::No;
        if goes_on || is_refused {
            return;
        }
        if deliver.error.as_ref().is_some_and(|it| it.code == ErrorCode::Settled) {
            let executed = sent.outcome.map(|(_, executed, _)| executed);
            assert!(sent.is_settled && executed == Some(deliver.executed), "{sent:?}: {deliver:?}");
            return;
        }
        if sent.asks.is_durable() && !self.is_unjournalled {
            assert!((1..=self.journal.synced).contains(&sent.ended_seq), "{sent:?}: {deliver:?}");
        }
        let outcome = (deliver.outcome, deliver.executed, deliver.attempt);
        let known = *sent.outcome.get_or_insert(outcome);
        assert!(known == outcome, "{known:?}: {deliver:?}");
        if matches!(deliver.outcome, Outcome::Cancelled | Outcome::Expired) {
            let children = self.sent.iter_mut().filter(|it| it.parent == Some(task));
            children.for_each(|child| child.is_cut_short = true);
        }
    }

    fn read(&mut self, client: usize, chunk: &Chunk, body: &Bytes) {
        let Subject::Task(id, attempt) = &chunk.of else { panic!("{chunk:?}") };
        let task = number(id);
        if let Some(reading) = self.clients[client].readings.get_mut(&task) {
            reading.take(*attempt, chunk, body);
            let expected = part_byte(task, *attempt, chunk.seq);
            assert!(body.iter().all(|byte| *byte == expected), "{chunk:?}");
        }
    }

    fn worker_hears(&mut self, index: usize, message: Message) {
        match message {
            Message::Ack(ack) => self.keep(index, &ack),
            Message::Route(route) => self.check_route(index, &route),
            Message::Cancel(Cancel::Attempt(id, _)) => {
                if let Some(held) = self.workers[index].held.get_mut(&id) {
                    held.is_cancelled = true;
                }
            }
            Message::Ping(ping) => {
                let worker = &self.workers[index];
                if let (Some(connection), false) = (worker.connection, worker.is_silent) {
                    self.it.give(connection, Message::Pong(ping.seq));
                }
            }
            Message::Chunk(Chunk { of: Subject::Attempt(id), seq, .. }) => {
                if let Some(held) = self.workers[index].held.get_mut(&id) {
                    assert!(seq <= held.next_input, "{id}: {seq} came for {}", held.next_input);
                    held.next_input = held.next_input.max(seq + 1);
                }
            }
            _ => {}
        }
    }

    fn keep(&mut self, index: usize, ack: &Ack) {
        let worker = &mut self.workers[index];
        assert!(ack.keep.iter().all(|id| worker.held.contains_key(id)), "{ack:?}: {worker:?}");
        worker.held.retain(|id, _| ack.keep.contains(id));
        for held in worker.held.values_mut() {
            assert!(!held.is_cancelled, "{ack:?}: {held:?}");
            held.is_parked = false;
            // Its input comes again from where it gave credit.
            held.next_input = u32::MAX - 1;
        }
    }

    /// A worker gets no more than it takes, nothing after its deadline, and nothing again that may not run
    /// twice.
    fn check_route(&mut self, index: usize, route: &Route) {
        let task = number(&route.task.decode().unwrap().id);
        let sent = &mut self.sent[task];
        sent.begun += 1;
        let asks = sent.asks;
        let now = self.it.now.mono;
        assert!((sent.start..sent.deadline).contains(&now), "{sent:?} at {now:?}");
        assert!((1..=asks.ttl_ms()).contains(&route.ttl_ms), "{route:?}");
        assert!(!sent.is_cut_short, "{sent:?} outlives its parent");
        assert!(asks.is_idempotent() || asks.is_durable() || sent.begun == 1, "{sent:?}");
        assert!(self.setting.hedges() || sent.begun <= asks.max_attempts(), "{sent:?}");
        assert!(sent.outcome.is_none(), "{sent:?} has ended");
        let worker = &mut self.workers[index];
        worker.routes += 1;
        let held = Held {
            task,
            number: route.attempt,
            is_parked: false,
            is_cancelled: false,
            next_seq: 0,
            next_input: 0,
        };
        assert!(worker.held.insert(route.attempt_id, held).is_none(), "{route:?} twice");
        assert!(worker.charged() <= worker.takes(), "{worker:?}");
    }

    pub(super) fn pass(&mut self, mut ms: u64) {
        while self.it.pass(&mut ms) {
            self.listen();
        }
        self.check_nobody_waits_too_long();
    }

    /// Whoever is connected has heard of each task by the end of its time to live.
    fn check_nobody_waits_too_long(&self) {
        let now = self.it.now.mono;
        for client in self.clients.iter().filter(|client| client.connection.is_some()) {
            for task in &client.waits {
                let sent = &self.sent[*task];
                let is_late = sent.deadline.plus_ms(1) < now;
                assert!(!is_late || sent.asks.is_durable(), "no outcome of {sent:?} at {now:?}");
            }
        }
    }

    /// Lets everything come to its end.
    pub(super) fn settle(mut self) {
        for index in 0..CLIENTS {
            if self.clients[index].connection.is_none() {
                self.connect_client(index);
            }
        }
        for index in 0..WORKERS {
            self.end_worker(index, Disconnect::Orderly);
        }
        for _ in 0..3 {
            self.sync();
            self.pass(FOR_GOOD_MS / 2);
        }
        for index in 0..CLIENTS {
            let waits = &self.clients[index].waits;
            let is_closed = self.clients[index].connection.is_none();
            assert!(waits.is_empty() || is_closed, "no outcome of {waits:?}");
            self.end_client(index, Disconnect::Orderly);
        }
        // Those whose peers tried to come back meanwhile, and were refused.
        for connection in self.it.connections() {
            self.it.disconnect(connection, Disconnect::Orderly);
            self.listen();
        }
        self.pass(FOR_GOOD_MS);
        self.it.check_is_empty();
    }
}

/// What a part of a result is made of.
pub(super) fn part_byte(task: usize, attempt: u32, seq: u32) -> u8 {
    (task as u8).wrapping_mul(31).wrapping_add(attempt as u8).wrapping_add(seq as u8)
}
