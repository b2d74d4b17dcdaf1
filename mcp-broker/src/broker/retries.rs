//! Another attempt: after a failure of the handler, after silence, after a worker put a task off.

use mcp_proto::{
    AttemptId, CancelReason, ErrorCode, ErrorInfo, Executed, HopEvent, Outcome, TaskResult,
};
use smallvec::SmallVec;

use super::ending::End;
use super::explain::Found;
use super::hedging::another_goes_on;
use super::inflight::{AttemptKey, Task, TaskKey, TaskState};
use super::pool::Choice;
use super::registry::AgentKey;
use super::uploads::Upload;
use super::{Core, Now};

/// Bounds of what a worker can put a task off by. Whoever names less would be asked over and over;
/// more is as good as handing it back.
const PUT_OFF_MS: std::ops::RangeInclusive<u64> = 10..=60_000;

/// Workers that are asked one after the other, each when the one before put the task off. Then it
/// waits.
const MAX_ASKED_AT_ONCE: usize = 8;

/// Whether there is another attempt after one that failed or was silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// After so many ms.
    After(u64),
    Permanent,
    MayNotRunTwice,
    InputGone,
    /// Too many workers failed with it.
    Poisoned,
    NoAttemptLeft,
    NoTimeLeft,
    BudgetSpent,
    NoRoom,
    ShuttingDown,
}

impl Again {
    /// Why, as the hop of a failed attempt tells it.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Again::After(_) => "failed; tried again",
            Again::Permanent => "failed for good",
            Again::MayNotRunTwice => "failed; it may not run twice",
            Again::InputGone => "failed; its input was too long to be kept",
            Again::Poisoned => "failed, as with other workers before",
            Again::NoAttemptLeft => "failed; no attempt is left",
            Again::NoTimeLeft => "failed; its time to live ends before another attempt",
            Again::BudgetSpent => "failed; the retry budget is spent",
            Again::NoRoom => "failed; too many tasks wait for another attempt",
            Again::ShuttingDown => "failed; the broker is shutting down",
        }
    }

    /// The same of one that was silent.
    fn reason_of_silence(self) -> &'static str {
        match self {
            Again::After(_) => "no sign of life; tried again",
            Again::Permanent | Again::MayNotRunTwice => "no sign of life; it may not run twice",
            Again::InputGone => "no sign of life; its input was too long to be kept",
            Again::Poisoned => "no sign of life, as from other workers before",
            Again::NoAttemptLeft => "no sign of life; no attempt is left",
            Again::NoTimeLeft => "no sign of life; its time to live ends before another attempt",
            Again::BudgetSpent => "no sign of life; the retry budget is spent",
            Again::NoRoom => "no sign of life; too many tasks wait for another attempt",
            Again::ShuttingDown => "no sign of life; the broker is shutting down",
        }
    }
}

impl Core {
    /// A worker gives a sign of life of an attempt. One that it does not hold, or whose task has
    /// ended, is ignored.
    pub(super) fn handle_sign(&mut self, now: Now, agent: AgentKey, id: AttemptId) {
        if let Some(attempt) = self.attempt_of(agent, id) {
            self.attempt_lives(now, attempt);
        }
    }

    /// An attempt gave a sign of life: its time-out counts from now.
    pub(super) fn attempt_lives(&mut self, now: Now, key: AttemptKey) {
        if let Some(attempt) = self.attempts.get(key)
            && let Some(task) = attempt.task.and_then(|task| self.tasks.get_mut(task))
        {
            // The timer stays: when it fires, it is seen that there was a sign.
            task.note_sign(now.mono, attempt);
        }
    }

    pub(super) fn look_again(&mut self, key: TaskKey) {
        if let Some(at) = self.tasks.get(key).map(Task::look_at) {
            self.set_task_timer(key, at);
        }
    }

    /// A running attempt gave no sign of life for its task's `attempt_timeout_ms`.
    pub(super) fn attempt_is_silent(&mut self, now: Now, key: TaskKey, attempt_key: AttemptKey) {
        if self.tasks.get(key).and_then(Task::upload).is_some_and(Upload::is_starved) {
            // It is its client that is silent.
            self.attempt_lives(now, attempt_key);
            return self.look_again(key);
        }
        let Some(attempt) = self.attempts.get(attempt_key) else { return };
        let agent = attempt.agent;
        self.stats.timed_out += 1;
        if let Some(pool) = self.tasks.get(key).map(|task| task.pool)
            && self.is_silence_a_fault(key)
        {
            self.note_fault(now, pool, agent, Some(key));
        }
        if let (Some(attempt), Some(task)) =
            (self.attempts.get(attempt_key), self.tasks.get_mut(key))
            && task.goes_on_without(attempt, Executed::Maybe)
        {
            let event = HopEvent::TimedOut;
            self.add_hop(now, key, attempt_key, event, another_goes_on(event));
            self.cancel_attempt(now, attempt_key, CancelReason::Superseded);
            return self.look_again(key);
        }
        let again = self.again(now, key, Executed::Maybe);
        self.add_hop(now, key, attempt_key, HopEvent::TimedOut, again.reason_of_silence());
        self.cancel_attempt(now, attempt_key, CancelReason::Superseded);
        let node_id = self.registry.get(agent).map(|agent| agent.node_id.clone());
        match again {
            Again::After(wait_ms) => return self.try_again(now, key, agent, wait_ms),
            Again::Poisoned => return self.end_poisoned(now, key, node_id, None),
            _ => {}
        }
        let task = self.tasks.get(key).and_then(|task| task.extras.as_ref());
        let timeout_ms = task.map_or(0, |extras| extras.asked.attempt_timeout_ms);
        let message = format!(
            "its handler gave no sign of life for {timeout_ms} ms, its attempt time-out; give it \
             more time, or let it report progress"
        );
        let mut error = ErrorInfo::new(ErrorCode::AttemptTimeout, message);
        error.node_id = node_id;
        self.end(now, key, End::without_result(Outcome::Failed, Executed::Maybe, error));
    }

    /// Whether a task is tried again after this failure; none when it did not ask for that.
    pub(super) fn again_after_failure(
        &mut self,
        now: Now,
        key: TaskKey,
        result: &TaskResult,
    ) -> Option<Again> {
        self.tasks.get(key)?.extras.as_ref()?.asked.retry?;
        Some(match result.permanent {
            true => Again::Permanent,
            false => self.again(now, key, result.executed),
        })
    }

    /// Whether a task gets another attempt after one that ended badly. If so, it is taken from the
    /// budget.
    fn again(&mut self, now: Now, key: TaskKey, executed: Executed) -> Again {
        let Some(task) = self.tasks.get(key) else { return Again::NoAttemptLeft };
        if executed != Executed::No && !task.may_run_twice() {
            return Again::MayNotRunTwice;
        }
        if !task.has_whole_input() {
            return Again::InputGone;
        }
        if !task.has_attempts_left() {
            return Again::NoAttemptLeft;
        }
        if self.is_poisoned(key) {
            return Again::Poisoned;
        }
        let asked = task.extras.as_ref().and_then(|extras| extras.asked.retry);
        let wait_ms = asked.map_or(0, |retry| retry.wait_ms(task.tries()));
        if now.mono.plus_ms(wait_ms) >= task.deadline {
            return Again::NoTimeLeft;
        }
        if self.is_shutting_down && !task.is_durable {
            return Again::ShuttingDown;
        }
        if !self.may_wait(key) {
            return Again::NoRoom;
        }
        let is_shadow = self.pools.get(task.pool).is_some_and(|pool| pool.is_shadow);
        let (budget, accepted) = if is_shadow {
            (&mut self.shadow.retry_budget, self.stats.shadow.accepted)
        } else {
            (&mut self.retry_budget, self.stats.accepted)
        };
        if !budget.take(now.mono, accepted) {
            self.stats.retries_refused += 1;
            return Again::BudgetSpent;
        }
        self.stats.retried += 1;
        Again::After(wait_ms)
    }

    /// Has a task tried again after a wait, with another worker if there is one.
    pub(super) fn try_again(&mut self, now: Now, key: TaskKey, failed: AgentKey, wait_ms: u64) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.avoid = Some(failed);
        self.delay(now, key, wait_ms);
        if wait_ms == 0 {
            self.place(now, key, true);
        }
    }

    /// A worker has no room for a task that it was sent, and says when it may have. Another one
    /// that has room is asked at once.
    pub(super) fn put_off(&mut self, now: Now, key: TaskKey, by: AgentKey, wait_ms: u64) {
        self.stats.put_off += 1;
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.avoid = Some(by);
        let extras = task.extras_mut();
        extras.put_off += 1;
        extras.put_off_by.push(by);
        let asked = extras.put_off_by.len();
        if now.mono >= task.deadline {
            return self.expire_queued(now, key);
        }
        if self.is_shutting_down {
            return self.end_for_shutdown(now, key);
        }
        let choice = (asked < MAX_ASKED_AT_ONCE).then(|| self.pick_another(now, key)).flatten();
        if let Some(choice) = choice {
            return self.route(now, key, choice, now.mono);
        }
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.extras_mut().put_off_by.clear();
        self.delay(now, key, wait_ms.clamp(*PUT_OFF_MS.start(), *PUT_OFF_MS.end()));
    }

    /// Chooses a worker that has not put a task off since it last waited.
    fn pick_another(&mut self, now: Now, key: TaskKey) -> Option<Choice> {
        let task = self.tasks.get(key)?;
        let asked = task.extras.as_ref().map(|extras| &extras.put_off_by[..]).unwrap_or_default();
        let asked: SmallVec<[_; MAX_ASKED_AT_ONCE]> =
            asked.iter().filter_map(|agent| self.registry.member(*agent, task.pool)).collect();
        if task.is_explained() {
            self.explain_attempt(now, key, Found::Except(&asked));
        }
        let task = self.tasks.get(key)?;
        let pool = self.pools.get_mut(task.pool).filter(|pool| !pool.is_degraded)?;
        pool.pick_none_of(task.subqueue, &mut self.rng, task.affinity, &asked)
    }

    /// Whether one more of an action's tasks may wait for its time: they are bounded as its queue
    /// is.
    pub(super) fn may_wait(&self, key: TaskKey) -> bool {
        let Some(task) = self.tasks.get(key) else { return false };
        let Some(pool) = self.pools.get(task.pool) else { return false };
        let bounds = pool.rules.queue_bounds(&self.config);
        pool.delayed.tasks < bounds.tasks && pool.delayed.bytes + task.bytes() <= bounds.bytes
    }

    /// Lets a task wait for its time, which its deadline may cut.
    pub(super) fn delay(&mut self, now: Now, key: TaskKey, wait_ms: u64) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.state = TaskState::Delayed { since: now.mono };
        let bytes = task.bytes();
        let at = now.mono.plus_ms(wait_ms).min(task.deadline);
        if let Some(pool) = self.pools.get_mut(task.pool) {
            pool.delayed.add(bytes);
            self.delayed.of(pool.is_shadow).add(bytes);
        }
        self.set_task_timer(key, at);
    }
}
