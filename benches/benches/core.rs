//! The core alone, without sockets: a task's whole way, by the number of workers and of queued tasks.
#![allow(missing_docs)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mcp_bench::CoreLoop;

/// Tasks of one measurement: made before it.
const TASKS: u64 = 1000;

fn steps(criterion: &mut Criterion, group: &str, cases: &[usize], new: fn(usize) -> CoreLoop) {
    let mut group = criterion.benchmark_group(group);
    group.throughput(Throughput::Elements(TASKS));
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    group.sample_size(20);
    for case in cases {
        let core = std::cell::RefCell::new(new(*case));
        group.bench_function(BenchmarkId::from_parameter(case), |bencher| {
            let sends = || (0..TASKS).map(|_| core.borrow_mut().send()).collect::<Vec<_>>();
            let run = |sends| {
                let mut core = core.borrow_mut();
                for send in black_box(sends) {
                    core.step(send);
                }
            };
            bencher.iter_batched(sends, run, BatchSize::LargeInput);
        });
    }
    group.finish();
}

fn workers(criterion: &mut Criterion) {
    steps(criterion, "core/workers", &[1, 10, 100, 1_000, 10_000], CoreLoop::new);
}

fn queue(criterion: &mut Criterion) {
    steps(criterion, "core/queued", &[0, 1_000, 100_000, 1_000_000], CoreLoop::queued);
}

criterion_group!(benches, workers, queue);
criterion_main!(benches);
