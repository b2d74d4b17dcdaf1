//! The least that a worker needs. With a broker running (`mcp-broker serve --dev --state D`):
//!
//! ```text
//! $ cargo run --example worker -- D
//! ```
//!
//! It serves the action `upper` until Ctrl-C; `cargo run --example client -- D hello` asks for it.
#![allow(clippy::print_stdout)]

use std::env;
use std::error::Error;
use std::time::Duration;

use mcp_client::{Endpoint, HandlerError, Job, Worker};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let state = env::args().nth(1).ok_or("usage: worker STATE_DIR")?;
    let worker = Worker::builder(Endpoint::from_state_dir(state)?)
        .agent_id(format!("upper-{}", std::process::id()))
        .slots(4)
        .handler("upper", |job: Job| async move {
            // An error ends the task `failed`, with this error's text.
            let text = String::from_utf8(job.body.to_vec())?;
            Ok::<_, HandlerError>(text.to_uppercase())
        })
        .start()
        .await?;
    println!("registered as {}", worker.node_id());

    // Finishes what it holds when it is told to stop.
    let exit = worker.run_until_signal(Duration::from_secs(30)).await;
    println!("{exit:?}");
    Ok(())
}
