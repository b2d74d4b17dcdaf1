//! Tasks that wait for workers with the same labels.

use std::collections::VecDeque;

use mcp_proto::{Labels, Priority};

use super::balancer::{Balancer, Policy};
use super::inflight::TaskKey;

/// Orders tasks by when they were queued, and tells one stay in a queue from another.
pub(super) type Ticket = u64;

/// A place in a queue. It is left behind when the task leaves by another way than its turn:
/// whether it still counts is asked of the task.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    pub(super) task: TaskKey,
    pub(super) ticket: Ticket,
}

/// Places that no longer count are swept when they are more than those that do, and this many.
const SWEEP_ABOVE: usize = 64;

/// The queue of one distinct set of required labels, and the workers that have room and those
/// labels. Invariant: tasks wait only while no such worker has room.
#[derive(Debug)]
pub(super) struct SubQueue {
    pub(super) required: Labels,
    /// Of an arm: what its tasks require themselves.
    pub(super) without_arm: Option<Labels>,
    /// By priority, lowest first. The head of each class counts.
    waiting: [VecDeque<Waiting>; Priority::ALL.len()],
    /// Places that count.
    pub(super) queued: usize,
    pub(super) balancer: Balancer,
    /// Members with the labels.
    pub(super) eligible: u32,
    /// Those of them that are ready.
    pub(super) ready: u32,
    /// Tasks without an outcome, waiting or at a worker.
    pub(super) tasks: usize,
}

impl SubQueue {
    pub(super) fn new(required: Labels, without_arm: Option<Labels>, policy: Policy) -> Self {
        Self {
            required,
            without_arm,
            waiting: Default::default(),
            queued: 0,
            balancer: Balancer::new(policy),
            eligible: 0,
            ready: 0,
            tasks: 0,
        }
    }

    /// Adds a place: behind the others of its priority, or before them.
    pub(super) fn push(
        &mut self,
        priority: Priority,
        place: Waiting,
        at_front: bool,
        counts: impl Fn(&Waiting) -> bool,
    ) {
        let places = self.waiting.iter().map(VecDeque::len).sum::<usize>();
        if places > 2 * self.queued + SWEEP_ABOVE {
            self.waiting.iter_mut().for_each(|class| class.retain(&counts));
        }
        self.queued += 1;
        let class = &mut self.waiting[priority as usize - 1];
        if at_front { class.push_front(place) } else { class.push_back(place) }
    }

    /// The first place, and its priority.
    pub(super) fn first(&self) -> Option<(Priority, Waiting)> {
        self.waiting
            .iter()
            .zip(Priority::ALL)
            .rev()
            .find_map(|(class, priority)| Some((*priority, *class.front()?)))
    }

    /// The first place of each priority.
    pub(super) fn heads(&self) -> impl Iterator<Item = &Waiting> {
        self.waiting.iter().filter_map(VecDeque::front)
    }

    /// A task leaves. Its place goes with it if it was the first, and so do those behind it that no
    /// longer count.
    pub(super) fn leave(
        &mut self,
        priority: Priority,
        ticket: Ticket,
        counts: impl Fn(&Waiting) -> bool,
    ) {
        self.queued -= 1;
        let class = &mut self.waiting[priority as usize - 1];
        if class.front().is_some_and(|place| place.ticket == ticket) {
            class.pop_front();
            while class.front().is_some_and(|place| !counts(place)) {
                class.pop_front();
            }
        }
    }

    /// The first place that counts and is wanted, among the first few.
    pub(super) fn first_wanted(
        &self,
        counts: impl Fn(&Waiting) -> bool,
        is_wanted: impl Fn(&Waiting) -> bool,
    ) -> Option<(Priority, Waiting)> {
        const LOOKED_AT: usize = 16;
        self.waiting
            .iter()
            .zip(Priority::ALL)
            .rev()
            .flat_map(|(class, priority)| class.iter().map(|place| (*priority, *place)))
            .filter(|(_, place)| counts(place))
            .take(LOOKED_AT)
            .find(|(_, place)| is_wanted(place))
    }
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
}

/// Hands out tickets: ever larger ones for the back of a queue, ever smaller ones for its front.
#[derive(Debug)]
pub(super) struct Tickets {
    back: Ticket,
    front: Ticket,
}

impl Default for Tickets {
    fn default() -> Self {
        Self { back: Ticket::MAX / 2, front: Ticket::MAX / 2 }
    }
}

impl Tickets {
    pub(super) fn next(&mut self, at_front: bool) -> Ticket {
        if at_front {
            self.front -= 1;
            self.front
        } else {
            self.back += 1;
            self.back
        }
    }
}
