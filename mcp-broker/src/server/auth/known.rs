//! Identities that were verified while their proofs could be, for when they can't.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::broker::Mono;

/// Identities and when they were verified last; bounded in number and time, the oldest go first.
#[derive(Debug)]
pub(super) struct Known {
    verified: HashMap<Box<str>, Mono>,
    order: VecDeque<(Box<str>, Mono)>,
    max: usize,
    max_age_us: u64,
}

impl Known {
    pub(super) fn new(max: usize, max_age_ms: u64) -> Self {
        let max_age_us = max_age_ms.saturating_mul(1000);
        Self { verified: HashMap::new(), order: VecDeque::new(), max, max_age_us }
    }

    /// For how long an identity is known.
    pub(super) fn max_age(&self) -> Duration {
        Duration::from_micros(self.max_age_us)
    }

    /// An identity was verified.
    pub(super) fn note(&mut self, now: Mono, identity: &str) {
        match self.verified.get_mut(identity) {
            Some(at) => *at = now,
            None => {
                self.verified.insert(identity.into(), now);
                self.order.push_back((identity.into(), now));
            }
        }
        while let Some((_, since)) = self.order.front() {
            if self.order.len() <= self.max && *since + self.max_age_us > now {
                break;
            }
            let Some((identity, since)) = self.order.pop_front() else { break };
            match self.verified.get(&identity) {
                Some(at) if *at != since => self.order.push_back((identity, *at)),
                _ => {
                    self.verified.remove(&identity);
                }
            }
        }
    }

    /// Until when an identity is still known, if it is.
    pub(super) fn until(&self, now: Mono, identity: &str) -> Option<Mono> {
        let until = *self.verified.get(identity)? + self.max_age_us;
        (until > now).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_forgets_the_oldest() {
        let mut known = Known::new(2, 1);
        known.note(Mono(1), "a");
        known.note(Mono(2), "b");
        known.note(Mono(3), "a");
        known.note(Mono(4), "c");
        assert_eq!(known.until(Mono(4), "a"), Some(Mono(1_003)));
        assert_eq!(known.until(Mono(4), "b"), None);
        assert!(known.until(Mono(4), "c").is_some());
        assert_eq!(known.until(Mono(1_003), "a"), None);
        known.note(Mono(9_000), "d");
        assert_eq!(known.verified.len(), 1);
        assert_eq!(known.order.len(), 1);
    }
}
