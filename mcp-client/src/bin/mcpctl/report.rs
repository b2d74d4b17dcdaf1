//! How the end of a task is told: as JSON for scripts, as one or two lines for people.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mcp_client::{ContextTrace, ErrorCode, ErrorInfo, Executed, Outcome, TaskEnd, TaskId};
use serde::Serialize;

use crate::global::Output;

/// The end of a task as one JSON object.
#[derive(Serialize)]
struct Report<'a> {
    task_id: &'a TaskId,
    outcome: Outcome,
    executed: Executed,
    /// The body, if it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback: Option<&'a str>,
    error: Option<&'a ErrorInfo>,
    context_trace: Cow<'a, ContextTrace>,
}

/// Appends the end of a task as one line of JSON.
pub(crate) fn json_line(end: &TaskEnd, to: &mut Vec<u8>) {
    let body = str::from_utf8(&end.body).ok();
    let report = Report {
        task_id: &end.task_id,
        outcome: end.outcome,
        executed: end.executed,
        body,
        body_base64: body.is_none().then(|| STANDARD.encode(&end.body)),
        headers: &end.headers,
        fallback: end.fallback.as_deref(),
        error: end.error.as_deref(),
        context_trace: end.trace.decode(),
    };
    // Neither the values above nor a Vec can fail.
    let _ = serde_json::to_writer(&mut *to, &report);
    to.push(b'\n');
}

/// Writes a result, or with it all that is told of its task, to stdout.
pub(crate) fn print(end: &TaskEnd, output: Output) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match output {
        Output::Json => {
            let mut line = Vec::new();
            json_line(end, &mut line);
            stdout.write_all(&line)?;
        }
        Output::Table => {
            stdout.write_all(&end.body)?;
            end_line(&mut stdout, &end.body)?;
        }
    }
    stdout.flush()
}

/// On a terminal, what follows a result begins on a line of its own.
pub(crate) fn end_line(stdout: &mut io::StdoutLock<'_>, result: &[u8]) -> io::Result<()> {
    if result.last().is_some_and(|byte| *byte != b'\n') && stdout.is_terminal() {
        stdout.write_all(b"\n")?;
    }
    Ok(())
}

/// What to say of a result that is not of a worker of the action.
pub(crate) fn fallback(step: &str) -> String {
    match step {
        "cached" => "no worker did it: this is an earlier answer (fallback: cached)".to_owned(),
        "default" => {
            "no worker did it: this is the action's default (fallback: default)".to_owned()
        }
        step => format!("not of a worker of the action (fallback: {step})"),
    }
}

/// As JSON that people can read, too.
pub(crate) fn pretty(value: &impl Serialize) -> io::Result<String> {
    Ok(serde_json::to_string_pretty(value)?)
}

/// Why a task did not end `ok`, and what to do about it. `worker` are the options of a worker that
/// would have served it.
pub(crate) fn explain(end: &TaskEnd, worker: &str) -> String {
    let outcome = end.outcome.name();
    let mut text = outcome.to_owned();
    if let Some(error) = &end.error {
        // Not "expired: EXPIRED: ...".
        let error = error.to_string();
        let same = format!("{}: ", outcome.to_uppercase());
        text.push_str(": ");
        text.push_str(error.strip_prefix(&same).unwrap_or(&error));
    }
    text.push('\n');
    match (end.error.as_ref().map(|error| error.code), end.executed) {
        (Some(ErrorCode::NoWorker), _) => {
            text.push_str(&format!("to start one: mcpctl worker {worker} --exec CMD [ARGS...]"));
        }
        (_, Executed::No) => text.push_str("it did not run"),
        (_, Executed::Maybe) => {
            text.push_str("it may have run: send it again only if running twice does no harm");
        }
        (_, Executed::Yes) => text.truncate(text.len() - 1),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(outcome: Outcome, executed: Executed, body: &'static [u8]) -> TaskEnd {
        TaskEnd {
            task_id: TaskId::try_from("t-1").unwrap(),
            outcome,
            executed,
            body: body.into(),
            content_type: Default::default(),
            headers: Default::default(),
            fallback: None,
            error: None,
            trace: Default::default(),
        }
    }

    fn json(end: &TaskEnd) -> serde_json::Value {
        let mut line = Vec::new();
        json_line(end, &mut line);
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        serde_json::from_slice(&line).unwrap()
    }

    #[test]
    fn a_text_body_is_a_json_string() {
        let value = json(&end(Outcome::Ok, Executed::Yes, b"HELLO\n"));
        let keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
        let mut expected = ["task_id", "outcome", "executed", "body", "error", "context_trace"];
        expected.sort_unstable();
        assert_eq!(keys, expected);
        assert_eq!(value["task_id"], "t-1");
        assert_eq!(value["outcome"], "ok");
        assert_eq!(value["executed"], "yes");
        assert_eq!(value["body"], "HELLO\n");
        assert!(value["error"].is_null());
    }

    #[test]
    fn an_answer_of_a_fallback_says_so() {
        let mut end = end(Outcome::Ok, Executed::No, b"sorry");
        end.fallback = Some("action:small".into());
        assert_eq!(json(&end)["fallback"], "action:small");
        assert!(fallback("action:small").contains("action:small"));
    }

    #[test]
    fn a_binary_body_is_base64() {
        let value = json(&end(Outcome::Ok, Executed::Yes, b"\xff\x00"));
        assert_eq!(value["body_base64"], "/wA=");
        assert!(value.get("body").is_none());
    }

    #[test]
    fn an_error_keeps_its_shape() {
        let mut end = end(Outcome::Rejected, Executed::No, b"");
        end.error =
            Some(Box::new(ErrorInfo::new(ErrorCode::QueueFull, "full").retry_after_ms(250)));
        let value = json(&end);
        assert_eq!(value["error"]["code"], "QUEUE_FULL");
        assert_eq!(value["error"]["retry_after_ms"], 250);
        assert_eq!(
            explain(&end, "upper"),
            "rejected: QUEUE_FULL: full; try again in 250 ms\nit did not run"
        );
    }

    #[test]
    fn without_a_worker_the_hint_says_how_to_start_one() {
        let mut end = end(Outcome::Rejected, Executed::No, b"");
        end.error = Some(Box::new(ErrorInfo::new(ErrorCode::NoWorker, "none")));
        assert_eq!(
            explain(&end, "--action upper"),
            "rejected: NO_WORKER: none\nto start one: mcpctl worker --action upper --exec CMD [ARGS...]"
        );
    }

    #[test]
    fn a_code_that_says_the_outcome_is_not_repeated() {
        let mut end = end(Outcome::Expired, Executed::Maybe, b"");
        end.error = Some(Box::new(ErrorInfo::new(ErrorCode::Expired, "too late")));
        assert!(explain(&end, "").starts_with("expired: too late\nit may have run"));
    }
}
