//! What the I/O task asks of a client's session and tells it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytestring::ByteString;
use mcp_proto::{
    Ack, Chunk, Credit, Deliver, ErrorCode, ErrorInfo, Executed, Frame, Goaway, Hello, MCP_VERSION,
    Message, MessageKind, Outcome,
};

use super::{Session, State, Waiter};
use crate::client::pending::{Ended, local_end};
use crate::connection::{Control, Link, Peer, Received, SDK, Stop};
use crate::error::ConnectError;
use crate::task::Delivered;

impl Peer for Session {
    fn hello(&self) -> Hello {
        Hello {
            mcp_version: ByteString::from_static(MCP_VERSION),
            sdk: ByteString::from_static(SDK),
            features: Vec::new(),
            client: true,
            session_id: self.session_id(),
            token: None,
            worker: None,
        }
    }

    fn connected(self: &Arc<Self>, link: &Arc<Link>, ack: &Ack) {
        self.max_body_bytes.store(ack.limits.max_body_bytes, Ordering::Relaxed);
        self.max_input_bytes.store(ack.limits.max_input_bytes, Ordering::Relaxed);
        let mut state = self.lock();
        self.give_room(&mut state, &ack.limits);
        state.broker_id = Some(ack.broker_id.clone());
        state.session_id.clone_from(&ack.session_id);
        state.link = Some(link.clone());
        state.pending.connected(Instant::now(), &**link);
        let room = state.fetches.connected(&**link);
        state.settlements.connected(&**link);
        self.room.add_permits(room);
    }

    fn disconnected(&self) {
        let mut state = self.lock();
        state.link = None;
        state.pending.disconnected();
        state.settlements.disconnected();
    }

    fn received(self: &Arc<Self>, batch: &mut Vec<Received>, arrived_at: Instant) {
        let mut ended = Vec::with_capacity(batch.len());
        {
            let mut state = self.lock();
            for received in batch.drain(..) {
                self.receive(&mut state, received, arrived_at, &mut ended);
            }
        }
        self.tell(ended);
    }

    fn going_away(&self, _goaway: &Goaway) {
        self.lock().pending.going_away();
    }

    fn timeout(&self, now: Instant) -> Option<Instant> {
        let mut ended = Vec::new();
        let next = {
            let mut state = self.lock();
            state.pending.expire(now, &mut ended);
            state.pending.next_timeout()
        };
        self.tell(ended);
        next
    }

    fn is_owed(&self) -> bool {
        let state = self.lock();
        state.pending.on_wire() > 0 || !state.fetches.is_empty()
    }

    fn is_settled(&self) -> bool {
        let state = self.lock();
        state.pending.on_wire() == 0 && !state.settlements.are_sent()
    }

    fn may_leave(&self) -> bool {
        !self.is_owed()
    }

    fn reconnects(&self, error: Option<&ConnectError>) -> bool {
        self.settings.reconnects && !error.is_some_and(ConnectError::is_final)
    }

    fn stopped(&self, stop: Stop) {
        let error = match stop {
            Stop::Left => ConnectError::Closed,
            Stop::Replaced(info) => ConnectError::Refused(Box::new(info)),
            Stop::Failed(error) => error,
        };
        let message = error.to_string();
        let mut ended = Vec::new();
        {
            let mut state = self.lock();
            state.link = None;
            state.closed.get_or_insert_with(|| Arc::new(error));
            state.pending.give_up(ErrorCode::BrokerLost, &message, &mut ended);
            state.fetches.give_up();
        }
        self.tell(ended);
        self.room.close();
        self.bytes.close();
        self.stopped.cancel();
    }

    fn control(&self) -> &Control {
        &self.control
    }
}

impl Session {
    fn receive(
        &self,
        state: &mut State,
        received: Received,
        now: Instant,
        ended: &mut Vec<Ended<Waiter>>,
    ) {
        let State { pending, fetches, link, .. } = state;
        match received {
            Received::Frame(Frame { message: Message::Deliver(deliver), body }) => {
                if !fetches.is_empty() {
                    let end = Delivered { deliver: deliver.clone(), body: body.clone() };
                    self.room.add_permits(fetches.delivered(&end));
                }
                let sends_again = self.settings.reconnects;
                if pending.delivered(deliver, body, now, sends_again, ended) {
                    self.control.wake.notify_one();
                }
            }
            Received::Frame(Frame { message: Message::Status(id, task_state), .. }) => {
                self.room.add_permits(fetches.status(&id, task_state));
                if pending.status(&id, task_state, now, link.as_deref(), ended) {
                    self.control.wake.notify_one();
                }
            }
            Received::Frame(Frame { message: Message::Chunk(chunk), body }) => {
                let Chunk { of, seq, gap, .. } = chunk;
                pending.chunk(&of, seq, gap, body, ended);
            }
            Received::Frame(Frame { message: Message::Credit(credit), .. }) => {
                let Credit { of, next_seq, limit_bytes } = credit;
                pending.credit(&of, next_seq, limit_bytes, link.as_deref());
            }
            Received::Frame(Frame { message: Message::Progress(progress), .. }) => {
                pending.progress(progress);
            }
            Received::Frame(Frame { message: Message::Accepted(id), .. }) => pending.accepted(&id),
            // Nothing else concerns a client's tasks.
            Received::Frame(_) => {}
            Received::TooLarge(Message::Deliver(deliver), body_bytes) => {
                let message = format!("its result has {body_bytes} bytes, more than can be taken");
                let error = ErrorInfo::new(ErrorCode::BodyTooLarge, message);
                let Deliver { task_id, executed, .. } = *deliver;
                let end = local_end(task_id, Outcome::Failed, executed, error);
                self.undeliverable(state, end, ended);
            }
            Received::TooLarge(..) => {}
            Received::Invalid(invalid) => {
                let problem = invalid.to_string();
                if let (MessageKind::Deliver, Some(id)) = (invalid.kind, invalid.task_id) {
                    let error = ErrorInfo::new(ErrorCode::InvalidMessage, problem);
                    let end = local_end(id, Outcome::Lost, Executed::Maybe, error);
                    self.undeliverable(state, end, ended);
                }
            }
        }
    }

    /// A task's DELIVER came, but can't be used.
    fn undeliverable(&self, state: &mut State, end: Delivered, ended: &mut Vec<Ended<Waiter>>) {
        self.room.add_permits(state.fetches.delivered(&end));
        state.pending.complete(end, ended);
    }
}
