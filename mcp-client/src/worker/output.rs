//! What a handler gives out before it is done: to the client at once, if it takes parts of a result,
//! and else collected.

use std::pin::pin;
use std::sync::{Arc, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use mcp_proto::limits::MAX_BODY_BYTES;

use super::attempts::Emitted;
use super::handler::HandlerReply;
use super::job::{Job, Shared};

/// Why a part was not taken. The handler should end with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EmitError {
    /// The client takes no parts, and together they are more than a result can have.
    #[error(
        "the result is longer than {max_bytes} bytes, and its client does not take it in parts: \
         emit less, or send the task with stream()"
    )]
    TooLong {
        /// The limit.
        max_bytes: usize,
    },
    /// The attempt is over: cancelled, or its time to live ran out.
    #[error("the attempt is over")]
    Over,
}

impl Job {
    /// Gives out a part of the result before the handler is done. Parts come in the order in which
    /// they are emitted, and before the body of the handler's reply.
    ///
    /// A client that sent the task with [`stream`](crate::TaskBuilder::stream) gets them as they
    /// come; while it does not read, this waits, with at most 256 KiB under way. For any other
    /// client they are collected, at most 64 KiB in sum, and dropped when the handler fails.
    ///
    /// When this future is dropped, a part of the part may have been given out. Parts are to be
    /// emitted one after another.
    pub async fn emit(&self, part: impl Into<Bytes>) -> Result<(), EmitError> {
        self.output().emit(part.into()).await
    }

    /// Whether the client takes the result in parts.
    pub fn is_streamed(&self) -> bool {
        self.shared().sender.is_some()
    }

    pub(crate) fn output(&self) -> Output {
        Output(self.shared().clone())
    }
}

/// Where the parts of a result go.
#[derive(Debug, Clone)]
pub(crate) struct Output(Arc<Shared>);

impl Output {
    async fn emit(&self, mut part: Bytes) -> Result<(), EmitError> {
        let Some(sender) = &self.0.sender else { return self.collect(&part) };
        while !part.is_empty() {
            let mut changed = pin!(self.0.changed.notified());
            // Listens before it tries, so that no credit is missed in between.
            changed.as_mut().enable();
            let Some(registration) = sender.registration.upgrade() else {
                return Err(EmitError::Over);
            };
            match registration.emit(sender.attempt_id, &mut part) {
                Emitted::Some => {}
                Emitted::NoCredit => {
                    drop(registration);
                    changed.await;
                }
                Emitted::Over => return Err(EmitError::Over),
            }
        }
        Ok(())
    }

    fn collect(&self, part: &[u8]) -> Result<(), EmitError> {
        let mut collected = self.collected();
        if part.len() > MAX_BODY_BYTES.saturating_sub(collected.len()) {
            return Err(EmitError::TooLong { max_bytes: MAX_BODY_BYTES });
        }
        collected.extend_from_slice(part);
        Ok(())
    }

    /// Puts what was collected before the reply's body.
    pub(crate) fn complete(&self, mut reply: HandlerReply) -> HandlerReply {
        let mut collected = std::mem::take(&mut *self.collected());
        if !collected.is_empty() {
            collected.extend_from_slice(&reply.body);
            reply.body = collected.freeze();
        }
        reply
    }

    /// Whether the body of a reply is too large for a RESULT, and can go in parts.
    pub(super) fn is_to_spill(&self, reply: &HandlerReply) -> bool {
        self.0.sender.is_some() && reply.body.len() > MAX_BODY_BYTES
    }

    /// Emits the body of such a reply.
    pub(super) async fn spill(&self, mut reply: HandlerReply) -> Result<HandlerReply, EmitError> {
        if self.is_to_spill(&reply) {
            self.emit(std::mem::take(&mut reply.body)).await?;
        }
        Ok(reply)
    }

    fn collected(&self) -> MutexGuard<'_, BytesMut> {
        self.0.collected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output() -> Output {
        Output(Arc::default())
    }

    #[test]
    fn what_was_collected_comes_before_the_body() {
        let output = output();
        output.collect(b"one ").unwrap();
        output.collect(b"").unwrap();
        output.collect(b"two ").unwrap();
        let reply = output.complete(HandlerReply::new("three").content_type("text/plain"));
        assert_eq!(reply, HandlerReply::new("one two three").content_type("text/plain"));
    }

    #[test]
    fn more_than_a_result_can_have_is_refused() {
        let output = output();
        output.collect(&vec![7; MAX_BODY_BYTES - 1]).unwrap();
        assert!(output.collect(b"ab").is_err());
        output.collect(b"a").unwrap();
        assert_eq!(output.collect(b"b"), Err(EmitError::TooLong { max_bytes: MAX_BODY_BYTES }));
    }
}
