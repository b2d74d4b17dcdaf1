//! The admin listener: HTTP for people and programs that watch the broker and steer it: probes, metrics,
//! the functions of `mcp.admin.*`, and a console that uses these. It is off unless configured; who may use
//! it is in `access.rs`.
//!
//! It shares the broker's runtime. What it may take from it is bounded: connections, their time,
//! the size of a request, and one brief hold of the core for each answer.

mod access;
mod address;
mod api;
mod console;
mod exposition;
mod live;
mod routes;
mod token;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::ConsoleConfig;
use super::error::StartError;
use super::shared::Shared;

use access::Access;
pub(super) use access::Rules;
pub use address::AdminAddr;
use token::Token;

/// Connections at once: some probes and scrapers, and a few people. Further ones wait in the
/// system's queue.
const MAX_CONNECTIONS: usize = 32;

/// For a request's header to come, and for a kept connection to be used again.
const HEADER_LIMIT: Duration = Duration::from_secs(5);

/// For a connection in all, so that one which is not read from ends, too.
const CONNECTION_LIMIT: Duration = Duration::from_secs(60);

/// For the answer under way when a connection is ended.
const LAST_ANSWER: Duration = Duration::from_millis(250);

/// Of a request's header; a browser's with its cookies fits.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// After the system refused a connection, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Reads who may use it.
pub(super) fn rules(address: AdminAddr, config: &ConsoleConfig) -> Result<Rules, StartError> {
    let token = config.token_file.as_deref().map(Token::from_file).transpose()?;
    let metrics_public = config.metrics_public;
    Ok(Rules { token, is_remote: address.is_remote(), metrics_public })
}

/// Opens the listener.
pub(super) async fn bind(address: AdminAddr) -> Result<TcpListener, StartError> {
    let address = address.0;
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => StartError::AddressInUse { address },
        _ => StartError::Bind { address, source },
    })
}

/// Serves until stopped. Connections are among `tasks`, and end soon after.
pub(super) async fn run(
    listener: TcpListener,
    rules: Rules,
    shared: Arc<Shared>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let access = Access::new(rules, shared.audit.clone());
    let router = routes::router(shared, access);
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let accept = async {
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let router = router.clone().layer(Extension(api::From(peer)));
                    let connection = connection(stream, router, stop.clone());
                    tasks.spawn(async move {
                        connection.await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "an admin connection came to nothing");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    stop.run_until_cancelled(accept).await;
}

async fn connection(stream: TcpStream, router: Router, stop: CancellationToken) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_LIMIT)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut served = pin!(served);
    let ended = tokio::select! {
        ended = &mut served => ended,
        () = stop.cancelled() => end(served).await,
        () = sleep(CONNECTION_LIMIT) => end(served).await,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an admin connection broke");
    }
}

/// Lets the answer under way go out.
async fn end<S>(
    mut served: std::pin::Pin<&mut http1::Connection<TokioIo<TcpStream>, S>>,
) -> hyper::Result<()>
where
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = axum::body::Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    served.as_mut().graceful_shutdown();
    timeout(LAST_ANSWER, served).await.unwrap_or(Ok(()))
}
