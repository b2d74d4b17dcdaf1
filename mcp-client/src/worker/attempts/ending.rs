//! How attempts end.

use mcp_proto::{CancelReason, ErrorCode, ErrorInfo, Outcome};

use crate::worker::handler::{HandlerError, HandlerReply};

/// How a handler ended.
pub(in crate::worker) enum Completion {
    Reply(HandlerReply),
    Failed(Box<HandlerError>),
    Panicked(String),
    /// It was dropped, because its attempt was to end.
    Stopped,
}

/// Why a running attempt is being stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Cancelled(CancelReason),
    /// The broker gave it to somebody else: it does not want to hear of it.
    Abandoned,
    /// The worker leaves.
    Leaving,
}

/// What RESULT says.
pub(super) struct Verdict {
    pub(super) outcome: Outcome,
    pub(super) error: Option<Box<ErrorInfo>>,
    /// Another attempt would end in the same way.
    pub(super) permanent: bool,
    pub(super) reply: HandlerReply,
}

impl Verdict {
    fn not_ok(outcome: Outcome, error: impl Into<Box<ErrorInfo>>) -> Self {
        let reply = HandlerReply::default();
        Self { outcome, error: Some(error.into()), permanent: false, reply }
    }

    fn failed(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::not_ok(Outcome::Failed, ErrorInfo::new(code, message))
    }
}

impl Completion {
    /// How the attempt ends, given why it was being stopped, if it was.
    pub(super) fn judge(self, ending: Option<Ending>, max_body_bytes: usize) -> Verdict {
        match (self, ending) {
            (Completion::Reply(reply), _) if reply.body.len() > max_body_bytes => {
                let message = format!(
                    "the result has {} bytes; the broker takes at most {max_body_bytes}: return a \
                     reference to it instead",
                    reply.body.len(),
                );
                let failed = Verdict::failed(ErrorCode::BodyTooLarge, message);
                Verdict { permanent: true, ..failed }
            }
            (Completion::Reply(mut reply), _) => {
                reply.cut();
                Verdict { outcome: Outcome::Ok, error: None, permanent: false, reply }
            }
            (Completion::Panicked(message), _) => {
                let message = format!("the handler panicked: {message}");
                Verdict::failed(ErrorCode::HandlerPanic, message)
            }
            (Completion::Failed(_) | Completion::Stopped, Some(ending)) => {
                let (outcome, error) = ended_by(ending);
                Verdict::not_ok(outcome, error)
            }
            (Completion::Failed(error), None) => {
                let permanent = error.is_permanent();
                Verdict { permanent, ..Verdict::not_ok(Outcome::Failed, error.into_info()) }
            }
            (Completion::Stopped, None) => {
                Verdict::failed(ErrorCode::Internal, "the handler was dropped")
            }
        }
    }
}

/// What an attempt that was stopped ends as.
pub(super) fn ended_by(ending: Ending) -> (Outcome, ErrorInfo) {
    match ending {
        Ending::Cancelled(CancelReason::Expired) => (Outcome::Expired, expired()),
        Ending::Cancelled(reason) => {
            let message = format!("cancelled by the broker: {reason}");
            (Outcome::Cancelled, ErrorInfo::new(ErrorCode::Cancelled, message))
        }
        // Given up: the broker places it again if it may run twice.
        Ending::Leaving | Ending::Abandoned => {
            let message = "the worker was stopped before its handler was done";
            (Outcome::Cancelled, ErrorInfo::new(ErrorCode::ShuttingDown, message))
        }
    }
}

pub(super) fn expired() -> ErrorInfo {
    ErrorInfo::new(ErrorCode::Expired, "its time to live ran out at the worker")
}
