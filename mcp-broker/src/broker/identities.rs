//! Who came here, by number, and what each has in flight.
//!
//! A number is a name's for as long as anything is of it: a connection, a session, an agent or its name, a
//! task, an outcome. Nobody counts that. When there are twice as many numbers as were of use the last time,
//! all that has one is looked through, and those that nothing has are given to others. So there are never
//! much more than twice as many as are of use, whoever issues a new identity for each job.

use std::collections::{HashMap, HashSet};

use foldhash::fast::FixedState;

use super::Core;
use super::identity::Identity;
use super::usage::Usage;

/// Up to this many are kept without a look: some 10 MB.
const KEPT: usize = 65_536;

/// An identity, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct IdentityKey(u32);

#[derive(Debug)]
struct Entry {
    identity: Identity,
    usage: Usage,
}

/// Identities by number and by name.
#[derive(Debug)]
pub(super) struct Identities {
    entries: Vec<Entry>,
    /// Numbers that are nobody's; their entries are what is left of others.
    free: Vec<IdentityKey>,
    /// Of all but the broker's own.
    keys: HashMap<Identity, IdentityKey, FixedState>,
    /// With more than this it is time to look which are of use.
    tolerated: usize,
}

impl Identities {
    /// The broker's own, which no peer can have: that one of its name would have another number.
    pub(super) const BROKER: IdentityKey = IdentityKey(0);

    pub(super) fn new(seed: u64) -> Self {
        let broker = Entry { identity: Identity::new("broker"), usage: Usage::default() };
        Self {
            entries: vec![broker],
            free: Vec::new(),
            keys: HashMap::with_hasher(FixedState::with_seed(seed)),
            tolerated: KEPT,
        }
    }

    /// The number of an identity, a new one if it has none.
    pub(super) fn key_of(&mut self, identity: &Identity) -> IdentityKey {
        if let Some(key) = self.keys.get(identity) {
            return *key;
        }
        let entry = Entry { identity: identity.clone(), usage: Usage::default() };
        let key = match self.free.pop() {
            Some(key) => {
                self.entries[key.0 as usize] = entry;
                key
            }
            None => {
                self.entries.push(entry);
                IdentityKey(self.entries.len() as u32 - 1)
            }
        };
        self.keys.insert(identity.clone(), key);
        key
    }

    pub(super) fn get(&self, key: IdentityKey) -> &Identity {
        &self.entries[key.0 as usize].identity
    }

    /// Whether it is somebody's: not the one that all share who proved none.
    pub(super) fn is_proven(&self, key: IdentityKey) -> bool {
        self.get(key).as_str() != Identity::ANONYMOUS
    }

    /// What an identity has in flight.
    pub(super) fn usage(&self, key: IdentityKey) -> Usage {
        self.entries[key.0 as usize].usage
    }

    pub(super) fn usage_mut(&mut self, key: IdentityKey) -> &mut Usage {
        &mut self.entries[key.0 as usize].usage
    }

    /// All that have a number, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (IdentityKey, &Identity)> {
        let entries = (0..).map(IdentityKey).zip(self.entries.iter().map(|entry| &entry.identity));
        entries
            .filter(|(key, identity)| *key == Self::BROKER || self.keys.get(*identity) == Some(key))
    }

    fn are_many(&self) -> bool {
        self.keys.len() > self.tolerated
    }

    fn forget_all_but(&mut self, in_use: &HashSet<IdentityKey>) {
        let forgotten = self.keys.extract_if(|_, key| !in_use.contains(key));
        self.free.extend(forgotten.map(|(_, key)| key));
        self.tolerated = (2 * self.keys.len()).max(KEPT);
    }
}

impl Core {
    /// Forgets who has nothing here any more, when they are many. To be called while nobody holds a
    /// number that it has just asked for.
    pub(super) fn forget_identities(&mut self) {
        if !self.identities.are_many() {
            return;
        }
        let in_use = self
            .peers
            .values()
            .map(|peer| peer.identity)
            .chain(self.sessions.iter().map(|session| session.identity))
            .chain(self.registry.iter().map(|agent| agent.identity))
            .chain(self.owners.identities())
            .chain(self.tasks.iter().map(|task| task.identity))
            .chain(self.finished.identities())
            .chain(self.durable.ledger.identities())
            .chain(self.answers.identities())
            .collect();
        self.identities.forget_all_but(&in_use);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(number: usize) -> Identity {
        Identity::new(&number.to_string())
    }

    #[test]
    fn numbers_of_those_who_have_nothing_are_given_to_others() {
        let mut identities = Identities::new(1);
        let first = identities.key_of(&named(0));
        for number in 1..=KEPT {
            identities.key_of(&named(number));
        }
        assert!(identities.are_many());
        identities.usage_mut(first).begin(7);
        identities.forget_all_but(&HashSet::from([first]));
        assert_eq!(identities.key_of(&named(0)), first);
        assert_eq!(identities.usage(first).bytes, 7);
        for number in KEPT + 1..3 * KEPT {
            let key = identities.key_of(&named(number));
            assert_eq!(*identities.get(key), named(number));
            assert_ne!(key, first);
            assert_ne!(key, Identities::BROKER);
            assert_eq!(identities.usage(key), Usage::default());
            if identities.are_many() {
                identities.forget_all_but(&HashSet::from([first]));
            }
        }
        assert!(identities.entries.len() <= KEPT + 2);
        assert_eq!(identities.iter().count(), identities.keys.len() + 1);
    }
}
