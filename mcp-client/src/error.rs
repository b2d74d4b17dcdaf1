//! What can go wrong, by kind. Each message says what to do about it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mcp_proto::{ErrorCode, ErrorInfo, Executed, Outcome};

use crate::task::TaskEnd;

/// Why there is no connection to a broker.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address is not `host:port`.
    #[error("{address:?} is not an address ({problem}): write host:port, like 127.0.0.1:7447")]
    Address {
        /// As given.
        address: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The host has no address.
    #[error("can't find the host {host:?} ({problem}): check its name and this machine's DNS")]
    UnknownHost {
        /// As given.
        host: String,
        /// What the resolver said.
        problem: String,
    },
    /// Nothing answered in time.
    #[error(
        "no answer from {address} within {after:?}: check that the broker runs there and that UDP \
         reaches it (firewalls often pass only TCP)"
    )]
    Unreachable {
        /// The address that was tried last.
        address: SocketAddr,
        /// For how long.
        after: Duration,
    },
    /// The broker's host says that nothing listens there.
    #[error("nothing listens at {address}: check that the broker runs there, and its port")]
    NotListening {
        /// The address.
        address: SocketAddr,
    },
    /// A UDP socket could not be opened on this machine.
    #[error("can't open a UDP socket here ({problem}): check this machine's network and limits")]
    Socket {
        /// What the system said.
        problem: String,
    },
    /// No certificate authority was given, so no broker can be trusted.
    #[error(
        "no certificate authority to trust: give the broker's ca.pem \
         (Endpoint::ca_file or Endpoint::from_state_dir)"
    )]
    NoTrust,
    /// The certificate authority can't be used.
    #[error("can't use the certificate authority {from}: {problem}")]
    Ca {
        /// Where it was read from.
        from: String,
        /// What is wrong with it.
        problem: String,
    },
    /// What this side would prove with who it is can't be used.
    #[error("can't use the credentials of {from}: {problem}")]
    Credentials {
        /// Where they are.
        from: String,
        /// What is wrong with them.
        problem: String,
    },
    /// The state directory of a broker can't be used.
    #[error(
        "can't read {} ({problem}): start the broker with --state on that directory first",
        path.display()
    )]
    StateDir {
        /// The file that was tried.
        path: PathBuf,
        /// What the system said.
        problem: String,
    },
    /// The broker's certificate is not accepted, or it refuses ours.
    #[error("TLS with {address} failed: {problem}")]
    Tls {
        /// The broker.
        address: SocketAddr,
        /// What kind of failure it is.
        cause: TlsCause,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The other side does not speak this protocol.
    #[error("{address} does not speak MCP: {problem}")]
    Protocol {
        /// The other side.
        address: SocketAddr,
        /// What it did.
        problem: String,
    },
    /// The broker speaks another version.
    #[error("the broker refuses this version: {0}")]
    Version(Box<ErrorInfo>),
    /// The broker refuses this session.
    #[error("the broker refuses the connection: {0}")]
    Refused(Box<ErrorInfo>),
    /// The connection broke: while it was being made, or later and no other is to be made.
    #[error("the connection to {address} broke ({problem}): try again")]
    Broken {
        /// The broker.
        address: SocketAddr,
        /// How.
        problem: String,
    },
    /// The client was closed by this program.
    #[error("this client is closed")]
    Closed,
    /// What was asked for can't be.
    #[error("{field} {problem}")]
    Config {
        /// Which setting.
        field: &'static str,
        /// What is wrong with it, to be read after its name.
        problem: String,
    },
}

/// Why TLS failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsCause {
    /// None of the authorities to trust has signed the broker's certificate.
    UnknownAuthority,
    /// The broker's certificate is for other names.
    WrongName,
    /// The broker's certificate has expired, by the clock here.
    Expired,
    /// The broker's certificate is not valid yet, by the clock here.
    NotYetValid,
    /// The broker refuses the certificate of this side, or asks for one.
    Credentials,
    /// Any other.
    Other,
}

impl ConnectError {
    /// Whether trying again later may help without changing anything here.
    pub fn is_transient(&self) -> bool {
        match self {
            ConnectError::UnknownHost { .. }
            | ConnectError::Unreachable { .. }
            | ConnectError::NotListening { .. }
            | ConnectError::Socket { .. }
            | ConnectError::Broken { .. } => true,
            ConnectError::Refused(info) => matches!(
                info.code,
                ErrorCode::ShuttingDown
                    | ErrorCode::LimitExceeded
                    | ErrorCode::HelloTimeout
                    | ErrorCode::FrameTimeout
                    | ErrorCode::SlowConsumer
                    | ErrorCode::LeaseExpired
                    | ErrorCode::Internal
            ),
            ConnectError::Address { .. }
            | ConnectError::NoTrust
            | ConnectError::Ca { .. }
            | ConnectError::Credentials { .. }
            | ConnectError::StateDir { .. }
            | ConnectError::Tls { .. }
            | ConnectError::Protocol { .. }
            | ConnectError::Version(_)
            | ConnectError::Closed
            | ConnectError::Config { .. } => false,
        }
    }

    /// Whether the broker said not to come back: it would refuse again. Everything else may pass
    /// for one that was connected before.
    pub(crate) fn is_final(&self) -> bool {
        self.code().is_some_and(is_final)
    }

    /// The broker's error code, when it was the broker that refused.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            ConnectError::Version(info) | ConnectError::Refused(info) => Some(info.code),
            _ => None,
        }
    }
}

/// Whether a connection that ends with this code is not to be made again.
pub(crate) fn is_final(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::Replaced | ErrorCode::IdentityMismatch | ErrorCode::UnsupportedVersion
    )
}

/// A task that can't be sent as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct InvalidTask {
    /// Which part of it.
    pub field: &'static str,
    /// What is wrong with it, to be read after its name.
    pub problem: String,
}

impl InvalidTask {
    pub(crate) fn new(field: &'static str, problem: impl fmt::Display) -> Self {
        Self { field, problem: problem.to_string() }
    }
}

/// Why a call has no reply: how its task ended, or why it was not sent.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum CallError {
    /// The handler's own error, or its worker was lost.
    Failed(Box<TaskEnd>),
    /// Its time to live ran out.
    Expired(Box<TaskEnd>),
    /// It was cancelled.
    Cancelled(Box<TaskEnd>),
    /// The broker did not take it, or found no worker for it.
    Rejected(Box<TaskEnd>),
    /// Nobody knows: the broker is gone.
    Lost(Box<TaskEnd>),
    /// There is no connection, and none will be made. The task was not sent.
    Connect(Arc<ConnectError>),
    /// The task is not valid. It was not sent.
    Invalid(InvalidTask),
    /// The task ran, but its result can't be put together.
    Parts(PartsError),
}

/// Why the parts of a result can't be put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PartsError {
    /// The connection broke, and the broker no longer had all of them; or they went to another
    /// client, which sent the same task before.
    #[error(
        "parts of the result are missing: the connection broke and the broker no longer had them, \
         or another client that sent the same task has them"
    )]
    Missing,
    /// They are more than the caller takes.
    #[error("the result has more than {max_bytes} bytes")]
    TooLong {
        /// What the caller takes.
        max_bytes: usize,
    },
}

impl CallError {
    /// How the task ended, if it was sent.
    pub fn end(&self) -> Option<&TaskEnd> {
        match self {
            CallError::Failed(end)
            | CallError::Expired(end)
            | CallError::Cancelled(end)
            | CallError::Rejected(end)
            | CallError::Lost(end) => Some(end),
            CallError::Connect(_) | CallError::Invalid(_) | CallError::Parts(_) => None,
        }
    }

    /// How the task ended, if it was sent.
    pub fn outcome(&self) -> Option<Outcome> {
        self.end().map(|end| end.outcome)
    }

    /// Whether its handler ran: `No` for a task that was not sent.
    pub fn executed(&self) -> Executed {
        match self {
            CallError::Parts(_) => Executed::Yes,
            _ => self.end().map_or(Executed::No, |end| end.executed),
        }
    }

    /// The error code, if there is one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            CallError::Connect(error) => error.code(),
            CallError::Invalid(_) => Some(ErrorCode::InvalidTask),
            _ => self.end()?.error.as_ref().map(|error| error.code),
        }
    }

    /// Whether sending the task again, under a new id, is safe because it did not run, and may
    /// help because the reason can pass.
    pub fn is_retryable(&self) -> bool {
        match self {
            CallError::Connect(error) => error.is_transient(),
            CallError::Invalid(_)
            | CallError::Parts(_)
            | CallError::Cancelled(_)
            | CallError::Expired(_) => false,
            CallError::Failed(end) | CallError::Rejected(end) | CallError::Lost(end) => {
                end.executed == Executed::No && !self.code().is_some_and(is_permanent)
            }
        }
    }
}

/// Whether the same task would meet the same refusal again.
fn is_permanent(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::BodyTooLarge
            | ErrorCode::InvalidTask
            | ErrorCode::DuplicateMismatch
            | ErrorCode::Unsupported
            | ErrorCode::DurableUnavailable
            | ErrorCode::Settled
            | ErrorCode::UnknownAction
    )
}

impl From<TaskEnd> for CallError {
    /// For a task that did not end `ok`.
    fn from(end: TaskEnd) -> Self {
        let end = Box::new(end);
        match end.outcome {
            Outcome::Ok | Outcome::Failed => CallError::Failed(end),
            Outcome::Expired => CallError::Expired(end),
            Outcome::Cancelled => CallError::Cancelled(end),
            Outcome::Rejected => CallError::Rejected(end),
            Outcome::Lost => CallError::Lost(end),
        }
    }
}

impl From<PartsError> for CallError {
    fn from(parts: PartsError) -> Self {
        CallError::Parts(parts)
    }
}

impl From<InvalidTask> for CallError {
    fn from(invalid: InvalidTask) -> Self {
        CallError::Invalid(invalid)
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Connect(error) => error.fmt(f),
            CallError::Invalid(invalid) => write!(f, "the task is not valid: {invalid}"),
            CallError::Parts(parts) => parts.fmt(f),
            CallError::Failed(end)
            | CallError::Expired(end)
            | CallError::Cancelled(end)
            | CallError::Rejected(end)
            | CallError::Lost(end) => end.fmt(f),
        }
    }
}

impl std::error::Error for CallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CallError::Connect(error) => Some(&**error),
            CallError::Invalid(invalid) => Some(invalid),
            CallError::Parts(_) => None,
            _ => self.end()?.error.as_deref().map(|error| error as _),
        }
    }
}
