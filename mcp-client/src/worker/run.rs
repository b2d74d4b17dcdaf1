//! Running a handler: with its cancellation, and with its panics.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use mcp_proto::AttemptId;

use super::attempts::{Completion, Start};
use super::handler::Handler;
use super::job::Job;
use super::serve::Registration;

/// Runs the handler of an attempt, and then, in the same task, what can be started once it ended.
pub(super) async fn run(registration: Arc<Registration>, start: Start) {
    let mut next = Some(start);
    while let Some(Start { id, job }) = next.take() {
        let report = Report { registration: &registration, id, is_done: false };
        let completion = match registration.handler(&job.task.action) {
            Some(handler) => work(handler, job).await,
            None => Completion::Stopped,
        };
        let mut starts = report.complete(completion);
        next = starts.pop();
        registration.start(starts);
        tokio::task::consume_budget().await;
    }
}

/// When this returns, the handler's future is dropped.
async fn work(handler: Arc<dyn Handler>, job: Job) -> Completion {
    let cancellation = job.cancelled();
    // The call itself may panic, too.
    let handling = AssertUnwindSafe(async move { handler.call(job).await }).catch_unwind();
    tokio::select! {
        // First, so that a handler that is done, or that reacts to the end itself, is heard.
        biased;
        result = handling => match result {
            Ok(Ok(reply)) => Completion::Reply(reply),
            Ok(Err(error)) => Completion::Failed(Box::new(error.into_info())),
            Err(panic) => Completion::Panicked(panic_message(&*panic)),
        },
        () = cancellation.wait() => Completion::Stopped,
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
    fn complete(mut self, completion: Completion) -> Vec<Start> {
        self.is_done = true;
        self.registration.complete(self.id, completion)
    }
}

impl Drop for Report<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            let message = "while its future was dropped".to_owned();
            let starts = self.registration.complete(self.id, Completion::Panicked(message));
            self.registration.start(starts);
        }
    }
}
