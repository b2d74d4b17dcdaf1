//! Tasks that wait for workers with the same labels: in which order they go.
//!
//! 1. The highest class that has any. A class rises by one every `age_ms` in which none of its tasks
//!    went to a worker, and is where it was once one did. It is the class that rises, not each task: a
//!    flood's old tasks would else climb over others' new ones, and where tasks take longer than
//!    `age_ms`, everything would be in the highest class.
//! 2. In a class, the tenant that has attained the least service ([`Tenants`]).
//! 3. Of a tenant's tasks, those that came back, then the one whose time to wait is over first.

mod class;
mod line;
mod senders;
mod tenants;

use std::cmp::Reverse;

use mcp_proto::{Labels, Priority};

use super::balancer::{Balancer, Policy};
use super::health::Unwell;
use super::inflight::TaskKey;
use super::time::Mono;
use class::{Class, First};
pub(super) use line::Rank;
pub(super) use senders::Senders;
pub(super) use tenants::{Tenant, Tenants};

/// The queue of one distinct set of required labels, and the workers that have room and those
/// labels. Invariant: tasks wait only while no such worker has room that is well, or as many of the action's run as
/// may.
#[derive(Debug)]
pub(super) struct SubQueue {
    pub(super) required: Labels,
    /// Of an arm: what its tasks require themselves.
    pub(super) without_arm: Option<Labels>,
    pub(super) lines: Lines,
    pub(super) balancer: Balancer,
    /// Members with the labels.
    pub(super) eligible: u32,
    /// Those of them that are ready, and whose breaker is not open.
    pub(super) ready: u32,
    pub(super) unwell: Unwell,
    /// What those take at once: their slots and prefetch; of one that is probed, one task.
    pub(super) ready_slots: u64,
    /// Tasks without an outcome, waiting or at a worker.
    pub(super) tasks: usize,
}

/// Tasks that wait for the same workers.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// By priority, lowest first.
    classes: [Class; Priority::ALL.len()],
    pub(super) queued: usize,
}

/// Where a task waits in its lines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot {
    pub(super) priority: Priority,
    pub(super) tenant: Tenant,
    pub(super) rank: Rank,
}

/// The task whose turn it is in its lines. Of several, the least goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    class: Effective,
    attained_us: u64,
    rank: Rank,
}

/// What a class is now, and of those that are the same, the one that has risen the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Effective {
    class: Reverse<u64>,
    own: usize,
}

const HIGHEST: u64 = Priority::ALL.len() as u64 - 1;

impl SubQueue {
    pub(super) fn new(required: Labels, without_arm: Option<Labels>, policy: Policy) -> Self {
        Self {
            required,
            without_arm,
            lines: Lines::default(),
            balancer: Balancer::new(policy),
            eligible: 0,
            ready: 0,
            unwell: Unwell::default(),
            ready_slots: 0,
            tasks: 0,
        }
    }

    /// Has no workers, until they are counted again.
    pub(super) fn forget_workers(&mut self, policy: Policy) {
        self.balancer = Balancer::new(policy);
        (self.eligible, self.ready, self.ready_slots) = (0, 0, 0);
        self.unwell = Unwell::default();
    }
}

impl Lines {
    /// Adds a task of a tenant that has attained this service.
    pub(super) fn push(&mut self, now: Mono, spot: Spot, attained_us: u64, task: TaskKey) {
        self.queued += 1;
        let class = &mut self.classes[index(spot.priority)];
        class.push(now, (spot.tenant, attained_us), spot.rank, task);
    }

    /// Takes a task out of where it was added.
    pub(super) fn remove(&mut self, spot: Spot) {
        self.queued -= 1;
        self.classes[index(spot.priority)].remove(spot.tenant, spot.rank);
    }

    /// A task of this priority goes to a worker.
    pub(super) fn is_served(&mut self, now: Mono, priority: Priority) {
        self.classes[index(priority)].is_served(now);
    }

    /// The task whose turn it is.
    pub(super) fn first(
        &mut self,
        now: Mono,
        age_ms: u64,
        tenants: &Tenants,
    ) -> Option<(Turn, TaskKey)> {
        let class = self.order(now, age_ms).min()?;
        self.classes[class.own].first(tenants).map(|first| turn(class, first))
    }

    /// The tasks, about in the order in which they go.
    pub(super) fn tasks(&self) -> impl Iterator<Item = TaskKey> {
        self.classes.iter().rev().flat_map(Class::iter).map(|first| first.task)
    }

    /// The first that is wanted, of the first few.
    pub(super) fn first_wanted(
        &self,
        now: Mono,
        age_ms: u64,
        is_wanted: impl Fn(TaskKey) -> bool,
    ) -> Option<(Turn, TaskKey)> {
        const LOOKED_AT: usize = 16;
        let mut order: Vec<_> = self.order(now, age_ms).collect();
        order.sort_unstable();
        order
            .into_iter()
            .flat_map(|class| self.classes[class.own].iter().map(move |it| turn(class, it)))
            .take(LOOKED_AT)
            .find(|(_, task)| is_wanted(*task))
    }

    /// How many tasks go before a new one, as things are.
    pub(super) fn ahead_of(&self, spot: Spot) -> usize {
        let own = index(spot.priority);
        let above: usize = self.classes[own + 1..].iter().map(|class| class.queued).sum();
        above + self.classes[own].ahead_of(spot.tenant, spot.rank)
    }

    /// The classes that have tasks; the least goes first.
    fn order(&self, now: Mono, age_ms: u64) -> impl Iterator<Item = Effective> {
        let effective = move |(own, class): (usize, &Class)| {
            let age_us = age_ms.saturating_mul(1000);
            let risen = class.unserved_us(now).checked_div(age_us).unwrap_or(0);
            Effective { class: Reverse((own as u64).saturating_add(risen).min(HIGHEST)), own }
        };
        self.classes.iter().enumerate().filter(|(_, class)| class.queued > 0).map(effective)
    }
}

fn turn(class: Effective, First { attained_us, rank, task }: First) -> (Turn, TaskKey) {
    (Turn { class, attained_us, rank }, task)
}

/// Priorities are numbered from 1.
fn index(priority: Priority) -> usize {
    priority as usize - 1
}

/// What waits.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Total {
    pub(super) tasks: usize,
    pub(super) bytes: usize,
}

impl Total {
    pub(super) fn add(&mut self, bytes: usize) {
        self.tasks += 1;
        self.bytes += bytes;
    }

    pub(super) fn remove(&mut self, bytes: usize) {
        self.tasks -= 1;
        self.bytes -= bytes;
    }
}

/// The same of all queues: of those of live tasks, and of those of shadow tasks.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub(super) live: Total,
    pub(super) shadow: Total,
}

impl Totals {
    pub(super) fn of(&mut self, is_shadow: bool) -> &mut Total {
        if is_shadow { &mut self.shadow } else { &mut self.live }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.live.tasks + self.shadow.tasks == 0
    }
}

#[cfg(test)]
mod tests {
    use foldhash::fast::FixedState;

    use super::super::rng::Rng;
    use super::super::slab::Key;
    use super::*;

    const NAMES: [&[u8]; 4] = [b"", b"a", b"b", b"c"];

    /// Lines beside a list of what is in them.
    struct Both {
        lines: Lines,
        tenants: Tenants,
        list: Vec<(Spot, TaskKey)>,
    }

    impl Both {
        fn push(&mut self, now: Mono, spot: Spot, task: TaskKey) {
            self.tenants.waits(spot.tenant, 1);
            self.lines.push(now, spot, self.tenants.attained_us(spot.tenant), task);
            self.list.push((spot, task));
        }

        fn remove(&mut self, index: usize) {
            let (spot, _) = self.list.swap_remove(index);
            self.tenants.waits_no_more(spot.tenant, 1);
            self.lines.remove(spot);
        }

        /// The first task is one of the class and the tenant whose turn it is, and of those the one
        /// with the least rank.
        fn check_first(&mut self, now: Mono) -> Option<usize> {
            let first = self.lines.first(now, 0, &self.tenants);
            assert_eq!(
                (first.is_none(), self.list.len()),
                (self.list.is_empty(), self.lines.queued)
            );
            let (_, task) = first?;
            let index = self.list.iter().position(|(_, it)| *it == task)?;
            let (spot, _) = self.list[index];
            let of_class = self.list.iter().filter(|(it, _)| it.priority == spot.priority);
            assert!(self.list.iter().all(|(it, _)| it.priority <= spot.priority));
            let attained_us = |tenant| self.tenants.attained_us(tenant);
            for (it, _) in of_class.clone() {
                assert!(attained_us(spot.tenant) <= attained_us(it.tenant));
            }
            let of_tenant = of_class.filter(|(it, _)| it.tenant == spot.tenant);
            assert_eq!(of_tenant.map(|(it, _)| it.rank).min(), Some(spot.rank));
            Some(index)
        }
    }

    #[test]
    fn the_first_is_what_a_look_at_all_finds() {
        let mut rng = Rng::new(7);
        let mut below = |n: u64| rng.next_u64() % n;
        let mut tenants = Tenants::new(FixedState::with_seed(1));
        let names = NAMES.map(|name| tenants.enter(Mono(0), name));
        let mut it = Both { lines: Lines::default(), tenants, list: Vec::new() };
        for step in 1..20_000 {
            let now = Mono(step);
            // More come than go, then fewer.
            let comes = if step / 500 % 2 == 0 { 6 } else { 2 };
            if below(8) < comes {
                let rank = Rank::new(Mono(below(1_000)), below(8) == 0, step);
                let priority = Priority::ALL[below(4) as usize];
                let tenant = names[below(4) as usize];
                it.push(now, Spot { priority, tenant, rank }, Key::from_bits(step));
            } else if below(3) == 0 && !it.list.is_empty() {
                it.remove(below(it.list.len() as u64) as usize);
            } else if let Some(index) = it.check_first(now) {
                let tenant = it.list[index].0.tenant;
                it.remove(index);
                it.tenants.serve(tenant, 1 + below(100));
            }
            it.check_first(now);
            let rank = Rank::of_newcomer(Mono(below(1_000)));
            let spot = Spot { priority: Priority::Low, tenant: names[below(4) as usize], rank };
            assert!(it.lines.ahead_of(spot) <= it.list.len());
        }
    }

    #[test]
    fn of_those_ahead_each_other_tenant_has_as_many_turns_as_its_own() {
        let mut tenants = Tenants::new(FixedState::with_seed(1));
        let [none, a, b, _] = NAMES.map(|name| tenants.enter(Mono(0), name));
        let mut it = Both { lines: Lines::default(), tenants, list: Vec::new() };
        let spot = |priority, tenant, until, ticket| {
            let rank = Rank::new(Mono(until), false, ticket);
            Spot { priority, tenant, rank }
        };
        for ticket in 1..=100 {
            it.push(Mono(0), spot(Priority::Normal, a, ticket, ticket), Key::from_bits(ticket));
        }
        for ticket in 101..=103 {
            it.push(Mono(0), spot(Priority::Normal, b, ticket, ticket), Key::from_bits(ticket));
        }
        it.push(Mono(0), spot(Priority::High, none, 1, 104), Key::from_bits(104));
        let ahead = |priority, tenant, until| it.lines.ahead_of(spot(priority, tenant, until, 200));
        assert_eq!(ahead(Priority::Urgent, a, 50), 0);
        assert_eq!(ahead(Priority::High, none, 0), 0);
        // One above, 50 of its own, all three of the other.
        assert_eq!(ahead(Priority::Normal, a, 50), 1 + 50 + 3);
        // A turn of each other tenant for each of its own and itself.
        assert_eq!(ahead(Priority::Normal, none, 50), 1 + 2);
        assert_eq!(ahead(Priority::Normal, b, 102), 1 + 2 + 3);
        assert_eq!(ahead(Priority::Low, none, 0), 104);
    }
}
