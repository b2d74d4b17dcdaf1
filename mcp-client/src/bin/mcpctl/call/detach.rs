//! A durable task that nobody here waits for.

use std::io::{self, Write};

use mcp_client::{CallError, TaskBuilder, TaskId};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::connect;
use crate::exit::{Exit, Failure};
use crate::global::Output;
use crate::report;

#[derive(Serialize)]
struct Accepted<'a> {
    task_id: &'a TaskId,
}

/// Sends a task, and prints its id once the broker has it on disk. `interrupted` cancels it.
pub(super) async fn send(
    task: TaskBuilder,
    output: Output,
    worker: &str,
    interrupted: &CancellationToken,
) -> Result<Exit, Failure> {
    let sent = tokio::select! {
        sent = task.send() => sent,
        () = interrupted.cancelled() => return Err(Failure::cancelled()),
    };
    let mut handle = match sent {
        Ok(handle) => handle,
        Err(error) => return refused(error, worker),
    };
    let accepted = tokio::select! {
        accepted = handle.accepted() => accepted,
        () = interrupted.cancelled() => {
            handle.cancel();
            handle.await;
            return Err(Failure::cancelled());
        }
    };
    if let Err(error) = accepted {
        return refused(error, worker);
    }
    let task_id = handle.id();
    let mut stdout = io::stdout().lock();
    match output {
        Output::Table => writeln!(stdout, "{task_id}")?,
        Output::Json => {
            let line = serde_json::to_string(&Accepted { task_id }).map_err(io::Error::from)?;
            writeln!(stdout, "{line}")?;
        }
    }
    stdout.flush()?;
    Ok(Exit::Ok)
}

/// It ended, or was not sent, before it was accepted.
fn refused(error: CallError, worker: &str) -> Result<Exit, Failure> {
    let end = connect::end_of(error)?;
    Err(Failure::new(Exit::of(end.outcome), report::explain(&end, worker)))
}
