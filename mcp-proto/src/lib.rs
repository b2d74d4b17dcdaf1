//! The wire protocol of MCP, the **Model Communication Protocol**: what brokers, clients and
//! worker agents say to each other. (Not Anthropic's Model Context Protocol.)
//!
//! `proto/README.md` is the normative specification; this crate is its Rust form:
//!
//! * [`Message`] and its parts: validated types, made from the generated ones by parsing,
//! * [`FrameCodec`]: the one parser and writer of frames,
//! * [`Session`]: which side may send what, and when,
//! * [`ErrorCode`] and [`ErrorInfo`]: how anything that goes wrong is told,
//! * [`json`]: the JSON form of a task,
//! * `lane` and `transport` (feature `quic`): frames over a QUIC stream.

#[cfg(feature = "quic")]
pub mod busy_poll;
pub mod codec;
mod encoded;
pub mod error;
pub mod id;
pub mod json;
#[cfg(feature = "quic")]
pub mod lane;
pub mod limits;
pub mod message;
#[cfg(feature = "quic")]
pub mod path;
pub mod secret;
pub mod session;
#[cfg(feature = "quic")]
pub mod socket;
mod token;
pub mod trace_context;
#[cfg(feature = "quic")]
pub mod transport;
#[cfg(feature = "quic")]
pub mod unreachable;
mod wire;

/// Types generated from `proto/mcp/v1/*.proto`, with `string` fields as bytes.
#[allow(missing_docs, clippy::all, dead_code, unreachable_pub)]
pub(crate) mod generated {
    include!(concat!(env!("OUT_DIR"), "/mcp.v1.rs"));
}

pub use bytes::Bytes;
pub use bytestring::ByteString;
pub use codec::{Frame, FrameCodec, Incoming};
pub use encoded::{EncodedFrame, Payload};
pub use error::{Cause, DecodeError, ErrorCode, ErrorInfo, InvalidMessage, UnexpectedFrame};
pub use id::{ActionName, ActionRef, AgentId, AttemptId, InstanceId, NodeId, SessionId, TaskId};
pub use limits::Limits;
pub use message::{
    Ack, Cancel, CancelReason, Child, Chunk, ContextTrace, Credit, Decision, Deliver, Delivery,
    EncodedTask, Executed, ExplainedWorker, Explanation, Goaway, Hello, Hop, HopEvent, InputLength,
    Labels, LazyTrace, Message, MessageKind, Nack, Outcome, Park, Ping, Priority, Progress,
    Readiness, ResultHeaders, Resume, Retry, Role, Roles, Route, RouteHead, RoutesReceived, Score,
    Send, Subject, Task, TaskExtras, TaskHead, TaskResult, TaskState, WorkerHello,
};
pub use session::{Session, Side};
pub use token::Token;
pub use trace_context::{SpanId, TraceContext, TraceId};

/// The ALPN protocol name of MCP over QUIC.
pub const ALPN: &[u8] = b"mcp-comm/1";

/// The protocol version spoken here, `MAJOR.MINOR`.
pub const MCP_VERSION: &str = "1.0";

/// The default port of a broker (UDP).
pub const DEFAULT_PORT: u16 = 7447;
