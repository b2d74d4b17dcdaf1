//! A process that holds connections, through `mcp-client`'s public API alone.

use std::fmt;
use std::time::Instant;

use anyhow::{Result, bail};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use mcp_client::{Client, Endpoint, HandlerError, Job, Worker};
use serde::{Deserialize, Serialize};

use crate::peers::{Target, mcp};

/// What is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Held {
    /// Registered workers.
    Agents,
    /// Clients.
    Connections,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Held::Agents => "agents",
            Held::Connections => "connections",
        })
    }
}

/// Opens `count` of them, `concurrency` at a time, calls `ready` with the seconds that took, and
/// holds them until the process ends.
pub(crate) async fn hold(
    target: Target,
    held: Held,
    count: u32,
    concurrency: u32,
    ready: impl FnOnce(f64),
) -> Result<()> {
    let Target::Mcp { address, ca_pem, .. } = target else {
        bail!("only this broker has agents");
    };
    let endpoint = mcp::endpoint(address, &ca_pem);
    let start = Instant::now();
    let opened: Vec<Opened> = stream::iter(0..count)
        .map(|_| open(held, endpoint.clone()))
        .buffer_unordered(concurrency as usize)
        .try_collect()
        .await?;
    ready(start.elapsed().as_secs_f64());
    std::future::pending::<()>().await;
    drop(opened);
    Ok(())
}

/// Holds its connection for as long as it lives.
enum Opened {
    Agent { _worker: Worker },
    Connection { _client: Client },
}

async fn open(held: Held, endpoint: Endpoint) -> Result<Opened> {
    Ok(match held {
        Held::Agents => {
            let echo = |job: Job| async move { Ok::<_, HandlerError>(job.body) };
            let worker = Worker::builder(endpoint).slots(4).handler("echo", echo).start().await?;
            Opened::Agent { _worker: worker }
        }
        Held::Connections => {
            Opened::Connection { _client: Client::builder(endpoint).connect().await? }
        }
    })
}
