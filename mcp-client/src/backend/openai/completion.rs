//! An answer of the model, as its events tell it.

use serde::Deserialize;
use serde_json::Value;

use super::sse::Event;
use crate::worker::HandlerReply;

/// How much of what is not understood is told.
const EXCERPT_BYTES: usize = 200;

/// How much of the server's own message is told.
const MAX_MESSAGE_BYTES: usize = 1024;

/// Why there is no answer, or not all of it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CompletionError {
    #[error(
        "the server answered with {content_type:?} instead of an event stream: check that the URL \
         is that of its API, often .../v1: {body}"
    )]
    NotAStream { content_type: String, body: String },
    #[error("the server broke its answer off with an error: {message}")]
    Server { message: String },
    #[error("the server sent an event that is no chat completion chunk ({problem}): {excerpt}")]
    Malformed { problem: String, excerpt: String },
    #[error("the server closed the connection before the end of its answer, [DONE]")]
    Cut,
}

/// What was told besides the text.
#[derive(Debug, Default)]
pub(super) struct Completion {
    model: Option<String>,
    finish_reason: Option<String>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Chunk {
    model: Option<String>,
    choices: Option<Vec<Choice>>,
    usage: Option<Usage>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Option<Delta>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Usage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    total_tokens: Option<u64>,
}

/// Whether the answer is complete.
pub(super) fn is_end(event: &Event) -> bool {
    event.data == b"[DONE]"
}

impl Completion {
    /// Takes note of an event, and returns the text in it, if it has some.
    pub(super) fn add(&mut self, event: &Event) -> Result<Option<String>, CompletionError> {
        if event.name == b"error" {
            let message = match serde_json::from_slice::<Value>(&event.data) {
                Ok(error) => message(error.get("error").unwrap_or(&error)),
                Err(_) => excerpt(&event.data, MAX_MESSAGE_BYTES),
            };
            return Err(CompletionError::Server { message });
        }
        let chunk: Chunk = serde_json::from_slice(&event.data).map_err(|error| {
            let (problem, excerpt) = (error.to_string(), excerpt(&event.data, EXCERPT_BYTES));
            CompletionError::Malformed { problem, excerpt }
        })?;
        if let Some(error) = chunk.error {
            return Err(CompletionError::Server { message: message(&error) });
        }
        self.model = chunk.model.or(self.model.take());
        self.usage = chunk.usage.or(self.usage.take());
        // One was asked for.
        let Some(choice) = chunk.choices.and_then(|choices| choices.into_iter().next()) else {
            return Ok(None);
        };
        self.finish_reason = choice.finish_reason.or(self.finish_reason.take());
        let content = choice.delta.and_then(|delta| delta.content);
        Ok(content.filter(|content| !content.is_empty()))
    }

    /// The reply to go with the text that was emitted.
    pub(super) fn reply(self) -> HandlerReply {
        let usage = self.usage.as_ref();
        let count = |count: Option<u64>| count.map(|count| count.to_string());
        let headers = [
            ("model", self.model),
            ("finish_reason", self.finish_reason),
            ("prompt_tokens", count(usage.and_then(|usage| usage.prompt_tokens))),
            ("completion_tokens", count(usage.and_then(|usage| usage.completion_tokens))),
            ("total_tokens", count(usage.and_then(|usage| usage.total_tokens))),
        ];
        let told = headers.into_iter().filter_map(|(key, value)| Some((key, value?)));
        let reply = HandlerReply::default().content_type("text/plain");
        told.fold(reply, |reply, (key, value)| reply.header(key, value))
    }
}

/// Servers agree on where the error is, not on what it looks like.
fn message(error: &Value) -> String {
    let text = error.get("message").unwrap_or(error);
    let text = text.as_str().map_or_else(|| text.to_string(), str::to_owned);
    excerpt(text.as_bytes(), MAX_MESSAGE_BYTES)
}

fn excerpt(text: &[u8], max_bytes: usize) -> String {
    String::from_utf8_lossy(&text[..text.len().min(max_bytes)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(data: &str) -> Event {
        Event { name: Vec::new(), data: data.into() }
    }

    fn add(completion: &mut Completion, data: &str) -> Option<String> {
        completion.add(&event(data)).unwrap()
    }

    #[test]
    fn texts_are_returned_and_the_rest_is_noted() {
        let mut it = Completion::default();
        let start = r#"{"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}"#;
        assert_eq!(add(&mut it, start), None);
        let text = r#"{"model":"m","choices":[{"delta":{"content":"Hé"}}]}"#;
        assert_eq!(add(&mut it, text).as_deref(), Some("Hé"));
        let end = r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
        assert_eq!(add(&mut it, end), None);
        let usage = r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4,"x":{}}}"#;
        assert_eq!(add(&mut it, usage), None);
        let expected = HandlerReply::default()
            .content_type("text/plain")
            .header("model", "m")
            .header("finish_reason", "stop")
            .header("prompt_tokens", "3")
            .header("completion_tokens", "1")
            .header("total_tokens", "4");
        assert_eq!(it.reply(), expected);
        assert!(Completion::default().reply().headers.is_empty());
    }

    #[test]
    fn errors_of_all_shapes_are_told() {
        let mut it = Completion::default();
        let mut told = |name: &str, data: &str| {
            it.add(&Event { name: name.into(), data: data.into() }).unwrap_err().to_string()
        };
        let text = "the server broke its answer off with an error: too long";
        assert_eq!(told("", r#"{"error":{"message":"too long","code":400}}"#), text);
        assert_eq!(told("", r#"{"error":"too long","error_type":"x"}"#), text);
        assert_eq!(told("error", r#"{"message":"too long"}"#), text);
        assert_eq!(told("error", "too long"), text);
        assert!(told("", r#"{"error":{"code":7}}"#).ends_with(r#"{"code":7}"#));
        assert!(told("error", &"x".repeat(60_000)).len() < 2_000);
    }

    #[test]
    fn what_is_no_chunk_is_shown() {
        let mut it = Completion::default();
        for data in
            ["", "hello", "[1]", r#"{"choices":7}"#, r#"{"choices":[{"delta":{"content":7}}]}"#]
        {
            let error = it.add(&event(data)).unwrap_err();
            let CompletionError::Malformed { excerpt, .. } = error else {
                panic!("{data}: {error}")
            };
            assert_eq!(excerpt, data);
        }
    }
}
