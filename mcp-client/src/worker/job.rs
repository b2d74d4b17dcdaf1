//! One attempt at a task, as its handler sees it.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mcp_proto::Task;
use tokio::sync::Notify;

/// One attempt at a task, as its handler sees it.
#[derive(Debug, Clone)]
pub struct Job {
    /// The task. Boxed: it is large, and a job passes through several hands.
    pub task: Box<Task>,
    /// Its input.
    pub body: Bytes,
    /// When its time to live runs out; the handler's future is dropped then.
    pub deadline: Instant,
    /// 1 for the task's first attempt.
    pub attempt: u32,
    pub(crate) cancellation: Cancellation,
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
