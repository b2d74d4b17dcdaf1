use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::compact::compact;
use super::read::{DELAY, ttl_expected};
use super::{JSON_CONTENT_TYPE, JsonError, JsonTask, field, is_json};
use crate::limits::MAX_TTL_MS;
use crate::message::{Delivery, Priority};

pub(super) fn task(it: &JsonTask) -> Result<String, JsonError> {
    let payload = payload(it)?;
    if it.ttl_ms == 0 || it.ttl_ms > MAX_TTL_MS {
        return Err(JsonError::Wrong {
            field: field::TTL.to_owned(),
            expected: ttl_expected(),
            found: format!("{} ms", it.ttl_ms),
        });
    }
    if it.delay_ms >= it.ttl_ms {
        return Err(JsonError::Wrong {
            field: field::DELAY.to_owned(),
            expected: DELAY.to_owned(),
            found: format!("{} ms", it.delay_ms),
        });
    }
    let mut json = Vec::with_capacity(256 + payload.get().len());
    // Strings, numbers and maps with string keys, written to memory: nothing of this can fail.
    let written = fields(it, &payload, &mut json);
    debug_assert!(written.is_ok());
    Ok(String::from_utf8(json).unwrap_or_default())
}

fn fields(it: &JsonTask, payload: &RawValue, to: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    let task = &it.task;
    let mut serializer = serde_json::Serializer::new(to);
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry(field::MCP_VERSION, &*it.mcp_version)?;
    map.serialize_entry(field::TASK_ID, &task.id)?;
    map.serialize_entry(field::ACTION, &task.action)?;
    map.serialize_entry(field::PAYLOAD, payload)?;
    map.serialize_entry(field::TTL, &Seconds { ms: it.ttl_ms })?;

    if it.delay_ms > 0 {
        map.serialize_entry(field::DELAY, &Seconds { ms: it.delay_ms })?;
    }
    if task.content_type != JSON_CONTENT_TYPE {
        map.serialize_entry(field::CONTENT_TYPE, &*task.content_type)?;
    }
    if task.priority != Priority::Normal {
        map.serialize_entry(field::PRIORITY, &task.priority)?;
    }
    for (name, text) in [(field::TENANT, &task.tenant), (field::AFFINITY_KEY, &task.affinity_key)] {
        if !text.is_empty() {
            map.serialize_entry(name, &**text)?;
        }
    }
    if !task.required_labels.is_empty() {
        map.serialize_entry(field::REQUIRED_LABELS, &task.required_labels)?;
    }
    if task.delivery != Delivery::Fast {
        map.serialize_entry(field::DELIVERY, &task.delivery)?;
    }
    for (name, flag) in [(field::IDEMPOTENT, task.idempotent), (field::SHADOW, task.shadow)] {
        if flag {
            map.serialize_entry(name, &flag)?;
        }
    }
    if !task.headers.is_empty() {
        map.serialize_entry(field::HEADERS, &task.headers)?;
    }
    if let Some(parent) = &task.parent {
        map.serialize_entry(field::PARENT_TASK_ID, parent)?;
    }
    if task.depth > 0 {
        map.serialize_entry(field::DEPTH, &task.depth)?;
    }
    for (name, text) in
        [(field::TRACEPARENT, &task.traceparent), (field::TRACESTATE, &task.tracestate)]
    {
        if !text.is_empty() {
            map.serialize_entry(name, &**text)?;
        }
    }
    if let Some(retry) = &task.retry {
        map.serialize_entry(field::RETRY, retry)?;
    }
    if task.attempt_timeout_ms > 0 {
        map.serialize_entry(field::ATTEMPT_TIMEOUT_MS, &task.attempt_timeout_ms)?;
    }
    if task.cancel_on_disconnect {
        map.serialize_entry(field::CANCEL_ON_DISCONNECT, &true)?;
    }
    if task.explain {
        map.serialize_entry(field::EXPLAIN, &true)?;
    }
    map.end()
}

/// A time as a number of seconds, without a fraction where there is none.
struct Seconds {
    ms: u64,
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if self.ms.is_multiple_of(1000) {
            to.serialize_u64(self.ms / 1000)
        } else {
            to.serialize_f64(self.ms as f64 / 1000.0)
        }
    }
}

/// The body as a JSON value.
fn payload(it: &JsonTask) -> Result<Box<RawValue>, JsonError> {
    let content_type = &it.task.content_type;
    let wrong = |expected: &str| JsonError::Wrong {
        field: field::PAYLOAD.to_owned(),
        expected: format!("{expected}, as the content type is \"{content_type}\""),
        found: format!("a body of {} bytes that is not", it.body.len()),
    };
    let json = if is_json(content_type) {
        let raw: &RawValue = serde_json::from_slice(&it.body).map_err(|_| wrong("a JSON value"))?;
        compact(raw.get())?
    } else {
        let text = std::str::from_utf8(&it.body).map_err(|_| wrong("UTF-8 text"))?;
        serde_json::to_string(text).map_err(|_| wrong("UTF-8 text"))?
    };
    RawValue::from_string(json).map_err(|_| wrong("a JSON value"))
}
