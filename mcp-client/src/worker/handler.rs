//! What serves an action.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::FutureExt;
use mcp_proto::limits::{MAX_CAUSES, MAX_HEADERS, MAX_RESULT_HEADER_BYTES, MAX_TEXT_BYTES};
use mcp_proto::{Cause, ErrorCode, ErrorInfo};

use super::Job;
use crate::task::Reply;

/// What a handler's call returns.
pub type HandlerFuture = Pin<Box<dyn Future<Output = Result<HandlerReply, HandlerError>> + Send>>;

/// Serves an action. Every `Fn(Job) -> impl Future<Output = Result<impl Into<HandlerReply>,
/// impl Into<HandlerError>>>` is one.
///
/// The future is dropped when the attempt is cancelled or its time to live runs out: what it holds
/// must clean up when dropped. A panic, here or in the future, ends the task
/// failed(HANDLER_PANIC); the worker lives.
///
/// Each runs in a task of its own. On a runtime with one thread a handler is begun without one: one
/// that is done when first polled needs none.
pub trait Handler: Send + Sync + 'static {
    /// Starts to work on `job`.
    fn call(&self, job: Job) -> HandlerFuture;
}

impl<F, Fut, R, E> Handler for F
where
    F: Fn(Job) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, E>> + Send + 'static,
    R: Into<HandlerReply>,
    E: Into<HandlerError>,
{
    fn call(&self, job: Job) -> HandlerFuture {
        // An async block would have room for the future twice.
        Box::pin(self(job).map(|result| result.map(Into::into).map_err(Into::into)))
    }
}

/// The result of a task.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HandlerReply {
    /// What the client gets, behind what was [emitted](Job::emit). At most what the broker accepts,
    /// 64 KiB, together with that: with more the task ends failed(BODY_TOO_LARGE). To a client that
    /// takes the result in parts it goes in parts, however long it is.
    pub body: Bytes,
    /// Of the body.
    pub content_type: ByteString,
    /// What else there is to know about it, such as what it cost. At most 64, each text at most
    /// 1024 bytes and all together at most 8 KiB; those that are over it are left out.
    pub headers: BTreeMap<String, String>,
}

impl HandlerReply {
    /// A result without a content type.
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..Self::default() }
    }

    /// Says what the body is.
    pub fn content_type(mut self, content_type: impl Into<ByteString>) -> Self {
        self.content_type = content_type.into();
        self
    }

    /// Adds a [header](Self::headers).
    pub fn header(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(key.into(), value.into());
        self
    }

    /// Leaves out what a RESULT has no room for.
    pub(super) fn cut(&mut self) {
        if self.content_type.len() > MAX_TEXT_BYTES {
            self.content_type = ByteString::new();
        }
        let before = self.headers.len();
        let (mut count, mut bytes) = (0, 0);
        self.headers.retain(|key, value| {
            let with_it = bytes + key.len() + value.len();
            let fits = !key.is_empty()
                && key.len().max(value.len()) <= MAX_TEXT_BYTES
                && count < MAX_HEADERS
                && with_it <= MAX_RESULT_HEADER_BYTES;
            if fits {
                (count, bytes) = (count + 1, with_it);
            }
            fits
        });
        let left_out = before - self.headers.len();
        if left_out > 0 {
            tracing::warn!(left_out, "headers of a result are over the limits");
        }
    }
}

macro_rules! reply_from {
    ($($body:ty),*) => {$(
        impl From<$body> for HandlerReply {
            fn from(body: $body) -> Self {
                Self::new(body)
            }
        }
    )*};
}
reply_from!(Bytes, Vec<u8>, String, &'static str, &'static [u8]);

impl From<()> for HandlerReply {
    fn from((): ()) -> Self {
        Self::default()
    }
}

impl From<Reply> for HandlerReply {
    fn from(reply: Reply) -> Self {
        Self { body: reply.body, content_type: reply.content_type, headers: reply.headers }
    }
}

/// Why a handler has no result: the task ends `failed` with this. Any error converts into it with
/// `?`, its chain of sources included; so it is not an [`Error`](std::error::Error) itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerError {
    info: ErrorInfo,
    kind: Kind,
}

/// What becomes of the attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Failed, and tried again if the task asks for that.
    Failed,
    /// Failed for good.
    Permanent,
    /// Handed back.
    Busy,
}

impl HandlerError {
    /// A failure with code HANDLER_FAILED. A task with [`retry`](crate::TaskBuilder::retry) is tried
    /// again.
    pub fn new(message: impl Into<String>) -> Self {
        Self::from_info(ErrorInfo::new(ErrorCode::HandlerFailed, message))
    }

    /// A failure that another attempt would end in, too, such as an input that makes no sense: the
    /// task is not tried again, whatever it asks for.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self { kind: Kind::Permanent, ..Self::new(message) }
    }

    /// No failure, but not now: the broker takes the task back as if it had never been here, asks
    /// another worker at once if one has room, and else comes again after `retry_after` at the
    /// soonest (10 ms to 60 s; what is beyond is cut). However often that happens, it is within the
    /// task's time to live.
    ///
    /// Only for a handler that has done nothing yet, one that is short of memory or over a rate
    /// limit, say: the broker gives a task that may not run twice to somebody else. A handler whose
    /// attempt is being cancelled is not heard.
    pub fn busy(message: impl Into<String>, retry_after: Duration) -> Self {
        // 0 would mean that nothing is said of it.
        let ms = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX).max(1);
        let info = ErrorInfo::new(ErrorCode::AllBusy, message).retry_after_ms(ms);
        Self { info, kind: Kind::Busy }
    }

    pub(super) fn permanent_info(info: ErrorInfo) -> Self {
        Self { info, kind: Kind::Permanent }
    }

    /// A failure as it shall travel.
    pub fn from_info(info: ErrorInfo) -> Self {
        Self { info, kind: Kind::Failed }
    }

    /// As it travels.
    pub fn info(&self) -> &ErrorInfo {
        &self.info
    }

    /// As it travels.
    pub fn into_info(self) -> ErrorInfo {
        self.info
    }

    pub(super) fn is_permanent(&self) -> bool {
        self.kind == Kind::Permanent
    }

    pub(super) fn is_busy(&self) -> bool {
        self.kind == Kind::Busy
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.info.fmt(f)
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        let error: &(dyn Error + 'static) = &error;
        if let Some(info) = error.downcast_ref::<ErrorInfo>() {
            return Self::from_info(info.clone());
        }
        let mut info = ErrorInfo::new(ErrorCode::HandlerFailed, error.to_string());
        let mut source = error.source();
        while let Some(error) = source
            && info.causes.len() < MAX_CAUSES
        {
            info.causes.push(cause(error));
            if let Some(inner) = error.downcast_ref::<ErrorInfo>() {
                info.causes.extend(inner.causes.iter().cloned());
            }
            source = error.source();
        }
        info.causes.truncate(MAX_CAUSES);
        Self::from_info(info)
    }
}

fn cause(error: &(dyn Error + 'static)) -> Cause {
    match error.downcast_ref::<ErrorInfo>() {
        Some(info) => {
            Cause { code: info.code, message: info.message.clone(), node_id: info.node_id.clone() }
        }
        None => Cause { code: ErrorCode::HandlerFailed, message: error.to_string(), node_id: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("can't read the model")]
    struct ModelError(#[source] ErrorInfo);

    #[test]
    fn headers_over_the_limits_are_left_out() {
        let cut = |mut reply: HandlerReply| {
            reply.cut();
            reply.headers
        };
        let long = "x".repeat(MAX_TEXT_BYTES + 1);
        let odd = HandlerReply::default().header("a", &long).header(&long, "a").header("", "a");
        assert!(cut(odd).is_empty());
        let (mut many, mut large) = (HandlerReply::default(), HandlerReply::default());
        for number in 0..=MAX_HEADERS {
            many = many.header(number.to_string(), "v");
            large = large.header(number.to_string(), &long[1..]);
        }
        assert_eq!(cut(many).len(), MAX_HEADERS);
        assert_eq!(cut(large).len(), MAX_RESULT_HEADER_BYTES / long.len());
    }

    #[test]
    fn an_error_becomes_a_failure_with_its_causes() {
        let mut inner = ErrorInfo::new(ErrorCode::QueueFull, "full");
        inner.causes.push(Cause {
            code: ErrorCode::WorkerLost,
            message: "lost".to_owned(),
            node_id: None,
        });
        let info = HandlerError::from(ModelError(inner.clone())).into_info();
        assert_eq!(info.code, ErrorCode::HandlerFailed);
        assert_eq!(info.message, "can't read the model");
        let causes: Vec<_> = info.causes.iter().map(|cause| cause.code).collect();
        assert_eq!(causes, [ErrorCode::QueueFull, ErrorCode::WorkerLost]);
        // One that has the wire's shape already stays as it is.
        assert_eq!(HandlerError::from(inner.clone()).into_info(), inner);
    }
}
