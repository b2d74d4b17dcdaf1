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
use mcp_proto::transport::STREAM_WINDOW_BYTES;
use mcp_proto::{ErrorCode, Limits};
use quinn::{ConnectionError, ReadError, RecvStream, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::audit;
use super::auth::{Admission, Watch};
use super::config::Config;
use super::connections::{self, Link};
use super::frames::Frames;
use super::places::Place;
use super::rates::Rate;
use super::shared::{Outbox, Shared};
use super::slow::{FrameTime, takes_too_little};
use crate::broker::{ConnectionId, Disconnect, Identity};

/// Packets' payloads taken from QUIC at once.
const READ_CHUNKS: usize = 32;

/// What QUIC may keep in each direction, of all connections together, that is not read or not
/// acknowledged. It is divided when a connection is opened, so many that come later may add about twice
/// as much.
const WINDOWS_BYTES: u64 = 1024 * 1024 * 1024;

/// A connection's share of it, however many or few there are: what a frame needs, and what the rest of
/// a lane's settings are made for.
const LEAST_WINDOW_BYTES: u32 = 128 * 1024;
const MOST_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES;

/// What holds for connections that come.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// What frames may be.
    pub(super) limits: Limits,
    /// For the handshake, and again for the lane to be opened.
    pub(super) hello_timeout: Duration,
    /// For a peer to get on with what it sends or takes.
    pub(super) slow_peer: Duration,
    /// For the last frames of a connection that this side ends.
    pub(super) close_flush: Duration,
    /// With so many connections being opened, peers must prove their address.
    pub(super) retry_handshakes: usize,
    /// How often an address may come.
    pub(super) rate: Rate,
}

impl Settings {
    pub(super) fn of(config: &Config) -> Self {
        let Config { limits, timing, .. } = config;
        Self {
            limits: config.frame_limits(),
            hello_timeout: Duration::from_millis(timing.hello_timeout_ms),
            slow_peer: Duration::from_millis(timing.slow_peer_ms),
            close_flush: Duration::from_millis(timing.close_flush_ms),
            retry_handshakes: limits.retry_handshakes,
            rate: Rate {
                per_s: limits.address_connections_per_s,
                burst: limits.address_connections_burst,
            },
        }
    }
}

/// Why there is no lane.
enum Failure {
    /// The peer did not pass the handshake.
    Refused(String),
    /// It left, or was silent.
    Nothing(String),
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
    place: Place,
    stop: CancellationToken,
) {
    let peer = connecting.remote_address();
    let opened = stop.run_until_cancelled(open(connecting, &settings)).await;
    let (quic, send, recv) = match opened {
        Some(Ok(opened)) => opened,
        Some(Err(Failure::Refused(why))) => {
            shared.note_refusal(peer, &why);
            return;
        }
        Some(Err(Failure::Nothing(problem))) => {
            tracing::debug!(%peer, problem, "a connection came to nothing");
            let event = audit::Event::new(audit::Kind::Refuse, "handshake");
            shared.audit.record(event.from(peer).refused(problem));
            return;
        }
        None => return,
    };
    tracing::debug!(%peer, connection = id.0, "connected");

    let stopped = send.stopped();
    let link = Arc::new(Link::new(id, quic.clone(), send, &shared.outgoing));
    let writing = write(shared.clone(), settings.clone(), link.clone(), quic.clone(), stopped);
    let writer = tokio::spawn(writing);
    shared.connections.insert(id, link.clone());
    shared.addresses.insert(peer, id);
    let mut outbox = Outbox::default();
    shared.hold(&mut outbox, |core, now| core.handle_connected(now, id, Identity::anonymous()));

    let end = read(&shared, &settings, &link, &quic, recv, place, &mut outbox).await;
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
    settings: &Settings,
) -> Result<(quinn::Connection, quinn::SendStream, RecvStream), Failure> {
    let quic = match timeout(settings.hello_timeout, connecting).await {
        Ok(Ok(connected)) => connected,
        Ok(Err(error)) => return Err(failure(&error)),
        Err(_) => {
            return Err(Failure::Nothing("the handshake was not completed in time".to_owned()));
        }
    };
    match timeout(settings.hello_timeout, quic.accept_bi()).await {
        Ok(Ok((send, recv))) => Ok((quic, send, recv)),
        Ok(Err(error)) => Err(failure(&error)),
        Err(_) => {
            let problem = format!(
                "no HELLO within {} ms: open a bidirectional stream and send it first",
                settings.hello_timeout.as_millis()
            );
            connections::close(&quic, Some(ErrorCode::HelloTimeout), &problem);
            Err(Failure::Nothing(problem))
        }
    }
}

/// Also of a peer whose certificate is refused: in its eyes the handshake is over before that.
fn failure(error: &ConnectionError) -> Failure {
    match error {
        ConnectionError::TransportError(error) => Failure::Refused(error.to_string()),
        _ => Failure::Nothing(error.to_string()),
    }
}

/// The certificates that a peer came with.
fn chain(quic: &quinn::Connection) -> Option<Arc<[CertificateDer<'static>]>> {
    let chain = quic.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    (!chain.is_empty()).then(|| (*chain).into())
}

/// Reads frames until the connection ends, and gives them to the core.
async fn read(
    shared: &Arc<Shared>,
    settings: &Settings,
    link: &Link,
    quic: &quinn::Connection,
    mut recv: RecvStream,
    place: Place,
    outbox: &mut Outbox,
) -> End {
    let mut frames = Frames::new(&settings.limits);
    let mut frame_time = FrameTime::new(&shared.clock, settings.slow_peer);
    let mut chunks: [Bytes; READ_CHUNKS] = Default::default();
    // Until HELLO.
    let mut place = Some(place);
    // Of its proof, from then on.
    let mut _watch = None;
    loop {
        // A client that does not read its results may not send more tasks. A worker is always
        // read: its RESULTs free slots and memory, and what waits for it is bounded by its slots.
        let soft_bytes = shared.outgoing.soft_bytes();
        if !frames.from_worker && link.lane.queued_bytes() > soft_bytes {
            link.lane.drained(soft_bytes / 2).await;
            frame_time.begin(&shared.clock);
        }
        let read = tokio::select! {
            biased;
            read = recv.read_chunks(&mut chunks) => read,
            () = frame_time.over(), if frames.is_within_one() => {
                shared.hold(outbox, |core, now| core.handle_unfinished(now, link.id));
                return End::Closing;
            }
        };
        let count = match read {
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
        let bytes = chunks.iter().map(Bytes::len).sum();
        let mut has_ended_one = false;
        loop {
            let decoded = frames.decode(&mut chunks);
            let mut pause_ms = 0;
            if !frames.batch.is_empty() || decoded.is_err() {
                has_ended_one = true;
                let arriving = match &place {
                    Some(_) => frames
                        .greeting()
                        .map(|hello| shared.auth.admit(chain(quic), hello.token.clone())),
                    None => None,
                };
                if let Some(Ok(admission)) = &arriving {
                    if admission.is_offline() {
                        shared.auth.note_offline(&shared.audit, &admission.identity, link.peer());
                    }
                    _watch = Watch::over(shared, (link.id, link.peer()), admission);
                }
                pause_ms = shared.hold(outbox, |core, now| {
                    match arriving {
                        Some(Ok(Admission { identity, roles, .. })) => {
                            core.handle_authenticated(link.id, &identity, roles);
                        }
                        Some(Err(why)) => core.handle_unauthenticated(now, link.id, why),
                        None => {}
                    }
                    core.foresee(&frames.batch);
                    for incoming in frames.batch.drain(..) {
                        core.handle_incoming(now, link.id, incoming);
                    }
                    if let Err(error) = &decoded {
                        core.handle_malformed(now, link.id, error);
                    }
                    core.pause_ms(now, link.id)
                });
            }
            if link.is_closing() {
                return End::Closing;
            }
            if pause_ms > 0 {
                let _ = timeout(Duration::from_millis(pause_ms), quic.closed()).await;
            }
            match decoded {
                Ok(true) => tokio::task::yield_now().await,
                Ok(false) => break,
                // The core closes a connection that sent malformed bytes, so this is not reached.
                Err(_) => return End::Reset,
            }
        }
        if frames.is_greeted && place.take().is_some() {
            let bytes = window_bytes(shared.connections.len());
            quic.set_receive_window(VarInt::from_u32(bytes));
            quic.set_send_window(bytes.into());
        }
        frame_time.came(&shared.clock, bytes, has_ended_one);
        frames.release();
    }
}

/// What may be on its way to and from a peer when there are so many.
fn window_bytes(connections: usize) -> u32 {
    let share = WINDOWS_BYTES / connections.max(1) as u64;
    u32::try_from(share).unwrap_or(u32::MAX).clamp(LEAST_WINDOW_BYTES, MOST_WINDOW_BYTES)
}

/// Writes while the lane is blocked, and ends the connection when this side wants it ended.
async fn write(
    shared: Arc<Shared>,
    settings: Arc<Settings>,
    link: Arc<Link>,
    quic: quinn::Connection,
    stopped: impl Future<Output = Result<Option<quinn::VarInt>, quinn::StoppedError>>,
) {
    let mut drive = pin!(link.lane.drive());
    let mut slow = pin!(takes_too_little(&link.lane, settings.slow_peer));
    let mut is_slow = false;
    let is_driven = loop {
        tokio::select! {
            () = &mut drive => break true,
            _ = link.closing() => break false,
            () = &mut slow, if !is_slow => {
                is_slow = true;
                shared.hold(&mut Outbox::default(), |core, now| core.handle_overflow(now, link.id));
            }
        }
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
        let _ = timeout(settings.close_flush, flushed).await;
    }
    connections::close(&quic, closing.code, &closing.message);
}
