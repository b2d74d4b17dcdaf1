use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::compact::compact;
use super::{JSON_CONTENT_TYPE, JsonError, JsonTask, MAX_JSON_BYTES, field, is_json};
use crate::id::{ActionName, InvalidId, TaskId};
use crate::limits::{
    MAX_ACTION_BYTES, MAX_DEPTH, MAX_HEADERS, MAX_LABELS, MAX_RETRY_WAIT_MS, MAX_TASK_BYTES,
    MAX_TASK_ID_BYTES, MAX_TEXT_BYTES, MAX_TTL_MS,
};
use crate::message::{Delivery, Labels, Priority, Retry, Task};

/// Longest value that an error shows, in characters.
const MAX_SHOWN_CHARS: usize = 40;

pub(super) fn task(json: &[u8]) -> Result<JsonTask, JsonError> {
    if json.len() > MAX_JSON_BYTES {
        return Err(JsonError::TooLong { bytes: json.len(), max: MAX_JSON_BYTES });
    }
    let json = std::str::from_utf8(json).map_err(|error| not_utf8(json, error.valid_up_to()))?;
    let entries: Entries<'_> =
        serde_json::from_str(json).map_err(|error| malformed(json, &error))?;
    let fields = Fields::new(entries)?;

    let mcp_version = version(fields.required(field::MCP_VERSION, VERSION)?)?;
    let id = fields.required(field::TASK_ID, &task_id_expected())?;
    let id = id.id::<TaskId>(&task_id_expected())?;
    let action = fields.required(field::ACTION, &action_expected())?;
    let action = action.id::<ActionName>(&action_expected())?;
    let payload = fields.required(field::PAYLOAD, "any JSON value")?;
    let ttl_ms = ttl_ms(fields.required(field::TTL, &ttl_expected())?)?;
    let delay_ms = fields.optional(field::DELAY).map_or(Ok(0), |value| delay_ms(value, ttl_ms))?;

    let content_type = match fields.optional(field::CONTENT_TYPE) {
        Some(value) => value.text()?,
        None => ByteString::from_static(JSON_CONTENT_TYPE),
    };
    let body = body(payload, &content_type)?;
    let text = |name| fields.optional(name).map_or(Ok(ByteString::new()), |value| value.text());
    let flag = |name| fields.optional(name).map_or(Ok(false), |value| value.flag());
    let parent = fields.optional(field::PARENT_TASK_ID);

    let task = Task {
        content_type,
        priority: match fields.optional(field::PRIORITY) {
            Some(value) => value.one_of(Priority::ALL, Priority::name)?,
            None => Priority::Normal,
        },
        tenant: text(field::TENANT)?,
        affinity_key: text(field::AFFINITY_KEY)?,
        required_labels: Labels(fields.texts(field::REQUIRED_LABELS, MAX_LABELS)?),
        delivery: match fields.optional(field::DELIVERY) {
            Some(value) => value.one_of(Delivery::ALL, Delivery::name)?,
            None => Delivery::Fast,
        },
        idempotent: flag(field::IDEMPOTENT)?,
        shadow: flag(field::SHADOW)?,
        headers: fields.texts(field::HEADERS, MAX_HEADERS)?,
        parent: parent.map(|value| value.id(&task_id_expected())).transpose()?,
        depth: fields
            .optional(field::DEPTH)
            .map_or(Ok(0), |value| value.integer(MAX_DEPTH.into()).map(|depth| depth as u8))?,
        traceparent: text(field::TRACEPARENT)?,
        tracestate: text(field::TRACESTATE)?,
        retry: fields.optional(field::RETRY).map(|value| value.retry()).transpose()?,
        attempt_timeout_ms: fields
            .optional(field::ATTEMPT_TIMEOUT_MS)
            .map_or(Ok(0), |value| value.integer(MAX_RETRY_WAIT_MS))?,
        cancel_on_disconnect: flag(field::CANCEL_ON_DISCONNECT)?,
        explain: flag(field::EXPLAIN)?,
        ..Task::new(id, action)
    };
    let bytes = task.encode().0.len();
    if bytes > MAX_TASK_BYTES {
        return Err(JsonError::TaskTooLong { bytes, max: MAX_TASK_BYTES });
    }
    Ok(JsonTask { mcp_version, task, body, ttl_ms, delay_ms })
}

const VERSION: &str = "a string MAJOR.MINOR such as \"1.0\"";

fn task_id_expected() -> String {
    format!("a string of 1 to {MAX_TASK_ID_BYTES} printable ASCII characters without spaces")
}

fn action_expected() -> String {
    format!("a string of 1 to {MAX_ACTION_BYTES} letters, digits and . _ : / -")
}

pub(super) fn ttl_expected() -> String {
    format!("a number of seconds from 0.001 to {}", MAX_TTL_MS / 1000)
}

fn version(value: Value<'_>) -> Result<ByteString, JsonError> {
    let text = value.string(VERSION)?;
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    match text.split_once('.') {
        Some((major, minor)) if text.len() <= 16 && is_number(major) && is_number(minor) => {
            if Some(major) != crate::MCP_VERSION.split('.').next() {
                return Err(JsonError::UnsupportedVersion { found: text });
            }
            Ok(text.into())
        }
        _ => Err(value.wrong(VERSION)),
    }
}

fn ttl_ms(value: Value<'_>) -> Result<u64, JsonError> {
    match value.raw.parse::<f64>() {
        Ok(seconds) if (0.001..=MAX_TTL_MS as f64 / 1000.0).contains(&seconds) => {
            Ok((seconds * 1000.0).round() as u64)
        }
        _ => Err(value.wrong(&ttl_expected())),
    }
}

pub(super) const DELAY: &str = "a number of seconds from 0 to less than ttl";

fn delay_ms(value: Value<'_>, ttl_ms: u64) -> Result<u64, JsonError> {
    let seconds = value.raw.parse::<f64>().ok().filter(|seconds| *seconds >= 0.0);
    // The cast saturates.
    let ms = seconds.map(|seconds| (seconds * 1000.0).round() as u64);
    ms.filter(|ms| *ms < ttl_ms).ok_or_else(|| value.wrong(DELAY))
}

fn body(payload: Value<'_>, content_type: &str) -> Result<Bytes, JsonError> {
    if is_json(content_type) {
        return compact(payload.raw).map(Bytes::from);
    }
    let expected = format!("a string, as the content type \"{content_type}\" is not JSON");
    payload.string(&expected).map(Bytes::from)
}

/// A JSON object's entries, each value as its text.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;
        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<'de>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        from.deserialize_map(EntriesVisitor)
    }
}

/// The fields of a task, each a known one and there once.
struct Fields<'a>(BTreeMap<&'static str, &'a RawValue>);

impl<'a> Fields<'a> {
    fn new(entries: Entries<'a>) -> Result<Self, JsonError> {
        let mut fields = BTreeMap::new();
        for (name, value) in entries.0 {
            match field::ALL.into_iter().find(|known| *known == name) {
                Some(known) if fields.insert(known, value).is_some() => {
                    return Err(JsonError::Repeated { field: name });
                }
                Some(_) => {}
                None if name.starts_with("x-") => {}
                None => return Err(JsonError::Unknown { field: shown(&name) }),
            }
        }
        Ok(Self(fields))
    }

    fn optional(&self, name: &'static str) -> Option<Value<'a>> {
        self.0.get(name).map(|raw| Value { field: name.into(), raw: raw.get() })
    }

    fn required(&self, name: &'static str, expected: &str) -> Result<Value<'a>, JsonError> {
        let missing = || JsonError::Missing { field: name, expected: expected.to_owned() };
        self.optional(name).ok_or_else(missing)
    }

    /// An object of strings.
    fn texts(&self, name: &'static str, max: usize) -> Result<BTreeMap<String, String>, JsonError> {
        let Some(value) = self.optional(name) else {
            return Ok(BTreeMap::new());
        };
        let expected = format!("an object of at most {max} strings with non-empty names");
        let entries: Entries<'_> =
            serde_json::from_str(value.raw).map_err(|_| value.wrong(&expected))?;
        if entries.0.len() > max || entries.0.iter().any(|(key, _)| key.is_empty()) {
            return Err(value.wrong(&expected));
        }
        let mut texts = BTreeMap::new();
        for (key, raw) in entries.0 {
            let entry = format!("{name}.{}", shown(&key));
            let value = Value { field: entry.into(), raw: raw.get() };
            if key.len() > MAX_TEXT_BYTES {
                return Err(value.wrong(&format!("named in at most {MAX_TEXT_BYTES} bytes")));
            }
            let text = value.text()?;
            if texts.insert(key, text.to_string()).is_some() {
                return Err(JsonError::Repeated { field: value.field.into_owned() });
            }
        }
        Ok(texts)
    }
}

/// A field's value, as its JSON text.
struct Value<'a> {
    field: Cow<'static, str>,
    raw: &'a str,
}

impl Value<'_> {
    fn wrong(&self, expected: &str) -> JsonError {
        JsonError::Wrong {
            field: self.field.clone().into_owned(),
            expected: expected.to_owned(),
            found: found(self.raw),
        }
    }

    fn string(&self, expected: &str) -> Result<String, JsonError> {
        serde_json::from_str(self.raw).map_err(|_| self.wrong(expected))
    }

    fn text(&self) -> Result<ByteString, JsonError> {
        let expected = format!("a string of at most {MAX_TEXT_BYTES} bytes");
        let text = self.string(&expected)?;
        if text.len() > MAX_TEXT_BYTES {
            return Err(self.wrong(&expected));
        }
        Ok(text.into())
    }

    fn id<T: TryFrom<String, Error = InvalidId>>(&self, expected: &str) -> Result<T, JsonError> {
        T::try_from(self.string(expected)?).map_err(|_| self.wrong(expected))
    }

    fn flag(&self) -> Result<bool, JsonError> {
        serde_json::from_str(self.raw).map_err(|_| self.wrong("true or false"))
    }

    fn integer(&self, max: u32) -> Result<u32, JsonError> {
        let value: Option<u32> = self.raw.parse().ok();
        let expected = || self.wrong(&format!("an integer from 0 to {max}"));
        value.filter(|value| *value <= max).ok_or_else(expected)
    }

    fn retry(&self) -> Result<Retry, JsonError> {
        let expected = "an object of max_attempts, initial_ms, coefficient_percent and cap_ms";
        let retry: Retry = serde_json::from_str(self.raw).map_err(|_| self.wrong(expected))?;
        match retry.check() {
            Ok(()) => Ok(retry),
            Err((field, problem)) => {
                Err(self.wrong(&format!("one whose {field} is allowed: it {problem}")))
            }
        }
    }

    fn one_of<T: Copy>(&self, all: &[T], name: fn(T) -> &'static str) -> Result<T, JsonError> {
        let names: Vec<String> = all.iter().map(|it| format!("\"{}\"", name(*it))).collect();
        let expected = format!("one of {}", names.join(", "));
        let text = self.string(&expected)?;
        all.iter().copied().find(|it| name(*it) == text).ok_or_else(|| self.wrong(&expected))
    }
}

/// A value for an error message: itself when it is short.
fn found(raw: &str) -> String {
    match raw.as_bytes().first() {
        Some(b'{') => "an object".to_owned(),
        Some(b'[') => "an array".to_owned(),
        _ => shown(raw),
    }
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn malformed(json: &str, error: &serde_json::Error) -> JsonError {
    if error.is_data() {
        return JsonError::NotAnObject { found: found(json.trim_ascii()) };
    }
    let text = error.to_string();
    let problem = text.rsplit_once(" at line ").map_or(text.as_str(), |(problem, _)| problem);
    JsonError::Malformed { problem: problem.to_owned(), line: error.line(), column: error.column() }
}

fn not_utf8(json: &[u8], at: usize) -> JsonError {
    let before = &json[..at];
    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    JsonError::Malformed {
        problem: "a byte that is not UTF-8".to_owned(),
        line: before.iter().filter(|byte| **byte == b'\n').count() + 1,
        column: at - line_start + 1,
    }
}
