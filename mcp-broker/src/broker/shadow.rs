//! Shadow tasks: load tests, and copies of live tasks, for workers that get nothing else.
//!
//! An action has two pools that share nothing but its name and its rules: one of live tasks and
//! workers, and one of shadow tasks and workers with the label `shadow=true`. So neither sees the
//! other's workers, queue, bounds or statistics, and no rule has to tell them apart.

use std::collections::HashMap;

use foldhash::fast::FixedState;
use mcp_proto::{ActionName, Labels, Outcome};

use super::Stats;
use super::budget::Budget;
use super::pool::PoolKey;

/// The label of shadow workers, which shadow tasks require.
const LABEL: &str = "shadow";
const VALUE: &str = "true";

/// Of the tasks that there may be, one shadow task for so many live ones, besides those: a load
/// test never takes a live task's place.
pub(super) const LIVE_TASKS_FOR_EACH: usize = 2;

/// What there is of shadow tasks.
#[derive(Debug)]
pub(super) struct Shadow {
    pub(super) pool_names: HashMap<ActionName, PoolKey, FixedState>,
    /// Tasks without an outcome.
    pub(super) tasks: usize,
    /// Of their own, so that a load test whose tasks fail takes no live task's retries.
    pub(super) retry_budget: Budget,
}

impl Shadow {
    pub(super) fn new(retry_budget_percent: u32, hasher: FixedState) -> Self {
        Self {
            pool_names: HashMap::with_hasher(hasher),
            tasks: 0,
            retry_budget: Budget::of_retries(retry_budget_percent),
        }
    }
}

/// Whether these are labels of a shadow worker, or such that only one has them.
pub(super) fn is_shadow(labels: &Labels) -> bool {
    labels.0.get(LABEL).is_some_and(|value| value == VALUE)
}

/// Whether these labels say of a worker that it is one, or is not.
pub(super) fn is_about(labels: &Labels) -> bool {
    labels.0.contains_key(LABEL)
}

/// Adds the label to those that a shadow task requires.
pub(super) fn require(labels: &mut Labels) {
    labels.0.insert(LABEL.into(), VALUE.into());
}

/// Counters and gauges of shadow tasks; the other ones of [`Stats`] that are about tasks are without
/// them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct ShadowStats {
    /// Shadow tasks taken, copies of live tasks included.
    pub accepted: u64,
    /// Those that ended ok.
    pub ok: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those whose time to live ran out.
    pub expired: u64,
    /// Those that were cancelled.
    pub cancelled: u64,
    /// Those that were refused.
    pub rejected: u64,
    /// Those that wait now.
    pub queued: u64,
    /// Those that wait for their next attempt now.
    pub delayed: u64,
    /// Those at workers now.
    pub running: u64,
}

impl Stats {
    /// A task ended so.
    pub(super) fn count(&mut self, outcome: Outcome, is_shadow: bool) {
        let Self { ok, failed, expired, cancelled, rejected, shadow, .. } = self;
        let [ok, failed, expired, cancelled, rejected] = if is_shadow {
            let it = shadow;
            [&mut it.ok, &mut it.failed, &mut it.expired, &mut it.cancelled, &mut it.rejected]
        } else {
            [ok, failed, expired, cancelled, rejected]
        };
        match outcome {
            Outcome::Ok => *ok += 1,
            Outcome::Failed => *failed += 1,
            Outcome::Expired => *expired += 1,
            Outcome::Cancelled => *cancelled += 1,
            Outcome::Rejected => *rejected += 1,
            // Never an outcome of a broker.
            Outcome::Lost => debug_assert!(false, "a broker never says lost"),
        }
    }
}
