//! The workers of one action, and the tasks that wait for them.

use std::sync::Arc;

use foldhash::fast::FixedState;
use mcp_proto::{ActionName, Labels, Score};

use super::arrivals::Arrivals;
use super::balancer::{Ask, Balancer, Estimate, Load, Member, Odds, Policy, Seat};
use super::health::{Condition, Health, PoolHealth};
use super::hedging::Hedging;
use super::mean::Mean;
use super::metrics::Slot;
use super::queue::{Lines, Senders, SubQueue, Tenant, Tenants, Total};
use super::rates::Bucket;
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
    pub(super) health: PoolHealth,
    pub(super) members: Vec<Option<PoolMember>>,
    free: Vec<Member>,
    /// The first is that of tasks without required labels.
    pub(super) subqueues: Vec<SubQueue>,
    /// On whose account they wait.
    pub(super) tenants: Tenants,
    /// Of tasks that name no tenant.
    pub(super) senders: Senders,
    /// Tasks that wait, in all sub-queues.
    pub(super) queued: usize,
    /// Their bytes.
    pub(super) queued_bytes: usize,
    /// They, by when they came.
    pub(super) waiting: Arrivals,
    /// Members that tasks are spread over from now on, or no more: what is pinned is to be looked at,
    /// see [`Pool::reseated`].
    pub(super) reseated: Vec<Member>,
    /// Tasks that wait for their time, in no sub-queue.
    pub(super) delayed: Total,
    /// Tasks without an outcome; the pool stays while there are any.
    pub(super) tasks: usize,
    /// Attempts that workers have.
    pub(super) running: usize,
    /// How long workers have a task that they do, or that fails by itself.
    pub(super) service: Mean,
    /// Of all tasks that come.
    pub(super) bucket: Bucket,
    /// Smoothed µs between two ends of tasks, 0 before there were two.
    pub(super) end_interval_us: u64,
    pub(super) last_end: Mono,
    /// What is known of the attempts of all workers together.
    pub(super) standing: Standing,
    /// Where its tasks are hedged.
    pub(super) hedging: Option<Box<Hedging>>,
    /// An operator keeps its tasks from its workers.
    pub(super) is_degraded: bool,
    /// A new task may have to be refused though there is room.
    pub(super) is_restricted: bool,
    /// A task without a worker does not just wait.
    pub(super) has_other_way: bool,
    /// Good answers are kept for tasks without a worker.
    pub(super) keeps_answers: bool,
}

#[derive(Debug)]
pub(super) struct PoolMember {
    pub(super) agent: AgentKey,
    labels: Arc<Labels>,
    pub(super) seat: Seat,
    /// A bit for each sub-queue whose labels it has.
    pub(super) eligible: u64,
    /// What it takes at once, slots and prefetch; 0 while it is not ready.
    pub(super) ready_slots: u32,
    /// Its load while it has room.
    room: Option<Load>,
    pub(super) standing: Standing,
    pub(super) health: Health,
    /// Tasks that wait for it alone, if there were any.
    pub(super) pinned: Option<Box<Lines>>,
}

impl PoolMember {
    /// Whether it takes tasks at all.
    pub(super) fn is_ready(&self) -> bool {
        self.ready_slots > 0
    }

    /// Its load as the policies see it, while it may be given another task; `is_last_resort` where no
    /// worker is left that is well.
    pub(super) fn offered(&self, is_last_resort: bool) -> Option<Load> {
        self.health.offered(self.room.filter(|_| self.is_ready())?, is_last_resort)
    }

    /// What it would make of another task.
    fn estimate(&self, all: &Standing, workers: usize) -> Estimate {
        let standing = self.standing.faded(all, workers);
        Estimate {
            load: self.offered(true).unwrap_or_default(),
            service_us: standing.service_us(),
            ok_share: standing.ok_share(),
        }
    }
}

/// A worker of a pool, as it is told to who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct MemberView<'a> {
    pub(super) member: Member,
    pub(super) agent: AgentKey,
    pub(super) labels: &'a Labels,
    /// It has room and is ready.
    pub(super) has_room: bool,
    /// It may be given a task of the sub-queue that is asked about, if it has the labels.
    pub(super) is_offered: bool,
    pub(super) standing: Standing,
}

/// A worker that was chosen, and from how many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    pub(super) agent: AgentKey,
    pub(super) candidates: u32,
    pub(super) policy: Policy,
    /// The task decides whether its breaker closes.
    pub(super) is_probe: bool,
}

impl Pool {
    pub(super) fn new(
        action: ActionName,
        is_shadow: bool,
        slot: Slot,
        rules: Arc<ActionRules>,
        hasher: FixedState,
    ) -> Self {
        let subqueues = vec![SubQueue::new(Labels::default(), None, rules.policy)];
        let hedging = Hedging::of(&rules);
        let mut pool = Self {
            action,
            is_shadow,
            slot,
            rules,
            health: PoolHealth::default(),
            members: Vec::new(),
            free: Vec::new(),
            subqueues,
            senders: Senders::new(hasher.clone()),
            tenants: Tenants::new(hasher),
            queued: 0,
            queued_bytes: 0,
            waiting: Arrivals::default(),
            reseated: Vec::new(),
            delayed: Total::default(),
            tasks: 0,
            running: 0,
            service: Mean::default(),
            bucket: Bucket::default(),
            end_interval_us: 0,
            last_end: Mono::default(),
            standing: Standing::default(),
            hedging,
            is_degraded: false,
            is_restricted: false,
            has_other_way: false,
            keeps_answers: false,
        };
        pool.look_at_rules();
        pool
    }

    pub(super) fn is_unused(&self) -> bool {
        self.tasks == 0 && self.running == 0 && self.workers() == 0
    }

    /// Workers registered for it.
    pub(super) fn workers(&self) -> usize {
        self.members.len() - self.free.len()
    }

    /// Whether a worker takes tasks of a sub-queue, now or when it has room. One whose breaker is
    /// half-open only while it takes a probe: who knows how long that has to be waited for.
    pub(super) fn has_worker(&self, subqueue: usize) -> bool {
        self.subqueues[subqueue].has_worker()
    }

    /// Those of them that take tasks: all may serve the tasks without required labels.
    pub(super) fn ready_workers(&self) -> usize {
        self.subqueues[0].ready as usize
    }

    /// The workers.
    pub(super) fn agents(&self) -> impl Iterator<Item = AgentKey> {
        self.members.iter().flatten().map(|member| member.agent)
    }

    /// The workers, as they are for a sub-queue.
    pub(super) fn views(&self, subqueue: &SubQueue) -> impl Iterator<Item = MemberView<'_>> {
        (0..self.members.len()).filter_map(|index| self.view(subqueue, index as Member))
    }

    pub(super) fn view(&self, subqueue: &SubQueue, index: Member) -> Option<MemberView<'_>> {
        let member = self.members.get(index as usize)?.as_ref()?;
        Some(MemberView {
            member: index,
            agent: member.agent,
            labels: &member.labels,
            has_room: member.room.is_some(),
            is_offered: member.offered(subqueue.is_last_resort()).is_some(),
            standing: member.standing,
        })
    }

    /// Adds a worker: not ready, without room.
    pub(super) fn join(
        &mut self,
        agent: AgentKey,
        labels: Arc<Labels>,
        seat: Seat,
        health: Health,
    ) -> Member {
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
            seat,
            eligible,
            ready_slots: 0,
            room: None,
            standing: Standing::among(&self.standing),
            health,
            pinned: None,
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

    /// Removes a worker. What is known of its health is returned.
    pub(super) fn leave(&mut self, now: Mono, index: Member) -> Option<Health> {
        self.set_ready(now, index, 0);
        self.stop_comparing(index);
        let member = self.members[index as usize].take()?;
        for subqueue in subqueues_of(&mut self.subqueues, member.eligible) {
            subqueue.eligible -= 1;
        }
        self.free.push(index);
        Some(member.health)
    }

    /// A worker's load while it has room for a task, none while it has not.
    pub(super) fn set_room(&mut self, index: Member, room: Option<Load>) {
        let Some(member) = &mut self.members[index as usize] else { return };
        member.room = room;
        self.offer(index);
    }

    /// The sub-queue of a set of required labels, made if there is none; none when there are too
    /// many. `without_arm`: which of them a task of an arm requires itself.
    #[inline]
    pub(super) fn subqueue(
        &mut self,
        required: &Labels,
        without_arm: Option<&Labels>,
    ) -> Option<usize> {
        if required.is_empty() { Some(0) } else { self.subqueue_of(required, without_arm) }
    }

    fn subqueue_of(&mut self, required: &Labels, without_arm: Option<&Labels>) -> Option<usize> {
        if let Some(index) = self.find_subqueue(required, without_arm) {
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
        self.find_workers(index);
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
        subqueue.forget_workers(self.rules.policy);
        self.find_workers(index);
        true
    }

    /// Finds the workers of a sub-queue that has none.
    fn find_workers(&mut self, index: usize) {
        let required = &self.subqueues[index].required;
        for member in self.members.iter_mut().flatten() {
            let is_eligible = u64::from(member.labels.satisfy(required));
            member.eligible = member.eligible & !(1 << index) | is_eligible << index;
        }
        self.count_all(index);
    }

    /// The same, if there is one.
    pub(super) fn find_subqueue(
        &self,
        required: &Labels,
        without_arm: Option<&Labels>,
    ) -> Option<usize> {
        if required.is_empty() {
            return Some(0);
        }
        let is_it =
            |it: &SubQueue| it.required == *required && it.without_arm.as_ref() == without_arm;
        self.subqueues.iter().position(is_it)
    }

    /// The same as it would be made; none when there are too many.
    pub(super) fn new_subqueue(&self, required: &Labels) -> Option<SubQueue> {
        let has_place = self.subqueues.len() < MAX_SUBQUEUES
            || self.subqueues[1..].iter().any(|it| it.tasks == 0);
        if !has_place {
            return None;
        }
        let mut subqueue = SubQueue::new(required.clone(), None, self.rules.policy);
        let members = self.members.iter().enumerate();
        let members =
            members.filter_map(|(index, member)| Some((index as Member, member.as_ref()?)));
        subqueue.take_in(members.filter(|(_, member)| member.labels.satisfy(required)));
        Some(subqueue)
    }

    /// Whether one more attempt may run, wherever.
    pub(super) fn may_run(&self) -> bool {
        let cap = self.rules.max_running as usize;
        cap == 0 || self.running < cap
    }

    /// Whether a task of a sub-queue can go to a worker.
    #[inline]
    pub(super) fn has_room(&self, subqueue: &SubQueue) -> bool {
        subqueue.balancer.len() > 0 && self.may_run()
    }

    /// Whom [`pick`](Self::pick) would choose if some had no room, without choosing.
    pub(super) fn odds(
        &self,
        subqueue: &SubQueue,
        ask: Ask,
        is_out: impl Fn(Member) -> bool,
    ) -> Odds {
        if !self.may_run() {
            return Odds::default();
        }
        match self.home_of(subqueue, ask.key) {
            None => subqueue.balancer.odds(ask, is_out, |member| self.estimate(member)),
            Some(home) => {
                let has_room = !is_out(home) && self.has_room_at(Some(home), subqueue);
                Odds::certain(has_room.then_some(home), "its key is this worker's alone")
            }
        }
    }

    /// What the policy goes by for a worker and a task with this key.
    pub(super) fn score(&self, subqueue: &SubQueue, member: Member, key: u64) -> Option<Score> {
        subqueue.balancer.score(member, key, self.estimate(member))
    }

    fn estimate(&self, index: Member) -> Estimate {
        let member = self.members[index as usize].as_ref();
        member.map(|it| it.estimate(&self.standing, self.workers())).unwrap_or_default()
    }

    /// Chooses a worker for a task of a sub-queue. None while as many attempts run as may.
    pub(super) fn pick(&mut self, subqueue: usize, rng: &mut Rng, ask: Ask) -> Option<Choice> {
        if !self.may_run() {
            return None;
        }
        let (members, all, workers) = (&self.members, &self.standing, self.workers());
        let estimate = |index: Member| {
            let member = members[index as usize].as_ref();
            member.map(|it| it.estimate(all, workers)).unwrap_or_default()
        };
        let balancer = &mut self.subqueues[subqueue].balancer;
        let candidates = balancer.len() as u32;
        let member = balancer.pick(rng, ask, estimate)?;
        self.choice(member, candidates, ask.key)
    }

    /// Chooses a worker for a task of a sub-queue that is none of `others`. None while as many
    /// attempts run as may.
    pub(super) fn pick_none_of(
        &mut self,
        subqueue: usize,
        rng: &mut Rng,
        key: u64,
        others: &[Member],
    ) -> Option<Choice> {
        if key != 0 && self.rules.pins() {
            return None;
        }
        let is_last_resort = self.subqueues[subqueue].is_last_resort();
        let candidates = self.subqueues[subqueue].balancer.len() as u32;
        for index in others {
            self.subqueues[subqueue].balancer.withdraw(*index);
        }
        let choice = self.pick(subqueue, rng, Ask { key, avoid: None });
        for index in others {
            if let Some(member) = &self.members[*index as usize]
                && member.eligible >> subqueue & 1 == 1
                && let Some(load) = member.offered(is_last_resort)
            {
                self.subqueues[subqueue].balancer.offer(*index, load);
            }
        }
        choice.map(|choice| Choice { candidates, ..choice })
    }

    /// A member that was chosen from so many for a task of this affinity key.
    pub(super) fn choice(&self, member: Member, candidates: u32, key: u64) -> Option<Choice> {
        let member = self.members[member as usize].as_ref()?;
        let is_probe = member.health.condition() == Condition::HalfOpen;
        let policy = self.rules.policy.of_key(key);
        Some(Choice { agent: member.agent, candidates, policy, is_probe })
    }

    /// Has the workers chosen by another policy from now on.
    pub(super) fn set_policy(&mut self, policy: Policy) {
        for queue in 0..self.subqueues.len() {
            self.subqueues[queue].balancer = Balancer::new(policy);
            self.introduce_all(queue);
        }
    }

    /// The worker that a member is.
    pub(super) fn agent(&self, index: Member) -> Option<AgentKey> {
        Some(self.members.get(index as usize)?.as_ref()?.agent)
    }

    /// A worker had a task of this tenant for so long, until it was done or failed by itself.
    #[inline]
    pub(super) fn note_service(&mut self, tenant: Tenant, us: u64) {
        self.service.note(us);
        self.tenants.note_service(tenant, us);
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
