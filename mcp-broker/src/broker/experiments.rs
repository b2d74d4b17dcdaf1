//! What an operator sees of an action's experiments: its mirror, and its split.

use std::collections::BTreeMap;

use mcp_proto::Labels;
use serde::Serialize;

use super::{Core, Histogram, MirrorRule};

/// The experiments of an action. Counts are since the start of the broker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Experiments {
    /// Workers that get shadow tasks only.
    pub shadow_workers: usize,
    /// Those of them that take tasks.
    pub shadow_workers_ready: usize,
    /// Copies of live tasks; none without a rule for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirrorView>,
    /// The arms of its split.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub split: Vec<ArmView>,
}

/// What becomes of an action's copies. See [`MirrorCounts`](super::MirrorCounts).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MirrorView {
    /// Its rule.
    #[serde(flatten)]
    pub rule: MirrorRule,
    /// Tasks that were copied.
    pub mirrored: u64,
    /// Tasks whose turn it was, without room for a copy.
    pub skipped: u64,
    /// Copies with the same result.
    pub equal: u64,
    /// Copies with another result.
    pub different: u64,
    /// Copies of tasks without a result, or with one in parts.
    pub not_compared: u64,
    /// Copies without a result.
    pub shadow_failed: u64,
    /// Copies whose originals took too long.
    pub given_up: u64,
    /// From ROUTE to RESULT, of originals.
    pub live: Durations,
    /// The same of copies.
    pub shadow: Durations,
}

/// What becomes of the tasks of an arm.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ArmView {
    /// Its name.
    pub name: String,
    /// The labels of its workers.
    pub labels: Labels,
    /// Its weight among those of all arms.
    pub weight: u32,
    /// Tasks that ended, by outcome.
    pub ended: BTreeMap<&'static str, u64>,
    /// Tasks that went elsewhere, as it had no ready worker.
    pub moved: u64,
    /// From SEND to DELIVER.
    pub total: Durations,
    /// In the handler.
    pub work: Durations,
}

/// A histogram in a few numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Durations {
    /// How many there were.
    pub count: u64,
    /// Their mean, ms.
    pub mean_ms: f64,
    /// Half of them took no longer, ms; the bound of a bucket, at most twice what it was.
    pub p50_ms: Option<f64>,
    /// The same of 99 %.
    pub p99_ms: Option<f64>,
}

impl Durations {
    fn of(it: &Histogram) -> Self {
        let quantile = |part| it.quantile_us(part).map(|us| us as f64 / 1e3);
        Self {
            count: it.count(),
            mean_ms: it.sum_us() as f64 / it.count().max(1) as f64 / 1e3,
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
        }
    }
}

impl Core {
    /// What is known of an action's experiments.
    pub fn experiments(&self, action: &str) -> Experiments {
        let rules = self.rules(action);
        let entry = self.measured.entry(action);
        let shadow = self.shadow.pool_names.get(action).and_then(|key| self.pools.get(*key));
        let mirror = rules.mirror.map(|rule| {
            let it = entry.and_then(|entry| entry.mirror.as_deref()).cloned().unwrap_or_default();
            MirrorView {
                rule,
                mirrored: it.mirrored,
                skipped: it.skipped,
                equal: it.equal,
                different: it.different,
                not_compared: it.not_compared,
                shadow_failed: it.shadow_failed,
                given_up: it.given_up,
                live: Durations::of(&it.live),
                shadow: Durations::of(&it.shadow),
            }
        });
        let arms = rules.split.iter().map(|arm| {
            let found = entry.and_then(|it| it.arms.iter().find(|it| it.name == arm.name));
            let counts = found.map(|it| it.counts.clone()).unwrap_or_default();
            ArmView {
                name: arm.name.clone(),
                labels: arm.labels.clone(),
                weight: arm.weight,
                ended: counts.ended().map(|(outcome, count)| (outcome.name(), count)).collect(),
                moved: found.map_or(0, |it| it.moved),
                total: Durations::of(&counts.total),
                work: Durations::of(&counts.worked),
            }
        });
        Experiments {
            shadow_workers: shadow.map_or(0, |pool| pool.workers()),
            shadow_workers_ready: shadow.map_or(0, |pool| pool.ready_workers()),
            mirror,
            split: arms.collect(),
        }
    }
}
