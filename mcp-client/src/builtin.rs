//! The broker's own actions: asked by a task, answered in JSON.

use std::time::Duration;

use mcp_proto::{ErrorCode, ErrorInfo, Outcome, TaskId};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::Client;
use crate::error::CallError;
use crate::task::TaskEnd;

/// Names a task of any identity.
#[derive(Serialize)]
pub(crate) struct Named<'a> {
    pub(crate) task_id: &'a TaskId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<&'a str>,
}

/// Asks a built-in action. An answer that can't be read is a failure with INVALID_MESSAGE.
pub(crate) async fn ask<T: DeserializeOwned>(
    client: &Client,
    action: &str,
    arguments: &impl Serialize,
) -> Result<T, CallError> {
    // Structs of plain fields can't fail.
    let arguments = serde_json::to_vec(arguments).unwrap_or_default();
    let task = client
        .task(action)
        .body(arguments)
        .content_type("application/json")
        .idempotent(true)
        .ttl(Duration::from_secs(10));
    let end = task.send().await?.await;
    if end.outcome != Outcome::Ok {
        return Err(end.into());
    }
    serde_json::from_slice(&end.body).map_err(|error| {
        let message = format!("the broker's answer to {action} can't be read: {error}");
        let error = ErrorInfo::new(ErrorCode::InvalidMessage, message);
        let error = Some(Box::new(error.task(end.task_id.clone())));
        TaskEnd { outcome: Outcome::Failed, error, ..end }.into()
    })
}
