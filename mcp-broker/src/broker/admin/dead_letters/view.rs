//! What is told of a dead letter: in a list, and, with its input, of one alone.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use mcp_proto::{
    ActionRef, ContextTrace, EncodedTask, ErrorCode, ErrorInfo, Executed, Labels, Outcome,
    Priority, TaskId,
};
use serde::Serialize;

use super::json;
use crate::broker::Now;
use crate::broker::durable::KeptLetter;

/// For the names of the fields that tell the input.
const BODY_OVERHEAD_BYTES: usize = 64;

/// A dead letter in a list.
#[derive(Serialize)]
pub(super) struct Row<'a> {
    /// The newer, the higher.
    number: u64,
    task_id: &'a TaskId,
    identity: &'a str,
    action: &'a str,
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<ErrorCode>,
    attempts: u32,
    /// Since it ended.
    age_ms: u64,
    body_bytes: usize,
}

impl Row<'_> {
    pub(super) fn action(&self) -> &str {
        self.action
    }
}

/// All that is told of one, but its input.
#[derive(Serialize)]
struct View<'a> {
    #[serde(flatten)]
    row: Row<'a>,
    died_wall_ms: u64,
    ttl_ms: u64,
    priority: Priority,
    required_labels: &'a Labels,
    content_type: &'a str,
    headers: &'a BTreeMap<String, String>,
    executed: Executed,
    error: Option<&'a ErrorInfo>,
    context_trace: Cow<'a, ContextTrace>,
}

/// An input, or as much from its beginning as there is room for.
#[derive(Serialize)]
struct Body<'a> {
    /// If it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
    body_cut: bool,
}

pub(super) fn row(now: Now, number: u64, kept: &KeptLetter) -> Option<Row<'_>> {
    let KeptLetter { name, letter, .. } = kept;
    let action: ActionRef<'_> = letter.payload.head().ok()?.action;
    Some(Row {
        number,
        task_id: &name.task_id,
        identity: name.identity.as_str(),
        action: action.as_str(),
        outcome: letter.deliver.outcome,
        error_code: letter.deliver.error.as_ref().map(|error| error.code),
        attempts: letter.attempts,
        age_ms: now.wall_ms.saturating_sub(letter.died_wall_ms),
        body_bytes: letter.payload.body().len(),
    })
}

/// One object within so many bytes.
pub(super) fn whole(
    now: Now,
    number: u64,
    kept: &KeptLetter,
    max_bytes: usize,
) -> Result<Vec<u8>, ErrorInfo> {
    let letter = &kept.letter;
    let task = EncodedTask(Bytes::copy_from_slice(letter.payload.task())).decode();
    let (Ok(task), Some(row)) = (task, row(now, number, kept)) else {
        let message = "what is kept of the task can't be read";
        return Err(ErrorInfo::new(ErrorCode::Internal, message));
    };
    let mut told = json(&View {
        row,
        died_wall_ms: letter.died_wall_ms,
        ttl_ms: letter.ttl_ms,
        priority: task.priority,
        required_labels: &task.required_labels,
        content_type: &task.content_type,
        headers: &task.headers,
        executed: letter.deliver.executed,
        error: letter.deliver.error.as_deref(),
        context_trace: letter.deliver.trace.decode(),
    })?;
    let room_bytes = max_bytes.saturating_sub(told.len() + BODY_OVERHEAD_BYTES);
    let body = within(letter.payload.body(), room_bytes)?;
    // Two objects made one.
    told.pop();
    told.push(b',');
    told.extend_from_slice(&body[1..]);
    Ok(told)
}

/// The input as an object of so many bytes and its overhead.
fn within(input: &[u8], room_bytes: usize) -> Result<Vec<u8>, ErrorInfo> {
    let text = str::from_utf8(input).ok();
    let mut bytes = input.len();
    loop {
        let cut = text.map(|text| &text[..text.floor_char_boundary(bytes)]);
        let told = json(&Body {
            body: cut,
            body_base64: cut.is_none().then(|| STANDARD.encode(&input[..bytes])),
            body_cut: bytes < input.len(),
        })?;
        if bytes == 0 || told.len() <= room_bytes + BODY_OVERHEAD_BYTES {
            return Ok(told);
        }
        // In proportion: a few rounds, however much its text is escaped.
        let target = (bytes as u128 * room_bytes as u128 / told.len() as u128) as usize;
        bytes = target.min(bytes - 1);
    }
}
