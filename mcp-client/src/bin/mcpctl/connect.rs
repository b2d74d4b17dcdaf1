//! The connection of all commands, and what the broker answers on it.

use std::future::Future;

use mcp_client::{CallError, Client, ClientBuilder, Endpoint, TaskEnd};
use tokio_util::sync::CancellationToken;

use crate::exit::{Exit, Failure};
use crate::global::{Global, cannot_connect};
use crate::report;

/// The name of this program in logs and traces.
pub(crate) const SERVICE_NAME: &str = "mcpctl";

/// Connects, unless interrupted.
pub(crate) async fn client(
    endpoint: Endpoint,
    interrupted: &CancellationToken,
) -> Result<Client, Failure> {
    connect(Client::builder(endpoint.clone()), endpoint, interrupted).await
}

/// The same, of a client whose tasks are recorded as traces, if that is wanted.
pub(crate) async fn recorded_client(
    global: &Global,
    endpoint: Endpoint,
    interrupted: &CancellationToken,
) -> Result<Client, Failure> {
    let mut builder = Client::builder(endpoint.clone());
    if let Some(exporter) = global.exporter(SERVICE_NAME) {
        builder = builder.telemetry(exporter, global.sample_ratio);
    }
    connect(builder, endpoint, interrupted).await
}

async fn connect(
    builder: ClientBuilder,
    endpoint: Endpoint,
    interrupted: &CancellationToken,
) -> Result<Client, Failure> {
    tokio::select! {
        client = builder.connect() => {
            client.map_err(|error| cannot_connect(Some(&endpoint), &error))
        }
        () = interrupted.cancelled() => Err(Failure::cancelled()),
    }
}

/// What the broker answers a question about itself, unless interrupted.
pub(crate) async fn answer<T>(
    asked: impl Future<Output = Result<T, CallError>>,
    interrupted: &CancellationToken,
) -> Result<T, Failure> {
    let answer = tokio::select! {
        answer = asked => answer,
        () = interrupted.cancelled() => return Err(Failure::cancelled()),
    };
    match answer.map_err(end_of) {
        Ok(answer) => Ok(answer),
        Err(Ok(end)) => Err(Failure::new(Exit::of(end.outcome), report::explain(&end, ""))),
        Err(Err(failure)) => Err(failure),
    }
}

/// The end of a task whose call failed, or why it was not sent.
pub(crate) fn end_of(error: CallError) -> Result<TaskEnd, Failure> {
    match error {
        CallError::Failed(end)
        | CallError::Expired(end)
        | CallError::Cancelled(end)
        | CallError::Rejected(end)
        | CallError::Lost(end) => Ok(*end),
        CallError::Connect(error) => Err(cannot_connect(None, &error)),
        error @ CallError::Invalid(_) => Err(Failure::usage(error)),
        // CallError may grow.
        error => Err(Failure::new(Exit::Failed, error)),
    }
}
