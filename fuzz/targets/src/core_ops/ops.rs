//! What can happen.

use mcp_broker::broker::{Disconnect, Policy};
use mcp_proto::limits::{INPUT_WINDOW_BYTES, MAX_STREAM_WINDOW_BYTES};
use mcp_proto::{
    ActionName, Cancel, Chunk, Credit, ErrorCode, ErrorInfo, Executed, Hello, InputLength,
    MCP_VERSION, Message, Nack, Outcome, Park, Ping, Progress, Readiness, Resume, Send, Subject,
    TaskResult,
};

use super::client::Reading;
use super::task::{Asks, Sent, task_id};
use super::world::{CLIENTS, WORKERS, World, part_byte};
use crate::input::Input;

/// A part of a result or of an input.
const PART: [[u8; 100]; 256] = {
    let mut part = [[0; 100]; 256];
    let mut byte = 0;
    while byte < 256 {
        part[byte] = [byte as u8; 100];
        byte += 1;
    }
    part
};

const BODY: &[u8] = b"input";

impl World {
    /// A byte says what happens, the next ones to whom.
    pub(super) fn apply(&mut self, input: &mut Input<'_>) {
        let op = input.byte();
        let variant = op >> 5;
        let who = input.byte();
        let (client, worker) = (usize::from(who) % CLIENTS, usize::from(who) % WORKERS);
        let which = who >> 2;
        match op & 0x1f {
            0..=3 => {
                let asks = Asks { flags: input.byte(), shape: input.byte() };
                let parent = if variant == 1 { self.running(worker, which) } else { None };
                self.send(client, asks, parent);
            }
            4 => self.send_again(client, which),
            5 => self.cancel(client, which),
            6 if variant & 4 == 0 => self.fetch(client, which),
            6 => self.settle_outcome(client, which),
            7 if variant & 1 == 0 => self.end_client(client, Disconnect::Broken),
            7 => self.end_client(client, Disconnect::Orderly),
            8 => self.connect_client(client),
            9 => {
                self.workers[worker].slots = 1 + u32::from(variant & 1);
                self.workers[worker].prefetch = u32::from(variant >> 1 & 1);
                if variant & 4 != 0 {
                    self.workers[worker].process += 1;
                    self.workers[worker].held.clear();
                }
                self.connect_worker(worker);
            }
            10 if variant & 1 == 0 => self.end_worker(worker, Disconnect::Broken),
            10 => self.end_worker(worker, Disconnect::Orderly),
            11..=14 => self.finish(worker, which, variant),
            15 => self.hand_back(worker, which, variant),
            16 => self.park(worker, which, variant & 1 == 0),
            17 => self.sign(worker, which, variant),
            18 => self.report(worker, which, variant),
            19 | 20 => self.emit(worker, which, variant),
            21 => self.credit(client, which, variant),
            22 => self.resume(client, which, variant),
            23 => self.upload(client, which, variant),
            24 => self.read_input(worker, which, variant),
            25 => self.steal(worker, usize::from(variant) % WORKERS, which),
            26 => self.sync(),
            27 => self.pass([1, 10, 60, 600, 2_500, 5_001, 11_000, 31_000][usize::from(variant)]),
            28 => self.it.stall([1, 10, 60, 600, 2_500, 5_001, 1, 1][usize::from(variant)]),
            29 => self.change_rules(who, variant),
            30 => self.workers[worker].is_silent = variant & 1 == 0,
            _ => self.rare(worker, who, variant),
        }
        self.listen();
    }

    fn running(&mut self, worker: usize, which: u8) -> Option<usize> {
        self.workers[worker].attempt(which).map(|(_, _, held)| held.task)
    }

    fn send(&mut self, client: usize, asks: Asks, parent: Option<usize>) {
        if self.clients[client].connection.is_none() {
            return;
        }
        let deadline = self.it.now.mono.plus_ms(asks.ttl_ms());
        self.sent.push(Sent {
            asks,
            start: self.it.now.mono.plus_ms(asks.delay_ms()),
            deadline,
            parent,
            is_cut_short: false,
            begun: 0,
            outcome: None,
            is_settled: false,
            accepted_seq: 0,
            ended_seq: 0,
        });
        let task = self.sent.len() - 1;
        if asks.window_bytes() > 0 {
            self.clients[client].readings.insert(task, Reading::default());
        }
        self.submit(client, task);
    }

    /// A task that was sent before, by whom ever, without a parent and parts.
    fn send_again(&mut self, client: usize, which: u8) {
        let count = self.sent.len();
        if self.clients[client].connection.is_none() || count == 0 {
            return;
        }
        let task = count - 1 - usize::from(which) % count;
        let sent = &mut self.sent[task];
        // Where it was refused, it is a new one.
        let deadline = self.it.now.mono.plus_ms(sent.asks.ttl_ms());
        sent.deadline = sent.deadline.max(deadline);
        (sent.parent, sent.is_cut_short) = (None, false);
        self.submit(client, task);
    }

    fn submit(&mut self, client: usize, task: usize) {
        let Some(connection) = self.clients[client].connection else { return };
        self.clients[client].waits.insert(task);
        let Sent { asks, parent, .. } = self.sent[task];
        let takes_parts = self.clients[client].readings.contains_key(&task);
        let encoded = asks.task(task_id(task), parent.map(task_id)).encode();
        let send = Send {
            stream_window_bytes: if takes_parts { asks.window_bytes() } else { 0 },
            delay_ms: asks.delay_ms(),
            input_follows: asks.is_upload().then_some(InputLength::Unknown),
            ..Send::new(encoded, asks.ttl_ms())
        };
        self.it.give(connection, Message::Send(send), BODY);
    }

    fn cancel(&mut self, client: usize, which: u8) {
        let client = &self.clients[client];
        if let (Some(connection), Some(task)) = (client.connection, client.waits_for(which)) {
            self.it.give(connection, Message::Cancel(Cancel::Task(task_id(task))), b"");
        }
    }

    fn fetch(&mut self, client: usize, which: u8) {
        let count = self.sent.len();
        let Some(connection) = self.clients[client].connection else { return };
        if count > 0 {
            let task = count - 1 - usize::from(which) % count;
            // A task that nobody knows any more is nothing to wait for.
            let was_waiting = !self.clients[client].waits.insert(task);
            self.is_new_fetch = !was_waiting;
            self.it.give(connection, Message::Fetch(task_id(task)), b"");
            self.listen();
            self.is_new_fetch = false;
        }
    }

    fn settle_outcome(&mut self, client: usize, which: u8) {
        let count = self.sent.len();
        let Some(connection) = self.clients[client].connection else { return };
        if count > 0 {
            let task = count - 1 - usize::from(which) % count;
            let sent = &mut self.sent[task];
            sent.is_settled |= sent.asks.is_durable() && sent.outcome.is_some();
            self.it.give(connection, Message::Settle(task_id(task)), b"");
        }
    }

    pub(super) fn end_client(&mut self, client: usize, how: Disconnect) {
        if let Some(connection) = self.clients[client].connection.take() {
            if how == Disconnect::Orderly {
                self.clients[client].forget();
            }
            self.it.disconnect(connection, how);
            self.listen();
        }
    }

    pub(super) fn connect_client(&mut self, client: usize) {
        let connection = self.it.connect();
        self.clients[client].connection = Some(connection);
        let hello = Hello {
            mcp_version: MCP_VERSION.into(),
            sdk: "fuzz".into(),
            features: Vec::new(),
            client: true,
            session_id: Some(format!("session-{client}").try_into().unwrap()),
            worker: None,
        };
        self.it.give(connection, Message::Hello(Box::new(hello)), b"");
        self.listen();
        // It says where it stands, so that it gets the rest.
        let readings = self.clients[client].readings.keys().copied().collect::<Vec<_>>();
        for task in readings {
            self.resume_reading(client, task);
        }
    }

    pub(super) fn connect_worker(&mut self, worker: usize) {
        let connection = self.it.connect();
        let hello = self.workers[worker].hello(worker);
        let it = &mut self.workers[worker];
        (it.connection, it.routes, it.is_silent) = (Some(connection), 0, false);
        self.it.give(connection, hello, b"");
        self.listen();
    }

    pub(super) fn end_worker(&mut self, worker: usize, how: Disconnect) {
        let it = &mut self.workers[worker];
        if let Some(connection) = it.connection.take() {
            if how == Disconnect::Orderly {
                it.held.clear();
            }
            self.it.disconnect(connection, how);
            self.listen();
        }
    }

    /// A handler ends, or confirms that it was cancelled.
    fn finish(&mut self, worker: usize, which: u8, variant: u8) {
        let Some((connection, id, held)) = self.workers[worker].attempt(which) else { return };
        let (task, chunks) = (held.task, held.next_seq);
        let outcome = match variant {
            _ if held.is_cancelled => Outcome::Cancelled,
            0..=2 => Outcome::Ok,
            3 => Outcome::Cancelled,
            _ => Outcome::Failed,
        };
        let executed = if variant == 4 { Executed::No } else { Executed::Yes };
        let mut result = TaskResult { chunks, ..TaskResult::new(id, outcome, executed) };
        match variant {
            1 => result.chunks += 1,
            5 => result.permanent = true,
            6 => {
                let error = ErrorInfo::new(ErrorCode::HandlerPanic, "it panicked");
                result.error = Some(Box::new(error));
            }
            _ => {}
        }
        self.workers[worker].held.remove(&id);
        if executed == Executed::No {
            self.sent[task].begun = self.sent[task].begun.saturating_sub(1);
        }
        let body: &[u8] = if outcome == Outcome::Ok { b"output" } else { b"" };
        self.it.give(connection, Message::Result(result), body);
    }

    fn hand_back(&mut self, worker: usize, which: u8, variant: u8) {
        let Some((connection, attempt_id, held)) = self.workers[worker].attempt(which) else {
            return;
        };
        let task = held.task;
        let wait_ms = [0, 1, 40, 700, u64::MAX][usize::from(variant) % 5];
        let error = (variant > 0)
            .then(|| Box::new(ErrorInfo::new(ErrorCode::AllBusy, "busy").retry_after_ms(wait_ms)));
        self.workers[worker].held.remove(&attempt_id);
        self.sent[task].begun = self.sent[task].begun.saturating_sub(1);
        self.it.give(connection, Message::Nack(Nack { attempt_id, error }), b"");
    }

    fn park(&mut self, worker: usize, which: u8, parked: bool) {
        if let Some((connection, attempt_id, held)) = self.workers[worker].attempt(which) {
            // What it goes on with takes a slot at once, after what was routed meanwhile.
            held.is_parked = parked;
            let park = Message::Park(Park { attempt_id, parked });
            self.it.give(connection, park, b"");
        }
    }

    fn sign(&mut self, worker: usize, which: u8, variant: u8) {
        let Some((connection, id, _)) = self.workers[worker].attempt(which) else { return };
        let of = Subject::Attempt(id);
        let message = match variant & 1 {
            0 => Message::Started(id),
            _ => Message::Progress(Progress { of, permille: Some(500), message: "half".into() }),
        };
        self.it.give(connection, message, b"");
    }

    /// A worker tells what it holds; maybe it has forgotten some of it.
    fn report(&mut self, worker: usize, which: u8, variant: u8) {
        if variant & 4 != 0
            && let Some((_, id, _)) = self.workers[worker].attempt(which)
        {
            self.workers[worker].held.remove(&id);
        }
        let it = &self.workers[worker];
        let Some(connection) = it.connection else { return };
        let readiness = match variant & 3 {
            0 | 1 => Readiness::Ready,
            2 => Readiness::Standby,
            _ => Readiness::Draining,
        };
        let ping = Ping {
            seq: 1,
            readiness: Some(readiness),
            routes_received: it.routes,
            held: it.held.keys().copied().collect(),
        };
        self.it.give(connection, Message::Ping(ping), b"");
    }

    /// A part of a result.
    fn emit(&mut self, worker: usize, which: u8, variant: u8) {
        let Some((connection, id, held)) = self.workers[worker].attempt(which) else { return };
        let part = &PART[usize::from(part_byte(held.task, held.number, held.next_seq))];
        let chunk = Chunk::new(Subject::Attempt(id), held.next_seq);
        held.next_seq += 1;
        self.it.give(connection, Message::Chunk(chunk), &part[..usize::from(variant) * 14]);
    }

    /// A client has read what came; or says so.
    fn credit(&mut self, client: usize, which: u8, variant: u8) {
        let it = &mut self.clients[client];
        let (Some(connection), Some((task, reading))) = (it.connection, it.reading(which)) else {
            return;
        };
        let (mut next_seq, mut limit_bytes) = (reading.next_seq, 300 * u64::from(variant));
        if variant > 5 {
            reading.is_wild = true;
            (next_seq, limit_bytes) = (u32::from(which) << 26, u64::MAX - 100);
        }
        let of = Subject::Task(task_id(task), reading.attempt);
        self.it.give(connection, Message::Credit(Credit { of, next_seq, limit_bytes }), b"");
    }

    fn resume(&mut self, client: usize, which: u8, variant: u8) {
        let Some((task, reading)) = self.clients[client].reading(which) else { return };
        if variant > 5 {
            reading.is_wild = true;
            reading.next_seq = reading.next_seq.wrapping_sub(variant.into());
        }
        self.resume_reading(client, task);
    }

    fn resume_reading(&mut self, client: usize, task: usize) {
        let it = &self.clients[client];
        if let (Some(connection), Some(reading)) = (it.connection, it.readings.get(&task)) {
            let resume = Resume {
                task_id: task_id(task),
                attempt: reading.attempt,
                next_seq: reading.next_seq,
                limit_bytes: MAX_STREAM_WINDOW_BYTES.into(),
            };
            self.it.give(connection, Message::Resume(resume), b"");
            self.listen();
        }
    }

    /// A part of an input, not always the one that follows.
    fn upload(&mut self, client: usize, which: u8, variant: u8) {
        let it = &self.clients[client];
        let (Some(connection), Some(task)) = (it.connection, it.waits_for(which)) else { return };
        let seq = u32::from(variant >> 1);
        let of = Subject::Task(task_id(task), 0);
        let chunk = Chunk { last: variant & 1 != 0, ..Chunk::new(of, seq) };
        self.it.give(connection, Message::Chunk(chunk), &PART[0]);
    }

    fn read_input(&mut self, worker: usize, which: u8, variant: u8) {
        let Some((connection, id, held)) = self.workers[worker].attempt(which) else { return };
        let next_seq = if variant > 6 { u32::MAX } else { held.next_input.min(1_000) };
        let of = Subject::Attempt(id);
        let limit_bytes = u64::from(INPUT_WINDOW_BYTES) * u64::from(variant);
        self.it.give(connection, Message::Credit(Credit { of, next_seq, limit_bytes }), b"");
    }

    /// A result of an attempt that another worker has changes nothing.
    fn steal(&mut self, thief: usize, from: usize, which: u8) {
        if thief != from
            && let Some(connection) = self.workers[thief].connection
            && let Some((_, id, _)) = self.workers[from].attempt(which)
        {
            let before = self.it.core.stats();
            let result = TaskResult::new(id, Outcome::Ok, Executed::Yes);
            self.it.give(connection, Message::Result(result), b"stolen");
            let after = self.it.core.stats();
            assert_eq!((before.ok, before.late_results), (after.ok, after.late_results));
        }
    }

    /// All that the core wanted to be on disk is.
    pub(super) fn sync(&mut self) {
        self.synced = self.journalled;
        self.it.core.journal_synced(self.it.now, self.synced);
        self.listen();
    }

    fn change_rules(&mut self, who: u8, variant: u8) {
        let action = ActionName::try_from("work").unwrap();
        let mut rules = (*self.it.core.rules(action.as_str())).clone();
        rules.policy = Policy::ALL[usize::from(who) % Policy::ALL.len()];
        rules.max_running = variant.into();
        self.it.core.set_rules(self.it.now, action, rules);
    }

    /// What ends much.
    fn rare(&mut self, worker: usize, who: u8, variant: u8) {
        match (variant, who) {
            (0, _) => {
                if let Some(connection) = self.workers[worker].connection {
                    self.it.core.handle_unreachable(self.it.now, connection);
                }
            }
            (1, 0xff) => {
                self.is_unjournalled = true;
                self.it.core.journal_failed(self.it.now, "no more room");
            }
            (2, 0xff) => self.it.core.begin_shutdown(self.it.now, 1_000),
            (3, _) => {
                if let Some(connection) = self.clients[usize::from(who) % CLIENTS].connection {
                    self.it.core.handle_overflow(self.it.now, connection);
                }
            }
            _ => {}
        }
    }
}
