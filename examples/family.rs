//! Handlers that send tasks. With a broker running (`mcp-broker serve --dev --state D`):
//!
//! ```text
//! $ cargo run --example family -- D
//! $ mcpctl --state D call report --data 'one two. three. four five six.' --trace
//! ```
//!
//! `report` asks `sentence` about each sentence, all at once, and that asks `count`. One worker with one
//! slot serves all three: a handler that waits leaves its slot to the others.
#![allow(clippy::print_stdout)]

use std::env;
use std::error::Error;
use std::time::Duration;

use futures_util::future::try_join_all;
use mcp_client::{Client, Endpoint, HandlerError, Job, Worker};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let state = env::args().nth(1).ok_or("usage: family STATE_DIR")?;
    let endpoint = Endpoint::from_state_dir(state)?;
    // Beside the worker, for the tasks that its handlers send.
    let client = Client::builder(endpoint.clone()).connect().await?;
    let worker = Worker::builder(endpoint)
        .slots(1)
        .handler("report", {
            let client = client.clone();
            move |job| report(client.clone(), job)
        })
        .handler("sentence", move |job| sentence(client.clone(), job))
        .handler("count", count)
        .start()
        .await?;
    println!("registered as {}", worker.node_id());
    worker.run_until_signal(Duration::from_secs(30)).await;
    Ok(())
}

async fn report(client: Client, job: Job) -> Result<String, HandlerError> {
    let text = String::from_utf8(job.body.to_vec())?;
    let sentences = text.split_terminator('.').map(|sentence| {
        client.task("sentence").body(sentence.trim().to_owned()).child_of(&job).call()
    });
    let replies = job.wait_for(try_join_all(sentences)).await?;
    Ok(replies.iter().map(|reply| String::from_utf8_lossy(&reply.body) + "\n").collect())
}

async fn sentence(client: Client, job: Job) -> Result<String, HandlerError> {
    let count = client.task("count").body(job.body.clone()).child_of(&job).call();
    let count = job.wait_for(count).await?;
    let (text, count) = (str::from_utf8(&job.body)?, str::from_utf8(&count.body)?);
    Ok(format!("{text}: {count} words"))
}

async fn count(job: Job) -> Result<String, HandlerError> {
    // As if it were work.
    tokio::time::sleep(Duration::from_millis(5)).await;
    Ok(str::from_utf8(&job.body)?.split_whitespace().count().to_string())
}
