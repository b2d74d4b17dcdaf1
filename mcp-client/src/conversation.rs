//! The well-known payload of an agent that talks: a prompt, and what was said before it.
//!
//! ```json
//! {"prompt":"and in French?","context":{"history":[
//!   {"role":"user","content":"say hello"},{"role":"assistant","content":"hello"}]}}
//! ```
//!
//! Broker and SDK treat it as any other body; it is what clients and workers that don't know each
//! other can agree on. Fields that are not known here are kept, so that a worker that passes a
//! conversation on loses nothing; their order is not.

use mcp_proto::limits::MAX_BODY_BYTES;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Its content type.
pub const CONTENT_TYPE: &str = "application/json";

/// A prompt, and what was said before it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Conversation {
    /// What is asked now.
    pub prompt: String,
    /// What it is asked in.
    #[serde(default)]
    pub context: Context,
    /// Fields that are not known here.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What a prompt is asked in.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Context {
    /// What was said before, the oldest first.
    #[serde(default)]
    pub history: Vec<Turn>,
    /// Fields that are not known here.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// One thing that was said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// By whom.
    pub role: Role,
    /// What.
    pub content: String,
    /// Fields that are not known here.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Who said something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Whoever set the agent up.
    System,
    /// Whoever asks.
    User,
    /// The agent.
    Assistant,
    /// What the agent used.
    Tool,
    /// Somebody else.
    #[serde(untagged)]
    Other(String),
}

/// Why a body is not a conversation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidConversation {
    /// It is longer than any frame's body.
    #[error("a conversation of {bytes} bytes is too long; at most {MAX_BODY_BYTES} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It is not JSON, or not as it should be.
    #[error("the body is not a conversation, {{\"prompt\", \"context\": {{\"history\"}}}}: {0}")]
    Json(#[source] serde_json::Error),
}

impl Conversation {
    /// A prompt with nothing before it.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self { prompt: prompt.into(), ..Self::default() }
    }

    /// Adds what was said last before the prompt.
    #[must_use]
    pub fn turn(mut self, role: Role, content: impl Into<String>) -> Self {
        self.context.history.push(Turn::new(role, content));
        self
    }

    /// The next prompt, once this one is answered: both become a part of the history.
    #[must_use]
    pub fn answered(mut self, answer: impl Into<String>, prompt: impl Into<String>) -> Self {
        let asked = std::mem::replace(&mut self.prompt, prompt.into());
        self.turn(Role::User, asked).turn(Role::Assistant, answer)
    }

    /// The conversation in a body of at most 64 KiB, nested at most 128 deep; 10 times as much in
    /// memory at most.
    pub fn from_body(body: &[u8]) -> Result<Self, InvalidConversation> {
        if body.len() > MAX_BODY_BYTES {
            return Err(InvalidConversation::TooLong { bytes: body.len() });
        }
        serde_json::from_slice(body).map_err(InvalidConversation::Json)
    }
}

impl Turn {
    /// Something that somebody said.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into(), other: Map::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_kept() {
        let json = r#"{"prompt":"p","temperature":0.5,"context":{"history":[
            {"role":"user","content":"a","name":"Ann"},{"role":"critic","content":"b"}],"v":[1]}}"#;
        let it = Conversation::from_body(json.as_bytes()).unwrap();
        assert_eq!(it.prompt, "p");
        assert_eq!(it.context.history[0].role, Role::User);
        assert_eq!(it.context.history[0].other["name"], "Ann");
        assert_eq!(it.context.history[1].role, Role::Other("critic".to_owned()));
        let again: Value = serde_json::from_str(&serde_json::to_string(&it).unwrap()).unwrap();
        assert_eq!(again, serde_json::from_str::<Value>(json).unwrap());
    }

    #[test]
    fn a_prompt_alone_is_one_and_its_answer_becomes_history() {
        let it = Conversation::from_body(br#"{"prompt":"say hello"}"#).unwrap();
        assert_eq!(it, Conversation::new("say hello"));
        let it = it.answered("hello", "and in French?");
        assert_eq!(
            serde_json::to_string(&it).unwrap(),
            r#"{"prompt":"and in French?","context":{"history":[{"role":"user","content":"say hello"},{"role":"assistant","content":"hello"}]}}"#
        );
    }

    #[test]
    fn what_is_none_is_told_why() {
        let deep = format!(r#"{{"prompt":"p","x":{}"#, "[".repeat(10_000));
        for (body, why) in [
            (b"hello".to_vec(), "expected value"),
            (br#"{"context":{}}"#.to_vec(), "missing field `prompt`"),
            (br#"{"prompt":1}"#.to_vec(), "expected a string"),
            (deep.into_bytes(), "recursion limit"),
            (vec![b' '; MAX_BODY_BYTES + 1], "too long"),
        ] {
            let error = Conversation::from_body(&body).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
