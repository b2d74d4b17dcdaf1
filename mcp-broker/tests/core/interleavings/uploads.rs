//! Inputs in chunks: what clients have sent of them, and what handlers read.

use mcp_proto::limits::{CHUNK_OVERHEAD_BYTES, INPUT_WINDOW_BYTES, MAX_STREAM_WINDOW_BYTES};
use mcp_proto::{AttemptId, Chunk, Credit, Message, Subject};

use super::world::World;
use crate::fixture::task_id;

const CHUNK: &[u8] = &[7; 8 * 1024];
const CHUNK_COUNTS: u64 = CHUNK.len() as u64 + CHUNK_OVERHEAD_BYTES;

/// What a client has sent of an input.
pub(super) struct Upload {
    /// The next chunk; none until the broker has said where to go on.
    next: Option<u32>,
    /// With this one it ends.
    last: Option<u32>,
    limit_bytes: u64,
}

impl Upload {
    pub(super) fn new() -> Self {
        Self { next: Some(0), last: None, limit_bytes: INPUT_WINDOW_BYTES.into() }
    }

    /// Its client's connection is lost: the broker says where to go on, if it does.
    pub(super) fn interrupt(&mut self) {
        self.next = None;
    }

    pub(super) fn credit(&mut self, next_seq: u32, limit_bytes: u64) {
        self.next.get_or_insert(next_seq);
        self.limit_bytes = self.limit_bytes.max(limit_bytes);
    }

    /// The chunk to send now, if there is one, with credit for it.
    fn next(&mut self, ends_here: bool) -> Option<(u32, bool)> {
        let seq = self.next?;
        let is_over = self.last.is_some_and(|last| seq > last);
        if is_over || u64::from(seq + 1) * CHUNK_COUNTS > self.limit_bytes {
            return None;
        }
        if ends_here {
            self.last.get_or_insert(seq);
        }
        self.next = Some(seq + 1);
        Some((seq, self.last == Some(seq)))
    }
}

impl World {
    /// A client goes on with one of its inputs, as far as it has credit.
    pub(super) fn upload(&mut self, index: usize, task: usize, chunks: u32, is_end: bool) {
        let client = &mut self.clients[index];
        let Some(connection) = client.connection else { return };
        let waits = &client.waits;
        let mut its = client.uploads.iter_mut().filter(|(id, _)| waits.contains(*id));
        let Some((id, upload)) = its.nth(task) else { return };
        for number in 1..=chunks {
            let Some((seq, last)) = upload.next(is_end && number == chunks) else { return };
            let chunk = Chunk { last, ..Chunk::new(Subject::Task(task_id(id), 0), seq) };
            self.it.give_body(connection, Message::Chunk(chunk), CHUNK);
        }
    }

    /// A handler has read what came of its input.
    pub(super) fn read_input(&mut self, worker: usize, held: usize) {
        let Some((connection, attempt)) = self.running(worker, held) else { return };
        if let Some(next_seq) = self.workers[worker].held[&attempt].next_input {
            let limit_bytes =
                u64::from(MAX_STREAM_WINDOW_BYTES) + u64::from(next_seq) * CHUNK_COUNTS;
            let of = Subject::Attempt(attempt);
            self.it.give(connection, Message::Credit(Credit { of, next_seq, limit_bytes }));
        }
    }

    /// A chunk of an input came to a worker; perhaps once more.
    pub(super) fn take_input(&mut self, worker: usize, attempt: AttemptId, seq: u32) {
        let Some(held) = self.workers[worker].held.get_mut(&attempt) else { return };
        let next = held.next_input.as_mut().expect("its input does not come in chunks");
        assert!(seq <= *next, "{}: {seq} came for {next}", held.task);
        *next = (seq + 1).max(*next);
    }
}
