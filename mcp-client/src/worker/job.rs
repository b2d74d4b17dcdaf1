//! One attempt at a task, as its handler sees it.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use mcp_proto::{AttemptId, Task};
use tokio::sync::Notify;

use super::serve::Registration;

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

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.cancellation.0
    }
}

/// Tells when an attempt is over.
#[derive(Debug, Clone, Default)]
pub struct Cancellation(Arc<Shared>);

/// What an attempt's handler shares with its worker. One is made for every attempt, and hardly any
/// is used: a `CancellationToken`, which can have children, costs several times as much.
#[derive(Debug, Default)]
pub(super) struct Shared {
    is_over: AtomicBool,
    /// The attempt is over, or there is more credit.
    pub(super) changed: Notify,
    /// Parts of the result, for a client that takes none.
    pub(super) collected: Mutex<BytesMut>,
    /// For one that does.
    pub(super) sender: Option<Sender>,
}

/// What sends the parts of a result.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) registration: Weak<Registration>,
    pub(super) attempt_id: AttemptId,
}

impl Cancellation {
    /// Of an attempt whose client takes the result in parts.
    pub(super) fn of_streamed(registration: &Arc<Registration>, attempt_id: AttemptId) -> Self {
        let registration = Arc::downgrade(registration);
        let sender = Some(Sender { registration, attempt_id });
        Self(Arc::new(Shared { sender, ..Shared::default() }))
    }

    /// Whether the attempt is over.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_over.load(Ordering::Acquire)
    }

    /// Waits until the attempt is over.
    pub async fn wait(&self) {
        loop {
            let mut changed = pin!(self.0.changed.notified());
            // Listens before it looks, so that nothing is missed in between.
            changed.as_mut().enable();
            if self.is_cancelled() {
                return;
            }
            changed.await;
        }
    }

    pub(super) fn cancel(&self) {
        self.0.is_over.store(true, Ordering::Release);
        self.notify();
    }

    /// There is more credit.
    pub(super) fn notify(&self) {
        self.0.changed.notify_waiters();
    }
}
