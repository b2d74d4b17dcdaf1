//! What a run came to, in figures.

use std::collections::HashMap;
use std::ops::Range;

use serde::Serialize;

use super::Run;
use super::simulation::Fate;
use super::traffic::SimTask;
use super::workload::Workload;

/// Of the tasks that came, or ended, within the measured time. Shares are of 1.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Figures {
    #[serde(flatten)]
    pub(super) all: Group,
    /// Jain's index, 1 when all are equal: of the workers' busy times by slot; where there are
    /// tenants, of what each got of its fair share instead.
    pub(super) fairness: f64,
    /// Of the tasks with a key that was seen before: those that went to the worker that had done
    /// the last one.
    pub(super) affinity: Option<f64>,
    /// Tasks that the worker with the most of them did, by the workers' mean.
    pub(super) largest: f64,
    /// Tasks that came to a worker whose slots were all in use, of the whole run.
    pub(super) over_assigned: u64,
    /// By traffic, where there are several.
    pub(super) groups: Vec<Group>,
}

/// Of some tasks.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Group {
    pub(super) name: &'static str,
    /// Of all tasks that were taken and did not fail: what was not done in time counts with its time
    /// to live.
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// Work done in time, by what the workers could do.
    pub(super) goodput: f64,
    /// Tasks that were refused, by all.
    pub(super) refused: f64,
    /// Tasks that were taken, and failed or were not done in time, by all.
    pub(super) failed: f64,
}

impl Figures {
    pub(super) fn of(
        workload: &Workload,
        tasks: &[SimTask],
        run: &Run,
        window_us: Range<u64>,
    ) -> Self {
        let view = View { workload, tasks, run, window_us };
        let groups: Vec<_> = match &workload.traffic[..] {
            [_] => Vec::new(),
            several => (0..several.len()).map(|index| view.group(Some(index))).collect(),
        };
        let has_tenants = workload.traffic.iter().any(|it| !it.tenant.is_empty());
        Self {
            all: view.group(None),
            fairness: match has_tenants && groups.len() > 1 {
                true => jain(&view.shares_of_fair(&groups)),
                false => jain(&view.busy()),
            },
            affinity: view.affinity(),
            largest: view.largest(),
            over_assigned: run.over_assigned,
            groups,
        }
    }
}

/// A run and what belongs to it.
struct View<'a> {
    workload: &'a Workload,
    tasks: &'a [SimTask],
    run: &'a Run,
    window_us: Range<u64>,
}

impl View<'_> {
    fn group(&self, index: Option<usize>) -> Group {
        let is_in = |task: &SimTask| index.is_none_or(|index| task.group == index);
        let came = self.fates().filter(|(task, _)| self.window_us.contains(&task.at_us));
        let (mut latencies_us, mut refused, mut failed, mut count) = (Vec::new(), 0.0, 0.0, 0.0);
        for (_, fate) in came.filter(|(task, _)| is_in(task)) {
            count += 1.0;
            match fate {
                Fate::Done { latency_us, .. } => latencies_us.push(latency_us),
                Fate::Refused => refused += 1.0,
                Fate::Failed => failed += 1.0,
                Fate::Late => {
                    failed += 1.0;
                    latencies_us.push(self.workload.ttl_ms * 1000);
                }
            }
        }
        latencies_us.sort_unstable();
        let done = self.done().filter(|(task, _)| is_in(task));
        let done_us: u64 = done.map(|(task, _)| task.service_us).sum();
        let window_us = (self.window_us.end - self.window_us.start) as f64;
        let could_us = super::workload::speed(&self.workload.workers) * window_us;
        Group {
            name: index.map_or("all", |index| self.workload.traffic[index].name),
            p50_ms: quantile(&latencies_us, 0.5) / 1000.0,
            p99_ms: quantile(&latencies_us, 0.99) / 1000.0,
            goodput: done_us as f64 / could_us,
            refused: refused / f64::max(count, 1.0),
            failed: failed / f64::max(count, 1.0),
        }
    }

    /// What each tenant got by its max-min fair share of the capacity.
    fn shares_of_fair(&self, groups: &[Group]) -> Vec<f64> {
        let capacity = self.workload.capacity_per_s();
        let wanted: Vec<_> = self.workload.traffic.iter().map(|it| it.per_s() / capacity).collect();
        let fair = max_min(&wanted);
        groups.iter().zip(fair).map(|(group, fair)| group.goodput / fair).collect()
    }

    /// Busy time of each worker's slots, in the tasks that it did.
    fn busy(&self) -> Vec<f64> {
        let mut work_us = vec![0.0; self.workload.workers.len()];
        for (task, worker) in self.done() {
            work_us[worker] += task.service_us as f64;
        }
        let by_slot = |(work_us, worker): (f64, &super::workload::SimWorker)| {
            work_us * worker.slowness as f64 / f64::from(worker.slots)
        };
        work_us.into_iter().zip(&self.workload.workers).map(by_slot).collect()
    }

    fn largest(&self) -> f64 {
        let mut tasks = vec![0.0; self.workload.workers.len()];
        for (task, fate) in self.fates() {
            if let Fate::Done { worker, .. } = fate
                && self.window_us.contains(&task.at_us)
            {
                tasks[worker] += 1.0;
            }
        }
        let mean = tasks.iter().sum::<f64>() / tasks.len() as f64;
        tasks.into_iter().fold(0.0, f64::max) / mean.max(f64::MIN_POSITIVE)
    }

    fn affinity(&self) -> Option<f64> {
        let mut last = HashMap::new();
        let (mut hits, mut seen) = (0u32, 0u32);
        for (task, fate) in self.fates() {
            let (Some(key), Fate::Done { worker, .. }) = (task.key, fate) else { continue };
            let before = last.insert(key, worker);
            if let Some(before) = before.filter(|_| self.window_us.contains(&task.at_us)) {
                seen += 1;
                hits += u32::from(before == worker);
            }
        }
        (seen > 0).then(|| f64::from(hits) / f64::from(seen))
    }

    /// What was done within the window, and by whom.
    fn done(&self) -> impl Iterator<Item = (&SimTask, usize)> {
        self.fates().filter_map(|(task, fate)| match fate {
            Fate::Done { latency_us, worker } => {
                self.window_us.contains(&(task.at_us + latency_us)).then_some((task, worker))
            }
            Fate::Refused | Fate::Failed | Fate::Late => None,
        })
    }

    fn fates(&self) -> impl Iterator<Item = (&SimTask, Fate)> {
        self.tasks.iter().zip(self.run.fates.iter().copied())
    }
}

/// Of values in order: the smallest that as large a share is not above.
fn quantile(sorted: &[u64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default() as f64
}

/// Jain, Chiu and Hawe, "A Quantitative Measure of Fairness" (1984): (Σx)² ÷ (n Σx²).
fn jain(values: &[f64]) -> f64 {
    let (sum, squares): (f64, f64) =
        (values.iter().sum(), values.iter().map(|value| value * value).sum());
    if squares == 0.0 { 1.0 } else { sum * sum / (values.len() as f64 * squares) }
}

/// Shares of 1 so that none can get more but from one that has less: those that want less than an
/// equal share get all of it, the others share the rest.
fn max_min(wanted: &[f64]) -> Vec<f64> {
    let mut order: Vec<_> = (0..wanted.len()).collect();
    order.sort_by(|a, b| wanted[*a].total_cmp(&wanted[*b]));
    let (mut shares, mut rest) = (vec![0.0; wanted.len()], 1.0);
    for (place, index) in order.iter().enumerate() {
        shares[*index] = f64::min(wanted[*index], rest / (wanted.len() - place) as f64);
        rest -= shares[*index];
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_values() {
        let values: Vec<u64> = (1..=100).collect();
        assert_eq!((quantile(&values, 0.5), quantile(&values, 0.99)), (50.0, 99.0));
        assert_eq!(quantile(&[], 0.5), 0.0);
    }

    #[test]
    fn equal_is_fair_and_all_for_one_is_not() {
        assert_eq!(jain(&[2.0, 2.0]), 1.0);
        assert_eq!(jain(&[1.0, 0.0, 0.0, 0.0]), 0.25);
    }

    #[test]
    fn who_wants_little_gets_it() {
        assert_eq!(max_min(&[0.1, 2.0]), [0.1, 0.9]);
        assert_eq!(max_min(&[2.0, 1.0]), [0.5, 0.5]);
    }
}
