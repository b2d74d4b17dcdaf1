//! What workers say of attempts: RESULT, NACK, and PING where it shows that one is forgotten.

use bytes::Bytes;
use mcp_proto::{
    AttemptId, ErrorCode, ErrorInfo, Executed, HopEvent, Nack, Outcome, Ping, TaskResult,
};

use super::ending::End;
use super::hedging::another_goes_on;
use super::inflight::{Attempt, AttemptKey, Task, TaskKey};
use super::registry::AgentKey;
use super::retries::Again;
use super::standing::Verdict;
use super::{ConnectionId, Core, Event, Now};

/// Why there is no other attempt at a task whose input came in chunks, as a part of a sentence.
const INPUT_GONE: &str = "the broker no longer has all of its input, which was too long to be kept";

/// When a durable task that was handed back too often is offered again: as late as a client comes again
/// that finds all workers busy.
const HANDED_BACK_MS: u64 = 1_000;

/// What the hop of an attempt says whose worker was lost.
pub(super) fn lost_reason(may_run_again: bool, is_poisoned: bool) -> &'static str {
    match (may_run_again, is_poisoned) {
        (true, false) => "worker lost; dispatched again",
        (true, true) => "worker lost, as others before it",
        (false, _) => "worker lost",
    }
}

impl Core {
    pub(super) fn handle_result(
        &mut self,
        now: Now,
        from: ConnectionId,
        agent: AgentKey,
        result: TaskResult,
        body: Bytes,
    ) {
        let Some(key) = self.held_by(from, agent, result.attempt_id) else { return };
        let Some(attempt) = self.release(key) else { return };
        match attempt.task {
            None => self.stats.late_results += 1,
            Some(task) => self.take_result(now, task, attempt, result, body),
        }
        self.fill(now, agent);
    }

    fn take_result(
        &mut self,
        now: Now,
        key: TaskKey,
        attempt: Attempt,
        result: TaskResult,
        body: Bytes,
    ) {
        let Some(task) = self.tasks.get(key) else { return };
        let (chunks, _) = self.streams.chunks(task.stream);
        let is_whole = result.outcome != Outcome::Ok || result.chunks == chunks;
        let verdict = if is_whole { Verdict::of(&result) } else { Verdict::Fault };
        self.judge(now, task.pool, &attempt, verdict);
        let is_failed_for_good = result.outcome == Outcome::Failed && result.permanent;
        let is_decided = verdict == Verdict::Ok || is_failed_for_good;
        let Some(task) = self.tasks.get_mut(key) else { return };
        let goes_on = !is_decided && task.goes_on_without(&attempt, result.executed);
        if is_decided && task.second_attempt().is_some() {
            self.end_other_attempt(now, key, &attempt, verdict == Verdict::Ok);
        }
        let again = match result.outcome {
            Outcome::Failed if !goes_on => self.again_after_failure(now, key, &result),
            _ => None,
        };
        let Some(agent) = self.registry.get(attempt.agent) else { return };
        let node_id = agent.node_id.clone();
        let is_given_up = result.outcome == Outcome::Cancelled;
        let (event, reason) = match result.outcome {
            Outcome::Expired => (HopEvent::Expired, "its worker stopped it at its deadline"),
            Outcome::Cancelled => (HopEvent::Cancelled, "its worker gave it up"),
            Outcome::Ok | Outcome::Failed | Outcome::Rejected | Outcome::Lost => {
                (HopEvent::Completed, "")
            }
        };
        let reason = match goes_on {
            true => another_goes_on(event),
            false => again.map_or(reason, Again::reason),
        };
        let Some(task) = self.tasks.get_mut(key) else { return };
        let mut hop = attempt.hop(now.mono, task, node_id.clone(), event, reason);
        // A worker can't have spent more than the time it had.
        hop.work_us = result.work_us.min(hop.network_us);
        hop.worker_queue_us = result.queue_us.min(hop.network_us - hop.work_us);
        hop.network_us -= hop.work_us + hop.worker_queue_us;
        if task.hops.is_empty() {
            task.hops = std::mem::take(&mut self.spare_hops);
        }
        task.add_hop(hop);
        if goes_on {
            return;
        }
        if is_given_up && result.executed == Executed::No {
            return self.take_back(now, key, &attempt, result.error);
        }
        if is_given_up && task.may_run_again() {
            task.avoid = Some(attempt.agent);
            if self.is_given_up_too_often(key) {
                return self.end_poisoned(now, key, Some(node_id), result.error);
            }
            return self.place(now, key, true);
        }
        if !is_whole {
            let message = "its worker left out a part of its result";
            let error = ErrorInfo::new(ErrorCode::LimitExceeded, message);
            let error = error.node(node_id);
            let end = End::without_result(Outcome::Failed, Executed::Yes, error);
            return self.end(now, key, end);
        }
        let mut executed = result.executed;
        if executed == Executed::No {
            task.extras_mut().unstarted += 1;
            executed = self.executed_so_far(key);
        }
        match again {
            Some(Again::After(wait_ms)) => {
                return self.try_again(now, key, attempt.agent, wait_ms);
            }
            Some(Again::Poisoned) => {
                return self.end_poisoned(now, key, Some(node_id), result.error);
            }
            Some(_) | None => {}
        }
        let mut error = result.error;
        let outcome = if is_given_up { Outcome::Failed } else { result.outcome };
        if outcome != Outcome::Ok {
            let (code, message) = match result.outcome {
                Outcome::Cancelled => (ErrorCode::WorkerLost, "its worker gave it up"),
                Outcome::Expired => (ErrorCode::Expired, reason),
                _ => (ErrorCode::HandlerFailed, "the handler failed and did not say why"),
            };
            let error = error.get_or_insert_with(|| Box::new(ErrorInfo::new(code, message)));
            error.node_id = Some(node_id);
        } else {
            error = None;
        }
        let TaskResult { content_type, headers, .. } = result;
        self.end(now, key, End { outcome, executed, content_type, error, body, headers });
    }

    pub(super) fn handle_nack(
        &mut self,
        now: Now,
        from: ConnectionId,
        agent: AgentKey,
        nack: Nack,
    ) {
        let Some(key) = self.held_by(from, agent, nack.attempt_id) else { return };
        let Some(attempt) = self.release(key) else { return };
        self.stats.nacked += 1;
        if let Some(task) = attempt.task {
            if let Some(pool) = self.tasks.get(task).map(|it| it.pool) {
                self.judge(now, pool, &attempt, Verdict::Pushback);
            }
            let reason = "handed back; dispatched again";
            self.has_not_begun(now, task, &attempt, (HopEvent::Nacked, reason), nack.error);
        }
        self.fill(now, agent);
    }

    /// Its worker was away when it was sent, and is back without it. That is nobody's fault.
    pub(super) fn never_arrived(&mut self, now: Now, key: TaskKey, attempt: &Attempt) {
        let reason = "never reached its worker; dispatched again";
        self.has_not_begun(now, key, attempt, (HopEvent::WorkerLost, reason), None);
    }

    /// An attempt is over before its worker began with it.
    fn has_not_begun(
        &mut self,
        now: Now,
        key: TaskKey,
        attempt: &Attempt,
        (event, reason): (HopEvent, &'static str),
        why: Option<Box<ErrorInfo>>,
    ) {
        let Some(agent) = self.registry.get(attempt.agent) else { return };
        let node_id = agent.node_id.clone();
        let Some(task) = self.tasks.get_mut(key) else { return };
        let goes_on = task.goes_on_without(attempt, Executed::No);
        let reason = if goes_on { another_goes_on(event) } else { reason };
        task.add_hop(attempt.hop(now.mono, task, node_id, event, reason));
        if !goes_on {
            self.take_back(now, key, attempt, why);
        }
    }

    /// A worker handed a task back that it did not start.
    fn take_back(
        &mut self,
        now: Now,
        key: TaskKey,
        attempt: &Attempt,
        why: Option<Box<ErrorInfo>>,
    ) {
        if self.is_copy(key) {
            let error = ErrorInfo::new(ErrorCode::AllBusy, "its worker handed it back");
            return self.end(now, key, End::without_result(Outcome::Rejected, Executed::No, error));
        }
        let wait_ms = why.as_ref().and_then(|error| error.retry_after_ms);
        let has_input = self.tasks.get(key).is_some_and(Task::has_whole_input);
        if let Some(wait_ms) = wait_ms
            && has_input
            && self.may_wait(key)
        {
            return self.put_off(now, key, attempt.agent, wait_ms);
        }
        let Some(agent) = self.registry.get(attempt.agent) else { return };
        let node_id = agent.node_id.clone();
        let Some(task) = self.tasks.get_mut(key) else { return };
        let nacks = task.nacks + 1;
        let is_last = !has_input || nacks >= self.config.max_nacks;
        let message = format!("workers handed it back {nacks} times");
        let mut error =
            why.map_or_else(|| ErrorInfo::new(ErrorCode::AllBusy, message), |error| *error);
        if is_last && task.is_durable {
            // It is not rejected for want of a worker.
            if !self.takes_next_step(now, key, &mut error) {
                self.put_off(now, key, attempt.agent, HANDED_BACK_MS);
            }
            return;
        }
        task.nacks = nacks;
        task.avoid = Some(attempt.agent);
        if !is_last {
            return self.place(now, key, true);
        }
        if !has_input {
            error.message = format!("it was handed back, and {INPUT_GONE}: {}", error.message);
        }
        error.node_id = Some(node_id);
        self.give_up(now, key, error);
    }

    /// The attempt of an id, if this worker holds it.
    pub(super) fn attempt_of(&self, agent: AgentKey, id: AttemptId) -> Option<AttemptKey> {
        let key = self.attempt_ids.key(id)?;
        self.attempts.get(key).is_some_and(|attempt| attempt.agent == agent).then_some(key)
    }

    /// The attempt of an id, if this worker holds it. Otherwise the worker is told, and nothing
    /// happens: this is the fence.
    pub(super) fn held_by(
        &mut self,
        from: ConnectionId,
        agent: AgentKey,
        id: AttemptId,
    ) -> Option<AttemptKey> {
        let held = self.attempt_of(agent, id);
        if held.is_none() {
            self.stats.refused_results += 1;
            let message = format!("you do not hold attempt {id}");
            self.send_error(from, ErrorInfo::new(ErrorCode::UnknownAttempt, message));
        }
        held
    }

    /// Takes an attempt from its worker: the slot is free.
    #[inline]
    pub(super) fn release(&mut self, key: AttemptKey) -> Option<Attempt> {
        let attempt = self.attempts.remove(key)?;
        if let Some(timer) = attempt.cancel_timer {
            self.timers.cancel(timer);
        }
        if let Some(round) = attempt.probe {
            self.probe_ends(attempt.agent, attempt.pool, round);
        }
        if let Some(agent) = self.registry.get_mut(attempt.agent) {
            agent.attempts.swap_remove(attempt.position);
            agent.parked -= u32::from(attempt.is_parked);
            agent.attempts_bytes -= attempt.bytes;
            if let Some(moved) = agent.attempts.get(attempt.position)
                && let Some(moved) = self.attempts.get_mut(*moved)
            {
                moved.position = attempt.position;
            }
            self.room_changed(attempt.agent);
        }
        self.runs_no_more(attempt.pool);
        Some(attempt)
    }

    /// Frames arrive in order, so a worker that has received an attempt's ROUTE, does not list it,
    /// and has sent no RESULT before this PING, will never send one.
    pub(super) fn find_leaks(&mut self, now: Now, key: AgentKey, mut ping: Ping) {
        ping.held.sort_unstable();
        let Some(agent) = self.registry.get(key) else { return };
        let is_leaked = |attempt_key: &AttemptKey| {
            let id = self.attempt_ids.id(*attempt_key);
            let attempt = self.attempts.get(*attempt_key);
            attempt.is_some_and(|it| it.route <= ping.routes_received)
                && ping.held.binary_search(&id).is_err()
        };
        let leaked: Vec<_> = agent.attempts.iter().copied().filter(is_leaked).collect();
        for attempt in leaked {
            let Some(agent) = self.registry.get(key) else { return };
            let agent_id = agent.id.clone();
            self.stats.leaked += 1;
            self.event(Event::AttemptLeaked { agent_id });
            if let Some(attempt) = self.release(attempt)
                && let Some(task) = attempt.task
            {
                if let Some(pool) = self.tasks.get(task).map(|task| task.pool) {
                    self.judge(now, pool, &attempt, Verdict::Fault);
                }
                self.attempt_is_lost(now, task, attempt);
            }
        }
    }

    /// The worker that held an attempt will not finish it. What that says of the worker and of the
    /// task is noted already.
    pub(super) fn attempt_is_lost(&mut self, now: Now, key: TaskKey, attempt: Attempt) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let Some(agent) = self.registry.get(attempt.agent) else { return };
        let event = HopEvent::WorkerLost;
        let goes_on = task.goes_on_without(&attempt, Executed::Maybe);
        let (may_run_again, node_id) = (task.may_run_again(), agent.node_id.clone());
        let is_poisoned = !goes_on && may_run_again && self.is_poisoned(key);
        let reason = match goes_on {
            true => another_goes_on(event),
            false => lost_reason(may_run_again, is_poisoned),
        };
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.add_hop(attempt.hop(now.mono, task, node_id.clone(), event, reason));
        if goes_on {
            return;
        }
        if is_poisoned {
            return self.end_poisoned(now, key, Some(node_id), None);
        }
        if may_run_again {
            return self.place(now, key, true);
        }
        let Some(task) = self.tasks.get(key) else { return };
        let message = match task.has_whole_input() {
            true => "its worker was lost; send it again only if running it twice is safe".into(),
            false => format!("its worker was lost, and {INPUT_GONE}: send it again"),
        };
        let error = ErrorInfo::new(ErrorCode::WorkerLost, message).node(node_id);
        self.end(now, key, End::without_result(Outcome::Failed, Executed::Maybe, error));
    }

    pub(super) fn cancel_is_unconfirmed(&mut self, key: AttemptKey) {
        let Some(attempt) = self.attempts.get_mut(key) else { return };
        attempt.cancel_timer = None;
        let agent = attempt.agent;
        self.stats.cancels_unconfirmed += 1;
        if let Some(agent_id) = self.registry.get(agent).map(|agent| agent.id.clone()) {
            self.event(Event::CancelUnconfirmed { agent_id });
        }
    }
}
