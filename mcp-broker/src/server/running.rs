//! A broker that runs inside this process.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use mcp_proto::ErrorCode;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::builder::Builder;
use super::config::Config;
use super::error::StartError;
use super::quic::QuicServer;
use super::reload::{Reloaded, Reloader};
use super::shared::Shared;
use super::shutdown;
use super::state_dir::{ADDRESS_FILE, StateDir};
use crate::broker::{AgentView, Stats};

/// A running broker. Made by [`Broker::builder`].
///
/// Dropping it stops it at once: every connection is closed with SHUTTING_DOWN, and tasks that were
/// in flight end `lost` at their clients. [`Broker::shutdown`] stops it in order.
pub struct Broker {
    running: Running,
    local_addr: SocketAddr,
    admin_addr: Option<SocketAddr>,
    ca_pem: Option<String>,
}

/// What a broker consists of while it runs; ends it when dropped.
pub(super) struct Running {
    pub(super) shared: Arc<Shared>,
    /// None once it has ended.
    pub(super) quic: Option<QuicServer>,
    /// Tasks of QUIC itself.
    pub(super) drivers: TaskTracker,
    pub(super) stop_accepting: CancellationToken,
    /// Ends the timer, and the watch over the core.
    pub(super) stop: CancellationToken,
    /// Connections, and the broker's other tasks.
    pub(super) tasks: TaskTracker,
    pub(super) journal: Option<JoinHandle<()>>,
    pub(super) audit: Option<JoinHandle<()>>,
    pub(super) reloader: Arc<Reloader>,
    pub(super) state: Option<Arc<StateDir>>,
}

impl Broker {
    /// A builder of a broker with default settings: on a free port of 127.0.0.1, with a certificate
    /// of its own, keeping nothing.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(super) fn new(
        running: Running,
        local_addr: SocketAddr,
        admin_addr: Option<SocketAddr>,
        ca_pem: Option<String>,
    ) -> Self {
        Self { running, local_addr, admin_addr, ca_pem }
    }

    /// The address it listens on, with the port that it got.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The address of its admin listener, with the port that it got, if it has one.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin_addr
    }

    /// The authority that its peers must trust, PEM, when it made its certificate itself.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// The workers that are online, and those that are lost when `include_lost`.
    pub fn agents(&self, include_lost: bool) -> Vec<AgentView> {
        self.running.shared.view(|core, now| core.agents(now, include_lost))
    }

    /// Counters since the start, and gauges of now.
    pub fn stats(&self) -> Stats {
        self.running.shared.view(|core, _| core.stats())
    }

    /// Loads the configuration again from [`Builder::layers`], and takes it, unless something is wrong
    /// with it: then nothing changes. Certificates are read again, and the audit log is opened again,
    /// with layers or without. Connections and tasks go on.
    ///
    /// It is done even if the returned future is dropped.
    ///
    /// # Errors
    /// What is wrong, as at the start.
    pub async fn reload(&self) -> Result<Reloaded, StartError> {
        let reloader = self.running.reloader.clone();
        in_background(move || reloader.reload("asked for")).await
    }

    /// Takes another configuration, as [`Broker::reload`] does.
    ///
    /// # Errors
    /// What is wrong, as at the start.
    pub async fn reload_with(&self, config: Config) -> Result<Reloaded, StartError> {
        let reloader = self.running.reloader.clone();
        in_background(move || reloader.take("given", Ok(config))).await
    }

    /// Waits until the broker has failed, which is a fault of its own: its core panicked and every
    /// connection was closed with INTERNAL. Nothing but dropping it is left to do. Cancel-safe.
    pub async fn failed(&self) {
        self.running.shared.failed.cancelled().await;
    }

    /// Waits until the broker has been seen to live: its runtime ran its timer, and that had the core.
    /// Does not return while either is stuck, or when the core has failed: a watchdog that is told of
    /// each return starts it anew. A disk that hangs is not looked at. Cancel-safe.
    pub async fn alive(&self) {
        self.running.shared.turned().await;
    }

    /// The longest that [`Broker::shutdown`] takes, with the `timing` that holds now.
    pub fn shutdown_limit(&self) -> Duration {
        shutdown::limit(&self.running.reloader.config().timing)
    }

    /// Stops in order: no new connections; GOAWAY to all; queued tasks are rejected, running ones
    /// may finish within the configured `timing.drain_ms` and fail after it; everything is flushed;
    /// connections are closed with SHUTTING_DOWN. The address is free when this returns.
    ///
    /// Takes at most [`Broker::shutdown_limit`]. When the returned future is dropped before
    /// it is done, the broker stops at once.
    pub async fn shutdown(mut self) {
        shutdown::run(&mut self.running).await;
    }
}

/// It reads files.
async fn in_background(
    reload: impl FnOnce() -> Result<Reloaded, StartError> + Send + 'static,
) -> Result<Reloaded, StartError> {
    let done = tokio::task::spawn_blocking(reload).await;
    done.map_err(|error| StartError::System(error.into()))?
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop_accepting.cancel();
        self.stop.cancel();
        if let Some(quic) = &self.quic {
            quic.close(ErrorCode::ShuttingDown, shutdown::REASON);
        }
        self.shared.end_journal();
        if let Some(state) = &self.state {
            state.remove(ADDRESS_FILE);
        }
    }
}
