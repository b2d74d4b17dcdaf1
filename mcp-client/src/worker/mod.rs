//! The worker: serves actions with handlers, on one connection that is made again when it breaks.

mod attempts;
mod builder;
mod handler;
mod inlet;
mod input;
mod job;
mod line;
mod output;
mod run;
mod serve;
mod signal;
mod stats;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mcp_proto::{AgentId, ErrorInfo, NodeId};
use tokio::sync::watch;

use crate::connect::Endpoint;
use serve::Registration;
use signal::StopSignals;

pub use builder::WorkerBuilder;
pub use handler::{Handler, HandlerError, HandlerFuture, HandlerReply};
pub use input::{Input, InputError};
pub use job::Job;
pub use line::Cancellation;
pub use output::EmitError;
pub use stats::WorkerStats;
#[cfg(test)]
pub(crate) use {line::Line, output::complete};

/// A registered worker. It serves until it is drained, dropped, or displaced by another process
/// with the same agent id; a broken connection is made again, for ever.
///
/// Dropping it is a [`drain`](Self::drain) with no time: running handlers are cancelled.
///
/// A handler that sends tasks of its own has a client, which is connected beside the worker, and is
/// cheap to clone:
///
/// ```no_run
/// # async fn example(broker: mcp_client::Endpoint) -> Result<(), Box<dyn std::error::Error>> {
/// use mcp_client::{Client, HandlerError, Job, Worker};
///
/// let client = Client::builder(broker.clone()).connect().await?;
/// let worker = Worker::builder(broker)
///     .handler("review", move |job: Job| {
///         let client = client.clone();
///         async move {
///             let summary = client.task("summarize").body(job.body.clone()).child_of(&job).call();
///             // Its slot is free while it waits.
///             Ok::<_, HandlerError>(job.wait_for(summary).await?)
///         }
///     })
///     .start()
///     .await?;
/// # Ok(()) }
/// ```
#[must_use = "a worker that is dropped stops"]
pub struct Worker {
    registration: Arc<Registration>,
}

/// Where a worker stands with its broker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerStatus {
    /// There is a connection.
    Connected,
    /// The connection broke, and another is being made; handlers go on.
    Disconnected,
    /// It has stopped. The last one.
    Stopped(WorkerExit),
}

/// Why a worker stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerExit {
    /// It was drained, or dropped.
    Drained,
    /// A newer process with the same agent id took its place. Don't start it again.
    Replaced,
    /// The broker does not want it back.
    Refused(Box<ErrorInfo>),
}

impl Worker {
    /// Settings for a worker of the broker at `endpoint`.
    pub fn builder(endpoint: Endpoint) -> WorkerBuilder {
        WorkerBuilder::new(endpoint)
    }

    /// Its node id at the broker, stable for its agent id.
    pub fn node_id(&self) -> NodeId {
        self.registration.node_id()
    }

    /// Its own name.
    pub fn agent_id(&self) -> &AgentId {
        self.registration.agent_id()
    }

    /// Its status, now and with each change. Of changes that follow each other quickly, only the
    /// latest may be seen.
    pub fn status(&self) -> watch::Receiver<WorkerStatus> {
        self.registration.status()
    }

    /// Whether there is a connection now.
    pub fn is_connected(&self) -> bool {
        self.registration.is_connected()
    }

    /// What it did so far.
    pub fn stats(&self) -> WorkerStats {
        self.registration.stats()
    }

    /// Leaves: takes nothing new from now on, finishes what it holds within `limit`, then hands
    /// back what never started, cancels the rest, and closes the connection once the results have
    /// arrived. Can be called again with a shorter limit. Goes on when this future is dropped.
    pub async fn drain(&self, limit: Duration) -> WorkerExit {
        self.registration.begin_drain(limit);
        self.closed().await
    }

    /// Waits until it has stopped, for whatever reason.
    pub async fn closed(&self) -> WorkerExit {
        self.registration.closed().await
    }

    /// Waits for SIGTERM or SIGINT, then [`drain`](Self::drain)s; a second signal ends the drain
    /// at once. Returns also when the worker stops for another reason.
    pub async fn run_until_signal(&self, drain_limit: Duration) -> WorkerExit {
        let mut signals = StopSignals::new();
        for limit in [drain_limit, Duration::ZERO] {
            tokio::select! {
                exit = self.closed() => return exit,
                () = signals.next() => {
                    tracing::info!(?limit, "told to stop: draining");
                    self.registration.begin_drain(limit);
                }
            }
        }
        self.closed().await
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.registration.begin_drain(Duration::ZERO);
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("agent_id", self.agent_id())
            .field("is_connected", &self.is_connected())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
