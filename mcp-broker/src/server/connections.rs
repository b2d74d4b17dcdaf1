//! The connections that the core knows, by id.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use dashmap::DashMap;
use mcp_proto::ErrorCode;
use mcp_proto::lane::Lane;
use quinn::VarInt;
use tokio::sync::Notify;

use super::outgoing::Outgoing;
use crate::broker::ConnectionId;

/// Connections by id.
pub(super) type Connections = DashMap<ConnectionId, Arc<Link>>;

/// One connection, as everyone but its own tasks sees it: where frames for it go, and how to end it.
pub(super) struct Link {
    pub(super) id: ConnectionId,
    /// Frames for the peer.
    pub(super) lane: Lane<quinn::SendStream>,
    quic: quinn::Connection,
    /// Set once, when this side ends the connection.
    closing: OnceLock<Closing>,
    /// Wakes the writer task, which does the closing.
    close_asked: Notify,
    is_overflowing: AtomicBool,
}

/// Why this side ends a connection.
#[derive(Debug, Clone)]
pub(super) struct Closing {
    /// None: orderly.
    pub(super) code: Option<ErrorCode>,
    pub(super) message: String,
}

impl Link {
    pub(super) fn new(
        id: ConnectionId,
        quic: quinn::Connection,
        lane: quinn::SendStream,
        outgoing: &Outgoing,
    ) -> Self {
        Self {
            id,
            lane: Lane::new(lane).counted_in(outgoing.waiting_bytes().clone()),
            quic,
            closing: OnceLock::new(),
            close_asked: Notify::new(),
            is_overflowing: AtomicBool::new(false),
        }
    }

    pub(super) fn peer(&self) -> SocketAddr {
        self.quic.remote_address()
    }

    /// Ends the connection once what was pushed is flushed. The first reason counts.
    pub(super) fn close(&self, code: Option<ErrorCode>, message: String) {
        if self.closing.set(Closing { code, message }).is_ok() {
            self.lane.finish();
            self.close_asked.notify_one();
        }
    }

    /// Whether this side is ending the connection: frames from its peer no longer count.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.get().is_some()
    }

    /// Why this side ends the connection, once it does. For one waiter: the writer task.
    pub(super) async fn closing(&self) -> &Closing {
        loop {
            match self.closing.get() {
                Some(closing) => return closing,
                None => self.close_asked.notified().await,
            }
        }
    }

    /// Says for the first time only that more is queued than the connection may have, when its worker
    /// holds tasks of so many bytes.
    pub(super) fn overflows(&self, outgoing: &Outgoing, tasks_bytes: usize) -> bool {
        let besides = tasks_bytes.min(outgoing.tasks_bytes());
        outgoing.is_too_much(self.lane.queued_bytes().saturating_sub(besides))
            && !self.is_overflowing.swap(true, Ordering::Relaxed)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Closes a QUIC connection with the code and reason of the protocol.
pub(super) fn close(quic: &quinn::Connection, code: Option<ErrorCode>, message: &str) {
    quic.close(close_code(code), message.as_bytes());
}

/// The QUIC application code of an error; 0 for an orderly end.
pub(super) fn close_code(code: Option<ErrorCode>) -> VarInt {
    VarInt::from_u32(code.map_or(0, |code| code as u32))
}
