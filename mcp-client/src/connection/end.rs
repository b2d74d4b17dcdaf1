//! How connections end.

use std::fmt;
use std::time::Duration;

use mcp_proto::ErrorCode;

/// How a connection ended.
#[derive(Debug, Clone)]
pub(super) enum End {
    /// The broker closed it. No code: in an orderly way, or with one that is not known here.
    Closed { code: Option<ErrorCode>, message: String },
    /// QUIC or TLS closed it at the broker, with a code of theirs: a certificate that it does not take
    /// is refused when the handshake is over in the eyes of this side.
    Refused(u64),
    /// The network, or the broker without a word.
    Broken(String),
    /// No sign of life.
    Silent(Duration),
    /// The broker did what the protocol does not allow.
    Violation(ErrorCode, String),
    /// This side left it, in an orderly way.
    Left,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Closed { code: Some(code), message } => {
                write!(f, "the broker closed it: {code}: {message}")
            }
            End::Closed { code: None, message } => write!(f, "the broker closed it: {message}"),
            End::Refused(code) => write!(f, "the broker refused it: QUIC error {code:#x}"),
            End::Broken(problem) => f.write_str(problem),
            End::Silent(timeout) => write!(f, "no sign of life for {timeout:?}"),
            End::Violation(code, message) => {
                write!(f, "the broker broke the protocol: {code}: {message}")
            }
            End::Left => f.write_str("left"),
        }
    }
}
