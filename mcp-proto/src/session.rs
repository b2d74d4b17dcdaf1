//! Who may send what, and when. Both sides hold one [`Session`] a connection and show it every
//! frame they receive.
//!
//! ```text
//!   dialling side                          broker
//!   ─────────────                          ──────
//!   Opening ── HELLO ──────────────────▶  Opening
//!      │   ◀────────────────────── ACK ──    │
//!      ▼                                     ▼
//!    Open(roles) ◀── frames of the roles ──▶ Open(roles)
//!      │                                     │
//!      └────────── either side closes ───────┘
//! ```
//!
//! | open, as | the dialling side sends | the broker sends |
//! |---|---|---|
//! | any | PING PONG ERROR | PING PONG ERROR GOAWAY |
//! | client | SEND CANCEL FETCH SETTLE RESUME CHUNK CREDIT | DELIVER STATUS ACCEPTED CHUNK CREDIT PROGRESS |
//! | worker | STARTED PROGRESS CHUNK CREDIT RESULT NACK PARK | ROUTE CANCEL CHUNK CREDIT |
//!
//! Before ACK the broker may send only ERROR (it refuses) and the dialling side only HELLO.

use crate::error::UnexpectedFrame;
use crate::message::{MessageKind, Roles};

/// Which side of the connection holds the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// A client or worker: it dialled.
    Dialler,
    /// The broker: it was dialled.
    Broker,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Opening,
    Open(Roles),
}

/// The state of one connection's session.
#[derive(Debug, Clone, Copy)]
pub struct Session {
    side: Side,
    state: State,
}

impl Session {
    /// A session before HELLO.
    pub fn new(side: Side) -> Self {
        Self { side, state: State::Opening }
    }

    /// HELLO was accepted: ACK has been sent, or received.
    pub fn open(&mut self, roles: Roles) {
        self.state = State::Open(roles);
    }

    /// The roles, once the session is open.
    pub fn roles(&self) -> Option<Roles> {
        match self.state {
            State::Opening => None,
            State::Open(roles) => Some(roles),
        }
    }

    /// Checks a frame that arrived. A session whose peer sent an unexpected one is to be closed
    /// with UNEXPECTED_FRAME.
    #[inline]
    pub fn check_received(&self, kind: MessageKind) -> Result<(), UnexpectedFrame> {
        use MessageKind as Kind;
        let unexpected = |when| Err(UnexpectedFrame { kind, when });
        let roles = match self.state {
            State::Opening => {
                return match (self.side, kind) {
                    (Side::Broker, Kind::Hello) => Ok(()),
                    (Side::Broker, _) => unexpected("before HELLO"),
                    (Side::Dialler, Kind::Ack | Kind::Error | Kind::Goaway) => Ok(()),
                    (Side::Dialler, _) => unexpected("before ACK"),
                };
            }
            State::Open(roles) => roles,
        };
        match (self.side, kind) {
            (_, Kind::Ping | Kind::Pong | Kind::Error) | (Side::Dialler, Kind::Goaway) => Ok(()),
            // Of results and of inputs: every connection has one of the roles.
            (_, Kind::Chunk | Kind::Credit) => Ok(()),
            (
                Side::Broker,
                Kind::Send | Kind::Cancel | Kind::Fetch | Kind::Settle | Kind::Resume,
            )
            | (Side::Dialler, Kind::Deliver | Kind::Status | Kind::Accepted | Kind::Progress) => {
                if roles.client {
                    Ok(())
                } else {
                    unexpected("without the role client")
                }
            }
            (
                Side::Broker,
                Kind::Result | Kind::Nack | Kind::Started | Kind::Progress | Kind::Park,
            )
            | (Side::Dialler, Kind::Route | Kind::Cancel) => {
                if roles.worker {
                    Ok(())
                } else {
                    unexpected("without the role worker")
                }
            }
            (Side::Broker, Kind::Hello) | (Side::Dialler, Kind::Ack) => {
                unexpected("twice on a connection")
            }
            (
                Side::Dialler,
                Kind::Hello
                | Kind::Send
                | Kind::Fetch
                | Kind::Settle
                | Kind::Resume
                | Kind::Result
                | Kind::Nack
                | Kind::Started
                | Kind::Park,
            ) => unexpected("from a broker"),
            (
                Side::Broker,
                Kind::Ack
                | Kind::Goaway
                | Kind::Route
                | Kind::Deliver
                | Kind::Status
                | Kind::Accepted,
            ) => unexpected("from a client or worker"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use MessageKind as Kind;

    const CLIENT: Roles = Roles { client: true, worker: false };
    const WORKER: Roles = Roles { client: false, worker: true };

    fn open(side: Side, roles: Roles) -> Session {
        let mut session = Session::new(side);
        session.open(roles);
        session
    }

    #[test]
    fn nothing_goes_before_hello() {
        let session = Session::new(Side::Broker);
        assert!(session.check_received(Kind::Hello).is_ok());
        let error = session.check_received(Kind::Send).unwrap_err();
        assert_eq!(error.to_string(), "SEND is not expected before HELLO");
    }

    #[test]
    fn hello_goes_once() {
        assert!(open(Side::Broker, CLIENT).check_received(Kind::Hello).is_err());
    }

    #[test]
    fn each_role_has_its_frames() {
        let client = open(Side::Broker, CLIENT);
        assert!(client.check_received(Kind::Send).is_ok());
        assert!(client.check_received(Kind::Result).is_err());
        let worker = open(Side::Broker, WORKER);
        assert!(worker.check_received(Kind::Result).is_ok());
        assert!(worker.check_received(Kind::Send).is_err());
    }

    #[test]
    fn a_broker_never_receives_what_only_brokers_send() {
        let both = open(Side::Broker, Roles { client: true, worker: true });
        for kind in [Kind::Ack, Kind::Goaway, Kind::Route, Kind::Deliver, Kind::Status] {
            assert!(both.check_received(kind).is_err(), "{kind}");
        }
    }
}
