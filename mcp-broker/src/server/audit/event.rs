//! What is recorded.

use std::net::SocketAddr;

use serde_json::Value;

use crate::broker::{Act, ConnectionId};

/// What somebody did, or tried to do.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::server) struct Event {
    pub(super) kind: Kind,
    pub(super) what: String,
    pub(super) identity: Option<String>,
    pub(super) peer: Option<SocketAddr>,
    pub(super) connection: Option<ConnectionId>,
    pub(super) details: Option<Value>,
    /// Why it was not done.
    pub(super) refused: Option<String>,
}

/// Of which kind it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::server) enum Kind {
    /// The broker started, or stopped.
    Broker,
    /// A peer was let in.
    Connect,
    /// A peer was not let in, or its connection ended for what it did.
    Refuse,
    /// An operator changed something.
    Operator,
    /// Another configuration was taken, or refused.
    Reload,
    /// An operator kept an action from its workers, or gave it back.
    Degrade,
    /// An operator had a dead letter done again.
    Replay,
    /// A peer was let in, or stays, although its proof can't be verified as it should be.
    OfflineAdmission,
}

impl Event {
    /// Something that was done, until [`refused`](Self::refused) says otherwise.
    pub(in crate::server) fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            identity: None,
            peer: None,
            connection: None,
            details: None,
            refused: None,
        }
    }

    /// Who did it.
    pub(in crate::server) fn by(self, identity: impl Into<String>) -> Self {
        Self { identity: Some(identity.into()), ..self }
    }

    /// From where.
    pub(in crate::server) fn from(self, peer: SocketAddr) -> Self {
        Self { peer: Some(peer), ..self }
    }

    /// What else there is to it.
    pub(in crate::server) fn details(self, details: Value) -> Self {
        Self { details: Some(details), ..self }
    }

    /// It was not done, and why.
    pub(in crate::server) fn refused(self, why: impl Into<String>) -> Self {
        Self { refused: Some(why.into()), ..self }
    }

    /// What the core tells of, done by a peer at this address.
    pub(in crate::server) fn of_core(act: Act, peer: Option<SocketAddr>) -> Self {
        let connection = act.connection();
        let event = match act {
            Act::Connected { identity, is_client, agent_id, .. } => {
                let mut details = serde_json::Map::new();
                details.insert("client".to_owned(), is_client.into());
                if let Some(agent_id) = agent_id {
                    details.insert("agent_id".to_owned(), agent_id.as_str().into());
                }
                let event = Self::new(Kind::Connect, "connection");
                event.by(identity.as_str()).details(Value::Object(details))
            }
            Act::Refused { identity, code, message, .. } => {
                let event = Self::new(Kind::Refuse, "connection");
                event.by(identity.as_str()).refused(format!("{code}: {message}"))
            }
            Act::Operated { identity, function, arguments, error, .. } => {
                let kind = match function.as_str() {
                    "mcp.admin.actions.degrade" | "mcp.admin.actions.restore" => Kind::Degrade,
                    "mcp.admin.dead_letters.replay" => Kind::Replay,
                    _ => Kind::Operator,
                };
                // As they came, should they be no JSON.
                let details = serde_json::from_str(&arguments).unwrap_or(Value::String(arguments));
                let event = Self::new(kind, function).by(identity.as_str()).details(details);
                match error {
                    Some(error) => event.refused(format!("{}: {}", error.code, error.message)),
                    None => event,
                }
            }
        };
        Self { peer, connection, ..event }
    }
}
