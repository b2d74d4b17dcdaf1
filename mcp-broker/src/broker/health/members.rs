//! The health of a pool's members, and what it comes to for its sub-queues.

use super::Condition;
use super::slow_start::SlowStart;
use crate::broker::balancer::Member;
use crate::broker::pool::{Pool, PoolMember};
use crate::broker::queue::SubQueue;
use crate::broker::rules::ActionRules;
use crate::broker::time::Mono;

/// Of a sub-queue's workers that would take tasks, how many are unwell.
#[derive(Debug, Clone, Copy)]
pub(in crate::broker) struct Unwell {
    /// They count as ready, and are left out while others are.
    ejected: u32,
    /// They count as ready: they are being probed, or about to be.
    half_open: u32,
    /// They do not count as ready.
    open: u32,
    /// When the first breaker that is open lets a probe through; the end of time if none is.
    half_open_at: Mono,
    /// Since when the breakers of all workers have been open, if they are.
    outage: Option<Mono>,
}

const NEVER: Mono = Mono(u64::MAX);

impl Default for Unwell {
    fn default() -> Self {
        Self { ejected: 0, half_open: 0, open: 0, half_open_at: NEVER, outage: None }
    }
}

impl SubQueue {
    /// Whether those that are left out get tasks, as nobody else is left: Envoy's panic threshold, at
    /// zero.
    pub(in crate::broker) fn is_last_resort(&self) -> bool {
        let Unwell { ejected, half_open, .. } = self.unwell;
        ejected > 0 && ejected + half_open == self.ready
    }

    /// Whether there are workers that would take tasks, and the breakers of all of them are open.
    pub(in crate::broker) fn is_barred(&self) -> bool {
        self.ready == 0 && self.unwell.open > 0
    }

    /// Whether several workers get tasks when they have room.
    pub(in crate::broker) fn has_several_takers(&self) -> bool {
        let left_out = if self.is_last_resort() { 0 } else { self.unwell.ejected };
        self.ready - left_out > 1
    }

    /// Whether it has a worker that takes tasks: one that is probed does when it has room.
    pub(in crate::broker) fn has_worker(&self) -> bool {
        self.ready > self.unwell.half_open || self.balancer.len() > 0
    }

    /// Workers that would take tasks, but for their breaker.
    pub(in crate::broker) fn open(&self) -> u32 {
        self.unwell.open
    }

    /// Those of the ready ones that are being probed, or about to be.
    pub(in crate::broker) fn half_open(&self) -> u32 {
        self.unwell.half_open
    }

    pub(super) fn ejected(&self) -> u32 {
        self.unwell.ejected
    }

    pub(super) fn half_open_at(&self) -> Mono {
        self.unwell.half_open_at
    }

    /// Since when the breakers of all its workers have been open, if they are.
    pub(in crate::broker) fn barred_since(&self) -> Option<Mono> {
        self.unwell.outage.filter(|_| self.is_barred())
    }

    /// Brings up to date since when. Returns whether it began now.
    pub(super) fn note_outage(&mut self, now: Mono) -> bool {
        let since = self.unwell.outage;
        self.unwell.outage = self.is_barred().then(|| since.unwrap_or(now));
        since.is_none() && self.unwell.outage.is_some()
    }

    /// Counts and takes in its members, of which it knows nothing.
    pub(in crate::broker) fn take_in<'a>(
        &mut self,
        members: impl Iterator<Item = (Member, &'a PoolMember)> + Clone,
    ) {
        for (_, member) in members.clone() {
            self.eligible += 1;
            self.count(member.counts_as(), 1);
        }
        let half_open_at = members.clone().filter_map(|(_, member)| member.half_open_at());
        self.unwell.half_open_at = half_open_at.min().unwrap_or(NEVER);
        for (index, member) in members {
            self.seat(index, member);
            self.offer(index, member);
        }
    }

    fn count(&mut self, (condition, slots): (Option<Condition>, u32), by: i32) {
        let add = |to: &mut u32| *to = to.wrapping_add_signed(by);
        match condition {
            None => return,
            Some(Condition::Open) => return add(&mut self.unwell.open),
            Some(Condition::Ok | Condition::SlowStart(_)) => {}
            Some(Condition::Ejected) => add(&mut self.unwell.ejected),
            Some(Condition::HalfOpen | Condition::Probing) => add(&mut self.unwell.half_open),
        }
        add(&mut self.ready);
        let slots = i64::from(slots) * i64::from(by);
        self.ready_slots = self.ready_slots.wrapping_add_signed(slots);
    }

    /// Tells the balancer whether tasks are spread over a member as well.
    fn seat(&mut self, index: Member, member: &PoolMember) {
        let is_last_resort = self.is_last_resort();
        match member.condition().is_some_and(|it| it.takes_part(is_last_resort)) {
            true => self.balancer.join(index, member.seat),
            false => self.balancer.leave(index),
        }
    }

    /// Tells the balancer of a member's load, if it may be given another task.
    #[inline]
    fn offer(&mut self, index: Member, member: &PoolMember) {
        match member.offered(self.is_last_resort()) {
            Some(load) => self.balancer.offer(index, load),
            None => self.balancer.withdraw(index),
        }
    }
}

impl PoolMember {
    /// Its condition, while its worker takes tasks.
    fn condition(&self) -> Option<Condition> {
        self.is_ready().then_some(self.health.condition)
    }

    /// The same, and the tasks that it takes at once.
    fn counts_as(&self) -> (Option<Condition>, u32) {
        let slots = match self.health.condition {
            Condition::Ok | Condition::SlowStart(_) => self.ready_slots,
            Condition::HalfOpen | Condition::Probing => self.ready_slots.min(1),
            Condition::Ejected | Condition::Open => 0,
        };
        (self.condition(), slots)
    }

    fn is_settled(&self) -> bool {
        self.is_ready() && self.health.is_settled()
    }

    /// When its breaker lets a probe through, if it would take one.
    fn half_open_at(&self) -> Option<Mono> {
        self.health.breaker.open_until().filter(|_| self.is_ready())
    }
}

impl Pool {
    /// Changes what a member's condition or readiness depends on, and brings up to date what depends
    /// on those: the counts of its sub-queues, its offers, and, where a sub-queue has or lacks
    /// workers that it lacked or had, those of the others. The core is to see to that:
    /// [`pool_has_turned`](crate::broker::Core::pool_has_turned).
    pub(super) fn change<T>(
        &mut self,
        now: Mono,
        index: Member,
        change: impl FnOnce(&mut PoolMember, &ActionRules) -> T,
    ) -> Option<T> {
        let member = self.members.get_mut(index as usize)?.as_mut()?;
        let (before, was_settled) = (member.counts_as(), member.is_settled());
        let changed = change(member, &self.rules);
        member.health.sum_up(now, &self.rules);
        let after = member.counts_as();
        self.health.settled += u32::from(member.is_settled());
        self.health.settled -= u32::from(was_settled);
        if before == after {
            return Some(changed);
        }
        let takes_part = |it: Option<Condition>, is_last_resort| {
            it.is_some_and(|it| it.takes_part(is_last_resort))
        };
        for queue in 0..self.subqueues.len() {
            let member = self.members[index as usize].as_ref()?;
            if member.eligible >> queue & 1 == 0 {
                continue;
            }
            let subqueue = &mut self.subqueues[queue];
            let state =
                |it: &SubQueue| (it.is_last_resort(), it.is_barred(), it.has_several_takers());
            let was = state(subqueue);
            subqueue.count(before, -1);
            subqueue.count(after, 1);
            let is = state(subqueue);
            self.health.has_turned |= is != was;
            if takes_part(before.0, was.0) != takes_part(after.0, is.0) {
                subqueue.seat(index, member);
                self.reseated(index);
            }
            if is.0 != was.0 {
                self.seat_ejected(queue, index);
            }
            if [before.0, after.0].contains(&Some(Condition::Open)) {
                self.find_first_half_open(queue);
            }
        }
        self.offer(index);
        Some(changed)
    }

    /// Offers a member to the balancers of its sub-queues, or withdraws it.
    #[inline]
    pub(in crate::broker) fn offer(&mut self, index: Member) {
        let Some(member) = &self.members[index as usize] else { return };
        for (queue, subqueue) in self.subqueues.iter_mut().enumerate() {
            if member.eligible >> queue & 1 == 1 {
                subqueue.offer(index, member);
            }
        }
    }

    /// A sub-queue's workers that are left out, but for one, take part from now on, or not any more.
    fn seat_ejected(&mut self, queue: usize, but: Member) {
        for index in 0..self.members.len() {
            let subqueue = &mut self.subqueues[queue];
            if let Some(member) =
                self.members[index].as_ref().filter(|it| it.eligible >> queue & 1 == 1)
                && member.condition() == Some(Condition::Ejected)
                && index as Member != but
            {
                subqueue.seat(index as Member, member);
                subqueue.offer(index as Member, member);
                self.reseated(index as Member);
            }
        }
    }

    /// Tells the balancer of a sub-queue of all members, of which it knows nothing.
    pub(in crate::broker) fn introduce_all(&mut self, queue: usize) {
        let subqueue = &mut self.subqueues[queue];
        for (index, member) in self.members.iter().enumerate() {
            if let Some(member) = member.as_ref().filter(|it| it.eligible >> queue & 1 == 1) {
                subqueue.seat(index as Member, member);
                subqueue.offer(index as Member, member);
            }
        }
    }

    /// Counts the members of a sub-queue that has none.
    pub(in crate::broker) fn count_all(&mut self, queue: usize) {
        let members = self.members.iter().enumerate();
        let members =
            members.filter_map(|(index, member)| Some((index as Member, member.as_ref()?)));
        let members = members.filter(|(_, member)| member.eligible >> queue & 1 == 1);
        self.subqueues[queue].take_in(members);
    }

    fn find_first_half_open(&mut self, queue: usize) {
        let members = self.members.iter().flatten().filter(|it| it.eligible >> queue & 1 == 1);
        let first = members.filter_map(PoolMember::half_open_at).min();
        self.subqueues[queue].unwell.half_open_at = first.unwrap_or(NEVER);
    }

    /// How many tasks a worker takes at once; 0 while it takes none. One that begins to is new.
    pub(in crate::broker) fn set_ready(&mut self, now: Mono, index: Member, slots: u32) {
        let Some(member) = &self.members[index as usize] else { return };
        if member.ready_slots == slots {
            return;
        }
        let is_eased = self.is_settled();
        self.change(now, index, |member, rules| {
            let was_ready = member.is_ready();
            member.ready_slots = slots;
            if !was_ready {
                let ms = rules.slow_start_ms;
                member.health.slow_start = SlowStart::begin(now, ms, is_eased);
            }
        });
    }

    /// A worker leaves.
    pub(in crate::broker) fn stop_comparing(&mut self, index: Member) {
        if let Some(Some(member)) = self.members.get_mut(index as usize) {
            member.health.pace.leave(&mut self.health.paces);
        }
    }

    /// A probe of a worker is over.
    pub(super) fn end_probe(&mut self, index: Member, round: u32) {
        let Some(Some(member)) = self.members.get(index as usize) else { return };
        if member.health.condition == Condition::Probing {
            // A condition that does not depend on the time.
            self.change(Mono::default(), index, |it, _| it.health.breaker.end_probe(round));
        }
    }

    /// Whether some of its workers can do more than their part while another one is new.
    pub(super) fn is_settled(&self) -> bool {
        self.health.settled > 0
    }

    /// The sub-queues whose tasks may go to a member, a bit for each.
    pub(in crate::broker) fn open_to(&self, index: Member) -> u64 {
        let Some(member) = &self.members[index as usize] else { return 0 };
        match member.health.condition {
            Condition::Ok | Condition::SlowStart(_) | Condition::HalfOpen => member.eligible,
            Condition::Ejected => {
                let queues =
                    self.subqueues.iter().enumerate().filter(|(_, it)| it.is_last_resort());
                member.eligible & queues.fold(0, |bits, (queue, _)| bits | 1 << queue)
            }
            Condition::Probing | Condition::Open => 0,
        }
    }
}
