//! The tasks of one class that wait, in a line for each tenant.

use std::collections::{BTreeMap, BTreeSet};

use super::super::inflight::TaskKey;
use super::super::time::Mono;
use super::line::{Line, Rank};
use super::tenants::{Tenant, Tenants};

/// Lines of one class. All operations take O(log n) of lines and of tasks.
#[derive(Debug, Default)]
pub(super) struct Class {
    /// When one of its tasks last went to a worker, or it became non-empty.
    since: Mono,
    pub(super) queued: usize,
    /// By tenant. Those that are empty are gone, but for the one of tasks without a tenant: where
    /// there are no tenants, nothing is allocated again and again.
    lines: BTreeMap<Tenant, Place>,
    /// The lines that are not empty, by the service that their tenants had attained when it was last
    /// looked, which is no more than it is now.
    turns: BTreeSet<(u64, Tenant)>,
}

#[derive(Debug, Default)]
struct Place {
    line: Line,
    /// As in `turns`.
    attained_us: u64,
}

/// The task whose turn it is in a class.
#[derive(Debug, Clone, Copy)]
pub(super) struct First {
    pub(super) attained_us: u64,
    pub(super) rank: Rank,
    pub(super) task: TaskKey,
}

impl Class {
    pub(super) fn push(
        &mut self,
        now: Mono,
        (tenant, attained_us): (Tenant, u64),
        rank: Rank,
        task: TaskKey,
    ) {
        if self.queued == 0 {
            self.since = now;
        }
        self.queued += 1;
        let place = self.lines.entry(tenant).or_default();
        if place.line.is_empty() {
            place.attained_us = attained_us;
            self.turns.insert((attained_us, tenant));
        }
        place.line.insert(rank, task);
    }

    pub(super) fn remove(&mut self, tenant: Tenant, rank: Rank) {
        let Some(place) = self.lines.get_mut(&tenant) else { return };
        if !place.line.remove(rank) {
            return;
        }
        self.queued -= 1;
        if place.line.is_empty() {
            self.turns.remove(&(place.attained_us, tenant));
            if tenant != Tenant::NONE {
                self.lines.remove(&tenant);
            }
        }
    }

    /// One of its tasks goes to a worker.
    pub(super) fn is_served(&mut self, now: Mono) {
        self.since = now;
    }

    /// For how long none of its tasks has gone to a worker, µs.
    pub(super) fn unserved_us(&self, now: Mono) -> u64 {
        now.since(self.since)
    }

    /// The first task of the tenant that has attained the least service.
    pub(super) fn first(&mut self, tenants: &Tenants) -> Option<First> {
        loop {
            let (looked_us, tenant) = *self.turns.first()?;
            let attained_us = tenants.attained_us(tenant);
            let place = self.lines.get_mut(&tenant)?;
            if looked_us == attained_us || self.turns.len() == 1 {
                let (rank, task) = place.line.first()?;
                return Some(First { attained_us, rank, task });
            }
            place.attained_us = attained_us;
            self.turns.pop_first();
            self.turns.insert((attained_us, tenant));
        }
    }

    /// Its tasks: about in the order in which they go.
    pub(super) fn iter(&self) -> impl Iterator<Item = First> {
        let line = |(attained_us, tenant): &(u64, Tenant)| {
            let tasks = self.lines.get(tenant).into_iter().flat_map(|place| place.line.iter());
            let attained_us = *attained_us;
            tasks.map(move |(rank, task)| First { attained_us, rank, task })
        };
        self.turns.iter().flat_map(line)
    }

    /// How many of its tasks go before a new one of this tenant and rank: all, or those before it in
    /// its own line and as many of each other tenant's, if that is less.
    pub(super) fn ahead_of(&self, tenant: Tenant, rank: Rank) -> usize {
        let own = self.lines.get(&tenant).filter(|place| !place.line.is_empty());
        let ahead = own.map_or(0, |place| place.line.ahead_of(rank));
        let others = self.turns.len() - usize::from(own.is_some());
        let own_queued = own.map_or(0, |place| place.line.len());
        let of_others = (self.queued - own_queued).min((ahead + 1).saturating_mul(others));
        ahead + of_others
    }
}
