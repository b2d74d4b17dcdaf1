//! The core alone, without sockets: a task's whole way, by the number of workers and of queued tasks.
#![allow(missing_docs)]

use std::fmt::Display;
use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mcp_bench::{CoreLoop, Keys};
use mcp_broker::broker::Policy;

/// Tasks of one measurement: made before it.
const TASKS: u64 = 1000;

fn steps<C: Display>(
    criterion: &mut Criterion,
    group: &str,
    cases: impl IntoIterator<Item = C>,
    new: impl Fn(&C) -> CoreLoop,
) {
    let mut group = criterion.benchmark_group(group);
    group.throughput(Throughput::Elements(TASKS));
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    group.sample_size(20);
    for case in cases {
        let core = std::cell::RefCell::new(new(&case));
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
    steps(criterion, "core/workers", [1, 10, 100, 1_000, 10_000], |it| CoreLoop::new(*it));
}

fn queue(criterion: &mut Criterion) {
    steps(criterion, "core/queued", [0, 1_000, 100_000, 1_000_000], |it| CoreLoop::queued(*it));
}

/// Each policy with 1,000 workers; session hash with keys that are remembered, and with new ones.
fn policies(criterion: &mut Criterion) {
    const WORKERS: usize = 1_000;
    let names = Policy::ALL.iter().map(|policy| policy.name().to_string());
    let keyed = ["session_hash_repeating", "session_hash_different"].map(str::to_owned);
    steps(criterion, "core/policy", names.chain(keyed), |name| match name.as_str() {
        "session_hash_repeating" => {
            CoreLoop::under(Policy::SessionHash, WORKERS, Keys::Repeating(1_000))
        }
        "session_hash_different" => CoreLoop::under(Policy::SessionHash, WORKERS, Keys::Different),
        name => {
            let policy = Policy::ALL.iter().find(|policy| policy.name() == name);
            CoreLoop::under(policy.copied().unwrap_or_default(), WORKERS, Keys::None)
        }
    });
}

criterion_group!(benches, workers, queue, policies);
criterion_main!(benches);
