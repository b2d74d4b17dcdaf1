//! What a handler gives out before it is done: to the client at once, if it takes parts of a result,
//! and else collected.

use bytes::Bytes;
use mcp_proto::limits::MAX_BODY_BYTES;

use super::handler::HandlerReply;
use super::job::Job;
use super::line::Line;

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
    /// The attempt is over: its handler is done, it was cancelled, or its time to live ran out.
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
        emit(&self.line, part.into()).await
    }

    /// Whether the client takes the result in parts.
    pub fn is_streamed(&self) -> bool {
        self.line.is_streamed()
    }
}

async fn emit(line: &Line, part: Bytes) -> Result<(), EmitError> {
    if !line.is_streamed() {
        collect(line, &part)
    } else if line.send(part).await {
        Ok(())
    } else {
        Err(EmitError::Over)
    }
}

fn collect(line: &Line, part: &[u8]) -> Result<(), EmitError> {
    let mut collected = line.collected();
    if part.len() > MAX_BODY_BYTES.saturating_sub(collected.len()) {
        return Err(EmitError::TooLong { max_bytes: MAX_BODY_BYTES });
    }
    collected.extend_from_slice(part);
    Ok(())
}

/// Puts what was collected before the reply's body.
pub(crate) fn complete(line: &Line, mut reply: HandlerReply) -> HandlerReply {
    let mut collected = std::mem::take(&mut *line.collected());
    if !collected.is_empty() {
        collected.extend_from_slice(&reply.body);
        reply.body = collected.freeze();
    }
    reply
}

/// Whether the body of a reply is too large for a RESULT, and can go in parts.
pub(super) fn is_to_spill(line: &Line, reply: &HandlerReply) -> bool {
    line.is_streamed() && reply.body.len() > MAX_BODY_BYTES
}

/// Emits the body of such a reply.
pub(super) async fn spill(line: &Line, mut reply: HandlerReply) -> Result<HandlerReply, EmitError> {
    if is_to_spill(line, &reply) {
        emit(line, std::mem::take(&mut reply.body)).await?;
    }
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_collected_comes_before_the_body() {
        let line = Line::dead();
        collect(&line, b"one ").unwrap();
        collect(&line, b"").unwrap();
        collect(&line, b"two ").unwrap();
        let reply = complete(&line, HandlerReply::new("three").content_type("text/plain"));
        assert_eq!(reply, HandlerReply::new("one two three").content_type("text/plain"));
    }

    #[test]
    fn more_than_a_result_can_have_is_refused() {
        let line = Line::dead();
        collect(&line, &vec![7; MAX_BODY_BYTES - 1]).unwrap();
        assert!(collect(&line, b"ab").is_err());
        collect(&line, b"a").unwrap();
        assert_eq!(collect(&line, b"b"), Err(EmitError::TooLong { max_bytes: MAX_BODY_BYTES }));
    }
}
