//! What clients do.

use mcp_broker::broker::Disconnect;
use mcp_proto::limits::MAX_STREAM_WINDOW_BYTES;
use mcp_proto::{
    Cancel, Chunk, Credit, Hello, InputLength, MCP_VERSION, Message, Resume, Send, Subject,
};

use super::client::Reading;
use super::task::{Asks, Sent, task_id};
use super::world::World;

const BODY: &str = "input";

impl World {
    pub(super) fn send(&mut self, client: usize, asks: Asks, parent: Option<usize>) {
        if self.clients[client].connection.is_none() {
            return;
        }
        let now = self.it.now.mono;
        let (start, deadline) = (now.plus_ms(asks.delay_ms()), now.plus_ms(asks.ttl_ms()));
        self.sent.push(Sent { parent, ..Sent::new(asks, start, deadline) });
        let task = self.sent.len() - 1;
        if asks.window_bytes() > 0 {
            self.clients[client].readings.insert(task, Reading::default());
        }
        self.submit(client, task);
    }

    /// A task that was sent before, by whom ever, without a parent and parts.
    pub(super) fn send_again(&mut self, client: usize, which: u8) {
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
        self.it.give_body(connection, Message::Send(send), BODY);
    }

    pub(super) fn cancel(&mut self, client: usize, which: u8) {
        let client = &self.clients[client];
        if let (Some(connection), Some(task)) = (client.connection, client.waits_for(which)) {
            self.it.give(connection, Message::Cancel(Cancel::Task(task_id(task))));
        }
    }

    pub(super) fn fetch(&mut self, client: usize, which: u8) {
        let count = self.sent.len();
        let Some(connection) = self.clients[client].connection else { return };
        if count > 0 {
            let task = count - 1 - usize::from(which) % count;
            // A task that nobody knows any more is nothing to wait for.
            let was_waiting = !self.clients[client].waits.insert(task);
            self.is_new_fetch = !was_waiting;
            self.it.give(connection, Message::Fetch(task_id(task)));
            self.listen();
            self.is_new_fetch = false;
        }
    }

    pub(super) fn settle_outcome(&mut self, client: usize, which: u8) {
        let count = self.sent.len();
        let Some(connection) = self.clients[client].connection else { return };
        if count > 0 {
            let task = count - 1 - usize::from(which) % count;
            let sent = &mut self.sent[task];
            sent.is_settled |= sent.asks.is_durable() && sent.outcome.is_some();
            self.it.give(connection, Message::Settle(task_id(task)));
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
            token: None,
            worker: None,
        };
        self.it.give(connection, Message::Hello(Box::new(hello)));
        self.listen();
        // It says where it stands, so that it gets the rest.
        let readings = self.clients[client].readings.keys().copied().collect::<Vec<_>>();
        for task in readings {
            self.resume_reading(client, task);
        }
    }

    /// A client has read what came; or says so.
    pub(super) fn credit(&mut self, client: usize, which: u8, variant: u8) {
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
        self.it.give(connection, Message::Credit(Credit { of, next_seq, limit_bytes }));
    }

    pub(super) fn resume(&mut self, client: usize, which: u8, variant: u8) {
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
            self.it.give(connection, Message::Resume(resume));
            self.listen();
        }
    }

    /// A part of an input, not always the one that follows.
    pub(super) fn upload(&mut self, client: usize, which: u8, variant: u8) {
        let it = &self.clients[client];
        let (Some(connection), Some(task)) = (it.connection, it.waits_for(which)) else { return };
        let seq = u32::from(variant >> 1);
        let of = Subject::Task(task_id(task), 0);
        let chunk = Chunk { last: variant & 1 != 0, ..Chunk::new(of, seq) };
        self.it.give_body(connection, Message::Chunk(chunk), vec![0; 100]);
    }
}
