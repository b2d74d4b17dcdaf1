//! One connection, from its handshake to its end.
//!
//! Two tasks: the *reader* turns the lane's bytes into frames and gives them to the core in batches;
//! its holds of the core also send what the core answers, on any connection. The *writer* sleeps
//! until this connection's lane is blocked by flow control, or shall end.
//!
//! ```text
//!   handshake ─▶ lane opened ─▶ known to the core ─▶ ended by the peer or the network ─▶ reported
//!       │             │                  │
//!       └─ in time ───┴─ or closed       └─▶ ended by this side: flush, then close with a code
//! ```
//!
//! The core hears of the end of a connection once, unless it ordered it. The end of the peer's half
//! of the lane (FIN) is not the end of the connection: who sends no more may still want to read.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mcp_proto::{DecodeError, ErrorCode, FrameCodec, Incoming, Limits, Message};
use quinn::{ConnectionError, ReadError, RecvStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::connections::{self, Link};
use super::shared::{Outbox, Shared};
use crate::broker::{ConnectionId, Disconnect, Identity};

/// What one hold of the core handles at most. Then the timer and other readers get their turn. Each
/// hold flushes what it caused, so smaller ones make more and smaller packets.
const HOLD_FRAMES: usize = 128;
const HOLD_BYTES: usize = 128 * 1024;

/// Room for frames that a connection keeps between bursts.
const IDLE_FRAMES: usize = 32;

/// Packets' payloads taken from QUIC at once.
const READ_CHUNKS: usize = 32;

/// What all connections of a broker have in common.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// What frames may be.
    pub(super) limits: Limits,
    /// For the handshake, and again for the lane to be opened.
    pub(super) hello_timeout: Duration,
    /// For the last frames of a connection that this side ends.
    pub(super) close_flush: Duration,
    /// Bytes waiting for a client beyond which it is not read from.
    pub(super) outgoing_soft_bytes: usize,
}

/// How reading ended.
enum End {
    /// The connection is closed.
    Closed(ConnectionError),
    /// The peer gave up its half of the lane.
    Reset,
    /// This side is ending the connection.
    Closing,
}

/// Serves a connection until its end.
pub(super) async fn run(
    shared: Arc<Shared>,
    settings: Arc<Settings>,
    id: ConnectionId,
    connecting: quinn::Connecting,
    handshake: OwnedSemaphorePermit,
    stop: CancellationToken,
) {
    let peer = connecting.remote_address();
    let opened = stop.run_until_cancelled(open(connecting, handshake, &settings)).await;
    let (quic, send, recv) = match opened {
        Some(Ok(opened)) => opened,
        Some(Err(problem)) => {
            tracing::debug!(%peer, problem, "a connection came to nothing");
            return;
        }
        None => return,
    };
    tracing::debug!(%peer, connection = id.0, "connected");

    let stopped = send.stopped();
    let link = Arc::new(Link::new(id, quic.clone(), send));
    let writer = tokio::spawn(write(link.clone(), quic.clone(), stopped, settings.close_flush));
    shared.connections.insert(id, link.clone());
    shared.addresses.insert(peer, id);
    let mut outbox = Outbox::default();
    shared.hold(&mut outbox, |core, now| core.handle_connected(now, id, Identity::anonymous()));

    let end = read(&shared, &settings, &link, &quic, recv, &mut outbox).await;
    shared.connections.remove(&id);
    shared.addresses.remove(peer, id);
    if !link.is_closing() {
        let how = match &end {
            End::Closed(ConnectionError::ApplicationClosed(close))
                if close.error_code == connections::close_code(None) =>
            {
                Disconnect::Orderly
            }
            End::Closed(_) | End::Reset | End::Closing => Disconnect::Broken,
        };
        shared.hold(&mut outbox, |core, now| core.handle_disconnected(now, id, how));
    }
    match end {
        End::Closed(error) => {
            tracing::debug!(%peer, connection = id.0, %error, "disconnected");
            link.lane.close();
        }
        End::Reset => link.close(Some(ErrorCode::Malformed), "the lane was reset".to_owned()),
        End::Closing => {}
    }
    // A panic there has been logged, and the connection is dropped here all the same.
    let _ = writer.await;
}

/// Completes the handshake and waits for the peer to open the lane.
async fn open(
    connecting: quinn::Connecting,
    handshake: OwnedSemaphorePermit,
    settings: &Settings,
) -> Result<(quinn::Connection, quinn::SendStream, RecvStream), String> {
    let quic = match timeout(settings.hello_timeout, connecting).await {
        Ok(connected) => connected.map_err(|error| error.to_string())?,
        Err(_) => return Err("the handshake was not completed in time".to_owned()),
    };
    drop(handshake);
    match timeout(settings.hello_timeout, quic.accept_bi()).await {
        Ok(Ok((send, recv))) => Ok((quic, send, recv)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => {
            let problem = format!(
                "no HELLO within {} ms: open a bidirectional stream and send it first",
                settings.hello_timeout.as_millis()
            );
            connections::close(&quic, Some(ErrorCode::HelloTimeout), &problem);
            Err(problem)
        }
    }
}

/// Reads frames until the connection ends, and gives them to the core.
async fn read(
    shared: &Shared,
    settings: &Settings,
    link: &Link,
    quic: &quinn::Connection,
    mut recv: RecvStream,
    outbox: &mut Outbox,
) -> End {
    let mut frames = Frames::new(&settings.limits);
    let mut chunks: [Bytes; READ_CHUNKS] = Default::default();
    loop {
        // A client that does not read its results may not send more tasks. A worker is always
        // read: its RESULTs free slots and memory, and what waits for it is bounded by its slots.
        if !frames.from_worker && link.lane.queued_bytes() > settings.outgoing_soft_bytes {
            link.lane.drained(settings.outgoing_soft_bytes / 2).await;
        }
        let count = match recv.read_chunks(&mut chunks).await {
            Ok(Some(count)) => count,
            Ok(None) => return End::Closed(quic.closed().await),
            Err(ReadError::ConnectionLost(error)) => return End::Closed(error),
            Err(ReadError::Reset(_)) => return End::Reset,
            Err(error) => {
                tracing::error!(%error, "reading a lane failed in a way that it can't");
                return End::Reset;
            }
        };
        let mut chunks = &mut chunks[..count];
        loop {
            let decoded = frames.decode(&mut chunks);
            if !frames.batch.is_empty() || decoded.is_err() {
                shared.hold(outbox, |core, now| {
                    for incoming in frames.batch.drain(..) {
                        core.handle_incoming(now, link.id, incoming);
                    }
                    if let Err(error) = &decoded {
                        core.handle_malformed(now, link.id, error);
                    }
                });
            }
            if link.is_closing() {
                return End::Closing;
            }
            match decoded {
                Ok(true) => tokio::task::yield_now().await,
                Ok(false) => break,
                // The core closes a connection that sent malformed bytes, so this is not reached.
                Err(_) => return End::Reset,
            }
        }
        frames.release();
    }
}

/// The frames of a lane.
struct Frames {
    codec: FrameCodec,
    batch: Vec<Incoming>,
    /// HELLO came, and was a worker's.
    from_worker: bool,
}

impl Frames {
    fn new(limits: &Limits) -> Self {
        Self {
            codec: FrameCodec::new(limits).with_bodies_apart(),
            batch: Vec::new(),
            from_worker: false,
        }
    }

    /// Fills the batch with what one hold of the core handles, and says whether more is waiting.
    fn decode(&mut self, chunks: &mut &mut [Bytes]) -> Result<bool, DecodeError> {
        let mut bytes = 0;
        while let Some(chunk) = chunks.first_mut() {
            let before = chunk.len();
            let Some(incoming) = self.codec.decode(chunk)? else {
                *chunks = &mut std::mem::take(chunks)[1..];
                continue;
            };
            if let Incoming::Frame(frame) = &incoming
                && let Message::Hello(hello) = &frame.message
            {
                self.from_worker = hello.worker.is_some();
            }
            self.batch.push(incoming);
            bytes += before - chunk.len();
            if self.batch.len() >= HOLD_FRAMES || bytes >= HOLD_BYTES {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Gives back memory between bursts: most connections are idle most of the time.
    fn release(&mut self) {
        self.batch.shrink_to(IDLE_FRAMES);
    }
}

/// Writes while the lane is blocked, and ends the connection when this side wants it ended.
async fn write(
    link: Arc<Link>,
    quic: quinn::Connection,
    stopped: impl Future<Output = Result<Option<quinn::VarInt>, quinn::StoppedError>>,
    close_flush: Duration,
) {
    let mut drive = pin!(link.lane.drive());
    let is_driven = tokio::select! {
        () = &mut drive => true,
        _ = link.closing() => false,
    };
    if is_driven && !link.is_closing() {
        // The connection is gone already, or the peer stopped reading its lane for good.
        connections::close(&quic, Some(ErrorCode::Malformed), "the lane was stopped");
        return;
    }
    let closing = link.closing().await;
    // A slow consumer's lane is full: its last frames would never arrive.
    if closing.code != Some(ErrorCode::SlowConsumer) {
        let flushed = async {
            if !is_driven {
                drive.await;
            }
            // Until the peer has everything.
            let _ = stopped.await;
        };
        let _ = timeout(close_flush, flushed).await;
    }
    connections::close(&quic, closing.code, &closing.message);
}
