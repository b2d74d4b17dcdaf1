//! Tells the core when a peer's host reports that nothing listens at its port any more.

use std::net::SocketAddr;
use std::sync::Arc;

use dashmap::DashMap;
use mcp_proto::unreachable::Unreachable;

use super::shared::{Outbox, Shared};
use crate::broker::ConnectionId;

/// The newest connection of each address, known by the address at which it was made. One that has
/// moved since is not found at its new one, which only means that silence must tell.
#[derive(Debug, Default)]
pub(super) struct Addresses(DashMap<SocketAddr, ConnectionId>);

impl Addresses {
    pub(super) fn insert(&self, address: SocketAddr, id: ConnectionId) {
        self.0.insert(canonical(address), id);
    }

    pub(super) fn remove(&self, address: SocketAddr, id: ConnectionId) {
        self.0.remove_if(&canonical(address), |_, newest| *newest == id);
    }

    fn find(&self, address: SocketAddr) -> Option<ConnectionId> {
        self.0.get(&canonical(address)).map(|id| *id)
    }
}

/// Runs until dropped.
pub(super) async fn run(shared: Arc<Shared>, reports: Unreachable) {
    let mut outbox = Outbox::default();
    loop {
        match reports.next().await {
            Ok(address) => {
                if let Some(id) = shared.addresses.find(address)
                    && is_at(&shared, id, address)
                {
                    shared.hold(&mut outbox, |core, now| core.handle_unreachable(now, id));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "lost workers are noticed by their silence only");
                return;
            }
        }
    }
}

/// Whether the connection has not moved since.
fn is_at(shared: &Shared, id: ConnectionId, address: SocketAddr) -> bool {
    let link = shared.connections.get(&id);
    link.is_some_and(|link| canonical(link.peer()) == canonical(address))
}

/// An IPv4 address as such, also on a socket for both families.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
