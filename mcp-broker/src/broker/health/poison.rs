//! Tasks whose workers fail one after the other: the task is at fault then, and would take the whole
//! pool down.

use mcp_proto::{Cause, ErrorCode, ErrorInfo, Executed, NodeId, Outcome};
use smallvec::SmallVec;

use crate::broker::ending::End;
use crate::broker::inflight::{Task, TaskKey};
use crate::broker::registry::AgentKey;
use crate::broker::{Core, Event, Now};

/// Largest `poison_after`, and most faults noted of a task.
pub(in crate::broker) const MAX_POISON_AFTER: u32 = 32;

/// Attempts at a task that ended badly.
#[derive(Debug, Default)]
pub(in crate::broker) struct Faults {
    /// The workers of those that were faults.
    by: SmallVec<[AgentKey; 4]>,
    /// Attempts that were begun and given up.
    given_up: u32,
}

impl Task {
    fn faults(&self) -> u32 {
        self.extras.as_ref().map_or(0, |extras| extras.faults.by.len() as u32)
    }
}

impl Core {
    /// An attempt at a task was a fault. Returns whether its worker is to blame: the first one is;
    /// with any further one, the task is.
    ///
    /// Workers are told apart by their registrations, so that one counts again that was lost and came
    /// back. The same one counts once where the task's own retries are bounded, and each time where
    /// nothing else would bound them.
    pub(super) fn task_faults(&mut self, key: TaskKey, by: AgentKey) -> bool {
        let Some(task) = self.tasks.get_mut(key) else { return true };
        let extras = task.extras_mut();
        let is_bounded = extras.asked.retry.is_some();
        let faults = &mut extras.faults.by;
        let is_first = faults.iter().all(|it| *it == by);
        if !(is_bounded && faults.contains(&by)) && faults.len() < MAX_POISON_AFTER as usize {
            faults.push(by);
        }
        is_first
    }

    /// Whether a task is not to be tried again, since too many workers failed with it.
    pub(in crate::broker) fn is_poisoned(&self, key: TaskKey) -> bool {
        let Some(task) = self.tasks.get(key) else { return false };
        let after = self.pools.get(task.pool).map_or(0, |pool| pool.rules.poison_after);
        after > 0 && task.faults() >= after
    }

    /// A worker began a task and gave it up. Returns whether that has happened too often.
    pub(in crate::broker) fn is_given_up_too_often(&mut self, key: TaskKey) -> bool {
        let Some(task) = self.tasks.get_mut(key) else { return false };
        let given_up = &mut task.extras_mut().faults.given_up;
        *given_up += 1;
        *given_up >= self.config.max_nacks
    }

    /// Ends a task that is poisoned, or was given up too often.
    pub(in crate::broker) fn end_poisoned(
        &mut self,
        now: Now,
        key: TaskKey,
        node_id: Option<NodeId>,
        last: Option<Box<ErrorInfo>>,
    ) {
        let Some(task) = self.tasks.get(key) else { return };
        let (task_id, trace_id) = (task.id.clone(), task.trace_id());
        let (workers, message) = if self.is_poisoned(key) {
            let faults = task.faults();
            let message = format!(
                "{faults} workers panicked, were lost or fell silent while they had it: look for what \
                 in it they can't stand before you send it again"
            );
            (faults, message)
        } else {
            let given_up = task.extras.as_ref().map_or(0, |extras| extras.faults.given_up);
            (given_up, format!("workers began it and gave it up {given_up} times"))
        };
        let Some(action) = self.pools.get(task.pool).map(|pool| pool.action.clone()) else {
            return;
        };
        self.stats.poisoned += 1;
        self.event(Event::TaskPoisoned { task_id, trace_id, action, workers });
        let mut error = ErrorInfo::new(ErrorCode::Poisoned, message);
        error.node_id = node_id.clone();
        error.causes.extend(last.map(|it| Cause { code: it.code, message: it.message, node_id }));
        self.end(now, key, End::without_result(Outcome::Failed, Executed::Maybe, error));
    }
}
