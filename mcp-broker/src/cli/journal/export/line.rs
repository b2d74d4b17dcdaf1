//! Records as lines of JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mcp_broker::broker::{AcceptedTask, DeadLetter, EndedTask, Record, SettledTask, TaskName};
use mcp_proto::json::JsonTask;
use mcp_proto::limits::MAX_TTL_MS;
use mcp_proto::{Bytes, ContextTrace, EncodedTask, ErrorInfo, Executed, Outcome, Payload, TaskId};
use serde::Serialize;

use crate::cli::journal::State;

/// A record on one line, and whether `mcpctl send` reads it if it is a task.
pub(super) fn of(record: &Record, name: &TaskName, now: u64) -> Result<(String, bool), io::Error> {
    match record {
        Record::Accepted(_, task) => accepted(name, task, now),
        Record::Dead(_, letter) => dead(name, letter),
        Record::Ended(_, ended) => Ok((ended_line(name, ended)?, true)),
        Record::Settled(_, settled) => Ok((settled_line(name, settled)?, true)),
        Record::Forgotten(_) | Record::DeadForgotten(_) => Ok((String::new(), true)),
    }
}

/// What a line says of a pending task besides its JSON form.
#[derive(Serialize)]
struct Pending<'a> {
    #[serde(rename = "x-state")]
    state: State,
    #[serde(rename = "x-identity")]
    identity: &'a str,
    #[serde(rename = "x-received_wall_ms")]
    received_wall_ms: u64,
    #[serde(rename = "x-start_wall_ms")]
    start_wall_ms: u64,
    #[serde(rename = "x-deadline_wall_ms")]
    deadline_wall_ms: u64,
}

fn accepted(name: &TaskName, task: &AcceptedTask, now: u64) -> io::Result<(String, bool)> {
    let AcceptedTask { payload, received_wall_ms, start_wall_ms, deadline_wall_ms } = task;
    let more = Pending {
        state: State::Pending,
        identity: name.identity.as_str(),
        received_wall_ms: *received_wall_ms,
        start_wall_ms: *start_wall_ms,
        deadline_wall_ms: *deadline_wall_ms,
    };
    let ttl_ms = deadline_wall_ms.saturating_sub(now);
    task_line(name, payload, ttl_ms, start_wall_ms.saturating_sub(now), &more)
}

/// What a line says of a dead letter besides its task's JSON form.
#[derive(Serialize)]
struct Dead<'a> {
    #[serde(rename = "x-state")]
    state: State,
    #[serde(rename = "x-identity")]
    identity: &'a str,
    #[serde(rename = "x-died_wall_ms")]
    died_wall_ms: u64,
    #[serde(rename = "x-attempts")]
    attempts: u32,
    #[serde(rename = "x-outcome")]
    outcome: Outcome,
    #[serde(rename = "x-executed")]
    executed: Executed,
    #[serde(rename = "x-error")]
    error: Option<&'a ErrorInfo>,
    #[serde(rename = "x-context_trace")]
    context_trace: Cow<'a, ContextTrace>,
}

fn dead(name: &TaskName, letter: &DeadLetter) -> io::Result<(String, bool)> {
    let DeadLetter { payload, deliver, ttl_ms, attempts, died_wall_ms } = letter;
    let more = Dead {
        state: State::Dead,
        identity: name.identity.as_str(),
        died_wall_ms: *died_wall_ms,
        attempts: *attempts,
        outcome: deliver.outcome,
        executed: deliver.executed,
        error: deliver.error.as_deref(),
        context_trace: deliver.trace.decode(),
    };
    task_line(name, payload, *ttl_ms, 0, &more)
}

/// A task that has no JSON form.
#[derive(Serialize)]
struct Opaque<'a> {
    task_id: &'a TaskId,
    action: Option<String>,
    #[serde(rename = "x-ttl_ms")]
    ttl_ms: u64,
    #[serde(rename = "x-task_base64")]
    task: String,
    #[serde(rename = "x-payload_base64")]
    payload: String,
}

fn task_line(
    name: &TaskName,
    payload: &Payload,
    ttl_ms: u64,
    delay_ms: u64,
    more: &impl Serialize,
) -> io::Result<(String, bool)> {
    let body = Bytes::copy_from_slice(payload.body());
    let task = EncodedTask(Bytes::copy_from_slice(payload.task())).decode().ok();
    let json = task.and_then(|task| {
        // One whose time to live is over expires at once. A clock may have been set back.
        let ttl_ms = ttl_ms.clamp(1, MAX_TTL_MS);
        let delay_ms = delay_ms.min(ttl_ms - 1);
        JsonTask { delay_ms, ..JsonTask::new(task, body, ttl_ms) }.to_json().ok()
    });
    let has_form = json.is_some();
    let line = match json {
        Some(json) => json,
        None => serde_json::to_string(&Opaque {
            task_id: &name.task_id,
            action: payload.head().ok().map(|head| head.action.to_string()),
            ttl_ms,
            task: STANDARD.encode(payload.task()),
            payload: STANDARD.encode(payload.body()),
        })?,
    };
    Ok((joined(&line, &serde_json::to_string(more)?), has_form))
}

/// Two objects as one. As text, so that a payload's numbers stay as they were written.
fn joined(one: &str, other: &str) -> String {
    let (one, other) = (one.strip_suffix('}'), other.strip_prefix('{'));
    format!("{},{}", one.unwrap_or_default(), other.unwrap_or_default())
}

/// The outcome of a task.
#[derive(Serialize)]
struct Ended<'a> {
    #[serde(rename = "x-state")]
    state: State,
    #[serde(rename = "x-identity")]
    identity: &'a str,
    #[serde(rename = "x-ended_wall_ms")]
    ended_wall_ms: u64,
    task_id: &'a TaskId,
    outcome: Outcome,
    executed: Executed,
    content_type: &'a str,
    /// If it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<&'a BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback: Option<&'a str>,
    error: Option<&'a ErrorInfo>,
    context_trace: Cow<'a, ContextTrace>,
}

fn ended_line(name: &TaskName, ended: &EndedTask) -> io::Result<String> {
    let EndedTask { deliver, body, ended_wall_ms, .. } = ended;
    let text = str::from_utf8(body).ok();
    Ok(serde_json::to_string(&Ended {
        state: State::Ended,
        identity: name.identity.as_str(),
        ended_wall_ms: *ended_wall_ms,
        task_id: &name.task_id,
        outcome: deliver.outcome,
        executed: deliver.executed,
        content_type: &deliver.content_type,
        body: text,
        body_base64: text.is_none().then(|| STANDARD.encode(body)),
        headers: deliver.headers.as_deref(),
        fallback: deliver.fallback.as_deref(),
        error: deliver.error.as_deref(),
        context_trace: deliver.trace.decode(),
    })?)
}

/// A task of which only the id is kept.
#[derive(Serialize)]
struct Settled<'a> {
    #[serde(rename = "x-state")]
    state: State,
    #[serde(rename = "x-identity")]
    identity: &'a str,
    #[serde(rename = "x-settled_wall_ms")]
    settled_wall_ms: u64,
    task_id: &'a TaskId,
    executed: Executed,
}

fn settled_line(name: &TaskName, settled: &SettledTask) -> io::Result<String> {
    Ok(serde_json::to_string(&Settled {
        state: State::Settled,
        identity: name.identity.as_str(),
        settled_wall_ms: settled.settled_wall_ms,
        task_id: &name.task_id,
        executed: settled.executed,
    })?)
}
