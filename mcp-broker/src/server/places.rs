//! Places of which there are so many, shared by the addresses that peers have: for connections, and for
//! those that are being opened, when nothing is known of a peer but its address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An address may have so many times as many places as are free. So one alone gets almost all of them,
/// and many that take all they can still leave some for others.
const SHARE: usize = 8;

/// How many places one address may have.
#[derive(Debug, Clone, Copy)]
pub(super) enum Most {
    /// Eight times as many as are free.
    Share,
    /// So many.
    Count(usize),
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// All are taken.
    All,
    /// The address has as many as it may.
    Address,
}

/// Places, and who has them.
#[derive(Debug)]
pub(super) struct Places(Mutex<Taken>);

#[derive(Debug)]
struct Taken {
    max: usize,
    most: Most,
    all: usize,
    by_network: HashMap<IpAddr, usize>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    of: Arc<Places>,
    network: IpAddr,
}

impl Places {
    pub(super) fn new(max: usize, most: Most) -> Self {
        Self(Mutex::new(Taken { max, most, all: 0, by_network: HashMap::new() }))
    }

    /// Other bounds, for those who come.
    pub(super) fn set_bounds(&self, max: usize, most: Most) {
        let mut taken = self.lock();
        (taken.max, taken.most) = (max, most);
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.lock().all
    }

    /// A place for a peer at this address.
    pub(super) fn place(self: &Arc<Self>, address: IpAddr) -> Result<Place, Full> {
        let network = network(address);
        let mut taken = self.lock();
        let free = taken.max.saturating_sub(taken.all);
        if free == 0 {
            return Err(Full::All);
        }
        let own = taken.by_network.get(&network).copied().unwrap_or(0);
        let most = match taken.most {
            Most::Share => free.saturating_mul(SHARE),
            Most::Count(most) => most,
        };
        if own >= most {
            return Err(Full::Address);
        }
        taken.all += 1;
        taken.by_network.insert(network, own + 1);
        Ok(Place { of: self.clone(), network })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(it) => it.into(),
        IpAddr::V6(it) => Ipv6Addr::from_bits(it.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(places: &Arc<Places>, address: &str) -> Vec<Place> {
        let address = address.parse().unwrap();
        std::iter::from_fn(|| places.place(address).ok()).collect()
    }

    fn shared(max: usize) -> Arc<Places> {
        Arc::new(Places::new(max, Most::Share))
    }

    #[test]
    fn one_address_leaves_places_for_others() {
        let places = shared(900);
        let first = take_all(&places, "192.0.2.1");
        assert_eq!(first.len(), 800);
        let second = take_all(&places, "192.0.2.2");
        assert_eq!(second.len(), 89);
        assert_eq!(places.taken(), 889);
        drop(first);
        assert_eq!(places.taken(), 89);
        drop(second);
        assert!(places.lock().by_network.is_empty());
    }

    #[test]
    fn addresses_of_one_network_are_one() {
        for (first, same, other) in [
            ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"),
            ("192.0.2.1", "::ffff:192.0.2.1", "::ffff:192.0.2.2"),
        ] {
            let places = shared(9);
            let _kept = take_all(&places, first);
            assert!(places.place(same.parse().unwrap()).is_err());
            assert!(places.place(other.parse().unwrap()).is_ok());
        }
    }

    #[test]
    fn a_single_place_is_one() {
        assert_eq!(take_all(&shared(1), "192.0.2.1").len(), 1);
    }

    #[test]
    fn an_address_has_a_bound_of_its_own_which_can_change() {
        let places = Arc::new(Places::new(4, Most::Count(2)));
        let address = "192.0.2.1".parse().unwrap();
        let kept = take_all(&places, "192.0.2.1");
        assert_eq!(kept.len(), 2);
        assert_eq!(places.place(address).unwrap_err(), Full::Address);
        places.set_bounds(4, Most::Count(3));
        let third = places.place(address).unwrap();
        places.set_bounds(3, Most::Count(3));
        assert_eq!(places.place(address).unwrap_err(), Full::All);
        drop(third);
        assert!(places.place("192.0.2.2".parse().unwrap()).is_ok());
    }
}
