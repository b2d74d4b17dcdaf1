//! Messages: validated types, made from the generated ones by parsing.
//!
//! A value of these types is within the limits of the protocol. What is not becomes an
//! [`InvalidMessage`] that names the field.

mod dispatch;
mod explanation;
mod field;
mod retry;
mod session;
mod stream;
mod task;
mod trace;

use std::fmt;

use bytes::{Bytes, BytesMut};
use prost::Message as _;

use crate::error::{DecodeError, ErrorInfo, InvalidMessage};
use crate::generated as wire;
use crate::id::{AttemptId, TaskId};
use crate::wire::{Reader, WireError, Writer, part};

pub use dispatch::{
    Cancel, CancelReason, Deliver, Executed, InputLength, Nack, Outcome, ResultHeaders, Route,
    RouteHead, Send, TaskResult, TaskState,
};
pub use explanation::{Decision, ExplainedWorker, Explanation, Score};
pub use retry::Retry;
pub use session::{Ack, Goaway, Hello, Ping, Readiness, Role, Roles, RoutesReceived, WorkerHello};
pub use stream::{Chunk, Credit, Park, Progress, Resume, Subject};
pub use task::{Delivery, EncodedTask, Labels, Priority, Task, TaskExtras, TaskHead};
pub(crate) use task::{head, write_with_action};
pub use trace::{Child, ContextTrace, Hop, HopEvent, LazyTrace};

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
    /// Worker: the handler of an attempt has begun.
    Started(AttemptId),
    /// Worker, and from the broker to the client: how far a handler is.
    Progress(Progress),
    /// Worker: the end of an attempt. Body: the result.
    Result(TaskResult),
    /// Broker: the end of a task. Body: the result.
    Deliver(Box<Deliver>),
    /// Client: end my task. Broker: end this attempt.
    Cancel(Cancel),
    /// Worker: hands an attempt back that it did not start.
    Nack(Nack),
    /// A part of a result, from the worker to the broker to the client; or of an input, the other
    /// way. Body: the part.
    Chunk(Chunk),
    /// Client: send chunks again.
    Resume(Resume),
    /// Client: what became of my task?
    Fetch(TaskId),
    /// Client: I am done with the result of this durable task.
    Settle(TaskId),
    /// Broker: answers FETCH for a task without an outcome.
    Status(TaskId, TaskState),
    /// Against the direction of chunks: more of them may come.
    Credit(Credit),
    /// Worker: a handler that waits gives its slot back.
    Park(Park),
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
    Started,
    Progress,
    Result,
    Deliver,
    Cancel,
    Nack,
    Chunk,
    Resume,
    Fetch,
    Settle,
    Status,
    Credit,
    Park,
}

impl MessageKind {
    /// Its number in the oneof of `frame.proto`.
    fn field(self) -> u32 {
        match self {
            MessageKind::Hello => 1,
            MessageKind::Ack => 2,
            MessageKind::Ping => 3,
            MessageKind::Pong => 4,
            MessageKind::Goaway => 5,
            MessageKind::Error => 6,
            MessageKind::Send => 10,
            MessageKind::Accepted => 11,
            MessageKind::Route => 12,
            MessageKind::Started => 13,
            MessageKind::Progress => 14,
            MessageKind::Result => 15,
            MessageKind::Deliver => 16,
            MessageKind::Cancel => 17,
            MessageKind::Nack => 18,
            MessageKind::Chunk => 19,
            MessageKind::Resume => 20,
            MessageKind::Fetch => 21,
            MessageKind::Settle => 22,
            MessageKind::Status => 23,
            MessageKind::Credit => 24,
            MessageKind::Park => 25,
        }
    }

    fn from_field(number: u32) -> Option<Self> {
        Some(match number {
            1 => MessageKind::Hello,
            2 => MessageKind::Ack,
            3 => MessageKind::Ping,
            4 => MessageKind::Pong,
            5 => MessageKind::Goaway,
            6 => MessageKind::Error,
            10 => MessageKind::Send,
            11 => MessageKind::Accepted,
            12 => MessageKind::Route,
            13 => MessageKind::Started,
            14 => MessageKind::Progress,
            15 => MessageKind::Result,
            16 => MessageKind::Deliver,
            17 => MessageKind::Cancel,
            18 => MessageKind::Nack,
            19 => MessageKind::Chunk,
            20 => MessageKind::Resume,
            21 => MessageKind::Fetch,
            22 => MessageKind::Settle,
            23 => MessageKind::Status,
            24 => MessageKind::Credit,
            25 => MessageKind::Park,
            _ => return None,
        })
    }
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
            MessageKind::Started => "STARTED",
            MessageKind::Progress => "PROGRESS",
            MessageKind::Result => "RESULT",
            MessageKind::Deliver => "DELIVER",
            MessageKind::Cancel => "CANCEL",
            MessageKind::Nack => "NACK",
            MessageKind::Chunk => "CHUNK",
            MessageKind::Resume => "RESUME",
            MessageKind::Fetch => "FETCH",
            MessageKind::Settle => "SETTLE",
            MessageKind::Status => "STATUS",
            MessageKind::Credit => "CREDIT",
            MessageKind::Park => "PARK",
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
            Message::Started(_) => MessageKind::Started,
            Message::Progress(_) => MessageKind::Progress,
            Message::Result(_) => MessageKind::Result,
            Message::Deliver(_) => MessageKind::Deliver,
            Message::Cancel(_) => MessageKind::Cancel,
            Message::Nack(_) => MessageKind::Nack,
            Message::Chunk(_) => MessageKind::Chunk,
            Message::Resume(_) => MessageKind::Resume,
            Message::Fetch(_) => MessageKind::Fetch,
            Message::Settle(_) => MessageKind::Settle,
            Message::Status(..) => MessageKind::Status,
            Message::Credit(_) => MessageKind::Credit,
            Message::Park(_) => MessageKind::Park,
        }
    }

    /// Parses the header that a frame begins with. Parts of the message are slices of the frame.
    #[inline]
    pub(crate) fn parse(frame: &Bytes, header_bytes: usize) -> Result<Parsed, DecodeError> {
        let bad = |error: WireError| DecodeError::Header(error.to_string());
        // Of several kinds the last one counts, as protobuf has it for a oneof.
        let (mut known, mut unknown) = (None, 0);
        let mut fields = Reader(&frame[..header_bytes]);
        while let Some(field) = fields.next().map_err(bad)? {
            match MessageKind::from_field(field.number) {
                Some(kind) => known = Some((kind, field.bytes().map_err(bad)?)),
                None if unknown == 0 => unknown = field.number,
                None => {}
            }
        }
        let Some((kind, message)) = known else {
            return Ok(Parsed::Unknown { kind: unknown });
        };
        match Self::parse_kind(kind, frame, message) {
            Ok(message) => Ok(Parsed::Message(message)),
            Err(Failure::Invalid(invalid)) => Ok(Parsed::Invalid(*invalid)),
            Err(Failure::Malformed(problem)) => Err(DecodeError::Header(problem)),
        }
    }

    #[inline]
    fn parse_kind(kind: MessageKind, frame: &Bytes, it: &[u8]) -> Result<Self, Failure> {
        Ok(match kind {
            MessageKind::Send => Message::Send(Send::parse(frame, it)?),
            MessageKind::Route => Message::Route(Route::parse(frame, it)?),
            MessageKind::Result => Message::Result(TaskResult::parse(frame, it)?),
            MessageKind::Deliver => Message::Deliver(Box::new(Deliver::parse(frame, it)?)),
            _ => return Self::parse_rare(kind, frame, it),
        })
    }

    /// The kinds that not every task needs, apart from those that it does: together they take 4 KiB of
    /// stack.
    #[inline(never)]
    fn parse_rare(kind: MessageKind, frame: &Bytes, it: &[u8]) -> Result<Self, Failure> {
        let generated = || part(frame, it);
        let task_id = |bytes: Bytes| field::task_id(kind, &bytes);
        Ok(match kind {
            MessageKind::Hello => {
                Message::Hello(Box::new(Hello::from_wire(wire::Hello::decode(generated())?)?))
            }
            MessageKind::Ack => {
                Message::Ack(Box::new(Ack::from_wire(wire::Ack::decode(generated())?)?))
            }
            MessageKind::Ping => Message::Ping(Ping::from_wire(wire::Ping::decode(generated())?)?),
            MessageKind::Pong => Message::Pong(wire::Pong::decode(generated())?.seq),
            MessageKind::Goaway => {
                Message::Goaway(Goaway::from_wire(wire::Goaway::decode(generated())?))
            }
            MessageKind::Error => {
                Message::Error(Box::new(ErrorInfo::from_wire(wire::Error::decode(generated())?)))
            }
            MessageKind::Accepted => {
                Message::Accepted(task_id(wire::Accepted::decode(generated())?.task_id)?)
            }
            MessageKind::Started => {
                Message::Started(AttemptId(wire::Started::decode(generated())?.attempt_id))
            }
            MessageKind::Progress => Message::Progress(Progress::parse(frame, it)?),
            MessageKind::Cancel => {
                Message::Cancel(Cancel::from_wire(wire::Cancel::decode(generated())?)?)
            }
            MessageKind::Nack => Message::Nack(Nack::from_wire(wire::Nack::decode(generated())?)),
            MessageKind::Chunk => Message::Chunk(Chunk::parse(it)?),
            MessageKind::Resume => Message::Resume(Resume::parse(it)?),
            MessageKind::Fetch => {
                Message::Fetch(task_id(wire::Fetch::decode(generated())?.task_id)?)
            }
            MessageKind::Settle => {
                Message::Settle(task_id(wire::Settle::decode(generated())?.task_id)?)
            }
            MessageKind::Status => {
                let it = wire::Status::decode(generated())?;
                let state = TaskState::from_wire(it.state).unwrap_or(TaskState::Unknown);
                Message::Status(task_id(it.task_id)?, state)
            }
            MessageKind::Credit => Message::Credit(Credit::parse(it)?),
            MessageKind::Park => Message::Park(Park::parse(it)?),
            MessageKind::Send | MessageKind::Route | MessageKind::Result | MessageKind::Deliver => {
                unreachable!("not rare")
            }
        })
    }

    /// Appends the header of this message.
    pub(crate) fn encode_header(&self, to: &mut BytesMut) {
        let field = self.kind().field();
        let mut to = Writer(to);
        match self {
            Message::Hello(it) => to.generated(field, &it.to_wire()),
            Message::Ack(it) => to.generated(field, &it.to_wire()),
            Message::Ping(it) => to.generated(field, &it.to_wire()),
            Message::Pong(seq) => to.message(field, |to| to.uint(1, *seq)),
            Message::Goaway(it) => to.generated(field, &it.to_wire()),
            Message::Error(it) => to.generated(field, &it.to_wire()),
            Message::Send(it) => to.message(field, |to| it.write(to)),
            Message::Accepted(id) | Message::Fetch(id) | Message::Settle(id) => {
                to.message(field, |to| to.bytes(1, id.as_bytes()));
            }
            Message::Route(it) => to.message(field, |to| it.write(to)),
            Message::Started(id) => to.message(field, |to| to.fixed64(1, id.0)),
            Message::Progress(it) => to.message(field, |to| it.write(to)),
            Message::Result(it) => to.message(field, |to| it.write(to)),
            Message::Deliver(it) => to.message(field, |to| it.write(to)),
            Message::Cancel(it) => to.generated(field, &it.to_wire()),
            Message::Nack(it) => to.generated(field, &it.to_wire()),
            Message::Chunk(it) => to.message(field, |to| it.write(to)),
            Message::Resume(it) => to.message(field, |to| it.write(to)),
            Message::Status(id, state) => to.message(field, |to| {
                to.bytes(1, id.as_bytes());
                to.uint(2, state.to_wire() as u64);
            }),
            Message::Credit(it) => to.message(field, |to| it.write(to)),
            Message::Park(it) => to.message(field, |to| it.write(to)),
        }
    }
}

impl Deliver {
    /// As [`Message::encode_header`].
    pub(crate) fn encode_header(&self, to: &mut BytesMut) {
        Writer(to).message(MessageKind::Deliver.field(), |to| self.write(to));
    }
}

impl RouteHead {
    /// As [`Message::encode_header`], of a ROUTE of this task.
    pub(crate) fn encode_header(&self, task: &[u8], to: &mut BytesMut) {
        Writer(to).message(MessageKind::Route.field(), |to| self.write(task, to));
    }
}

/// Why a header gives no message.
enum Failure {
    /// It is not protobuf.
    Malformed(String),
    /// A field is missing or wrong.
    Invalid(Box<InvalidMessage>),
}

impl From<InvalidMessage> for Failure {
    fn from(invalid: InvalidMessage) -> Self {
        Failure::Invalid(Box::new(invalid))
    }
}

impl From<WireError> for Failure {
    fn from(error: WireError) -> Self {
        Failure::Malformed(error.to_string())
    }
}

impl From<prost::DecodeError> for Failure {
    fn from(error: prost::DecodeError) -> Self {
        Failure::Malformed(error.to_string())
    }
}
