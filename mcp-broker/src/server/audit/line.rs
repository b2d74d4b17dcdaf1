//! A record as a line of JSON.

use std::net::SocketAddr;

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::event::{Event, Kind};

/// An event, and when it was.
#[derive(Debug)]
pub(super) struct Record {
    at_ms: u64,
    event: Event,
    left_out: Option<u64>,
}

#[derive(Serialize)]
struct Line<'a> {
    /// UTC, RFC 3339.
    time: String,
    kind: Kind,
    what: &'a str,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    /// Events of its kind before it that were too many to be recorded one by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<u64>,
}

#[derive(Serialize)]
struct Lost {
    time: String,
    kind: &'static str,
    count: u64,
}

impl Record {
    pub(super) fn new(at_ms: u64, event: Event, left_out: Option<u64>) -> Self {
        Self { at_ms, event, left_out }
    }

    pub(super) fn write(&self, to: &mut Vec<u8>) {
        let Event { kind, what, identity, peer, connection, details, refused } = &self.event;
        let line = Line {
            time: time(self.at_ms),
            kind: *kind,
            what,
            outcome: if refused.is_some() { "refused" } else { "ok" },
            identity: identity.as_deref(),
            peer: *peer,
            connection: connection.map(|it| it.0),
            details: details.as_ref(),
            reason: refused.as_deref(),
            left_out: self.left_out,
        };
        write(&line, to);
    }
}

/// So many records were lost up to now.
pub(super) fn write_lost(at_ms: u64, count: u64, to: &mut Vec<u8>) {
    write(&Lost { time: time(at_ms), kind: "lost", count }, to);
}

fn write(line: &impl Serialize, to: &mut Vec<u8>) {
    // Nothing in it can fail: its keys are texts, and a `Vec` takes everything.
    let _ = serde_json::to_writer(&mut *to, line);
    to.push(b'\n');
}

fn time(at_ms: u64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at_ms) * 1_000_000);
    let text = at.ok().and_then(|at| at.format(&Rfc3339).ok());
    // Beyond the year 9999.
    text.unwrap_or_else(|| at_ms.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_object() {
        let event = Event::new(Kind::Degrade, "mcp.admin.actions.degrade")
            .by("al\"ice\n")
            .details(serde_json::json!({"action": "a", "why": "\u{1b}[2J"}));
        let mut bytes = Vec::new();
        Record::new(1_790_000_000_123, event, Some(3)).write(&mut bytes);
        write_lost(0, 7, &mut bytes);
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "{\"time\":\"2026-09-21T14:13:20.123Z\",\"kind\":\"degrade\",\
             \"what\":\"mcp.admin.actions.degrade\",\"outcome\":\"ok\",\"identity\":\"al\\\"ice\\n\",\
             \"details\":{\"action\":\"a\",\"why\":\"\\u001b[2J\"},\"left_out\":3}\n\
             {\"time\":\"1970-01-01T00:00:00Z\",\"kind\":\"lost\",\"count\":7}\n"
        );
    }
}
