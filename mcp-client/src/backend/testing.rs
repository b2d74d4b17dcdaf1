//! For the backends' tests.

#[cfg(feature = "http")]
pub(crate) mod server;

use std::time::{Duration, Instant};

use bytes::Bytes;
use mcp_proto::{ActionName, Task, TaskId};

use crate::worker::{Handler, HandlerError, HandlerReply, Job, Line, complete};

/// Long enough for any machine; nothing waits for as long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

pub(super) fn job(body: impl Into<Bytes>) -> Job {
    job_of(body, "")
}

pub(super) fn job_of(body: impl Into<Bytes>, content_type: &str) -> Job {
    let id = TaskId::try_from("t-1").unwrap();
    let mut task = Task::new(id, ActionName::try_from("upper").unwrap());
    task.content_type = content_type.into();
    Job {
        task: Box::new(task),
        body: body.into(),
        deadline: Instant::now() + Duration::from_secs(60),
        attempt: 2,
        line: Line::dead(),
    }
}

/// Waits until this, and nothing else, has been emitted since the last time.
pub(super) async fn until_emitted(line: &Line, text: &str) {
    let mut emitted = Vec::new();
    soon(async {
        while emitted.len() < text.len() {
            emitted.extend_from_slice(&complete(line, HandlerReply::default()).body);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(emitted, text.as_bytes());
}

/// Runs the handler, and puts what it emitted before its reply.
pub(super) async fn call(handler: &impl Handler, job: Job) -> Result<HandlerReply, HandlerError> {
    let line = job.line.clone();
    soon(handler.call(job)).await.map(|reply| complete(&line, reply))
}
