//! What workers do.

use mcp_broker::broker::{ConnectionId, Disconnect};
use mcp_proto::{
    AttemptId, Cancel, Chunk, Credit, Executed, Message, Progress, Readiness, Subject, TaskResult,
};

use super::ops::How;
use super::worker::{Held, Parts};
use super::world::World;
use crate::fixture::{cancelled_result, failed_result, hello_of, ok_result, panic_result, report};

impl World {
    pub(super) fn connect_worker(&mut self, index: usize, is_new_process: bool) {
        let worker = &mut self.workers[index];
        if is_new_process {
            worker.process += 1;
            worker.held.clear();
        }
        // What was routed and not read is lost with the old connection.
        worker.unread.clear();
        worker.routes = 0;
        let hello = worker.hello(index);
        let connection = self.it.connect();
        self.workers[index].connection = Some(connection);
        self.it.give(connection, hello_of(hello));
        let ack = self.it.expect_ack(connection);
        self.workers[index].held.retain(|id, _| ack.keep.contains(id));
        self.say_again(index, connection);
    }

    /// Tells a new connection what may be lost with the one before.
    fn say_again(&mut self, index: usize, connection: ConnectionId) {
        for (attempt, held) in &self.workers[index].held {
            if held.is_parked {
                self.it.park(connection, *attempt, true);
            }
            for (seq, part) in held.parts.kept() {
                self.it.give_body(connection, chunk(*attempt, seq), part);
            }
            if let Some(result) = &held.result {
                self.it.give_result(connection, result.clone());
            }
        }
        self.workers[index].held.retain(|_, held| held.result.is_none());
    }

    pub(super) fn worker_reads(&mut self, index: usize) {
        while let Some(message) = self.workers[index].unread.pop_front() {
            let worker = &mut self.workers[index];
            let Some(connection) = worker.connection else { continue };
            match message {
                Message::Route(route) => {
                    let task = route.task.decode().unwrap().id.to_string();
                    worker.routes += 1;
                    let held = Held {
                        task: task.clone(),
                        number: route.attempt,
                        is_parked: false,
                        parts: Parts::new(route.stream_window_bytes),
                        next_input: route.input_follows.map(|_| 0),
                        result: None,
                    };
                    worker.held.insert(route.attempt_id, held);
                    assert!(worker.never_parked() as u32 <= worker.slots + worker.prefetch);
                    if let Some(sent) = self.known(&task) {
                        sent.started += 1;
                    }
                }
                Message::Cancel(Cancel::Attempt(id, _)) => {
                    if worker.held.remove(&id).is_some() {
                        self.it.give(connection, Message::Result(cancelled_result(id)));
                        self.sort();
                    }
                }
                Message::Credit(Credit { of: Subject::Attempt(id), next_seq, limit_bytes }) => {
                    if let Some(held) = worker.held.get_mut(&id) {
                        held.parts.credit(next_seq, limit_bytes);
                    }
                }
                Message::Chunk(Chunk { of: Subject::Attempt(id), seq, .. }) => {
                    self.take_input(index, id, seq);
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

    /// An attempt whose handler runs, and the connection to tell of it.
    pub(super) fn running(&self, worker: usize, held: usize) -> Option<(ConnectionId, AttemptId)> {
        let worker = &self.workers[worker];
        let count = worker.running().count().max(1);
        Some((worker.connection?, worker.running().nth(held % count)?))
    }

    /// Takes an attempt from a worker, whose handler did not start after all.
    fn take_unstarted(
        &mut self,
        worker: usize,
        held: usize,
    ) -> Option<(ConnectionId, AttemptId, Held)> {
        let (connection, attempt) = self.running(worker, held)?;
        let held = self.workers[worker].held.remove(&attempt)?;
        if let Some(sent) = self.known(&held.task) {
            sent.did_not_start();
        }
        Some((connection, attempt, held))
    }

    /// A handler goes on while its worker has no connection.
    fn running_anyhow(&mut self, worker: usize, held: usize) -> Option<AttemptId> {
        let worker = &self.workers[worker];
        worker.running().nth(held % worker.held.len().max(1))
    }

    pub(super) fn emit(&mut self, worker: usize, index: usize, bytes: usize) {
        let Some(attempt) = self.running_anyhow(worker, index) else { return };
        let worker = &mut self.workers[worker];
        let (connection, Some(held)) = (worker.connection, worker.held.get_mut(&attempt)) else {
            return;
        };
        let (seq, number, task) = (held.parts.next_seq, held.number, held.task.clone());
        let Some(part) = held.parts.emit(bytes, number * 100) else { return };
        self.attempt(&task, number).emitted.push(part.clone());
        if let Some(connection) = connection {
            self.it.give_body(connection, chunk(attempt, seq), part);
        }
    }

    pub(super) fn finish(&mut self, worker: usize, index: usize, how: How) {
        let Some(attempt) = self.running_anyhow(worker, index) else { return };
        let worker = &mut self.workers[worker];
        let Some(held) = worker.held.get_mut(&attempt) else { return };
        let chunks = held.parts.next_seq;
        let failed = failed_result(attempt);
        let result = match how {
            How::Ok => ok_result(attempt),
            How::Failed => failed,
            How::FailedForGood => TaskResult { permanent: true, ..failed },
            How::Panicked => panic_result(attempt),
            How::FailedUnstarted => TaskResult { executed: Executed::No, ..failed },
        };
        let result = TaskResult { chunks, ..result };
        let task = held.task.clone();
        worker.last_result = Some(attempt);
        match worker.connection {
            Some(connection) => {
                worker.held.remove(&attempt);
                self.it.give_result(connection, result);
            }
            None => held.result = Some(result),
        }
        if matches!(how, How::FailedUnstarted)
            && let Some(sent) = self.known(&task)
        {
            sent.did_not_start();
        }
    }

    pub(super) fn hand_back(&mut self, worker: usize, held: usize) {
        if let Some((connection, attempt, _)) = self.take_unstarted(worker, held) {
            self.it.nack(connection, attempt);
        }
    }

    pub(super) fn put_off(&mut self, worker: usize, held: usize, ms: u64) {
        if let Some((connection, attempt, held)) = self.take_unstarted(worker, held) {
            if self.known(&held.task).is_some() {
                self.attempt(&held.task, held.number).put_off = Some(ms);
            }
            self.it.put_off(connection, attempt, ms);
        }
    }

    pub(super) fn park(&mut self, worker: usize, held: usize, is_parked: bool) {
        let Some((connection, attempt)) = self.running(worker, held) else { return };
        let worker = &mut self.workers[worker];
        worker.goes_on = !is_parked;
        if is_parked {
            worker.has_parked.insert(attempt);
        }
        if let Some(held) = worker.held.get_mut(&attempt) {
            held.is_parked = is_parked;
        }
        self.it.park(connection, attempt, is_parked);
    }

    pub(super) fn sign(&mut self, worker: usize, held: usize, is_start: bool) {
        let Some((connection, attempt)) = self.running(worker, held) else { return };
        let (of, message) = (Subject::Attempt(attempt), Default::default());
        let progress = Progress { of, permille: None, message };
        let sign = if is_start { Message::Started(attempt) } else { Message::Progress(progress) };
        self.it.give(connection, sign);
    }

    pub(super) fn ping(&mut self, worker: usize, is_draining: bool) {
        let worker = &self.workers[worker];
        let Some(connection) = worker.connection else { return };
        let held: Vec<_> = worker.held.keys().copied().collect();
        let readiness = if is_draining { Readiness::Draining } else { Readiness::Ready };
        self.it.give(connection, report(worker.routes, &held, readiness));
    }

    /// The result that was sent last, once more.
    pub(super) fn repeat(&mut self, worker: usize) {
        let worker = &self.workers[worker];
        if let (Some(connection), Some(attempt)) = (worker.connection, worker.last_result) {
            self.it.result(connection, attempt);
        }
    }

    /// A result of an attempt that another worker holds.
    pub(super) fn steal(&mut self, worker: usize, from: usize, held: usize) {
        if let (Some(thief), Some((_, attempt))) =
            (self.workers[worker].connection, self.running(from, held))
            && worker != from
        {
            let before = self.it.core.stats();
            self.it.result(thief, attempt);
            let after = self.it.core.stats();
            assert_eq!((before.ok, before.late_results), (after.ok, after.late_results));
        }
    }

    pub(super) fn worker_breaks(&mut self, worker: usize) {
        self.end_worker(worker, Disconnect::Broken);
    }

    pub(super) fn worker_leaves(&mut self, worker: usize) {
        self.end_worker(worker, Disconnect::Orderly);
        self.workers[worker].held.clear();
    }

    fn end_worker(&mut self, worker: usize, how: Disconnect) {
        let worker = &mut self.workers[worker];
        if let Some(connection) = worker.connection.take() {
            worker.unread.clear();
            self.it.disconnect(connection, how);
        }
    }
}

fn chunk(attempt: AttemptId, seq: u32) -> Message {
    Message::Chunk(Chunk::new(Subject::Attempt(attempt), seq))
}
