//! A task's way from a client to a worker and back, over QUIC on loopback, all in one thread.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::future::join_all;
use mcp_broker::Broker;
use mcp_client::{Client, Endpoint, HandlerError, Job, Worker};

fn round_trip(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_broker, _worker, client) = runtime.block_on(async {
        let broker = Broker::builder().start().await.unwrap();
        let endpoint =
            Endpoint::new(broker.local_addr().to_string()).ca_pem(broker.ca_pem().unwrap());
        let echo = |job: Job| async move { Ok::<_, HandlerError>(job.body) };
        let worker = Worker::builder(endpoint.clone()).slots(64).handler("echo", echo).start();
        let worker = worker.await.unwrap();
        (broker, worker, Client::builder(endpoint).connect().await.unwrap())
    });
    let mut group = criterion.benchmark_group("round_trip");
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    for in_flight in [1, 64] {
        group.throughput(Throughput::Elements(in_flight));
        group.bench_function(BenchmarkId::from_parameter(in_flight), |bencher| {
            bencher.iter(|| {
                let calls = (0..in_flight).map(|_| client.task("echo").body(&[7; 128][..]).call());
                for reply in runtime.block_on(join_all(calls)) {
                    reply.unwrap();
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, round_trip);
criterion_main!(benches);
