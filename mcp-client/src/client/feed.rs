//! Feeding a task's input to its session, as it comes and as there is credit.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use mcp_proto::TaskId;
use mcp_proto::limits::MAX_STREAM_WINDOW_BYTES;

use super::outgoing::{Pushed, Signal};
use super::session::Session;

/// With more than this waiting to be written, inputs wait, so that small tasks don't wait behind them.
const LANE_BYTES: usize = 32 * 1024;

/// The rest of a task's input, which its body is the beginning of.
pub(crate) struct Source {
    pub(crate) parts: BoxStream<'static, Result<Bytes, String>>,
    /// How long it is, if that is known.
    pub(crate) bytes: Option<u64>,
    /// Whether it is in memory anyway.
    pub(crate) is_in_memory: bool,
}

impl Source {
    /// One that is there.
    pub(crate) fn whole(rest: Bytes) -> Self {
        let bytes = Some(rest.len() as u64);
        let parts = futures_util::stream::iter([Ok(rest)]).boxed();
        Self { parts, bytes, is_in_memory: true }
    }

    /// One with this before it.
    pub(crate) fn after(self, beginning: Bytes) -> Self {
        let bytes = self.bytes.map(|bytes| bytes + beginning.len() as u64);
        let parts = futures_util::stream::iter([Ok(beginning)]).chain(self.parts).boxed();
        Self { parts, bytes, is_in_memory: false }
    }

    /// What is kept of it here, at most.
    pub(super) fn kept_bytes(&self) -> usize {
        match self.bytes.filter(|_| self.is_in_memory) {
            Some(bytes) => bytes as usize,
            None => MAX_STREAM_WINDOW_BYTES as usize,
        }
    }
}

/// A source, and when to go on with it.
pub(crate) struct Feed {
    pub(super) source: Source,
    pub(super) signal: Arc<Signal>,
}

/// Feeds until all was sent, or the task has ended or is being cancelled.
pub(super) async fn run(session: Arc<Session>, id: TaskId, feed: Feed) {
    let Feed { source: Source { mut parts, bytes: mut rest, .. }, signal } = feed;
    loop {
        let next = tokio::select! {
            biased;
            () = signal.over() => return,
            next = parts.next() => next,
        };
        let (mut part, is_end) = match next {
            None if rest.is_some_and(|rest| rest > 0) => {
                return session.fail_input(&id, "it ended before it was as long as was said");
            }
            None => (Bytes::new(), true),
            Some(Ok(part)) if part.is_empty() => continue,
            Some(Ok(part)) => (part, false),
            Some(Err(problem)) => return session.fail_input(&id, &problem),
        };
        if let Some(rest) = &mut rest {
            part.truncate(usize::try_from(*rest).unwrap_or(usize::MAX));
            *rest -= part.len() as u64;
        }
        let is_last = is_end || rest == Some(0);
        if !send(&session, &id, &signal, part, is_last).await || is_last {
            return;
        }
    }
}

/// Sends a part as there is credit for it; false when no more is wanted.
async fn send(
    session: &Session,
    id: &TaskId,
    signal: &Signal,
    mut part: Bytes,
    is_last: bool,
) -> bool {
    loop {
        if let Some(link) = session.link() {
            link.drained(LANE_BYTES).await;
        }
        let push = || match session.push_input(id, &mut part, is_last) {
            Pushed::NoCredit => None,
            pushed => Some(pushed),
        };
        match signal.wait(push).await {
            Pushed::Some if part.is_empty() => return true,
            Pushed::Some | Pushed::NoCredit => {}
            Pushed::Over => return false,
        }
    }
}
