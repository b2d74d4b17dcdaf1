//! An operator's questions, as tasks to built-in actions.

use bytes::Bytes;
use mcp_broker::broker::ConnectionId;
use mcp_proto::{ActionName, Deliver, ErrorCode, Message, Outcome, Send};
use serde_json::Value;

use crate::fixture::{Fixture, task};

/// An operator, who has a connection of his own.
pub(crate) struct Operator(pub(crate) ConnectionId);

impl Operator {
    pub(crate) fn new(it: &mut Fixture) -> Self {
        Self(it.client())
    }

    pub(crate) fn ask(&self, it: &mut Fixture, action: &str, body: &Value) -> (Deliver, Bytes) {
        let mut task = task("ask");
        task.action = ActionName::try_from(action).unwrap();
        let body: &'static str = body.to_string().leak();
        it.give_body(self.0, Message::Send(Send::new(task.encode(), 1_000)), body);
        match it.next_for(self.0) {
            Some((Message::Deliver(deliver), body)) => (*deliver, body),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn answer(&self, it: &mut Fixture, action: &str, body: &Value) -> Value {
        let (deliver, body) = self.ask(it, action, body);
        assert_eq!(deliver.outcome, Outcome::Ok, "{deliver:?}");
        serde_json::from_slice(&body).unwrap()
    }

    pub(crate) fn refused(&self, it: &mut Fixture, action: &str, body: &Value) -> String {
        let (deliver, _) = self.ask(it, action, body);
        let error = deliver.error.unwrap();
        assert_eq!((deliver.outcome, error.code), (Outcome::Failed, ErrorCode::InvalidTask));
        error.message
    }
}
