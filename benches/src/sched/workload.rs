//! A workload: workers, and what comes to them.

use fastrand::Rng;
use serde_json::{Map, Value};

use super::traffic::{Keys, SimTask, Traffic};

/// What a task takes that fails at once, µs.
const FAILS_AFTER_US: u64 = 1_000;

/// What a contender has to cope with.
#[derive(Debug, Clone)]
pub(super) struct Workload {
    /// As the command line has it.
    pub(super) name: &'static str,
    /// For people.
    pub(super) title: String,
    pub(super) workers: Vec<SimWorker>,
    pub(super) traffic: Vec<Traffic>,
    /// After which a client is no longer interested.
    pub(super) ttl_ms: u64,
    /// The broker's rules for the action, besides the policy.
    pub(super) rules: Map<String, Value>,
}

/// A worker's make.
#[derive(Debug, Clone, Copy)]
pub(super) struct SimWorker {
    pub(super) slots: u32,
    /// Times as long as an ordinary worker takes.
    pub(super) slowness: u64,
    /// Share of its tasks that it fails, at once.
    pub(super) fails: f64,
}

impl Workload {
    /// All tasks until a time, in order. One traffic's are the same whatever there is beside it.
    pub(super) fn tasks(&self, until_us: u64, seed: u64) -> Vec<SimTask> {
        let mut tasks = Vec::new();
        for (group, traffic) in self.traffic.iter().enumerate() {
            let mut rng = Rng::with_seed(seed << 8 | group as u64);
            tasks.extend(traffic.tasks(group, until_us, &mut rng));
        }
        tasks.sort_by_key(|task| task.at_us);
        tasks
    }

    pub(super) fn has_keys(&self) -> bool {
        self.traffic.iter().any(|traffic| traffic.keys != Keys::None)
    }

    /// Tasks a second that the workers can do at most.
    pub(super) fn capacity_per_s(&self) -> f64 {
        let rate = self.traffic.iter().map(Traffic::per_s).sum::<f64>();
        let work = self.traffic.iter().map(|it| it.per_s() * it.mean_service_us).sum::<f64>();
        speed(&self.workers) * 1e6 * rate / work
    }
}

impl SimWorker {
    /// How long it has a task, µs, and whether it does it.
    pub(super) fn works(&self, task: &SimTask) -> (u64, bool) {
        match task.luck < self.fails {
            true => (FAILS_AFTER_US, false),
            false => (task.service_us * self.slowness, true),
        }
    }
}

/// Ordinary slots that would do as much as these workers.
pub(super) fn speed(workers: &[SimWorker]) -> f64 {
    workers.iter().map(|it| f64::from(it.slots) / it.slowness as f64).sum()
}
