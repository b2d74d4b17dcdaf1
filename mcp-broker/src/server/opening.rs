//! Connections that are being opened: until HELLO, nothing is known of a peer but its address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An address may have so many times as many places as are free. So one alone gets almost all of them,
/// and many that take all they can still leave some for others.
const SHARE: usize = 8;

/// Places for connections that are being opened.
#[derive(Debug)]
pub(super) struct Opening {
    max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_network: HashMap<IpAddr, usize>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    of: Arc<Opening>,
    network: IpAddr,
}

impl Opening {
    pub(super) fn new(max: usize) -> Self {
        Self { max, taken: Mutex::default() }
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.lock().all
    }

    /// A place for a peer at this address, unless all are taken, or it has its share of them.
    pub(super) fn place(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let network = network(address);
        let mut taken = self.lock();
        let free = self.max.saturating_sub(taken.all);
        let own = taken.by_network.get(&network).copied().unwrap_or(0);
        if own >= free.saturating_mul(SHARE) {
            return None;
        }
        taken.all += 1;
        taken.by_network.insert(network, own + 1);
        Some(Place { of: self.clone(), network })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.of.lock();
        taken.all -= 1;
        if let Some(own) = taken.by_network.get_mut(&self.network) {
            *own -= 1;
            if *own == 0 {
                taken.by_network.remove(&self.network);
            }
        }
    }
}

/// What one peer has for itself: an IPv4 address, or 64 bits of an IPv6 one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(it) => it.into(),
        IpAddr::V6(it) => Ipv6Addr::from_bits(it.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(opening: &Arc<Opening>, address: &str) -> Vec<Place> {
        let address = address.parse().unwrap();
        std::iter::from_fn(|| opening.place(address)).collect()
    }

    #[test]
    fn one_address_leaves_places_for_others() {
        let opening = Arc::new(Opening::new(900));
        let first = take_all(&opening, "192.0.2.1");
        assert_eq!(first.len(), 800);
        let second = take_all(&opening, "192.0.2.2");
        assert_eq!(second.len(), 89);
        assert_eq!(opening.taken(), 889);
        drop(first);
        assert_eq!(opening.taken(), 89);
        drop(second);
        assert!(opening.lock().by_network.is_empty());
    }

    #[test]
    fn addresses_of_one_network_are_one() {
        for (first, same, other) in [
            ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"),
            ("192.0.2.1", "::ffff:192.0.2.1", "::ffff:192.0.2.2"),
        ] {
            let opening = Arc::new(Opening::new(9));
            let _kept = take_all(&opening, first);
            assert!(opening.place(same.parse().unwrap()).is_none());
            assert!(opening.place(other.parse().unwrap()).is_some());
        }
    }

    #[test]
    fn a_single_place_is_one() {
        let opening = Arc::new(Opening::new(1));
        assert_eq!(take_all(&opening, "192.0.2.1").len(), 1);
    }
}
