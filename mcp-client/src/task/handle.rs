//! A task that was sent, and waiting for its end.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use mcp_proto::{Deliver, ErrorCode, ErrorInfo, Executed, Outcome, TaskId};
use tokio::sync::oneshot;

use super::{Delivered, TaskEnd};
use crate::client::{Acceptance, Client, Ticket, Told, local_end};
use crate::error::CallError;
use crate::record::Sent;

/// A task that was sent. A future of its end; dropped before that, it cancels the task, unless
/// [`detach`](Self::detach)ed. Keeps the client's connection open.
///
/// A *durable* task is not cancelled by that: it goes on, and its outcome can be had by
/// [`Client::result`], by any process of this identity. It is sent again as long as this client is
/// connected, or connects again, and the broker has not [accepted](Self::accepted) it. Awaited to its
/// end, the handle [settles](Client::settle) it, if it was not sent with
/// [`settle_manually`](crate::TaskBuilder::settle_manually).
#[must_use = "a dropped handle cancels its task; detach() it to let it run"]
pub struct TaskHandle {
    id: TaskId,
    client: Client,
    end: End,
    /// Of a durable task.
    acceptance: Option<Acceptance>,
    settles: bool,
    sent: Option<Box<Sent>>,
}

enum End {
    Awaited(oneshot::Receiver<Delivered>),
    /// Instead of ACCEPTED.
    Came(Box<Delivered>),
    Taken,
}

impl TaskHandle {
    pub(super) fn new(client: Client, mut ticket: Ticket) -> Self {
        client.session().feed(&mut ticket);
        let Ticket { id, end, acceptance, settles, sent, .. } = ticket;
        Self { id, client, end: End::Awaited(end), acceptance, settles, sent }
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

    /// Waits until the broker has the task on disk, if it is durable: from then on it outlives the
    /// broker, and this process. `Ok` as well when it has ended ok already. The end is to be awaited
    /// all the same.
    ///
    /// Without a connection this waits for one, as long as the task lives. Cancel-safe.
    ///
    /// # Errors
    /// How it ended, when it was not accepted before that: rejected(DURABLE_UNAVAILABLE) if the broker
    /// has no journal. Of a task that is not durable, ACCEPTED never comes, so this waits for its end.
    ///
    /// # Panics
    /// When the handle was awaited to its end before and there was no ACCEPTED.
    pub async fn accepted(&mut self) -> Result<(), CallError> {
        let accepted = async {
            match &self.acceptance {
                Some(acceptance) => acceptance.wait().await,
                None => std::future::pending().await,
            }
        };
        if let End::Awaited(end) = &mut self.end {
            tokio::select! {
                biased;
                () = accepted => return Ok(()),
                result = end => {
                    let end = result.unwrap_or_else(|_| unknown_end(&self.id));
                    self.end = End::Came(Box::new(end));
                }
            }
        }
        match &self.end {
            _ if self.is_accepted() => Ok(()),
            End::Came(end) => TaskEnd::from(Delivered::clone(end)).into_reply().map(drop),
            End::Awaited(_) | End::Taken => panic!("TaskHandle asked after it was ready"),
        }
    }

    /// Whether a broker keeps this outcome of a durable task.
    fn is_kept(&self, deliver: &Deliver) -> bool {
        match deliver.outcome {
            Outcome::Ok | Outcome::Failed | Outcome::Expired | Outcome::Cancelled => true,
            // Refused, it has none; and what has its id may be another task's.
            Outcome::Rejected => {
                let code = deliver.error.as_ref().map(|error| error.code);
                self.is_accepted() && code != Some(ErrorCode::DuplicateMismatch)
            }
            Outcome::Lost => false,
        }
    }

    fn is_accepted(&self) -> bool {
        self.acceptance.as_ref().is_some_and(Acceptance::is_set)
    }

    /// Lets the task run without anybody waiting for it.
    pub fn detach(mut self) {
        self.end = End::Taken;
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
        let delivered = match &mut this.end {
            End::Awaited(end) => {
                let result = std::task::ready!(Pin::new(end).poll(cx));
                this.end = End::Taken;
                result.unwrap_or_else(|_| unknown_end(&this.id))
            }
            End::Came(_) | End::Taken => match std::mem::replace(&mut this.end, End::Taken) {
                End::Came(delivered) => *delivered,
                End::Awaited(_) | End::Taken => panic!("TaskHandle polled after it was ready"),
            },
        };
        if this.settles && this.is_kept(&delivered.deliver) {
            this.client.session().settle(&this.id);
        }
        if let Some(sent) = this.sent.take() {
            sent.ended(Some(&delivered.deliver));
        }
        Poll::Ready(delivered.into())
    }
}

/// The I/O task was dropped with its runtime.
fn unknown_end(id: &TaskId) -> Delivered {
    let error = ErrorInfo::new(ErrorCode::BrokerLost, "the client's runtime was shut down");
    local_end(id.clone(), Outcome::Lost, Executed::Maybe, error)
}

impl Drop for TaskHandle {
    fn drop(&mut self) {
        if let End::Awaited(_) = self.end {
            self.client.session().abandon(&self.id);
        }
        if let Some(sent) = self.sent.take() {
            sent.ended(None);
        }
    }
}

impl fmt::Debug for TaskHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskHandle").field("id", &self.id).finish_non_exhaustive()
    }
}
