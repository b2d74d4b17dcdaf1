//! The connection of the commands that send tasks.

use mcp_client::{CallError, Client, Endpoint, TaskEnd};
use tokio_util::sync::CancellationToken;

use crate::exit::{Exit, Failure};
use crate::global::cannot_connect;

/// Connects, unless interrupted.
pub(crate) async fn client(
    endpoint: Endpoint,
    interrupted: &CancellationToken,
) -> Result<Client, Failure> {
    tokio::select! {
        client = Client::builder(endpoint.clone()).connect() => {
            client.map_err(|error| cannot_connect(Some(&endpoint), &error))
        }
        () = interrupted.cancelled() => Err(Failure::cancelled()),
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
