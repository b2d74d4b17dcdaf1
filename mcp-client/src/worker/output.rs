//! What a handler gives out before it is done.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use mcp_proto::limits::MAX_BODY_BYTES;

use super::handler::HandlerReply;
use super::job::Job;

/// Why a chunk was not taken. The handler should end with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EmitError {
    /// The chunks are together more than a result can have.
    #[error("the output is longer than {max_bytes} bytes: emit less, or a reference to it")]
    TooLong {
        /// The limit.
        max_bytes: usize,
    },
}

impl Job {
    /// Gives out a part of the result before the handler is done. Parts come in the order in which
    /// they are emitted, and before the body of the handler's reply. When the handler fails, they
    /// are dropped.
    ///
    /// At most 64 KiB in sum, the most that a result can have.
    pub async fn emit(&self, chunk: impl Into<Bytes>) -> Result<(), EmitError> {
        self.output.push(&chunk.into())
    }
}

/// What an attempt has emitted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Output(Arc<Mutex<BytesMut>>);

impl Output {
    fn push(&self, chunk: &[u8]) -> Result<(), EmitError> {
        let mut emitted = self.emitted();
        if chunk.len() > MAX_BODY_BYTES.saturating_sub(emitted.len()) {
            return Err(EmitError::TooLong { max_bytes: MAX_BODY_BYTES });
        }
        emitted.extend_from_slice(chunk);
        Ok(())
    }

    /// Puts what was emitted before the reply's body.
    pub(crate) fn complete(&self, mut reply: HandlerReply) -> HandlerReply {
        let mut emitted = std::mem::take(&mut *self.emitted());
        if !emitted.is_empty() {
            emitted.extend_from_slice(&reply.body);
            reply.body = emitted.freeze();
        }
        reply
    }

    fn emitted(&self) -> MutexGuard<'_, BytesMut> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_emitted_comes_before_the_body() {
        let output = Output::default();
        output.push(b"one ").unwrap();
        output.push(b"").unwrap();
        output.push(b"two ").unwrap();
        let reply = output.complete(HandlerReply::new("three").content_type("text/plain"));
        assert_eq!(reply, HandlerReply::new("one two three").content_type("text/plain"));
    }

    #[test]
    fn more_than_a_result_can_have_is_refused() {
        let output = Output::default();
        output.push(&vec![7; MAX_BODY_BYTES - 1]).unwrap();
        assert!(output.push(b"ab").is_err());
        output.push(b"a").unwrap();
        assert_eq!(output.push(b"b"), Err(EmitError::TooLong { max_bytes: MAX_BODY_BYTES }));
    }
}
