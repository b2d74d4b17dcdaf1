//! The JSON form of a task, for files, scripts and people:
//!
//! ```json
//! {"mcp_version": "1.0", "task_id": "uuid-123abc", "action": "generate",
//!  "payload": {"prompt": "write a post", "context": {"history": []}}, "ttl": 300}
//! ```
//!
//! | field | | value |
//! |---|---|---|
//! | `mcp_version` | required | string MAJOR.MINOR; another major than 1 is refused |
//! | `task_id` | required | string, 1 to 64 printable ASCII characters without spaces |
//! | `action` | required | string, 1 to 128 of letters, digits and `. _ : / -` |
//! | `payload` | required | any JSON value: the task's body, see below |
//! | `ttl` | required | time to live in seconds, 0.001 to 604800, rounded to the millisecond |
//! | `delay` | | seconds before it may go to a worker, 0 (when absent) to less than `ttl`, rounded to the millisecond |
//! | `content_type` | | string, of the body; `"application/json"` when absent |
//! | `priority` | | `"low"`, `"normal"` (when absent), `"high"` or `"urgent"` |
//! | `tenant`, `affinity_key` | | string |
//! | `required_labels`, `headers` | | object of strings, at most 64 entries |
//! | `delivery` | | `"fast"` (when absent) or `"durable"` |
//! | `idempotent`, `shadow` | | `true` or `false` (when absent) |
//! | `parent_task_id` | | string, a task id |
//! | `depth` | | integer, 0 (when absent) to 16 |
//! | `traceparent`, `tracestate` | | string, W3C Trace Context |
//! | `retry` | | object of integers, each optional: `max_attempts` (1 to 100; 3), `initial_ms` (1 to 3600000; 100), `coefficient_percent` (100 to 10000; 200), `cap_ms` (1 to 3600000; 1000) |
//! | `attempt_timeout_ms` | | integer, 0 (when absent) to 3600000 |
//! | `cancel_on_disconnect`, `explain` | | `true` or `false` (when absent) |
//!
//! Strings are at most 1024 bytes where nothing else is said. A field is given once. A field that
//! is not in this table is an error, so that a typo is not ignored, unless its name begins with
//! `x-`: those are for the writer's own use, and are dropped.
//!
//! **The body.** With a JSON content type (`application/json`, `text/json` or `…+json`), the body
//! is the payload's JSON text without the white space between its parts, and otherwise as it was
//! written: the order of keys, the digits of numbers and the escapes in strings are kept. With
//! any other content type the payload must be a string, and the body is its characters in UTF-8.

mod compact;
mod error;
mod read;
mod write;

use bytes::Bytes;
use bytestring::ByteString;

use crate::MCP_VERSION;
use crate::limits::{MAX_BODY_BYTES, MAX_HEADER_BYTES};
use crate::message::Task;

pub use error::JsonError;

/// The content type of a task whose JSON form does not name one.
pub const JSON_CONTENT_TYPE: &str = "application/json";

/// Longest text that is read: any task that fits a frame, with each of its bytes written as a
/// `\u` escape of six.
pub const MAX_JSON_BYTES: usize = 6 * (MAX_HEADER_BYTES + MAX_BODY_BYTES);

/// Deepest nesting of arrays and objects in a payload.
pub const MAX_JSON_DEPTH: usize = 128;

/// A task with all that its JSON form says.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonTask {
    /// The version that its writer speaks, MAJOR.MINOR, as written.
    pub mcp_version: ByteString,
    /// The task.
    pub task: Task,
    /// The task's input, from `payload`.
    pub body: Bytes,
    /// Time to live, ms.
    pub ttl_ms: u64,
    /// How long it waits before it may go to a worker, ms; less than `ttl_ms`.
    pub delay_ms: u64,
}

impl JsonTask {
    /// A task of this version of the protocol that may go to a worker at once. A task without a
    /// content type is one with a text body.
    pub fn new(task: Task, body: Bytes, ttl_ms: u64) -> Self {
        let mcp_version = ByteString::from_static(MCP_VERSION);
        Self { mcp_version, task, body, ttl_ms, delay_ms: 0 }
    }

    /// Reads the JSON form: one object, with nothing behind it. The length of the body is not
    /// checked: what a broker accepts is told in its ACK.
    pub fn from_json(json: impl AsRef<[u8]>) -> Result<Self, JsonError> {
        read::task(json.as_ref())
    }

    /// Writes the JSON form on one line, without the fields that have their default value. Fails
    /// for a body that its content type does not fit, or a time to live or delay that is out of range.
    pub fn to_json(&self) -> Result<String, JsonError> {
        write::task(self)
    }
}

impl std::str::FromStr for JsonTask {
    type Err = JsonError;
    fn from_str(json: &str) -> Result<Self, JsonError> {
        Self::from_json(json)
    }
}

/// Whether a body of this content type is JSON text.
fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let media_type = media_type.to_ascii_lowercase();
    matches!(media_type.as_str(), JSON_CONTENT_TYPE | "text/json") || media_type.ends_with("+json")
}

/// The fields of the form, in the order in which they are written.
mod field {
    pub(super) const MCP_VERSION: &str = "mcp_version";
    pub(super) const TASK_ID: &str = "task_id";
    pub(super) const ACTION: &str = "action";
    pub(super) const PAYLOAD: &str = "payload";
    pub(super) const TTL: &str = "ttl";
    pub(super) const DELAY: &str = "delay";
    pub(super) const CONTENT_TYPE: &str = "content_type";
    pub(super) const PRIORITY: &str = "priority";
    pub(super) const TENANT: &str = "tenant";
    pub(super) const AFFINITY_KEY: &str = "affinity_key";
    pub(super) const REQUIRED_LABELS: &str = "required_labels";
    pub(super) const DELIVERY: &str = "delivery";
    pub(super) const IDEMPOTENT: &str = "idempotent";
    pub(super) const SHADOW: &str = "shadow";
    pub(super) const HEADERS: &str = "headers";
    pub(super) const PARENT_TASK_ID: &str = "parent_task_id";
    pub(super) const DEPTH: &str = "depth";
    pub(super) const TRACEPARENT: &str = "traceparent";
    pub(super) const TRACESTATE: &str = "tracestate";
    pub(super) const RETRY: &str = "retry";
    pub(super) const ATTEMPT_TIMEOUT_MS: &str = "attempt_timeout_ms";
    pub(super) const CANCEL_ON_DISCONNECT: &str = "cancel_on_disconnect";
    pub(super) const EXPLAIN: &str = "explain";

    pub(super) const ALL: [&str; 23] = [
        MCP_VERSION,
        TASK_ID,
        ACTION,
        PAYLOAD,
        TTL,
        DELAY,
        CONTENT_TYPE,
        PRIORITY,
        TENANT,
        AFFINITY_KEY,
        REQUIRED_LABELS,
        DELIVERY,
        IDEMPOTENT,
        SHADOW,
        HEADERS,
        PARENT_TASK_ID,
        DEPTH,
        TRACEPARENT,
        TRACESTATE,
        RETRY,
        ATTEMPT_TIMEOUT_MS,
        CANCEL_ON_DISCONNECT,
        EXPLAIN,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Delivery, Priority};

    /// As the protocol's first document printed it.
    const PRINTED: &str = r#"{"mcp_version":"1.0","task_id":"uuid-123abc","action":"generate",
 "payload":{"prompt":"write a post","context":{"history":[]}},"ttl":300}"#;

    fn with(fields: &str) -> String {
        format!(
            r#"{{"mcp_version":"1.0","task_id":"t","action":"a","payload":1,"ttl":1{}{fields}}}"#,
            if fields.is_empty() { "" } else { "," }
        )
    }

    fn error(json: &str) -> String {
        JsonTask::from_json(json).unwrap_err().to_string()
    }

    #[test]
    fn the_printed_message_is_read_and_written() {
        let it = JsonTask::from_json(PRINTED).unwrap();
        assert_eq!(it.mcp_version, "1.0");
        assert_eq!(it.task.id.as_str(), "uuid-123abc");
        assert_eq!(it.task.action.as_str(), "generate");
        assert_eq!(it.task.content_type, JSON_CONTENT_TYPE);
        assert_eq!(it.body, &br#"{"prompt":"write a post","context":{"history":[]}}"#[..]);
        assert_eq!(it.ttl_ms, 300_000);
        assert_eq!(it.to_json().unwrap(), PRINTED.replace("\n ", ""));
    }

    #[test]
    fn every_optional_field_is_read_and_written() {
        let fields = r#""priority":"high","tenant":"acme","affinity_key":"k","required_labels":{"gpu":"a100"},"delivery":"durable","idempotent":true,"shadow":true,"headers":{"h":"v"},"parent_task_id":"p","depth":3,"traceparent":"00-a-b-01","tracestate":"x=y""#;
        let json = with(fields);
        let it = JsonTask::from_json(&json).unwrap();
        assert_eq!(it.task.priority, Priority::High);
        assert_eq!(it.task.delivery, Delivery::Durable);
        assert_eq!(it.task.required_labels.0["gpu"], "a100");
        assert_eq!(it.task.headers["h"], "v");
        assert_eq!((it.task.parent.as_ref().unwrap().as_str(), it.task.depth), ("p", 3));
        assert!(it.task.idempotent && it.task.shadow);
        assert_eq!(it.to_json().unwrap(), json);
    }

    #[test]
    fn a_required_field_that_is_missing_is_named() {
        for name in ["mcp_version", "task_id", "action", "payload", "ttl"] {
            let json = with("").replace(&format!("\"{name}\""), "\"x-other\"");
            assert!(error(&json).starts_with(&format!("field \"{name}\" is missing: must be ")));
        }
    }

    #[test]
    fn a_wrong_field_is_named_with_what_is_expected() {
        let ttl = |ttl: &str| error(&with("").replace("\"ttl\":1", &format!("\"ttl\":{ttl}")));
        let expected = "field \"ttl\" must be a number of seconds from 0.001 to 604800, found ";
        for wrong in ["0", "-1", "0.0009", "604801", "1e999", "\"300\"", "null", "true"] {
            assert_eq!(ttl(wrong), format!("{expected}{wrong}"));
        }
        assert_eq!(ttl("[300]"), format!("{expected}an array"));
        assert_eq!(
            error(&with(r#""priority":"higher""#)),
            r#"field "priority" must be one of "low", "normal", "high", "urgent", found "higher""#
        );
        assert_eq!(
            error(&with(r#""idempotent":"yes""#)),
            r#"field "idempotent" must be true or false, found "yes""#
        );
        assert_eq!(
            error(&with(r#""headers":{"h":1}"#)),
            r#"field "headers.h" must be a string of at most 1024 bytes, found 1"#
        );
        assert_eq!(
            error(&with(r#""depth":17"#)),
            r#"field "depth" must be an integer from 0 to 16, found 17"#
        );
        assert_eq!(
            error(&with("").replace(r#""t""#, r#""a b""#)),
            r#"field "task_id" must be a string of 1 to 64 printable ASCII characters without spaces, found "a b""#
        );
        assert_eq!(
            error(&with("").replace(r#""1.0""#, "1.0")),
            r#"field "mcp_version" must be a string MAJOR.MINOR such as "1.0", found 1.0"#
        );
    }

    #[test]
    fn a_typo_is_not_ignored_and_a_private_field_is() {
        assert!(error(&with(r#""idempotant":true"#)).starts_with(
            r#"field "idempotant" is unknown; allowed are mcp_version, task_id, action, payload, ttl, "#
        ));
        assert_eq!(error(&with(r#""ttl":2"#)), r#"field "ttl" is given twice"#);
        assert!(JsonTask::from_json(with(r#""x-note":[1]"#)).is_ok());
    }

    #[test]
    fn another_major_version_is_refused_and_a_later_minor_one_is_not() {
        let version = |version: &str| with("").replace("1.0", version);
        assert_eq!(error(&version("2.0")), r#"field "mcp_version" is "2.0"; spoken here is 1.0"#);
        assert_eq!(JsonTask::from_json(version("1.12")).unwrap().mcp_version, "1.12");
    }

    #[test]
    fn what_is_not_an_object_is_told_with_its_place() {
        assert_eq!(error("{\n \"ttl\": }"), "not JSON: expected value at line 2 column 9");
        assert_eq!(error("[1]"), "not a task: must be a JSON object, found an array");
        assert_eq!(error(&(with("") + "{}")), "not JSON: trailing characters at line 1 column 69");
        let error = JsonTask::from_json(b"{\n  \"a\xff\"").unwrap_err().to_string();
        assert_eq!(error, "not JSON: a byte that is not UTF-8 at line 2 column 5");
    }

    #[test]
    fn lengths_have_limits() {
        let long = " ".repeat(MAX_JSON_BYTES + 1);
        assert!(matches!(JsonTask::from_json(&long), Err(JsonError::TooLong { .. })));
        let headers: Vec<_> =
            (0..64).map(|i| format!(r#""h{i:01022}":"{}""#, "v".repeat(1024))).collect();
        let json = with(&format!(r#""headers":{{{}}}"#, headers.join(",")));
        assert!(matches!(JsonTask::from_json(&json), Err(JsonError::TaskTooLong { .. })));
    }

    #[test]
    fn the_payload_is_kept_as_written_but_for_white_space() {
        let json = with("").replace(
            "\"payload\":1",
            r#""payload": {"z": 0.10, "a": 123456789012345678901234567890, "z": "\u00e9 é"}"#,
        );
        let it = JsonTask::from_json(&json).unwrap();
        let body = r#"{"z":0.10,"a":123456789012345678901234567890,"z":"\u00e9 é"}"#;
        assert_eq!(it.body, body.as_bytes());
        assert!(it.to_json().unwrap().contains(&format!("\"payload\":{body},")));
    }

    #[test]
    fn a_text_body_is_a_string() {
        let json = with(r#""content_type":"text/plain; charset=utf-8""#)
            .replace("\"payload\":1", r#""payload":"a\n\"b\"""#);
        let it = JsonTask::from_json(&json).unwrap();
        assert_eq!(it.body, &b"a\n\"b\""[..]);
        assert_eq!(it.to_json().unwrap(), json);
        assert_eq!(
            error(&with(r#""content_type":"text/plain""#)),
            r#"field "payload" must be a string, as the content type "text/plain" is not JSON, found 1"#
        );
        assert!(is_json("Application/LD+JSON ; v=1"));
    }

    #[test]
    fn a_task_that_has_no_json_form_says_why() {
        let mut it = JsonTask::from_json(PRINTED).unwrap();
        it.body = Bytes::from_static(b"{");
        assert_eq!(
            it.to_json().unwrap_err().to_string(),
            r#"field "payload" must be a JSON value, as the content type is "application/json", found a body of 1 bytes that is not"#
        );
        it.task.content_type = "text/plain".into();
        it.ttl_ms = 0;
        assert!(matches!(it.to_json(), Err(JsonError::Wrong { field, .. }) if field == "ttl"));
    }

    #[test]
    fn a_delay_is_less_than_the_time_to_live() {
        let delay = |delay: &str| JsonTask::from_json(with(&format!("\"delay\":{delay}")));
        for (text, ms) in [("0", 0), ("0.25", 250), ("0.9990", 999)] {
            let it = delay(text).unwrap();
            assert_eq!(it.delay_ms, ms);
            assert_eq!(JsonTask::from_json(it.to_json().unwrap()), Ok(it));
        }
        for wrong in ["1", "0.9999", "-1", "\"0\"", "null"] {
            assert_eq!(
                delay(wrong).unwrap_err().to_string(),
                format!(
                    "field \"delay\" must be a number of seconds from 0 to less than ttl, found {wrong}"
                )
            );
        }
        let it = JsonTask { delay_ms: 1000, ..JsonTask::from_json(with("")).unwrap() };
        assert!(matches!(it.to_json(), Err(JsonError::Wrong { field, .. }) if field == "delay"));
    }

    #[test]
    fn times_to_live_are_exact_to_the_millisecond() {
        for (text, ms) in [("0.001", 1), ("0.25", 250), ("3e2", 300_000), ("604800", 604_800_000)] {
            let json = with("").replace("\"ttl\":1", &format!("\"ttl\":{text}"));
            let it = JsonTask::from_json(&json).unwrap();
            assert_eq!(it.ttl_ms, ms);
            assert_eq!(JsonTask::from_json(it.to_json().unwrap()).unwrap(), it);
        }
    }
}
