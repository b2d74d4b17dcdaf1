//! Heap allocations per task in the steady state: of the core, and of a whole broker over loopback,
//! whose thread does nothing else. And the heap that a queued task takes.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::sync::mpsc;
use std::thread;

use allocation_counter::measure;
use mcp_bench::CoreLoop;
use mcp_broker::Broker;
use mcp_client::{Client, Endpoint, HandlerError, Job, Worker};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Beyond all that grows and then stays: tables, and the results that are kept.
const WARM_UP: u64 = 30_000;
const TASKS: u64 = 100_000;
const QUEUED: usize = 1_000_000;

fn main() {
    println!("heap bytes a queued task, of 1,000,000 × 128 B: {:.0}", queued());
    println!("allocations a task, core with 10 workers: {:.2}", core());
    for (in_flight, payload_bytes) in [(1, 128), (64, 128), (1024, 128), (64, 1024)] {
        let allocations = broker(in_flight, payload_bytes);
        println!("allocations a task, broker, {in_flight} × {payload_bytes} B: {allocations:.2}");
    }
}

fn queued() -> f64 {
    let mut core = None;
    let counted = measure(|| core = Some(CoreLoop::queued(QUEUED)));
    drop(core);
    counted.bytes_current as f64 / QUEUED as f64
}

fn core() -> f64 {
    let mut core = CoreLoop::new(10);
    let step = |core: &mut CoreLoop| {
        let send = core.send();
        measure(|| core.step(send)).count_total
    };
    for _ in 0..WARM_UP {
        step(&mut core);
    }
    (0..TASKS).map(|_| step(&mut core)).sum::<u64>() as f64 / TASKS as f64
}

fn broker(in_flight: usize, payload_bytes: usize) -> f64 {
    let (ready, is_ready) = mpsc::channel();
    let (warm, is_warm) = oneshot::channel::<()>();
    let (done, is_done) = oneshot::channel::<()>();
    let broker = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let broker = runtime.block_on(Broker::builder().start()).unwrap();
        let ca_pem = broker.ca_pem().unwrap().to_owned();
        ready.send(Endpoint::new(broker.local_addr().to_string()).ca_pem(&ca_pem)).unwrap();
        runtime.block_on(is_warm).unwrap();
        let counted = measure(|| runtime.block_on(is_done).unwrap());
        counted.count_total
    });

    let endpoint = is_ready.recv().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let echo = |job: Job| async move { Ok::<_, HandlerError>(job.body) };
        let worker = Worker::builder(endpoint.clone()).slots(1024).handler("echo", echo).start();
        let _worker = worker.await.unwrap();
        let client = Client::builder(endpoint).connect().await.unwrap();
        run(&client, in_flight, payload_bytes, WARM_UP).await;
        warm.send(()).unwrap();
        run(&client, in_flight, payload_bytes, TASKS).await;
        done.send(()).unwrap();
    });
    broker.join().unwrap() as f64 / TASKS as f64
}

async fn run(client: &Client, in_flight: usize, payload_bytes: usize, tasks: u64) {
    let mut loops = JoinSet::new();
    for number in 0..in_flight as u64 {
        let client = client.clone();
        // Shared out evenly.
        let share = (tasks + number) / in_flight as u64;
        loops.spawn(async move {
            for _ in 0..share {
                client.task("echo").body(vec![7; payload_bytes]).call().await.unwrap();
            }
        });
    }
    loops.join_all().await;
}
