//! Messages: validated types, made from the generated ones by parsing.
//!
//! A value of these types is within the limits of the protocol. What is not becomes an
//! [`InvalidMessage`] that names the field.

mod dispatch;
mod field;
mod session;
mod task;
mod trace;

use std::fmt;

use bytes::{Bytes, BytesMut};
use prost::Message as _;

use crate::error::{DecodeError, ErrorInfo, InvalidMessage};
use crate::generated::{self as wire, frame::Kind};
use crate::id::TaskId;

pub use dispatch::{
    Cancel, CancelReason, Deliver, Executed, Nack, Outcome, Route, Send, TaskResult, TaskState,
};
pub use session::{Ack, Goaway, Hello, Ping, Readiness, Role, Roles, WorkerHello};
pub use task::{Delivery, EncodedTask, Labels, Priority, Task};
pub use trace::{ContextTrace, Hop, HopEvent};

/// What a frame says, apart from its body.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// Dialling side: opens the session.
    Hello(Box<Hello>),
    /// Broker: answers HELLO.
    Ack(Box<Ack>),
    /// Either side: a sign of life.
    Ping(Ping),
    /// Either side: answers PING with its number.
    Pong(u64),
    /// Broker: this connection will end.
    Goaway(Goaway),
    /// Either side: concerns the connection, or a frame that nothing else can answer.
    Error(Box<ErrorInfo>),
    /// Client: a task. Body: its input.
    Send(Send),
    /// Broker: a durable task is journalled.
    Accepted(TaskId),
    /// Broker: an attempt for a worker. Body: the task's input.
    Route(Route),
    /// Worker: the end of an attempt. Body: the result.
    Result(TaskResult),
    /// Broker: the end of a task. Body: the result.
    Deliver(Deliver),
    /// Client: end my task. Broker: end this attempt.
    Cancel(Cancel),
    /// Worker: hands an attempt back that it did not start.
    Nack(Nack),
    /// Client: what became of my task?
    Fetch(TaskId),
    /// Broker: answers FETCH for a task without an outcome.
    Status(TaskId, TaskState),
}

/// Which message a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum MessageKind {
    Hello,
    Ack,
    Ping,
    Pong,
    Goaway,
    Error,
    Send,
    Accepted,
    Route,
    Result,
    Deliver,
    Cancel,
    Nack,
    Fetch,
    Status,
}

impl fmt::Display for MessageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MessageKind::Hello => "HELLO",
            MessageKind::Ack => "ACK",
            MessageKind::Ping => "PING",
            MessageKind::Pong => "PONG",
            MessageKind::Goaway => "GOAWAY",
            MessageKind::Error => "ERROR",
            MessageKind::Send => "SEND",
            MessageKind::Accepted => "ACCEPTED",
            MessageKind::Route => "ROUTE",
            MessageKind::Result => "RESULT",
            MessageKind::Deliver => "DELIVER",
            MessageKind::Cancel => "CANCEL",
            MessageKind::Nack => "NACK",
            MessageKind::Fetch => "FETCH",
            MessageKind::Status => "STATUS",
        })
    }
}

/// A header as parsed: a message, or why there is none.
#[derive(Debug)]
pub(crate) enum Parsed {
    Message(Message),
    Unknown { kind: u32 },
    Invalid(InvalidMessage),
}

impl Message {
    /// Which message this is.
    pub fn kind(&self) -> MessageKind {
        match self {
            Message::Hello(_) => MessageKind::Hello,
            Message::Ack(_) => MessageKind::Ack,
            Message::Ping(_) => MessageKind::Ping,
            Message::Pong(_) => MessageKind::Pong,
            Message::Goaway(_) => MessageKind::Goaway,
            Message::Error(_) => MessageKind::Error,
            Message::Send(_) => MessageKind::Send,
            Message::Accepted(_) => MessageKind::Accepted,
            Message::Route(_) => MessageKind::Route,
            Message::Result(_) => MessageKind::Result,
            Message::Deliver(_) => MessageKind::Deliver,
            Message::Cancel(_) => MessageKind::Cancel,
            Message::Nack(_) => MessageKind::Nack,
            Message::Fetch(_) => MessageKind::Fetch,
            Message::Status(..) => MessageKind::Status,
        }
    }

    pub(crate) fn parse(header: Bytes) -> Result<Parsed, DecodeError> {
        let frame = wire::Frame::decode(header.clone())
            .map_err(|error| DecodeError::Header(error.to_string()))?;
        let Some(kind) = frame.kind else {
            return Ok(Parsed::Unknown { kind: first_field_number(&header) });
        };
        Ok(match Self::from_wire(kind) {
            Ok(message) => Parsed::Message(message),
            Err(invalid) => Parsed::Invalid(invalid),
        })
    }

    fn from_wire(kind: Kind) -> Result<Self, InvalidMessage> {
        Ok(match kind {
            Kind::Hello(it) => Message::Hello(Box::new(Hello::from_wire(it)?)),
            Kind::Ack(it) => Message::Ack(Box::new(Ack::from_wire(it)?)),
            Kind::Ping(it) => Message::Ping(Ping::from_wire(it)?),
            Kind::Pong(it) => Message::Pong(it.seq),
            Kind::Goaway(it) => Message::Goaway(Goaway::from_wire(it)),
            Kind::Error(it) => Message::Error(Box::new(ErrorInfo::from_wire(it))),
            Kind::Send(it) => Message::Send(Send::from_wire(it)?),
            Kind::Accepted(it) => {
                Message::Accepted(field::task_id(MessageKind::Accepted, it.task_id)?)
            }
            Kind::Route(it) => Message::Route(Route::from_wire(it)),
            Kind::Result(it) => Message::Result(TaskResult::from_wire(it)?),
            Kind::Deliver(it) => Message::Deliver(Deliver::from_wire(it)?),
            Kind::Cancel(it) => Message::Cancel(Cancel::from_wire(it)?),
            Kind::Nack(it) => Message::Nack(Nack::from_wire(it)),
            Kind::Fetch(it) => Message::Fetch(field::task_id(MessageKind::Fetch, it.task_id)?),
            Kind::Status(it) => Message::Status(
                field::task_id(MessageKind::Status, it.task_id)?,
                TaskState::from_wire(it.state).unwrap_or(TaskState::Unknown),
            ),
        })
    }

    fn to_wire(&self) -> Kind {
        match self {
            Message::Hello(it) => Kind::Hello(it.to_wire()),
            Message::Ack(it) => Kind::Ack(it.to_wire()),
            Message::Ping(it) => Kind::Ping(it.to_wire()),
            Message::Pong(seq) => Kind::Pong(wire::Pong { seq: *seq }),
            Message::Goaway(it) => Kind::Goaway(it.to_wire()),
            Message::Error(it) => Kind::Error(it.to_wire()),
            Message::Send(it) => Kind::Send(it.to_wire()),
            Message::Accepted(id) => Kind::Accepted(wire::Accepted { task_id: id.to_bytes() }),
            Message::Route(it) => Kind::Route(it.to_wire()),
            Message::Result(it) => Kind::Result(it.to_wire()),
            Message::Deliver(it) => Kind::Deliver(it.to_wire()),
            Message::Cancel(it) => Kind::Cancel(it.to_wire()),
            Message::Nack(it) => Kind::Nack(it.to_wire()),
            Message::Fetch(id) => Kind::Fetch(wire::Fetch { task_id: id.to_bytes() }),
            Message::Status(id, state) => {
                Kind::Status(wire::Status { task_id: id.to_bytes(), state: state.to_wire() })
            }
        }
    }

    /// Appends the header of this message and returns its length.
    pub(crate) fn encode_header(&self, to: &mut BytesMut) -> usize {
        let before = to.len();
        let kind = self.to_wire();
        to.reserve(kind.encoded_len());
        kind.encode(to);
        to.len() - before
    }
}

/// The field number of a header's first field: the frame kind, when that is not known here.
fn first_field_number(header: &[u8]) -> u32 {
    let mut header = header;
    prost::encoding::decode_varint(&mut header).map_or(0, |tag| (tag >> 3) as u32)
}
