//! What must hold of clients' sessions: each is told once of all that it waits for, by itself.

use std::collections::{BTreeMap, BTreeSet};

use mcp_broker::broker::ConnectionId;
use mcp_proto::{Ack, SessionId};

use super::Oracle;

/// Of this epoch.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    at: BTreeMap<u64, SessionId>,
    /// The tasks whose outcomes they wait for.
    waits: BTreeMap<SessionId, BTreeSet<String>>,
    /// What the core was asked for in this step.
    asked: Option<Asked>,
}

#[derive(Debug, PartialEq, Eq)]
struct Asked {
    at: ConnectionId,
    id: String,
    /// Whether the session waited for its outcome already.
    is_known: bool,
}

impl Sessions {
    /// DELIVER, or STATUS that says that there is nothing to wait for, goes out.
    pub(super) fn told(&mut self, at: ConnectionId, id: &str) {
        let Some(session) = self.at.get(&at.0) else { return };
        let waited = self.waits.get_mut(session).is_some_and(|waits| waits.remove(id));
        let asked = self.asked.take_if(|asked| asked.at == at && asked.id == id);
        match asked {
            None => assert!(waited, "{id} is told to {session}, which does not wait for it"),
            Some(asked) => {
                let was_in_vain = asked.is_known;
                assert!(!was_in_vain, "{id} has ended, and {session} had to ask to be told");
            }
        }
    }

    pub(super) fn step_is_over(&mut self) {
        self.asked = None;
    }

    pub(super) fn closed(&mut self, connection: ConnectionId) {
        self.at.remove(&connection.0);
    }
}

impl Oracle {
    /// ACK goes out to a client.
    pub(crate) fn opened(&mut self, at: ConnectionId, ack: &Ack) {
        let Some(session) = &ack.session_id else { return };
        self.sessions.at.insert(at.0, session.clone());
        let waits = self.sessions.waits.entry(session.clone()).or_default();
        if !ack.resumed {
            waits.clear();
        }
    }

    /// The core reads SEND or FETCH: its session waits for this outcome.
    pub(crate) fn asked(&mut self, at: ConnectionId, id: &str) {
        let Some(session) = self.sessions.at.get(&at.0) else { return };
        let waits = self.sessions.waits.entry(session.clone()).or_default();
        let is_known = !waits.insert(id.to_owned());
        self.sessions.asked = Some(Asked { at, id: id.to_owned(), is_known });
    }
}
