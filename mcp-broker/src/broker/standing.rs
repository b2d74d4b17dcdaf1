//! What a pool has learnt of a worker from the attempts that it made.

use mcp_proto::{ErrorCode, Outcome, TaskResult};

use super::inflight::Attempt;
use super::pool::PoolKey;
use super::{Core, Now};

/// What the end of an attempt says of its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It did the task.
    Ok,
    /// The task failed by itself: the worker did what it could.
    TaskError,
    /// It could not take the task now.
    Pushback,
    /// It panicked, was lost, gave no sign of life, or broke the protocol.
    Fault,
}

impl Verdict {
    pub(super) fn of(result: &TaskResult) -> Self {
        let has_panicked =
            || result.error.as_ref().is_some_and(|it| it.code == ErrorCode::HandlerPanic);
        match result.outcome {
            Outcome::Ok => Self::Ok,
            Outcome::Failed if has_panicked() => Self::Fault,
            Outcome::Cancelled => Self::Pushback,
            Outcome::Failed | Outcome::Expired | Outcome::Rejected | Outcome::Lost => {
                Self::TaskError
            }
        }
    }
}

/// What is known of a worker's attempts at one action.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Standing {
    /// Smoothed µs that it had those tasks that it did, the network included; 0 before there was
    /// one. What failed is left out: it would make a worker look fast that fails at once.
    pub(super) service_us: u64,
}

impl Standing {
    fn note(&mut self, verdict: Verdict, held_us: u64) {
        if verdict == Verdict::Ok {
            // Weight 1/8, as TCP smooths its round-trip time (RFC 6298).
            self.service_us = match self.service_us {
                0 => held_us.max(1),
                before => (before * 7 + held_us).div_ceil(8),
            };
        }
    }
}

impl Core {
    /// An attempt has ended, of which this is to be thought. Its worker still has it.
    pub(super) fn judge(&mut self, now: Now, pool: PoolKey, attempt: &Attempt, verdict: Verdict) {
        let Some(agent) = self.registry.get(attempt.agent) else { return };
        let Some(membership) = agent.serves.iter().find(|it| it.pool == pool) else { return };
        let Some(pool) = self.pools.get_mut(pool) else { return };
        let held_us = attempt.held_us(now.mono);
        if let Some(standing) = pool.standing_mut(membership.member) {
            standing.note(verdict, held_us);
        }
        if matches!(verdict, Verdict::Ok | Verdict::TaskError) {
            pool.note_service(attempt.tenant, held_us);
        }
    }
}
