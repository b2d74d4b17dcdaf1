//! Tasks that wait for one worker: those with an affinity key, where affinity is hard.
//!
//! Such a task waits in its worker's own lines, beside the sub-queue's, which hold what any of the
//! workers may take; a worker with room takes from both, whichever's turn it is. Invariant: a task is
//! pinned only to a worker that takes tasks, and waits there only while that has no room, or as many of
//! the action's run as may.

use super::balancer::{Affinity, Member, Policy};
use super::explain::Found;
use super::inflight::{Task, TaskKey, TaskState};
use super::pool::{Choice, Pool, PoolKey};
use super::queue::{Lines, SubQueue, Turn};
use super::rules::ActionRules;
use super::{Core, Mono, Now};

impl ActionRules {
    /// Whether tasks with a key wait for its worker.
    pub(super) fn pins(&self) -> bool {
        self.policy == Policy::SessionHash && self.affinity == Affinity::Hard
    }
}

impl Task {
    /// The worker in whose lines it waits, if it waits in one's.
    pub(super) fn pinned(&self) -> Option<Member> {
        self.extras.as_ref().and_then(|extras| extras.pinned)
    }

    /// Whichever lines it was in, from now on it is in these.
    pub(super) fn set_pinned(&mut self, to: Option<Member>) {
        if self.pinned() != to {
            self.extras_mut().pinned = to;
        }
    }
}

impl Pool {
    /// The only worker that a task with this key may go to, unless any may.
    pub(super) fn home(&mut self, subqueue: usize, key: u64) -> Option<Member> {
        match key != 0 && self.rules.pins() {
            true => self.subqueues[subqueue].balancer.home(key),
            false => None,
        }
    }

    /// The same, without noting that it was asked.
    pub(super) fn home_of(&self, subqueue: &SubQueue, key: u64) -> Option<Member> {
        if key != 0 && self.rules.pins() { subqueue.balancer.home_of(key) } else { None }
    }

    /// The tasks that wait for a worker alone, if there were any.
    pub(super) fn pinned_lines(&self, index: Member) -> Option<&Lines> {
        self.members[index as usize].as_ref()?.pinned.as_deref()
    }

    /// Whether a task can go to this worker, or to any of a sub-queue.
    #[inline]
    pub(super) fn has_room_at(&self, home: Option<Member>, subqueue: &SubQueue) -> bool {
        match home {
            None => self.has_room(subqueue),
            Some(home) => self.has_room_at_home(home, subqueue),
        }
    }

    fn has_room_at_home(&self, home: Member, subqueue: &SubQueue) -> bool {
        let is_last_resort = subqueue.is_last_resort();
        let member = self.members[home as usize].as_ref();
        self.may_run() && member.is_some_and(|it| it.offered(is_last_resort).is_some())
    }

    /// The lines of a worker, or those of a sub-queue.
    pub(super) fn lines_mut(&mut self, pinned: Option<Member>, subqueue: usize) -> &mut Lines {
        let Self { members, subqueues, .. } = self;
        let member = pinned.and_then(|index| members[index as usize].as_mut());
        match member {
            Some(member) => member.pinned.get_or_insert_default(),
            None => &mut subqueues[subqueue].lines,
        }
    }

    /// The tasks that wait for a worker alone, about in the order in which they go.
    fn pinned_to(&self, index: Member) -> Vec<TaskKey> {
        self.pinned_lines(index).map(|lines| lines.tasks().collect()).unwrap_or_default()
    }

    /// The workers that tasks wait for alone.
    pub(super) fn pinning(&self) -> Vec<Member> {
        let waits = |index: &Member| self.pinned_lines(*index).is_some_and(|it| it.queued > 0);
        (0..self.members.len() as Member).filter(waits).collect()
    }

    /// Tasks are spread over a member from now on, or no more. The core is to see to what that means
    /// for those that are pinned: [`pool_has_turned`](Core::pool_has_turned).
    pub(super) fn reseated(&mut self, index: Member) {
        if self.rules.pins() && !self.reseated.contains(&index) {
            self.reseated.push(index);
            self.health.has_turned = true;
        }
    }

    /// The task whose turn it is of those that wait for a worker alone.
    pub(super) fn first_pinned(&mut self, now: Mono, index: Member) -> Option<(Turn, TaskKey)> {
        let lines = self.members[index as usize].as_mut()?.pinned.as_mut()?;
        if lines.queued == 0 { None } else { lines.first(now, self.rules.age_ms, &self.tenants) }
    }

    /// What a worker takes at once; 0 while it takes none.
    pub(super) fn ready_slots(&self, index: Member) -> u32 {
        self.members[index as usize].as_ref().map_or(0, |member| member.ready_slots)
    }

    /// The choice of a worker for a task of a sub-queue with this key, if it has room.
    pub(super) fn choose(&self, index: Member, subqueue: usize, key: u64) -> Option<Choice> {
        let has_room = self.has_room_at(Some(index), &self.subqueues[subqueue]);
        if has_room { self.choice(index, 1, key) } else { None }
    }
}

impl Core {
    /// A waiting task may not, or no longer, go where it waits for: it goes to its worker if that has
    /// room, or waits for it, or for any if it has none.
    pub(super) fn pin(&mut self, now: Now, key: TaskKey) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let Some(pool) = self.pools.get_mut(task.pool) else { return };
        let TaskState::Queued { rank, .. } = task.state else { return };
        let home = pool.home(task.subqueue, task.affinity);
        if let Some(choice) = home.and_then(|home| pool.choose(home, task.subqueue, task.affinity))
        {
            self.explain_if_asked(now, key, Found::WithRoom(choice.agent));
            return self.take_turn(now, key, choice);
        }
        let Some(task) = self.tasks.get_mut(key) else { return };
        let Some(pool) = self.pools.get_mut(task.pool) else { return };
        let spot = task.spot(rank);
        pool.lines_mut(task.pinned(), task.subqueue).remove(spot);
        task.set_pinned(home);
        let attained_us = pool.tenants.attained_us(task.tenant);
        pool.lines_mut(home, task.subqueue).push(now.mono, spot, attained_us, key);
    }

    /// Tasks are spread over other workers than before: those that waited for another and now belong
    /// to one of these come, and those that waited for one that takes none go.
    pub(super) fn pin_anew(&mut self, now: Now, key: PoolKey) {
        while let Some(pool) = self.pools.get_mut(key)
            && let Some(member) = pool.reseated.pop()
        {
            let belongs_to_it = |(task, other): &(TaskKey, Member)| {
                self.tasks.get(*task).is_some_and(|task| {
                    let balancer = &pool.subqueues[task.subqueue].balancer;
                    balancer.prefers(task.affinity, member, *other)
                })
            };
            let pinned = |other| pool.pinned_to(other).into_iter().map(move |task| (task, other));
            let others = pool.pinning().into_iter().filter(|other| *other != member);
            let come: Vec<_> = others.flat_map(pinned).filter(belongs_to_it).collect();
            for (task, _) in come {
                self.pin(now, task);
            }
            self.unpin(now, key, member);
        }
    }

    /// Those that wait for a worker go elsewhere, unless it is still the one that they wait for.
    pub(super) fn unpin(&mut self, now: Now, pool: PoolKey, member: Member) {
        let Some(pool) = self.pools.get_mut(pool) else { return };
        for task in pool.pinned_to(member) {
            self.pin(now, task);
        }
    }

    /// Gives workers the tasks that are pinned to them for as long as they have room.
    pub(super) fn fill_pinned(&mut self, now: Now, key: PoolKey) {
        let Some(pool) = self.pools.get(key).filter(|pool| pool.rules.pins()) else { return };
        let members = pool.pinning();
        for member in members {
            while let Some(pool) = self.pools.get_mut(key)
                && let Some((_, task)) = pool.first_pinned(now.mono, member)
                && let Some(Task { subqueue, affinity, .. }) = self.tasks.get(task)
                && let Some(choice) = pool.choose(member, *subqueue, *affinity)
            {
                self.explain_if_asked(now, task, Found::WithRoom(choice.agent));
                self.take_turn(now, task, choice);
            }
        }
    }
}
