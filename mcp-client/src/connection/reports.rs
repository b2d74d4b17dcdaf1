//! Reports of the broker's host that nothing listens at its port.

use std::future::pending;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use mcp_proto::unreachable::Unreachable;

/// The reports of a socket; none on a system that does not give them.
#[derive(Debug, Clone, Default)]
pub(super) struct Reports(Option<Arc<Unreachable>>);

impl Reports {
    pub(super) fn watch(socket: &UdpSocket) -> Self {
        Self(Unreachable::watch(socket).ok().map(Arc::new))
    }

    /// Forgets the reports until now.
    pub(super) fn discard(&self) {
        if let Some(reports) = &self.0 {
            reports.discard();
        }
    }

    /// Waits until nothing listens at this address. A report about another address is taken, too:
    /// there will be more of them. Cancel-safe.
    pub(super) async fn about(&self, address: SocketAddr) {
        let Some(reports) = &self.0 else { return pending().await };
        loop {
            match reports.next().await {
                Ok(it) if it == address => return,
                Ok(_) => {}
                Err(_) => return pending().await,
            }
        }
    }
}
