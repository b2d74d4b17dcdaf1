//! A span: a part of what happened to a task, from when to when, and where.

use mcp_proto::{SpanId, TraceId};

/// What part a span has in what it is about, as OpenTelemetry numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Within one process.
    Internal = 1,
    /// Of who was asked, and answered.
    Server = 2,
    /// Of who asks, and waits for the answer.
    Client = 3,
    /// Of who sends something on.
    Producer = 4,
    /// Of who takes what was sent.
    Consumer = 5,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Integer(i64),
    /// Yes or no.
    Bool(bool),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<bool> for Value {
    fn from(is: bool) -> Self {
        Value::Bool(is)
    }
}

/// A part of what happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Of which trace.
    pub trace_id: TraceId,
    /// Its own name there.
    pub span_id: SpanId,
    /// The span that caused it.
    pub parent: Option<SpanId>,
    /// What it is, for people: few different ones.
    pub name: String,
    /// Its part.
    pub kind: Kind,
    /// When it began, µs since 1970.
    pub start_us: u64,
    /// When it ended, µs since 1970.
    pub end_us: u64,
    /// What else is known of it.
    pub attributes: Vec<(&'static str, Value)>,
    /// Why it went wrong; none when it did not.
    pub error: Option<String>,
}

impl Span {
    /// Adds an attribute.
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push((name, value.into()));
        self
    }
}
