//! A process whose handlers note what they do.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use mcp_client::{HandlerError, Job, Worker};

use super::client::{ACTION, CONNECT_AGAIN};
use super::ledger::{self, Ledger, Note};
use crate::peers::{Target, mcp};

const WORK_MS: std::ops::Range<u64> = 1..20;

/// Serves tasks until the process ends.
pub(crate) async fn work(target: Target, dir: PathBuf, index: u32, slots: u32) -> Result<()> {
    let Target::Mcp { address, ca_pem, .. } = target else { bail!("a broker of another kind") };
    let (ledger, _) = Ledger::open(&ledger::of_worker(&dir, index))?;
    let (ledger, runs) = (Arc::new(ledger), Arc::new(AtomicU64::new(0)));
    let process = std::process::id();
    let handler = move |job: Job| {
        let (ledger, runs) = (ledger.clone(), runs.clone());
        async move {
            // No other run has it.
            let result = format!("{index}-{process}-{}", runs.fetch_add(1, Ordering::Relaxed));
            let note = Note::Run(job.task.id.to_string(), result.clone());
            ledger.note(&note).map_err(|error| HandlerError::new(error.to_string()))?;
            tokio::time::sleep(Duration::from_millis(fastrand::u64(WORK_MS))).await;
            Ok::<_, HandlerError>(result)
        }
    };
    loop {
        let worker = Worker::builder(mcp::endpoint(address, &ca_pem))
            .agent_id(format!("worker-{index}"))
            .slots(slots)
            .handler(ACTION, handler.clone())
            .start()
            .await;
        match worker {
            Ok(worker) => bail!("the worker stopped: {:?}", worker.closed().await),
            // The broker was killed as well.
            Err(_) => tokio::time::sleep(CONNECT_AGAIN).await,
        }
    }
}
