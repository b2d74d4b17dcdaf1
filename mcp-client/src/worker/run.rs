//! Running a handler: with its cancellation, and with its panics.

use std::any::Any;
use std::future::ready;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_util::FutureExt;
use mcp_proto::AttemptId;

use super::attempts::{Completion, Start};
use super::handler::{HandlerError, HandlerFuture, HandlerReply};
use super::inlet::Inlet;
use super::input::unread;
use super::line::Line;
use super::output::{complete, is_to_spill, spill};
use super::serve::Registration;

/// Runs the handler of an attempt, and then, in the same task, what can be started once it ended.
pub(super) async fn run(registration: Arc<Registration>, start: Start) {
    let mut next = Some(start);
    while let Some(Start { id, handler, job }) = next.take() {
        let report = Report { registration: &registration, id, is_done: false };
        let line = job.line.clone();
        begins(&line);
        // The call itself may panic, too.
        let completion = work(async move { handler.call(job).await }, line).await;
        next = report.complete(completion);
        tokio::task::consume_budget().await;
    }
}

/// A handler that was not done with its first poll.
pub(super) struct Begun {
    future: HandlerFuture,
    line: Line,
}

/// Calls the handler and polls it once. A task that takes it over polls it again at once, so nobody
/// needs to be woken before.
pub(super) fn begin(start: Start) -> Result<Completion, Begun> {
    let Start { handler, job, .. } = start;
    let line = job.line.clone();
    begins(&line);
    let first_poll = || {
        let mut future = handler.call(job);
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => Ok(result),
            Poll::Pending => Err(future),
        }
    };
    match catch_unwind(AssertUnwindSafe(first_poll)) {
        Ok(Ok(Ok(reply))) if is_to_spill(&line, &reply) => {
            Err(Begun { future: Box::pin(ready(Ok(reply))), line })
        }
        Ok(Err(future)) => Err(Begun { future, line }),
        Ok(Ok(result)) => Ok(recorded(completion(Ok(result), &line), &line)),
        Err(panic) => Ok(recorded(completion(Err(panic), &line), &line)),
    }
}

/// Goes on with a handler, and then as [`run`].
pub(super) async fn resume(registration: Arc<Registration>, id: AttemptId, begun: Begun) {
    let report = Report { registration: &registration, id, is_done: false };
    let completion = work(begun.future, begun.line).await;
    if let Some(next) = report.complete(completion) {
        run(registration.clone(), next).await;
    }
}

/// When this returns, the handler's future is dropped.
async fn work(
    handling: impl Future<Output = Result<HandlerReply, HandlerError>>,
    line: Line,
) -> Completion {
    let handled = async { Ok(spill(&line, handling.await?).await?) };
    let completion = tokio::select! {
        // First, so that a handler that is done, or that reacts to the end itself, is heard.
        biased;
        result = AssertUnwindSafe(handled).catch_unwind() => completion(result, &line),
        () = line.ended() => Completion::Stopped,
    };
    recorded(completion, &line)
}

fn begins(line: &Line) {
    if let Some(processing) = line.processing() {
        processing.begins();
    }
}

fn recorded(completion: Completion, line: &Line) -> Completion {
    if let Some(processing) = line.processing() {
        processing.ended(match &completion {
            Completion::Reply(_) => None,
            Completion::Failed(error) => Some(error.info().code.name()),
            Completion::Panicked(_) => Some("panicked"),
            Completion::Stopped => Some("stopped"),
        });
    }
    completion
}

fn completion(
    result: Result<Result<HandlerReply, HandlerError>, Box<dyn Any + Send>>,
    line: &Line,
) -> Completion {
    match result {
        Ok(Ok(_)) if line.inlet().is_some_and(Inlet::is_unwanted) => {
            Completion::Failed(Box::new(unread()))
        }
        Ok(Ok(reply)) => Completion::Reply(complete(line, reply)),
        Ok(Err(error)) => Completion::Failed(Box::new(error)),
        Err(panic) => Completion::Panicked(panic_message(&*panic)),
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
        .to_owned()
}

/// Sees to it that every attempt that was started is completed, whatever happens to its task.
struct Report<'a> {
    registration: &'a Arc<Registration>,
    id: AttemptId,
    is_done: bool,
}

impl Report<'_> {
    /// Returns what the same task can do next.
    fn complete(mut self, completion: Completion) -> Option<Start> {
        self.is_done = true;
        self.registration.completed(self.id, completion)
    }
}

impl Drop for Report<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            let message = "while its future was dropped".to_owned();
            let next = self.registration.completed(self.id, Completion::Panicked(message));
            self.registration.spawn(next);
        }
    }
}
