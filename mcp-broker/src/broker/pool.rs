//! The workers of one action, and the tasks that wait for them.

use std::sync::Arc;

use mcp_proto::{ActionName, Labels};
use smallvec::SmallVec;

use super::balancer::{Balancer, Load, Member, Policy};
use super::metrics::Slot;
use super::queue::{SubQueue, Total};
use super::registry::AgentKey;
use super::rng::Rng;
use super::rules::ActionRules;
use super::slab::Key;
use super::standing::Standing;
use super::time::Mono;

pub(super) type PoolKey = Key<Pool>;

/// Distinct sets of required labels among an action's tasks at one time.
pub(super) const MAX_SUBQUEUES: usize = u64::BITS as usize;

/// One action: its workers and its queue. The live ones, or those of shadow tasks.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) action: ActionName,
    pub(super) is_shadow: bool,
    /// Where its tasks are measured.
    pub(super) slot: Slot,
    pub(super) rules: Arc<ActionRules>,
    members: Vec<Option<PoolMember>>,
    free: Vec<Member>,
    /// The first is that of tasks without required labels.
    pub(super) subqueues: Vec<SubQueue>,
    /// Tasks that wait, in all sub-queues.
    pub(super) queued: usize,
    /// Their bytes.
    pub(super) queued_bytes: usize,
    /// Tasks that wait for their time, in no sub-queue.
    pub(super) delayed: Total,
    /// Tasks without an outcome; the pool stays while there are any.
    pub(super) tasks: usize,
    /// Smoothed µs between two ends of tasks, 0 before there were two.
    pub(super) end_interval_us: u64,
    pub(super) last_end: Mono,
}

#[derive(Debug)]
struct PoolMember {
    agent: AgentKey,
    labels: Arc<Labels>,
    /// A bit for each sub-queue whose labels it has.
    eligible: u64,
    is_ready: bool,
    /// Its load while it has room.
    room: Option<Load>,
    standing: Standing,
}

impl PoolMember {
    /// Its load, while it may be given another task.
    fn offered(&self) -> Option<Load> {
        self.room
    }
}

/// A worker that was chosen, and from how many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    pub(super) agent: AgentKey,
    pub(super) candidates: u32,
    pub(super) policy: Policy,
}

impl Pool {
    pub(super) fn new(
        action: ActionName,
        is_shadow: bool,
        slot: Slot,
        rules: Arc<ActionRules>,
    ) -> Self {
        let subqueues = vec![SubQueue::new(Labels::default(), None, rules.policy)];
        Self {
            action,
            is_shadow,
            slot,
            rules,
            members: Vec::new(),
            free: Vec::new(),
            subqueues,
            queued: 0,
            queued_bytes: 0,
            delayed: Total::default(),
            tasks: 0,
            end_interval_us: 0,
            last_end: Mono::default(),
        }
    }

    pub(super) fn is_unused(&self) -> bool {
        self.tasks == 0 && self.workers() == 0
    }

    /// Workers registered for it.
    pub(super) fn workers(&self) -> usize {
        self.members.len() - self.free.len()
    }

    /// Those of them that take tasks: all may serve the tasks without required labels.
    pub(super) fn ready_workers(&self) -> usize {
        self.subqueues[0].ready as usize
    }

    /// Whether any of its workers has room.
    pub(super) fn has_room(&self) -> bool {
        self.subqueues[0].balancer.len() > 0
    }

    /// Adds a worker: not ready, without room.
    pub(super) fn join(&mut self, agent: AgentKey, labels: Arc<Labels>) -> Member {
        let mut eligible = 0;
        for (index, subqueue) in self.subqueues.iter_mut().enumerate() {
            if labels.satisfy(&subqueue.required) {
                eligible |= 1 << index;
                subqueue.eligible += 1;
            }
        }
        let member = PoolMember {
            agent,
            labels,
            eligible,
            is_ready: false,
            room: None,
            standing: Standing::default(),
        };
        match self.free.pop() {
            Some(index) => {
                self.members[index as usize] = Some(member);
                index
            }
            None => {
                self.members.push(Some(member));
                self.members.len() as Member - 1
            }
        }
    }

    /// Removes a worker.
    pub(super) fn leave(&mut self, index: Member) {
        self.set_ready(index, false);
        self.set_room(index, None);
        let Some(member) = self.members[index as usize].take() else { return };
        for subqueue in subqueues_of(&mut self.subqueues, member.eligible) {
            subqueue.eligible -= 1;
        }
        self.free.push(index);
    }

    /// Whether a worker takes tasks at all.
    pub(super) fn set_ready(&mut self, index: Member, is_ready: bool) {
        let Some(member) = &mut self.members[index as usize] else { return };
        if std::mem::replace(&mut member.is_ready, is_ready) != is_ready {
            for subqueue in subqueues_of(&mut self.subqueues, member.eligible) {
                if is_ready { subqueue.ready += 1 } else { subqueue.ready -= 1 }
            }
        }
    }

    /// A worker's load while it has room for a task, none while it has not.
    pub(super) fn set_room(&mut self, index: Member, room: Option<Load>) {
        let Some(member) = &mut self.members[index as usize] else { return };
        member.room = room;
        for subqueue in subqueues_of(&mut self.subqueues, member.eligible) {
            match member.offered() {
                Some(load) => subqueue.balancer.offer(index, load),
                None => subqueue.balancer.withdraw(index),
            }
        }
    }

    /// The sub-queue of a set of required labels, made if there is none; none when there are too
    /// many. `without_arm`: which of them a task of an arm requires itself.
    pub(super) fn subqueue(
        &mut self,
        required: &Labels,
        without_arm: Option<&Labels>,
    ) -> Option<usize> {
        if required.is_empty() {
            return Some(0);
        }
        let is_it =
            |it: &SubQueue| it.required == *required && it.without_arm.as_ref() == without_arm;
        if let Some(index) = self.subqueues.iter().position(is_it) {
            return Some(index);
        }
        let new = SubQueue::new(required.clone(), without_arm.cloned(), self.rules.policy);
        let index = if self.subqueues.len() < MAX_SUBQUEUES {
            self.subqueues.push(new);
            self.subqueues.len() - 1
        } else {
            let index = 1 + self.subqueues[1..].iter().position(|it| it.tasks == 0)?;
            self.subqueues[index] = new;
            index
        };
        self.admit(index);
        Some(index)
    }

    /// Lets a sub-queue of an arm be served by any worker that has the labels that its tasks require
    /// themselves, when no worker of the arm is ready. Returns whether that was so.
    pub(super) fn open_if_deserted(&mut self, index: usize) -> bool {
        let subqueue = &mut self.subqueues[index];
        if subqueue.ready > 0 {
            return false;
        }
        let Some(required) = subqueue.without_arm.take() else { return false };
        subqueue.required = required;
        (subqueue.eligible, subqueue.ready) = (0, 0);
        subqueue.balancer = Balancer::new(self.rules.policy);
        self.admit(index);
        true
    }

    /// Its workers that have room.
    pub(super) fn agents_with_room(&self) -> Vec<AgentKey> {
        let members = self.members.iter().flatten();
        members.filter(|it| it.offered().is_some()).map(|it| it.agent).collect()
    }

    /// Finds the workers for a sub-queue that has none yet.
    fn admit(&mut self, index: usize) {
        let subqueue = &mut self.subqueues[index];
        for (member_index, member) in self.members.iter_mut().enumerate() {
            let Some(member) = member else { continue };
            member.eligible &= !(1 << index);
            if !member.labels.satisfy(&subqueue.required) {
                continue;
            }
            member.eligible |= 1 << index;
            subqueue.eligible += 1;
            subqueue.ready += u32::from(member.is_ready);
            if let Some(load) = member.offered() {
                subqueue.balancer.offer(member_index as Member, load);
            }
        }
    }

    /// Chooses a worker for a task of a sub-queue, other than `avoid` if there is another.
    pub(super) fn pick(
        &mut self,
        subqueue: usize,
        rng: &mut Rng,
        avoid: Option<AgentKey>,
    ) -> Option<Choice> {
        let members = &self.members;
        let avoid = avoid.and_then(|agent| {
            members.iter().position(|it| it.as_ref().is_some_and(|it| it.agent == agent))
        });
        let balancer = &mut self.subqueues[subqueue].balancer;
        let candidates = balancer.len() as u32;
        let member = balancer.pick(rng, avoid.map(|index| index as Member))?;
        let agent = self.members[member as usize].as_ref()?.agent;
        Some(Choice { agent, candidates, policy: self.rules.policy })
    }

    /// Chooses a worker for a task of a sub-queue that is none of `others`.
    pub(super) fn pick_none_of(
        &mut self,
        subqueue: usize,
        rng: &mut Rng,
        others: &[AgentKey],
    ) -> Option<Choice> {
        let balancer = &mut self.subqueues[subqueue].balancer;
        let candidates = balancer.len() as u32;
        let is_other = |(index, member): (usize, &Option<PoolMember>)| {
            let member = member.as_ref().filter(|it| others.contains(&it.agent))?;
            let load = member.offered().filter(|_| member.eligible >> subqueue & 1 == 1)?;
            Some((index as Member, load))
        };
        let with_room: SmallVec<[_; 4]> =
            self.members.iter().enumerate().filter_map(is_other).collect();
        for (member, _) in &with_room {
            balancer.withdraw(*member);
        }
        let picked = balancer.pick(rng, None);
        for (member, load) in with_room {
            balancer.offer(member, load);
        }
        let agent = self.members[picked? as usize].as_ref()?.agent;
        Some(Choice { agent, candidates, policy: self.rules.policy })
    }

    /// Has the workers chosen by another policy from now on.
    pub(super) fn set_policy(&mut self, policy: Policy) {
        for (index, subqueue) in self.subqueues.iter_mut().enumerate() {
            subqueue.balancer = Balancer::new(policy);
            for (member_index, member) in self.members.iter().enumerate() {
                let Some(member) = member.as_ref().filter(|it| it.eligible >> index & 1 == 1)
                else {
                    continue;
                };
                if let Some(load) = member.offered() {
                    subqueue.balancer.offer(member_index as Member, load);
                }
            }
        }
    }

    /// What is known of a worker's attempts.
    pub(super) fn standing_mut(&mut self, index: Member) -> Option<&mut Standing> {
        self.members[index as usize].as_mut().map(|member| &mut member.standing)
    }

    /// The sub-queues that a worker may serve.
    pub(super) fn eligible(&self, index: Member) -> u64 {
        self.members[index as usize].as_ref().map_or(0, |member| member.eligible)
    }

    /// A task of this action ended.
    pub(super) fn note_end(&mut self, now: Mono) {
        let interval = now.since(self.last_end).min(60_000_000);
        if self.last_end.0 > 0 {
            // Weight 1/8, as TCP smooths its round-trip time (RFC 6298).
            self.end_interval_us = (self.end_interval_us * 7 + interval) / 8;
        }
        self.last_end = now;
    }

    /// When a refused task may find room: once a tenth of the queue has drained.
    pub(super) fn retry_after_ms(&self) -> u64 {
        (self.end_interval_us * self.queued as u64 / 10_000).clamp(100, 30_000)
    }
}

/// The sub-queues whose bits are set.
fn subqueues_of(subqueues: &mut [SubQueue], bits: u64) -> impl Iterator<Item = &mut SubQueue> {
    subqueues.iter_mut().enumerate().filter(move |(i, _)| bits >> i & 1 == 1).map(|(_, it)| it)
}
