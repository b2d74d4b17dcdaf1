//! The processes that send and read results in parts, through `mcp-client`'s public API alone.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use mcp_client::{Client, HandlerError, Job, StreamEvent, TaskStream, Worker};
use serde::{Deserialize, Serialize};

use crate::peers::{Target, mcp};

const ACTION: &str = "parts";

/// What the handler gives out at a time.
const PART_BYTES: usize = 16 * 1024;

/// Long enough for anything here.
const TTL: Duration = Duration::from_secs(3600);

/// What a reader does.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Reading {
    /// Reads results of so many bytes, one after another. Says bytes a second, once it is told to
    /// stop.
    All { bytes: u64, secs: f64 },
    /// Begins so many results, and reads nothing beyond the first part of each.
    Nothing { count: u32 },
}

/// Gives out as many bytes as the body asks for.
pub(crate) async fn work(target: Target, slots: u32, ready: impl FnOnce()) -> Result<()> {
    let Target::Mcp { address, ca_pem, .. } = target else { bail!("only this broker has parts") };
    let part = bytes::Bytes::from(vec![b'p'; PART_BYTES]);
    let handler = move |job: Job| {
        let part = part.clone();
        async move {
            let mut rest: u64 = std::str::from_utf8(&job.body)?.parse()?;
            while rest > 0 {
                let bytes = rest.min(PART_BYTES as u64);
                job.emit(part.slice(..bytes as usize)).await?;
                rest -= bytes;
            }
            Ok::<_, HandlerError>(())
        }
    };
    let endpoint = mcp::endpoint(address, &ca_pem);
    let worker = Worker::builder(endpoint).slots(slots).handler(ACTION, handler).start().await?;
    ready();
    bail!("the worker stopped: {:?}", worker.closed().await)
}

/// Reads, and says what it has to say: bytes a second, or 0 once all are stalled.
pub(crate) async fn read(target: Target, reading: Reading, say: impl Fn(f64)) -> Result<()> {
    let Target::Mcp { address, ca_pem, .. } = target else { bail!("only this broker has parts") };
    let client = Client::builder(mcp::endpoint(address, &ca_pem)).connect().await?;
    match reading {
        Reading::All { bytes, secs } => {
            let (start, total) = (Instant::now(), Cell::new(0));
            let limit = Duration::from_secs_f64(secs);
            let all = async {
                loop {
                    read_all(begin(&client, bytes).await?, &total).await?;
                }
            };
            let all: Result<Result<()>, _> = tokio::time::timeout(limit, all).await;
            all.unwrap_or(Ok(()))?;
            say(total.get() as f64 / start.elapsed().as_secs_f64());
            Ok(())
        }
        Reading::Nothing { count } => {
            let mut stalled = Vec::new();
            for _ in 0..count {
                let mut stream = begin(&client, u64::MAX).await?;
                stream.next().await;
                stalled.push(stream);
            }
            say(0.0);
            std::future::pending().await
        }
    }
}

async fn begin(client: &Client, bytes: u64) -> Result<TaskStream> {
    Ok(client.task(ACTION).body(bytes.to_string()).ttl(TTL).stream().await?)
}

async fn read_all(mut stream: TaskStream, total: &Cell<u64>) -> Result<()> {
    while let Some(event) = stream.next().await {
        match event {
            StreamEvent::Part(part) => total.set(total.get() + part.len() as u64),
            other => bail!("{other:?}"),
        }
    }
    stream.outcome().await.into_reply()?;
    Ok(())
}
