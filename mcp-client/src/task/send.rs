//! Sending a task, and waiting for its reply. Written out: as async functions, these futures would
//! hold the task several times over, and there is one of them for every task in flight.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::future::BoxFuture;

use super::{Reply, TaskEnd, TaskHandle};
use crate::client::{Client, Draft, Submitted, Ticket};
use crate::error::{CallError, InvalidTask};

/// Sends a task.
pub(super) enum Sending {
    /// The task, or what is wrong with it.
    Start(Client, Result<Draft, InvalidTask>),
    /// The beginning of its input is being read.
    Reading(Client, BoxFuture<'static, Result<Draft, InvalidTask>>),
    InTurn(Client, BoxFuture<'static, Result<Ticket, CallError>>),
    Done,
}

impl Future for Sending {
    type Output = Result<TaskHandle, CallError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Sending::Reading(client, reading) = this {
            let draft = ready!(reading.as_mut().poll(cx));
            *this = Sending::Start(client.clone(), draft);
        }
        let (client, submitted) = match mem::replace(this, Sending::Done) {
            Sending::Start(client, draft) => {
                let submitted = client.session().submit(draft?)?;
                (client, submitted)
            }
            Sending::InTurn(client, turn) => (client, Submitted::InTurn(turn)),
            Sending::Reading(..) | Sending::Done => panic!("polled after it was ready"),
        };
        let ticket = match submitted {
            Submitted::Taken(ticket) => ticket,
            Submitted::InTurn(mut turn) => match turn.as_mut().poll(cx) {
                Poll::Ready(ticket) => ticket?,
                Poll::Pending => {
                    *this = Sending::InTurn(client, turn);
                    return Poll::Pending;
                }
            },
        };
        Poll::Ready(Ok(TaskHandle::new(client, ticket)))
    }
}

/// Sends a task and waits for its reply.
pub(super) enum Calling {
    Sending(Sending),
    Sent(TaskHandle),
}

impl Future for Calling {
    type Output = Result<Reply, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match &mut *self {
                Calling::Sending(sending) => {
                    let handle = ready!(Pin::new(sending).poll(cx))?;
                    *self = Calling::Sent(handle);
                }
                Calling::Sent(handle) => return Pin::new(handle).poll(cx).map(TaskEnd::into_reply),
            }
        }
    }
}
