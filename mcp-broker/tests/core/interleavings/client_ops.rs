//! What clients do.

use std::mem;

use bytes::Bytes;
use mcp_broker::broker::{ConnectionId, Disconnect};
use mcp_proto::{
    Cancel, Chunk, Credit, Deliver, ErrorCode, Executed, InputLength, Message, Outcome, Send,
    Subject, Task, TaskState,
};

use super::client::Reading;
use super::expected::Expected;
use super::ops::Asks;
use super::sent::Sent;
use super::uploads::Upload;
use super::world::World;
use crate::fixture::task_id;

/// The window of a client that takes parts of a task that another one sent.
const JOINED_WINDOW_BYTES: u32 = 150;

impl World {
    pub(super) fn send(&mut self, client: usize, parent: Option<String>, asks: Asks) {
        let Some(connection) = self.clients[client].connection else { return };
        let id = format!("t{}", self.sent.len());
        let mut deadline = self.it.now.mono.plus_ms(asks.ttl_ms);
        // When its parent has ended it is on its own, or refused.
        // A copy is no parent that its broker knows of.
        let known = parent.as_deref().filter(|it| self.known(it).is_some());
        if let Some(parent) = known.filter(|it| !self.may_have_ended(it)) {
            deadline = deadline.min(self.task(parent).deadline);
        }
        let task = asks.task(&id, parent.as_deref());
        // A child's time to live is also its parent's.
        let is_asked = self.is_asked && parent.is_none();
        self.clients[client].waits.insert(id.clone());
        if asks.window_bytes > 0 {
            let reading = Reading::new(asks.window_bytes);
            self.clients[client].readings.insert(id.clone(), reading);
        }
        if asks.is_upload {
            self.clients[client].uploads.insert(id.clone(), Upload::new());
        }
        self.sent.push(Sent {
            id,
            asks,
            parent,
            deadline,
            started: 0,
            outcome: None,
            has_ended: false,
            is_rejected: false,
            attempts: Default::default(),
            reader: (asks.window_bytes > 0).then_some(client),
            was_taken_over: false,
        });
        let expected = is_asked.then(|| Expected::of(&self.it, &asks));
        self.submit(connection, asks, task, asks.ttl_ms);
        if let Some(expected) = expected {
            expected.check(&self.it);
        }
    }

    fn submit(&mut self, connection: ConnectionId, asks: Asks, task: Task, ttl_ms: u64) {
        let send = Send {
            stream_window_bytes: asks.window_bytes,
            input_follows: asks.is_upload.then_some(InputLength::Unknown),
            ..Send::new(task.encode(), ttl_ms)
        };
        self.it.give_body(connection, Message::Send(send), "input");
    }

    /// Whether a task has ended, as far as can be told: somebody connected would have heard.
    fn may_have_ended(&mut self, id: &str) -> bool {
        let is_heard = self.clients.iter().any(|client| {
            // Until it asks for it again, it may have a new session, which does not wait for it.
            let has_asked = !client.to_resume.contains(id);
            client.connection.is_some() && client.waits.contains(id) && has_asked
        });
        self.task(id).has_ended || !is_heard
    }

    pub(super) fn send_again(&mut self, client: usize, index: usize) {
        // One that was rejected would be a new task.
        let is_live = |it: &&Sent| !it.asks.is_shadow;
        let rejected = self.sent.iter().filter(is_live).filter(|it| it.is_rejected).count() as u64;
        if let (Some(sent), Some(connection)) =
            (self.sent.iter().rev().nth(index), self.clients[client].connection)
            && !sent.is_rejected
            && is_live(&sent)
            && self.it.core.stats().rejected == rejected
        {
            let asks = Asks { ends_with_connection: false, window_bytes: 0, ..sent.asks };
            let task = asks.task(&sent.id, None);
            self.clients[client].waits.insert(sent.id.clone());
            self.submit(connection, asks, task, 60_000);
        }
    }

    /// Asks for what it had sent before, first: FETCH after CANCEL would wait for the task again.
    pub(super) fn cancel(&mut self, client: usize, index: usize) {
        self.client_resumes(client);
        let client = &self.clients[client];
        if let (Some(id), Some(connection)) = (client.waits.iter().nth(index), client.connection) {
            self.it.give(connection, Message::Cancel(Cancel::Task(task_id(id))));
        }
    }

    pub(super) fn client_breaks(&mut self, client: usize) {
        if let Some(connection) = self.clients[client].connection.take() {
            self.clients[client].unread.clear();
            self.it.disconnect(connection, Disconnect::Broken);
        }
    }

    /// Its session is over. What it sent goes on, and it may ask for that later.
    pub(super) fn client_leaves(&mut self, client: usize) {
        if let Some(connection) = self.clients[client].connection.take() {
            self.clients[client].has_left = true;
            self.clients[client].unread.clear();
            self.it.disconnect(connection, Disconnect::Orderly);
        }
    }

    pub(super) fn connect_client(&mut self, index: usize, resumes_later: bool) {
        let (connection, ack) = self.it.client_of(Some(&format!("session-{index}")));
        let client = &mut self.clients[index];
        client.connection = Some(connection);
        client.has_left = false;
        client.unread.clear();
        for reading in client.readings.values_mut() {
            reading.was_interrupted |= !ack.resumed;
        }
        client.uploads.values_mut().for_each(Upload::interrupt);
        client.to_resume = client.waits.iter().chain(client.readings.keys()).cloned().collect();
        self.sort();
        if !resumes_later {
            self.client_resumes(index);
        }
    }

    /// Asks for all that it had sent before it was connected.
    pub(super) fn client_resumes(&mut self, index: usize) {
        let Some(connection) = self.clients[index].connection else { return };
        for id in mem::take(&mut self.clients[index].to_resume) {
            self.resume(index, connection, &id);
            self.it.give(connection, Message::Fetch(task_id(&id)));
        }
    }

    fn resume(&mut self, index: usize, connection: ConnectionId, id: &str) {
        if !self.clients[index].readings.contains_key(id) {
            return;
        }
        let reader = self.task(id).reader;
        let is_away = |reader: usize| self.clients[reader].connection.is_none();
        if reader.is_none_or(|reader| reader == index || is_away(reader)) {
            let sent = self.task(id);
            sent.was_taken_over |= reader != Some(index);
            sent.reader = Some(index);
        }
        let was_taken_over = self.task(id).was_taken_over;
        if let Some(reading) = self.clients[index].readings.get_mut(id) {
            reading.was_interrupted |= was_taken_over;
            self.it.give(connection, Message::Resume(reading.resume(id)));
        }
    }

    /// A client that waits for a task takes its parts from now on, if nobody does.
    pub(super) fn read_on(&mut self, index: usize, task: usize) {
        self.client_reads(index);
        let client = &self.clients[index];
        let takes_parts =
            |id: &&String| self.sent[id[1..].parse::<usize>().unwrap()].asks.window_bytes > 0;
        let Some(connection) = client.connection else { return };
        let Some(id) = client.waits.iter().filter(takes_parts).nth(task).cloned() else { return };
        if self.task(&id).reader != Some(index) && !self.clients[index].to_resume.contains(&id) {
            let new = || Reading::new(JOINED_WINDOW_BYTES);
            self.clients[index].readings.entry(id.clone()).or_insert_with(new);
            self.resume(index, connection, &id);
        }
    }

    pub(super) fn credit(&mut self, client: usize, index: usize) {
        if let Some(id) = self.clients[client].reads_now().get(index) {
            self.give_credit(client, id);
        }
    }

    pub(super) fn credit_all(&mut self, client: usize) {
        for id in self.clients[client].reads_now() {
            self.give_credit(client, &id);
        }
    }

    fn give_credit(&mut self, client: usize, id: &str) {
        let client = &mut self.clients[client];
        if let (Some(connection), Some(reading)) = (client.connection, client.readings.get_mut(id))
            && reading.attempt > 0
        {
            let credit = reading.credit(id);
            self.it.give(connection, Message::Credit(credit));
        }
    }

    pub(super) fn client_reads(&mut self, index: usize) {
        while let Some((message, body)) = self.clients[index].unread.pop_front() {
            match message {
                Message::Deliver(deliver) => self.read_outcome(index, &deliver, &body),
                Message::Chunk(Chunk { of: Subject::Task(id, attempt), seq, gap, .. }) => {
                    self.read_chunk(index, id.as_str(), (attempt, seq, gap), &body);
                }
                Message::Credit(Credit { of: Subject::Task(id, 0), next_seq, limit_bytes }) => {
                    let upload = self.clients[index].uploads.get_mut(id.as_str());
                    upload.expect("a client sends its own inputs").credit(next_seq, limit_bytes);
                }
                Message::Status(id, TaskState::Unknown) => {
                    // Its SEND was lost, or its outcome is no longer kept: the SDK says lost.
                    self.clients[index].waits.remove(id.as_str());
                    self.clients[index].readings.remove(id.as_str());
                }
                Message::Status(..) | Message::Pong(_) | Message::Goaway(_) => {}
                other => panic!("a client got {other:?}"),
            }
        }
    }

    fn read_outcome(&mut self, index: usize, deliver: &Deliver, body: &Bytes) {
        let id = deliver.task_id.as_str();
        assert_eq!(deliver.outcome == Outcome::Ok, &body[..] == b"output");
        let code = deliver.error.as_ref().map(|error| error.code);
        assert_ne!(code, Some(ErrorCode::LimitExceeded), "{deliver:?}");
        self.check_trace(deliver);
        self.check_step(deliver);
        if let Some(reading) = self.clients[index].readings.get_mut(id) {
            reading.ends(deliver.attempt, deliver.chunks);
            self.check_whole(index, deliver);
            self.end_reading(index, id);
        }
        if self.clients[index].waits.remove(id) {
            let sent = self.task(id);
            // Whoever cancelled while another waits has an outcome of its own.
            if deliver.outcome != Outcome::Cancelled {
                assert_eq!(*sent.outcome.get_or_insert(deliver.outcome), deliver.outcome);
            }
            assert!(deliver.executed != Executed::No || sent.started == 0);
        }
    }

    fn read_chunk(
        &mut self,
        index: usize,
        id: &str,
        (attempt, seq, gap): (u32, u32, Option<u64>),
        body: &Bytes,
    ) {
        let client = &mut self.clients[index];
        assert!(!client.to_resume.contains(id), "{id}: it has not said where it stands");
        let Some(reading) = client.readings.get_mut(id) else {
            // It asked for more before it read the outcome, by which it has all.
            assert!(
                gap.is_some() && body.is_empty(),
                "{id}: a chunk for a client that takes none of it"
            );
            return;
        };
        let is_part = reading.take(attempt, seq, gap, body);
        if is_part {
            let emitted = &self.task(id).attempts[&attempt].emitted;
            assert_eq!(emitted.get(seq as usize), Some(body), "{id}: chunk {seq}");
        }
        self.end_reading(index, id);
    }

    /// Lets a client be done with a result in parts, if nothing of it is to come any more.
    fn end_reading(&mut self, index: usize, id: &str) {
        let client = &mut self.clients[index];
        let Some(connection) = client.connection else { return };
        if client.readings.get(id).is_some_and(Reading::is_over)
            && let Some(mut reading) = client.readings.remove(id)
        {
            client.to_resume.remove(id);
            self.check_gap(index, id, &reading);
            if let Some(credit) = reading.last_credit(id) {
                self.it.give(connection, Message::Credit(credit));
            }
        }
    }
}
