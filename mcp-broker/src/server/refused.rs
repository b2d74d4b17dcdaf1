//! Why connections are refused before anything is known of their peers, and how many were.

use std::sync::atomic::{AtomicU64, Ordering};

/// A limit that a connection was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// `limits.max_connections`.
    Connections,
    /// `limits.max_address_connections`.
    AddressConnections,
    /// `limits.address_connections_per_s`.
    Rate,
    /// `limits.max_handshakes`.
    Opening,
}

/// How many were refused, by why.
#[derive(Debug, Default)]
pub(super) struct Refused([AtomicU64; Refusal::ALL.len()]);

impl Refusal {
    pub(super) const ALL: [Self; 4] =
        [Self::Connections, Self::AddressConnections, Self::Rate, Self::Opening];

    /// As a label of metrics: the limit's key.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Connections => "max_connections",
            Self::AddressConnections => "max_address_connections",
            Self::Rate => "address_connections_per_s",
            Self::Opening => "max_handshakes",
        }
    }

    /// For the log.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Connections => "as many connections as allowed",
            Self::AddressConnections => "as many connections of one address as allowed",
            Self::Rate => "its address opens connections faster than allowed",
            Self::Opening => "as many connections are being opened as allowed",
        }
    }
}

impl Refused {
    pub(super) fn count(&self, why: Refusal) {
        self.0[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn counts(&self) -> [(&'static str, u64); Refusal::ALL.len()] {
        Refusal::ALL.map(|why| (why.name(), self.0[why as usize].load(Ordering::Relaxed)))
    }
}
