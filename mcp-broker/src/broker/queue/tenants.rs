//! On whose account tasks of an action wait, and how much service each has had.
//!
//! Start-time fair queueing (Goyal, Vin, Cheng, "Start-time Fair Queuing", SIGCOMM 1996): whoever has
//! attained the least service goes first. One that comes back after it had nothing waiting starts
//! where those stand that were served meanwhile, so nobody saves up for a flood.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::super::mean::Mean;
use super::super::rates::Bucket;
use super::super::time::Mono;
use super::Total;

/// Tenants of one action that are told apart. Beyond them, several share what one has.
const MAX_TENANTS: usize = 1_024;

/// Entries that those share that find no place: whoever makes up names takes these, not the entries of
/// those that were there before.
const SHARED: usize = 16;

/// Entries that are looked at for one that can be forgotten.
const LOOKED_AT: usize = 64;

/// How much service a tenant can be behind, µs: what a lower class, or labels that few workers have,
/// kept it from is not made up for without end.
const MAX_BEHIND_US: u64 = 10_000_000;

/// A tenant of an action. It names an entry for as long as one of its tasks is without an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(in crate::broker) struct Tenant(u16);

impl Tenant {
    /// That of tasks which don't say one. It has no name to look up, and is never forgotten.
    pub(in crate::broker) const NONE: Self = Self(0);

    /// One that has no tasks, and no entry.
    pub(in crate::broker) const STRANGER: Self = Self(u16::MAX);
}

/// The tenants of an action.
#[derive(Debug)]
pub(in crate::broker) struct Tenants {
    none: Entry,
    /// The others, then those that are shared.
    others: Vec<Entry>,
    names: HashTable<Tenant>,
    hasher: FixedState,
    /// Where the next look for one that can be forgotten begins.
    hand: usize,
    /// What those had attained that were served, when they were: the most of all. The virtual time.
    served_us: u64,
}

#[derive(Debug, Default)]
struct Entry {
    name: Box<[u8]>,
    hash: u64,
    /// Its tasks without an outcome.
    tasks: usize,
    waiting: Total,
    /// Service, µs.
    attained_us: u64,
    service: Mean,
    bucket: Bucket,
}

impl Tenants {
    pub(in crate::broker) fn new(hasher: FixedState) -> Self {
        Self {
            none: Entry::default(),
            others: Vec::new(),
            names: HashTable::new(),
            hasher,
            hand: 0,
            served_us: 0,
        }
    }

    /// The tenant of this name, for a task that comes.
    #[inline]
    pub(in crate::broker) fn enter(&mut self, now: Mono, name: &[u8]) -> Tenant {
        if name.is_empty() { Tenant::NONE } else { self.enter_named(now, name) }
    }

    fn enter_named(&mut self, now: Mono, name: &[u8]) -> Tenant {
        let hash = self.hasher.hash_one(name);
        let is_it = |tenant: &Tenant| *self.at(*tenant).name == *name;
        let tenant = match self.names.find(hash, is_it) {
            Some(tenant) => *tenant,
            None => self.add(now, name, hash),
        };
        self.at_mut(tenant).tasks += 1;
        tenant
    }

    /// The tenant of this name.
    pub(in crate::broker) fn find(&self, name: &[u8]) -> Tenant {
        if name.is_empty() {
            return Tenant::NONE;
        }
        let is_it = |tenant: &Tenant| *self.at(*tenant).name == *name;
        let found = self.names.find(self.hasher.hash_one(name), is_it);
        found.copied().unwrap_or(Tenant::STRANGER)
    }

    /// One of its tasks is over.
    pub(in crate::broker) fn leave(&mut self, tenant: Tenant) {
        if tenant != Tenant::NONE {
            self.at_mut(tenant).tasks -= 1;
        }
    }

    fn add(&mut self, now: Mono, name: &[u8], hash: u64) -> Tenant {
        let tenant = if self.others.len() < MAX_TENANTS {
            self.others.push(Entry::default());
            Tenant(self.others.len() as u16)
        } else if let Some(tenant) = self.forget_one(now) {
            tenant
        } else {
            self.others.resize_with(MAX_TENANTS + SHARED, Entry::default);
            return Tenant((1 + MAX_TENANTS + hash as usize % SHARED) as u16);
        };
        *self.at_mut(tenant) = Entry { name: name.into(), hash, ..Entry::default() };
        let others = &self.others;
        let hash_of = |tenant: &Tenant| others[usize::from(tenant.0) - 1].hash;
        self.names.insert_unique(hash, tenant, hash_of);
        tenant
    }

    /// Makes a place free whose tenant has no task, and would be no other one if it came back.
    fn forget_one(&mut self, now: Mono) -> Option<Tenant> {
        for _ in 0..LOOKED_AT {
            self.hand = (self.hand + 1) % MAX_TENANTS;
            let entry = &self.others[self.hand];
            if entry.tasks > 0 || !entry.bucket.is_full(now) || entry.attained_us > self.served_us {
                continue;
            }
            let tenant = Tenant(self.hand as u16 + 1);
            if let Ok(entry) = self.names.find_entry(entry.hash, |it| *it == tenant) {
                entry.remove();
            }
            return Some(tenant);
        }
        None
    }

    /// One of its tasks waits from now on.
    pub(in crate::broker) fn waits(&mut self, tenant: Tenant, bytes: usize) {
        let served_us = self.served_us;
        let entry = self.at_mut(tenant);
        if entry.waiting.tasks == 0 {
            entry.attained_us = entry.attained_us.max(served_us);
        }
        entry.waiting.add(bytes);
    }

    /// One of its tasks waits no more.
    pub(in crate::broker) fn waits_no_more(&mut self, tenant: Tenant, bytes: usize) {
        self.at_mut(tenant).waiting.remove(bytes);
    }

    /// One of its waiting tasks needs less room than it did.
    pub(in crate::broker) fn shrinks(&mut self, tenant: Tenant, by: usize) {
        self.at_mut(tenant).waiting.bytes -= by;
    }

    /// One of its waiting tasks goes to a worker: it is charged with what its tasks take as a rule,
    /// or with this if that is not known.
    pub(in crate::broker) fn serve(&mut self, tenant: Tenant, or_us: u64) {
        let served_us = self.served_us;
        let entry = self.at_mut(tenant);
        let start_us = entry.attained_us.max(served_us.saturating_sub(MAX_BEHIND_US));
        // At least something, so that equals take turns.
        entry.attained_us = start_us + entry.service.us().unwrap_or(or_us).max(1);
        self.served_us = served_us.max(start_us);
    }

    /// One of its tasks was done in this time.
    pub(in crate::broker) fn note_service(&mut self, tenant: Tenant, us: u64) {
        self.at_mut(tenant).service.note(us);
    }

    /// What of its waits.
    pub(in crate::broker) fn waiting(&self, tenant: Tenant) -> Total {
        if tenant == Tenant::STRANGER { Total::default() } else { self.at(tenant).waiting }
    }

    pub(in crate::broker) fn attained_us(&self, tenant: Tenant) -> u64 {
        self.at(tenant).attained_us
    }

    pub(in crate::broker) fn bucket(&self, tenant: Tenant) -> Bucket {
        if tenant == Tenant::STRANGER { Bucket::default() } else { self.at(tenant).bucket }
    }

    pub(in crate::broker) fn bucket_mut(&mut self, tenant: Tenant) -> &mut Bucket {
        &mut self.at_mut(tenant).bucket
    }

    fn at(&self, tenant: Tenant) -> &Entry {
        match tenant.0 {
            0 => &self.none,
            number => &self.others[usize::from(number) - 1],
        }
    }

    fn at_mut(&mut self, tenant: Tenant) -> &mut Entry {
        match tenant.0 {
            0 => &mut self.none,
            number => &mut self.others[usize::from(number) - 1],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenants() -> Tenants {
        Tenants::new(FixedState::with_seed(1))
    }

    fn name(number: usize) -> Vec<u8> {
        format!("tenant-{number}").into_bytes()
    }

    #[test]
    fn made_up_names_take_bounded_room_and_no_place_from_others() {
        let mut it = tenants();
        let honest = it.enter(Mono(0), b"honest");
        it.waits(honest, 10);
        let others: Vec<_> = (0..100_000).map(|n| it.enter(Mono(0), &name(n))).collect();
        assert_eq!(it.others.len(), MAX_TENANTS + SHARED);
        assert!(others.iter().all(|other| *other != honest));
        assert_eq!(it.enter(Mono(0), b"honest"), honest);
        assert_eq!(it.waiting(honest).tasks, 1);
        // With their tasks they go, and others get their places.
        others.into_iter().for_each(|tenant| it.leave(tenant));
        let shared = Tenant(MAX_TENANTS as u16);
        assert!((0..100).all(|n| it.enter(Mono(0), &name(1_000_000 + n)) <= shared));
        assert_eq!(it.names.len(), MAX_TENANTS);
        assert_eq!(it.enter(Mono(0), b"honest"), honest);
    }

    #[test]
    fn who_comes_back_has_saved_nothing_up() {
        let mut it = tenants();
        let [a, b] = [b"a", b"b"].map(|name| it.enter(Mono(0), name));
        it.waits(a, 1);
        (0..100).for_each(|_| it.serve(a, 1_000));
        it.waits(b, 1);
        assert_eq!(it.attained_us(b), it.attained_us(a) - 1_000);
        // Nor has one that was kept from its turn, beyond a bound.
        (0..100_000).for_each(|_| it.serve(a, 1_000));
        it.serve(b, 1_000);
        assert_eq!(it.attained_us(a) - it.attained_us(b), MAX_BEHIND_US);
    }
}
