//! What serves an action.

use std::error::Error;
use std::fmt;
use std::pin::Pin;

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::FutureExt;
use mcp_proto::limits::MAX_CAUSES;
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
    /// What the client gets. At most what the broker accepts, 64 KiB; with more the task ends
    /// failed(BODY_TOO_LARGE).
    pub body: Bytes,
    /// Of the body.
    pub content_type: ByteString,
}

impl HandlerReply {
    /// A result without a content type.
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), content_type: ByteString::new() }
    }

    /// Says what the body is.
    pub fn content_type(mut self, content_type: impl Into<ByteString>) -> Self {
        self.content_type = content_type.into();
        self
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
        Self { body: reply.body, content_type: reply.content_type }
    }
}

/// Why a handler has no result: the task ends `failed` with this. Any error converts into it with
/// `?`, its chain of sources included; so it is not an [`Error`](std::error::Error) itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerError(ErrorInfo);

impl HandlerError {
    /// A failure with code HANDLER_FAILED.
    pub fn new(message: impl Into<String>) -> Self {
        Self(ErrorInfo::new(ErrorCode::HandlerFailed, message))
    }

    /// A failure as it shall travel.
    pub fn from_info(info: ErrorInfo) -> Self {
        Self(info)
    }

    /// As it travels.
    pub fn info(&self) -> &ErrorInfo {
        &self.0
    }

    /// As it travels.
    pub fn into_info(self) -> ErrorInfo {
        self.0
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        let error: &(dyn Error + 'static) = &error;
        if let Some(info) = error.downcast_ref::<ErrorInfo>() {
            return Self(info.clone());
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
        Self(info)
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
