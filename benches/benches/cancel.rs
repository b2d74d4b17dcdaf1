//! From a client's `cancel` to the drop of the handler's future, and of those of the tasks below it:
//! a chain of three over QUIC on loopback, beside other tasks.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mcp_broker::Broker;
use mcp_client::{Client, Endpoint, HandlerError, Job, Worker};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

const CANCELS: usize = 2_000;
const DEPTH: u8 = 2;

/// Tasks in flight beside, and the pause after each.
const LOAD: usize = 16;
const PAUSE: Duration = Duration::from_millis(1);

fn main() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap().block_on(measure());
}

async fn measure() {
    let broker = Broker::builder().start().await.unwrap();
    let endpoint = Endpoint::new(broker.local_addr().to_string()).ca_pem(broker.ca_pem().unwrap());
    let client = Client::builder(endpoint.clone()).connect().await.unwrap();
    let inner = Client::builder(endpoint.clone()).connect().await.unwrap();
    let (dropped, mut drops) = unbounded_channel();
    let (begun, mut begins) = unbounded_channel();
    let chain = move |job: Job| {
        let (inner, dropped, begun) = (inner.clone(), dropped.clone(), begun.clone());
        async move {
            let _tells = TellsDrop(dropped);
            if job.task.depth < DEPTH {
                inner.task("chain").child_of(&job).send().await?.detach();
            } else {
                begun.send(())?;
            }
            job.wait_for(std::future::pending::<Result<(), HandlerError>>()).await
        }
    };
    let echo = |job: Job| async move { Ok::<_, HandlerError>(job.body) };
    let worker = Worker::builder(endpoint).slots(64).handler("chain", chain).handler("echo", echo);
    let _worker = worker.start().await.unwrap();
    for _ in 0..LOAD {
        let client = client.clone();
        tokio::spawn(async move {
            while client.task("echo").body(&[7; 128][..]).call().await.is_ok() {
                tokio::time::sleep(PAUSE).await;
            }
        });
    }

    let mut first = Histogram::<u64>::new(3).unwrap();
    let mut last = first.clone();
    for _ in 0..CANCELS {
        let root = client.task("chain").send().await.unwrap();
        begins.recv().await.unwrap();
        let cancelled = Instant::now();
        root.cancel();
        for nth in 0..=DEPTH {
            let after = drops.recv().await.unwrap().saturating_duration_since(cancelled);
            let us = after.as_micros() as u64;
            if nth == 0 {
                first.record(us).unwrap();
            } else if nth == DEPTH {
                last.record(us).unwrap();
            }
        }
        root.await;
    }
    for (what, us) in [("first handler", first), ("last of three", last)] {
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|part| us.value_at_quantile(part));
        println!("{what}: p50 {p50} µs, p99 {p99} µs, max {max} µs");
    }
}

struct TellsDrop(UnboundedSender<Instant>);

impl Drop for TellsDrop {
    fn drop(&mut self) {
        let _ = self.0.send(Instant::now());
    }
}
