//! One attempt at a task, as its handler sees it.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mcp_proto::{AttemptId, Task};
use tokio::sync::Notify;

use super::serve::Registration;
use crate::conversation::{Conversation, InvalidConversation};

/// One attempt at a task, as its handler sees it.
#[derive(Debug, Clone)]
pub struct Job {
    /// The task.
    pub task: Task,
    /// Its input.
    pub body: Bytes,
    /// When its time to live runs out; the handler's future is dropped then.
    pub deadline: Instant,
    /// 1 for the task's first attempt.
    pub attempt: u32,
    pub(crate) cancellation: Cancellation,
    pub(crate) place: Place,
}

impl Job {
    /// What remains of the time to live.
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Tells when the attempt is cancelled or its time to live has run out. The handler's own
    /// future is dropped then; this is for what it started elsewhere, such as threads.
    pub fn cancelled(&self) -> Cancellation {
        self.cancellation.clone()
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
        let parked = self.place.park();
        let output = future.await;
        parked.end().await;
        output
    }
}

/// Where an attempt runs.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    registration: Weak<Registration>,
    id: AttemptId,
}

impl Place {
    pub(super) fn new(registration: &Arc<Registration>, id: AttemptId) -> Self {
        Self { registration: Arc::downgrade(registration), id }
    }

    /// Of a job that no worker runs.
    #[cfg(test)]
    pub(crate) fn nowhere() -> Self {
        Self { registration: Weak::new(), id: AttemptId(0) }
    }

    fn park(&self) -> Parked<'_> {
        if let Some(registration) = self.registration.upgrade() {
            registration.park(self.id);
        }
        Parked { place: self, is_over: false }
    }
}

/// Takes the slot back when dropped.
struct Parked<'a> {
    place: &'a Place,
    is_over: bool,
}

impl Parked<'_> {
    /// Waits for a slot.
    async fn end(mut self) {
        // Whoever waits does not keep a registration that has ended.
        let unpark = || self.place.registration.upgrade()?.unpark(self.place.id);
        while let Some(turn) = unpark() {
            turn.cancelled().await;
        }
        self.is_over = true;
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        if !self.is_over
            && let Some(registration) = self.place.registration.upgrade()
        {
            registration.reclaim(self.place.id);
        }
    }
}

/// Tells when an attempt is over.
#[derive(Debug, Clone, Default)]
pub struct Cancellation(Arc<Signal>);

/// One is made for every attempt, and hardly any is used: a `CancellationToken`, which can have
/// children, costs several times as much.
#[derive(Debug, Default)]
struct Signal {
    is_cancelled: AtomicBool,
    cancelled: Notify,
}

impl Cancellation {
    /// Whether the attempt is over.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled.load(Ordering::Acquire)
    }

    /// Waits until the attempt is over.
    pub async fn wait(&self) {
        let mut cancelled = pin!(self.0.cancelled.notified());
        // Listens before it looks, so that nothing is missed in between.
        cancelled.as_mut().enable();
        if !self.is_cancelled() {
            cancelled.await;
        }
    }

    pub(super) fn cancel(&self) {
        self.0.is_cancelled.store(true, Ordering::Release);
        self.0.cancelled.notify_waiters();
    }
}
