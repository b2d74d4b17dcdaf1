//! A task that was sent, and waiting for its end.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use mcp_proto::{ErrorCode, ErrorInfo, Executed, Outcome, TaskId};
use tokio::sync::oneshot;

use super::{Delivered, TaskEnd};
use crate::client::{Client, Ticket, Told, local_end};

/// A task that was sent. A future of its end; dropped before that, it cancels the task, unless
/// [`detach`](Self::detach)ed. Keeps the client's connection open.
#[must_use = "a dropped handle cancels its task; detach() it to let it run"]
pub struct TaskHandle {
    id: TaskId,
    client: Client,
    /// None once the end was taken.
    end: Option<oneshot::Receiver<Delivered>>,
}

impl TaskHandle {
    pub(super) fn new(client: Client, mut ticket: Ticket) -> Self {
        client.session().feed(&mut ticket);
        Self { id: ticket.id, client, end: Some(ticket.end) }
    }

    /// The task's id.
    pub fn id(&self) -> &TaskId {
        &self.id
    }

    /// Asks the broker to end the task. Its end is still to be waited for: `cancelled`, or what
    /// had been decided before. Without a connection it ends `cancelled` at once.
    pub fn cancel(&self) {
        self.client.session().cancel(&self.id);
    }

    /// Says what was read of a result in parts.
    pub(super) fn credit(&self, told: Told) {
        self.client.session().credit(&self.id, told);
    }

    /// Lets the task run without anybody waiting for it.
    pub fn detach(mut self) {
        self.end = None;
    }

    /// Waits for the end of the task; the same as awaiting the handle. The future can be dropped
    /// and this be called again, until one was ready.
    pub async fn outcome(&mut self) -> TaskEnd {
        self.await
    }
}

impl Future for TaskHandle {
    type Output = TaskEnd;

    /// Panics when polled again after it was ready.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TaskEnd> {
        let this = self.get_mut();
        let Some(end) = &mut this.end else { panic!("TaskHandle polled after it was ready") };
        let result = std::task::ready!(Pin::new(end).poll(cx));
        this.end = None;
        Poll::Ready(result.unwrap_or_else(|_| unknown_end(&this.id)).into())
    }
}

/// The I/O task was dropped with its runtime.
fn unknown_end(id: &TaskId) -> Delivered {
    let error = ErrorInfo::new(ErrorCode::BrokerLost, "the client's runtime was shut down");
    local_end(id.clone(), Outcome::Lost, Executed::Maybe, error)
}

impl Drop for TaskHandle {
    fn drop(&mut self) {
        if self.end.is_some() {
            self.client.session().abandon(&self.id);
        }
    }
}

impl fmt::Debug for TaskHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskHandle").field("id", &self.id).finish_non_exhaustive()
    }
}
