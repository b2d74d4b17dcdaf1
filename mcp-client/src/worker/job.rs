//! One attempt at a task, as its handler sees it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;
use mcp_proto::Task;
use mcp_proto::limits::MAX_TEXT_BYTES;

use super::attempts::Sign;
use super::line::{Cancellation, Line};
use crate::conversation::{Conversation, InvalidConversation};

/// One attempt at a task, as its handler sees it.
#[derive(Debug, Clone)]
pub struct Job {
    /// The task. Boxed: it is large, and a job passes through several hands.
    pub task: Box<Task>,
    /// Its input; of one that is longer than 64 KiB the beginning, which [`input`](Self::input) goes on
    /// from and [`read_all`](Self::read_all) completes.
    pub body: Bytes,
    /// When its time to live runs out; the handler's future is dropped then.
    pub deadline: Instant,
    /// 1 for the task's first attempt.
    pub attempt: u32,
    pub(crate) line: Line,
}

impl Job {
    /// What remains of the time to live.
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Tells when the attempt is cancelled or its time to live has run out. The handler's own
    /// future is dropped then; this is for what it started elsewhere, such as threads.
    pub fn cancelled(&self) -> Cancellation {
        Cancellation::of(self.line.clone())
    }

    /// Its input as agents that talk take it, whatever its content type says.
    pub fn conversation(&self) -> Result<Conversation, InvalidConversation> {
        Conversation::from_body(&self.body)
    }

    /// Waits for `future` without taking one of the worker's slots: for a handler that sends tasks
    /// and waits for them. Its slot goes to others meanwhile; once the future is ready, the handler
    /// waits until one is free again, before any task that has not begun.
    ///
    /// Without it, a handler that waits for tasks which only its own worker can serve, or a pool
    /// whose handlers all wait for each other, waits until its time to live is over.
    ///
    /// Dropped before it is ready, it takes the slot back at once, even if then one handler more
    /// than `slots` runs for a while; an output that waited for its turn is lost. When several parts
    /// of a handler wait at once, all its slot is free until the first of them is done.
    ///
    /// ```no_run
    /// # async fn example(client: mcp_client::Client, job: mcp_client::Job)
    /// # -> Result<mcp_client::Reply, mcp_client::HandlerError> {
    /// let summary = client.task("summarize").child_of(&job).body(job.body.clone()).call();
    /// let reply = job.wait_for(summary).await?;
    /// # Ok(reply) }
    /// ```
    pub async fn wait_for<F: Future>(&self, future: F) -> F::Output {
        let parked = self.line.park();
        let output = future.await;
        parked.end().await;
        output
    }

    /// Tells how far the handler is, from 0 to 1 (what is beyond is cut), with a word for people, at
    /// most 1024 bytes of it. Also a sign of life, as [`refresh`](Self::refresh).
    ///
    /// Returns at once, and can be called as often as there is something to tell: at most 20 a
    /// second are sent, and of those that come faster the latest. A `fraction` that is not a number
    /// is refused: nothing is sent. Does nothing once the attempt is over or being cancelled.
    pub fn progress(&self, fraction: f32, message: impl Into<ByteString>) {
        if fraction.is_nan() {
            tracing::warn!(task = %self.task.id, "progress that is not a number is not sent");
            return;
        }
        let permille = Some((fraction.clamp(0.0, 1.0) * 1000.0).round() as u16);
        self.line.sign(Sign { permille, message: cut(message.into()) });
    }

    /// A sign of life: the task's [attempt time-out](crate::TaskBuilder::attempt_timeout) counts
    /// from now. For handlers that are silent for long otherwise; costs next to nothing, and as
    /// with [`progress`](Self::progress) no more than 20 a second are sent.
    pub fn refresh(&self) {
        self.line.sign(Sign::default());
    }
}

fn cut(message: ByteString) -> ByteString {
    match message.len() {
        0..=MAX_TEXT_BYTES => message,
        _ => message.split_at(message.floor_char_boundary(MAX_TEXT_BYTES)).0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_cut_at_a_character() {
        let long = "ä".repeat(MAX_TEXT_BYTES);
        assert_eq!(cut(long.into()).len(), MAX_TEXT_BYTES);
        let odd = format!("x{}", "ä".repeat(MAX_TEXT_BYTES));
        assert_eq!(cut(odd.into()).len(), MAX_TEXT_BYTES - 1);
        assert_eq!(cut("short".into()), "short");
    }
}
