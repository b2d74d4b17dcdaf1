//! Errors: one table of codes, one shape on the wire, and typed errors for what a peer sent.

use std::fmt;

use crate::id::{NodeId, TaskId};
use crate::message::MessageKind;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// Why something did not go as asked. Codes below 32 concern a connection and are also
        /// the QUIC application close codes; the others concern a task or an attempt.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* $name = $code,)*
        }

        impl ErrorCode {
            /// Every code, in order.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name),*];

            /// The code's name in the specification, `"NO_WORKER"`.
            pub fn name(self) -> &'static str {
                match self { $(ErrorCode::$name => $text,)* }
            }

            /// The code of a number, if there is one.
            pub fn from_u32(code: u32) -> Option<Self> {
                match code { $($code => Some(ErrorCode::$name),)* _ => None }
            }
        }
    };
}

error_codes! {
    /// Bytes that are not a frame of this protocol. Closes the connection.
    Malformed = 1, "MALFORMED";
    /// A frame longer than any limit. Closes the connection.
    FrameTooLarge = 2, "FRAME_TOO_LARGE";
    /// A frame that its sender may not send, or not now. Closes the connection.
    UnexpectedFrame = 3, "UNEXPECTED_FRAME";
    /// A frame kind that is not known here. Survived.
    UnknownFrame = 4, "UNKNOWN_FRAME";
    /// A field with a value that is not allowed. Survived, but for HELLO.
    InvalidMessage = 5, "INVALID_MESSAGE";
    /// The other side speaks another major version. Closes the connection.
    UnsupportedVersion = 6, "UNSUPPORTED_VERSION";
    /// No HELLO came in time. Closes the connection.
    HelloTimeout = 7, "HELLO_TIMEOUT";
    /// A newer instance of the same agent, or connection of the same session, took over.
    Replaced = 8, "REPLACED";
    /// The broker is stopping.
    ShuttingDown = 9, "SHUTTING_DOWN";
    /// The peer did not read what it was sent. Closes the connection.
    SlowConsumer = 10, "SLOW_CONSUMER";
    /// The worker gave no sign of life for its lease. Closes the connection.
    LeaseExpired = 11, "LEASE_EXPIRED";
    /// A limit of the broker is reached: connections, sessions, agents, tasks of a session.
    LimitExceeded = 12, "LIMIT_EXCEEDED";
    /// The agent or session id belongs to another identity.
    IdentityMismatch = 13, "IDENTITY_MISMATCH";
    /// A fault of this implementation.
    Internal = 14, "INTERNAL";
    /// A frame was begun and its rest did not come. Closes the connection.
    FrameTimeout = 15, "FRAME_TIMEOUT";
    /// The peer did not prove who it is, or no longer does. Closes the connection.
    Unauthenticated = 16, "UNAUTHENTICATED";
    /// The peer's identity may not do that. Closes the connection when it concerns HELLO.
    Forbidden = 17, "FORBIDDEN";

    /// No worker serves this action with the labels that the task requires.
    NoWorker = 32, "NO_WORKER";
    /// All workers stayed busy for as long as the task may wait.
    AllBusy = 33, "ALL_BUSY";
    /// There are workers, but none is ready: standby, draining or lost.
    AllUnhealthy = 34, "ALL_UNHEALTHY";
    /// The queue is full.
    QueueFull = 35, "QUEUE_FULL";
    /// The time to live ran out.
    Expired = 36, "EXPIRED";
    /// The client or an operator cancelled it.
    Cancelled = 37, "CANCELLED";
    /// The worker that held the task is gone.
    WorkerLost = 38, "WORKER_LOST";
    /// The handler returned an error.
    HandlerFailed = 39, "HANDLER_FAILED";
    /// The handler panicked.
    HandlerPanic = 40, "HANDLER_PANIC";
    /// The body is over the limit that ACK told.
    BodyTooLarge = 41, "BODY_TOO_LARGE";
    /// The task has a field that is missing or wrong.
    InvalidTask = 42, "INVALID_TASK";
    /// Another task has the same id and a different action or body.
    DuplicateMismatch = 43, "DUPLICATE_MISMATCH";
    /// The task asks for something that this broker does not do.
    Unsupported = 44, "UNSUPPORTED";
    /// The task is durable and this broker's journal is not.
    DurableUnavailable = 45, "DURABLE_UNAVAILABLE";
    /// The connection to the broker is gone, and with it what became of the task.
    BrokerLost = 46, "BROKER_LOST";
    /// No such attempt, or another worker holds it.
    UnknownAttempt = 47, "UNKNOWN_ATTEMPT";
    /// No such action at this worker, or no such `mcp.admin.*` action at this broker.
    UnknownAction = 48, "UNKNOWN_ACTION";
    /// An attempt gave no sign of life.
    AttemptTimeout = 49, "ATTEMPT_TIMEOUT";
    /// Too many workers failed with the task.
    Poisoned = 50, "POISONED";
    /// More of the action's tasks, or of a tenant's, came than its rate limit allows.
    RateLimited = 51, "RATE_LIMITED";
    /// The task would wait for longer than it lives, or than its action lets tasks wait.
    Overloaded = 52, "OVERLOADED";
    /// An operator keeps the action's tasks from its workers, and nothing answers in their place.
    Degraded = 53, "DEGRADED";
    /// The task has ended, and its client has said that it is done with the result.
    Settled = 54, "SETTLED";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl serde::Serialize for ErrorCode {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

/// By name. An unknown one counts as [`ErrorCode::Internal`], as it does on the wire.
impl<'de> serde::Deserialize<'de> for ErrorCode {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        let known = Self::ALL.iter().find(|code| code.name() == name);
        Ok(known.copied().unwrap_or(ErrorCode::Internal))
    }
}

/// An error as it travels: the same shape wherever it appears.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ErrorInfo {
    /// Why.
    pub code: ErrorCode,
    /// What happened and what to do about it, for a person. Cut at
    /// [`MAX_ERROR_MESSAGE_BYTES`](crate::limits::MAX_ERROR_MESSAGE_BYTES) on the wire.
    pub message: String,
    /// The task concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_id: Option<TaskId>,
    /// The broker or worker that reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_id: Option<NodeId>,
    /// When it makes sense to try again, in milliseconds from now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// What led to it, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
}

/// One link of an error's cause chain.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Cause {
    /// Why.
    pub code: ErrorCode,
    /// What happened.
    pub message: String,
    /// Where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_id: Option<NodeId>,
}

impl ErrorInfo {
    /// An error with a code and a message, and nothing else said.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            task_id: None,
            node_id: None,
            retry_after_ms: None,
            causes: Vec::new(),
        }
    }

    /// Names the task concerned.
    pub fn task(mut self, task_id: TaskId) -> Self {
        self.task_id = Some(task_id);
        self
    }

    /// Names the node that reports it.
    pub fn node(mut self, node_id: NodeId) -> Self {
        self.node_id = Some(node_id);
        self
    }

    /// Says when to try again.
    pub fn retry_after_ms(mut self, retry_after_ms: u64) -> Self {
        self.retry_after_ms = Some(retry_after_ms);
        self
    }
}

impl fmt::Display for ErrorInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        if let Some(node_id) = &self.node_id {
            write!(f, " (at {node_id})")?;
        }
        if let Some(retry_after_ms) = self.retry_after_ms {
            write!(f, "; try again in {retry_after_ms} ms")?;
        }
        Ok(())
    }
}

impl std::error::Error for ErrorInfo {}

/// Bytes that are not a frame. The connection can't go on: where the next frame begins is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Its length is over any limit.
    #[error("a frame of {len} bytes; at most {max} are allowed")]
    FrameTooLarge {
        /// The length it claims.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// Its length can't hold a header length.
    #[error("a frame of {len} bytes is shorter than its fixed part")]
    FrameTooShort {
        /// The length it claims.
        len: usize,
    },
    /// Its header is longer than itself.
    #[error("a header of {header} bytes in a frame that has room for {room}")]
    HeaderTooLong {
        /// The header length it claims.
        header: usize,
        /// What the frame has room for.
        room: usize,
    },
    /// Its header is not a protobuf `mcp.v1.Frame`.
    #[error("a frame header that is not protobuf: {0}")]
    Header(String),
}

impl DecodeError {
    /// The code that the connection is closed with.
    pub fn code(&self) -> ErrorCode {
        match self {
            DecodeError::FrameTooLarge { .. } => ErrorCode::FrameTooLarge,
            DecodeError::FrameTooShort { .. }
            | DecodeError::HeaderTooLong { .. }
            | DecodeError::Header(_) => ErrorCode::Malformed,
        }
    }
}

/// A well-formed frame with a field that is missing or wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: field {field} {problem}")]
pub struct InvalidMessage {
    /// The frame.
    pub kind: MessageKind,
    /// The field's name in the proto file.
    pub field: &'static str,
    /// What is wrong with it, to be read after its name.
    pub problem: String,
    /// The task that the frame is about, where that could be read.
    pub task_id: Option<TaskId>,
}

/// A frame that the peer may not send, or not in this state of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{kind} is not expected {when}")]
pub struct UnexpectedFrame {
    /// The frame.
    pub kind: MessageKind,
    /// The state that makes it unexpected, to be read after "is not expected".
    pub when: &'static str,
}
