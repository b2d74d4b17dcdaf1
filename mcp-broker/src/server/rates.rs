//! How often an address may open a connection.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use super::places::network;
use crate::broker::Mono;

/// So many buckets for all addresses: a power of two. Two that share one, as those of 128 busy addresses
/// do with a chance of 1 in 128, share its rate; and no peer can choose whose it shares.
/// Source: McKenney, "Stochastic fairness queueing", INFOCOM 1990.
const BUCKETS: usize = 16 * 1024;

/// Connections that an address may open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    /// In the long run; 0: any number.
    pub(super) per_s: u32,
    /// At once.
    pub(super) burst: u32,
}

/// What is to be done with a peer that comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept,
    /// It has to prove first that its address is its own: half of what an address may open is for those
    /// who did, so that nobody else can use it up for them.
    Prove,
    Refuse,
}

/// Token buckets of addresses, in the form of the generic cell rate algorithm (ITU-T I.371).
#[derive(Debug)]
pub(super) struct Rates {
    hash: RandomState,
    /// When each is full again, µs.
    full_at: Box<[Mono]>,
}

impl Rates {
    pub(super) fn new() -> Self {
        Self { hash: RandomState::new(), full_at: vec![Mono::default(); BUCKETS].into() }
    }

    /// Counts a peer that comes from this address, if it is let in.
    pub(super) fn take(
        &mut self,
        now: Mono,
        address: IpAddr,
        rate: Rate,
        has_proved: bool,
    ) -> Verdict {
        if rate.per_s == 0 {
            return Verdict::Accept;
        }
        let index = self.hash.hash_one(network(address)) as usize % BUCKETS;
        let one_us = 1_000_000 / u64::from(rate.per_s);
        let all_us = one_us * u64::from(rate.burst.max(1));
        let full_at = self.full_at[index].max(now) + one_us;
        let used_us = full_at.since(now);
        if used_us > all_us {
            return Verdict::Refuse;
        }
        if !has_proved && used_us > (all_us / 2).max(one_us) {
            return Verdict::Prove;
        }
        self.full_at[index] = full_at;
        Verdict::Accept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_s: 10, burst: 4 };

    fn take(rates: &mut Rates, ms: u64, address: &str, has_proved: bool) -> Verdict {
        rates.take(Mono::default().plus_ms(ms), address.parse().unwrap(), RATE, has_proved)
    }

    #[test]
    fn an_address_has_a_burst_and_then_its_rate() {
        let mut it = Rates::new();
        let mut taken =
            |ms| (0..9).filter(|_| take(&mut it, ms, "192.0.2.1", true) == Verdict::Accept).count();
        assert_eq!(taken(1_000), 4);
        assert_eq!(taken(1_099), 0);
        assert_eq!(taken(1_100), 1);
        assert_eq!(taken(1_400), 3);
        assert_eq!(taken(60_000), 4);
    }

    #[test]
    fn who_has_not_proved_its_address_uses_up_half_of_what_it_may_open() {
        let mut it = Rates::new();
        let verdicts: Vec<_> = (0..9).map(|_| take(&mut it, 0, "2001:db8::1", false)).collect();
        assert_eq!(verdicts[..2], [Verdict::Accept; 2]);
        assert_eq!(verdicts[2..], [Verdict::Prove; 7]);
        let verdicts: Vec<_> = (0..3).map(|_| take(&mut it, 0, "2001:db8::2", true)).collect();
        assert_eq!(verdicts, [Verdict::Accept, Verdict::Accept, Verdict::Refuse]);
        assert_eq!(take(&mut it, 0, "2001:db8::3", false), Verdict::Refuse);
    }

    #[test]
    fn without_a_rate_everybody_may() {
        let mut it = Rates::new();
        let off = Rate { per_s: 0, burst: 0 };
        let address = "192.0.2.1".parse().unwrap();
        assert!((0..999).all(|_| it.take(Mono::default(), address, off, false) == Verdict::Accept));
    }
}
