//! What workers do.

use mcp_broker::broker::Disconnect;
use mcp_proto::limits::INPUT_WINDOW_BYTES;
use mcp_proto::{
    Chunk, Credit, ErrorCode, ErrorInfo, Executed, Message, Nack, Outcome, Park, Ping, Progress,
    Readiness, Subject, TaskResult,
};

use super::world::{World, part_byte};

impl World {
    pub(super) fn running(&mut self, worker: usize, which: u8) -> Option<usize> {
        self.workers[worker].attempt(which).map(|(_, _, held)| held.task)
    }

    pub(super) fn connect_worker(&mut self, worker: usize) {
        let connection = self.it.connect();
        let hello = self.workers[worker].hello(worker);
        let it = &mut self.workers[worker];
        (it.connection, it.routes, it.is_silent) = (Some(connection), 0, false);
        self.it.give(connection, hello);
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
    pub(super) fn finish(&mut self, worker: usize, which: u8, variant: u8) {
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
        let body = if outcome == Outcome::Ok { "output" } else { "" };
        self.it.give_body(connection, Message::Result(result), body);
    }

    pub(super) fn hand_back(&mut self, worker: usize, which: u8, variant: u8) {
        let Some((connection, attempt_id, held)) = self.workers[worker].attempt(which) else {
            return;
        };
        let task = held.task;
        let wait_ms = [0, 1, 40, 700, u64::MAX][usize::from(variant) % 5];
        let error = (variant > 0)
            .then(|| Box::new(ErrorInfo::new(ErrorCode::AllBusy, "busy").retry_after_ms(wait_ms)));
        self.workers[worker].held.remove(&attempt_id);
        self.sent[task].begun = self.sent[task].begun.saturating_sub(1);
        self.it.give(connection, Message::Nack(Nack { attempt_id, error }));
    }

    pub(super) fn park(&mut self, worker: usize, which: u8, parked: bool) {
        if let Some((connection, attempt_id, held)) = self.workers[worker].attempt(which) {
            // What it goes on with takes a slot at once, after what was routed meanwhile.
            held.is_parked = parked;
            let park = Message::Park(Park { attempt_id, parked });
            self.it.give(connection, park);
        }
    }

    pub(super) fn sign(&mut self, worker: usize, which: u8, variant: u8) {
        let Some((connection, id, _)) = self.workers[worker].attempt(which) else { return };
        let of = Subject::Attempt(id);
        let message = match variant & 1 {
            0 => Message::Started(id),
            _ => Message::Progress(Progress { of, permille: Some(500), message: "half".into() }),
        };
        self.it.give(connection, message);
    }

    /// A worker tells what it holds; maybe it has forgotten some of it.
    pub(super) fn report(&mut self, worker: usize, which: u8, variant: u8) {
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
        self.it.give(connection, Message::Ping(ping));
    }

    /// A part of a result.
    pub(super) fn emit(&mut self, worker: usize, which: u8, variant: u8) {
        let Some((connection, id, held)) = self.workers[worker].attempt(which) else { return };
        let byte = part_byte(held.task, held.number, held.next_seq);
        let part = vec![byte; usize::from(variant) * 14];
        let chunk = Chunk::new(Subject::Attempt(id), held.next_seq);
        held.next_seq += 1;
        self.it.give_body(connection, Message::Chunk(chunk), part);
    }

    pub(super) fn read_input(&mut self, worker: usize, which: u8, variant: u8) {
        let Some((connection, id, held)) = self.workers[worker].attempt(which) else { return };
        let next_seq = if variant > 6 { u32::MAX } else { held.next_input.min(1_000) };
        let of = Subject::Attempt(id);
        let limit_bytes = u64::from(INPUT_WINDOW_BYTES) * u64::from(variant);
        self.it.give(connection, Message::Credit(Credit { of, next_seq, limit_bytes }));
    }

    /// A result of an attempt that another worker has changes nothing.
    pub(super) fn steal(&mut self, thief: usize, from: usize, which: u8) {
        if thief != from
            && let Some(connection) = self.workers[thief].connection
            && let Some((_, id, _)) = self.workers[from].attempt(which)
        {
            let before = self.it.core.stats();
            let result = TaskResult::new(id, Outcome::Ok, Executed::Yes);
            self.it.give_body(connection, Message::Result(result), "stolen");
            let after = self.it.core.stats();
            assert_eq!((before.ok, before.late_results), (after.ok, after.late_results));
        }
    }
}
