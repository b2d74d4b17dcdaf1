//! All of MCP in one program: a broker, four worker agents on QUIC connections of their own, and a
//! client that sends them the tasks of `examples/data/tasks.jsonl`. It checks every result, and
//! exits with 1 if a single one is not as the file expects.
//!
//! ```text
//! $ cargo run --release --example quickstart
//! ```
#![allow(clippy::print_stdout)]

mod agents;
mod data;
mod report;

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use mcp_broker::Broker;
use mcp_client::{Client, Endpoint};

use report::Progress;

/// Tasks without an end at any time.
const IN_FLIGHT: usize = 32;

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    // A broker inside this program. `mcp-broker serve` is the same as a process of its own.
    let broker = Broker::builder().start().await?;
    let endpoint = Endpoint::new(broker.local_addr().to_string())
        .ca_pem(broker.ca_pem().ok_or("the broker has a certificate of its own")?);
    println!("A broker listens on {endpoint}.");

    // Four workers. They dial in, and say what they serve and how much of it at once.
    let workers = agents::start(&endpoint).await?;
    for worker in &workers {
        println!("Worker {} is {}.", worker.agent_id(), worker.node_id());
    }

    // A client, on one connection however many tasks are in flight.
    let client = Client::builder(endpoint).connect().await?;
    let (tasks, bad_lines) = data::read()?;
    println!("{} tasks are sent, {IN_FLIGHT} at a time.\n", tasks.len());
    let progress = Progress::new(tasks.len());
    let sent = stream::iter(tasks).map(|task| {
        let client = &client;
        async move {
            let start = Instant::now();
            let handle = client.task_from_json(&task.json).send().await?;
            let end = handle.await;
            Ok::<_, Box<dyn Error>>(report::Done { task, end, took: start.elapsed() })
        }
    });
    let mut done = Vec::new();
    let mut ends = sent.buffer_unordered(IN_FLIGHT);
    while let Some(end) = ends.next().await {
        done.push(end?);
        progress.step();
    }
    drop(ends);
    progress.finish();

    report::outcomes(&done);
    report::shares(&done, &workers);
    report::timeline(&done, &workers, "words-ell");
    let faults = report::faults(&done, &bad_lines);

    // In order: what is under way is finished, and everyone is told.
    client.close().await;
    for worker in &workers {
        worker.drain(Duration::from_secs(5)).await;
    }
    broker.shutdown().await;

    if faults.is_empty() {
        println!("All {} lines of the file ended as they should.", data::LINES);
        return Ok(ExitCode::SUCCESS);
    }
    for fault in &faults {
        eprintln!("FAULT: {fault}");
    }
    Ok(ExitCode::FAILURE)
}
