//! A process whose handlers sleep.

use std::time::Duration;

use anyhow::{Result, bail};
use mcp_client::{HandlerError, Job, Worker};

use super::client::ACTION;
use crate::peers::{Target, mcp};

/// Serves tasks until the process ends; calls `ready` when the broker knows it.
pub(crate) async fn work(
    target: Target,
    slots: u32,
    prefetch: u32,
    work: Duration,
    ready: impl FnOnce(),
) -> Result<()> {
    let Target::Mcp { address, ca_pem, .. } = target else { bail!("a broker of another kind") };
    let sleep = move |_: Job| async move {
        tokio::time::sleep(work).await;
        Ok::<_, HandlerError>(())
    };
    let worker = Worker::builder(mcp::endpoint(address, &ca_pem))
        .slots(slots)
        .prefetch(prefetch)
        .handler(ACTION, sleep)
        .start()
        .await?;
    ready();
    bail!("the worker stopped: {:?}", worker.closed().await)
}
