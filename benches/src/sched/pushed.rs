//! A server that pushes each task at once to some worker, whatever that does already, and where it
//! waits for its turn: a NATS queue group, or a round robin of connections. Its own small model.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use fastrand::Rng;

use super::simulation::Fate;
use super::traffic::SimTask;
use super::workload::Workload;
use super::{NETWORK_US, Run};

/// Which worker is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Any, as a NATS queue group has it.
    Random,
    /// Each in turn.
    InTurn,
}

/// Has each task done, in the order of its worker's queue.
pub(super) fn run(workload: &Workload, next: Next, tasks: &[SimTask], seed: u64) -> Run {
    let mut rng = Rng::with_seed(seed);
    // When each slot of each worker will be free.
    let mut slots: Vec<BinaryHeap<Reverse<u64>>> = workload.workers.iter().map(free).collect();
    let mut over_assigned = 0;
    let mut fates = Vec::with_capacity(tasks.len());
    for (index, task) in tasks.iter().enumerate() {
        let worker = match next {
            Next::Random => rng.usize(..workload.workers.len()),
            Next::InTurn => index % workload.workers.len(),
        };
        let comes_us = task.at_us + 2 * NETWORK_US;
        let Some(Reverse(free_us)) = slots[worker].pop() else { continue };
        over_assigned += u64::from(free_us > comes_us);
        let (work_us, is_done) = workload.workers[worker].works(task);
        let done_us = free_us.max(comes_us) + work_us;
        slots[worker].push(Reverse(done_us));
        let latency_us = done_us + 2 * NETWORK_US - task.at_us;
        fates.push(match latency_us <= workload.ttl_ms * 1000 {
            true if is_done => Fate::Done { latency_us, worker },
            true => Fate::Failed,
            false => Fate::Late,
        });
    }
    Run { fates, over_assigned }
}

fn free(worker: &super::workload::SimWorker) -> BinaryHeap<Reverse<u64>> {
    (0..worker.slots).map(|_| Reverse(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::workload::SimWorker;
    use super::super::workloads;
    use super::*;

    #[test]
    fn a_task_waits_for_a_slot_of_its_worker() {
        let mut workload = workloads::all().remove(0);
        workload.workers = vec![SimWorker { slots: 1, slowness: 2, fails: 0.0 }];
        let task = SimTask { at_us: 1000, service_us: 500, group: 0, key: None, luck: 0.5 };
        let run = run(&workload, Next::InTurn, &[task, task], 1);
        let latencies = [4 * NETWORK_US + 1000, 4 * NETWORK_US + 2000];
        let expected = latencies.map(|latency_us| Fate::Done { latency_us, worker: 0 });
        assert_eq!((run.fates, run.over_assigned), (expected.to_vec(), 1));
    }
}
