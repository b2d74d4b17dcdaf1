//! The least that a client needs. With a broker (`mcp-broker serve --dev --state D`) and a worker
//! (`cargo run --example worker -- D`) running:
//!
//! ```text
//! $ cargo run --example client -- D hello
//! HELLO
//! ```
#![allow(clippy::print_stdout)]

use std::env;
use std::error::Error;
use std::time::Duration;

use mcp_client::{Client, Endpoint};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let (Some(state), Some(text)) = (args.next(), args.next()) else {
        return Err("usage: client STATE_DIR TEXT".into());
    };
    let client = Client::builder(Endpoint::from_state_dir(state)?).connect().await?;

    // `Err` says how the task ended instead, and whether it ran.
    let reply = client.task("upper").body(text).ttl(Duration::from_secs(5)).call().await?;

    println!("{}", String::from_utf8_lossy(&reply.body));
    client.close().await;
    Ok(())
}
