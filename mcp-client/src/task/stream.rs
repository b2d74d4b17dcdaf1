//! A result in parts.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use futures_util::Stream;
use mcp_proto::TaskId;

use super::{Reply, TaskEnd, TaskHandle};
use crate::client::{Incoming, Told};
use crate::error::{CallError, PartsError};

/// The result of a task as it comes, in parts: `while let Some(event) = stream.next().await`. Ends
/// when the task has; then [`outcome`](Self::outcome) says how.
///
/// What is not read is held back at the worker, beyond 256 KiB: only this task's handler waits, and
/// nothing else. Dropped before the end, it cancels the task. Keeps the client's connection open.
#[must_use = "a dropped stream cancels its task"]
pub struct TaskStream {
    handle: TaskHandle,
    incoming: Arc<Incoming>,
    end: Option<TaskEnd>,
}

/// What comes of a task before its end.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum StreamEvent {
    /// The next part of the result. The result is all parts, and then the body of the outcome.
    Part(Bytes),
    /// How far the handler says it is. Some may be left out.
    Progress {
        /// 0 to 1, if it is known.
        fraction: Option<f32>,
        /// For people.
        message: ByteString,
    },
    /// The attempt was lost or failed, and the task runs again from the beginning: the parts that
    /// came before are void.
    Restarted,
    /// Parts are missing here, and will not come: the connection broke, and the broker no longer
    /// had them; or they went to another client, which sent the same task before.
    Gap,
}

impl TaskStream {
    pub(super) fn new(handle: TaskHandle, incoming: Arc<Incoming>) -> Self {
        Self { handle, incoming, end: None }
    }

    /// The task's id.
    pub fn id(&self) -> &TaskId {
        self.handle.id()
    }

    /// As [`TaskHandle::cancel`].
    pub fn cancel(&self) {
        self.handle.cancel();
    }

    /// The next event; none once the task has ended and all has been read. Cancel-safe.
    pub async fn next(&mut self) -> Option<StreamEvent> {
        std::future::poll_fn(|cx| self.poll_event(cx)).await
    }

    /// How the task ended, once it has; what comes before and was not read is dropped. Its body is
    /// what follows the parts. Cancel-safe.
    pub async fn outcome(&mut self) -> TaskEnd {
        loop {
            if let Some(end) = &self.end {
                return end.clone();
            }
            self.next().await;
        }
    }

    /// Reads all of it, and gives the whole result.
    ///
    /// # Errors
    /// When the task does not end `ok`, when parts are missing, or when they are more than
    /// `max_bytes` together; in the last case the task is cancelled.
    pub async fn collect(mut self, max_bytes: usize) -> Result<Reply, CallError> {
        let mut whole = BytesMut::new();
        let mut is_missing_some = false;
        while let Some(event) = self.next().await {
            match event {
                StreamEvent::Part(part) if part.len() > max_bytes - whole.len() => {
                    return Err(PartsError::TooLong { max_bytes }.into());
                }
                StreamEvent::Part(part) => whole.extend_from_slice(&part),
                StreamEvent::Restarted => {
                    whole.clear();
                    is_missing_some = false;
                }
                StreamEvent::Gap => is_missing_some = true,
                StreamEvent::Progress { .. } => {}
            }
        }
        let mut reply = self.outcome().await.into_reply()?;
        if is_missing_some {
            return Err(PartsError::Missing.into());
        }
        if !whole.is_empty() {
            if reply.body.len() > max_bytes - whole.len() {
                return Err(PartsError::TooLong { max_bytes }.into());
            }
            whole.extend_from_slice(&reply.body);
            reply.body = whole.freeze();
        }
        Ok(reply)
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<StreamEvent>> {
        loop {
            // Looked at first: what comes before the end is there before the end is.
            let has_ended = self.end.is_some();
            let (event, told) = self.incoming.poll(cx);
            self.tell(told);
            match event {
                Poll::Ready(event) => return Poll::Ready(Some(event)),
                Poll::Pending if has_ended => {
                    self.tell(self.incoming.finish());
                    return Poll::Ready(None);
                }
                Poll::Pending => self.end = Some(ready!(Pin::new(&mut self.handle).poll(cx))),
            }
        }
    }

    fn tell(&self, told: Option<Told>) {
        if let Some(told) = told {
            self.handle.credit(told);
        }
    }
}

impl Stream for TaskStream {
    type Item = StreamEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<StreamEvent>> {
        self.get_mut().poll_event(cx)
    }
}

impl Drop for TaskStream {
    fn drop(&mut self) {
        self.tell(self.incoming.finish());
    }
}

impl fmt::Debug for TaskStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskStream").field("id", self.id()).finish_non_exhaustive()
    }
}
