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
pub(super) struct Sending {
    client: Client,
    state: State,
}

enum State {
    /// The task, or what is wrong with it.
    Start(Result<Draft, InvalidTask>),
    InTurn(BoxFuture<'static, Result<Ticket, CallError>>),
    Done,
}

impl Sending {
    pub(super) fn new(client: Client, draft: Result<Draft, InvalidTask>) -> Self {
        Self { client, state: State::Start(draft) }
    }
}

impl Future for Sending {
    type Output = Result<TaskHandle, CallError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { client, state } = self.get_mut();
        let submitted = match mem::replace(state, State::Done) {
            State::Start(draft) => client.session().submit(draft?)?,
            State::InTurn(turn) => Submitted::InTurn(turn),
            State::Done => panic!("polled after it was ready"),
        };
        let ticket = match submitted {
            Submitted::Taken(ticket) => ticket,
            Submitted::InTurn(mut turn) => match turn.as_mut().poll(cx) {
                Poll::Ready(ticket) => ticket?,
                Poll::Pending => {
                    *state = State::InTurn(turn);
                    return Poll::Pending;
                }
            },
        };
        Poll::Ready(Ok(TaskHandle::new(client.clone(), ticket)))
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
