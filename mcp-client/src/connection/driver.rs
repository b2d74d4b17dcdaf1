//! The I/O task of a client or worker: reads, keeps time, and connects again.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mcp_proto::{Ack, ErrorCode, ErrorInfo, Goaway, Hello, Message, Ping};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::liveness::{Liveness, Verdict};
use super::reconnect::reconnect;
use super::{Connection, Dialer, End, Link, Received};
use crate::backoff::Backoff;
use crate::error::{ConnectError, is_final};

/// A connection that held for this long makes the next waits short again.
const STABLE: Duration = Duration::from_secs(10);

/// How long leaving waits until all that was sent has been processed.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// Numbers of PINGs that the driver sends itself; peers count from 0.
const FIRST_PROBE: u64 = 1 << 63;

/// What holds a connection: the client's table of tasks, or the worker's of attempts. What it pushes
/// when it is called, the I/O task flushes.
pub(crate) trait Peer: Send + Sync + 'static {
    /// HELLO for the next connection.
    fn hello(&self) -> Hello;
    /// There is a connection.
    fn connected(self: &Arc<Self>, link: &Arc<Link>, ack: &Ack);
    /// There is none any more.
    fn disconnected(&self);
    /// Frames arrived; takes them all.
    fn received(self: &Arc<Self>, batch: &mut Vec<Received>, arrived_at: Instant);
    /// The broker will close this connection.
    fn going_away(&self, goaway: &Goaway);
    /// Does what is due, and says when there is more to do.
    fn timeout(&self, now: Instant) -> Option<Instant>;
    /// Whether anything depends on the broker being there: an answer it owes, or work for it.
    fn is_owed(&self) -> bool;
    /// Whether nothing that was sent, or is held, matters any more.
    fn is_settled(&self) -> bool;
    /// After GOAWAY: whether nothing keeps this connection.
    fn may_leave(&self) -> bool;
    /// Whether to connect again, after this failure.
    fn reconnects(&self, error: Option<&ConnectError>) -> bool;
    /// The I/O task ends.
    fn stopped(&self, stop: Stop);
    /// How others reach the I/O task.
    fn control(&self) -> &Control;
}

/// How others reach the I/O task.
#[derive(Default)]
pub(crate) struct Control {
    /// The next time-out may be earlier than it was.
    pub(crate) wake: Notify,
    /// Ends the connection in an orderly way, and the task with it.
    pub(crate) leave: CancellationToken,
}

/// Why the I/O task ended.
#[derive(Debug, Clone)]
pub(crate) enum Stop {
    /// As it was told to.
    Left,
    /// Another took its place.
    Replaced(ErrorInfo),
    /// The connection is gone, and no other is wanted or possible.
    Failed(ConnectError),
}

/// Time-outs of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    pub(crate) connect: Duration,
    pub(crate) silence: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), silence: Duration::from_secs(6) }
    }
}

/// Serves `peer` until it leaves, starting with `connection`, of which `peer` was told already.
pub(crate) fn run<P: Peer>(
    peer: Arc<P>,
    dialer: Dialer,
    connection: Connection,
    timeouts: Timeouts,
) -> impl Future<Output = ()> + Send {
    // Already here, for a runtime that ends before it runs this.
    let running = Running { peer, stop: None };
    drive(running, dialer, connection, timeouts)
}

async fn drive<P: Peer>(
    mut running: Running<P>,
    mut dialer: Dialer,
    mut connection: Connection,
    timeouts: Timeouts,
) {
    let peer = running.peer.clone();
    let mut backoff = Backoff::new();
    let stop = loop {
        let connected_at = Instant::now();
        let (end, goaway) = serve(&peer, &mut connection, timeouts.silence).await;
        let address = connection.link.address();
        drop(connection);
        peer.disconnected();
        if matches!(end, End::Left) && goaway.is_none() {
            break Stop::Left;
        }
        tracing::info!(%address, ?end, "the connection ended");
        if let Some(info) = replaced(&end, goaway.as_ref()) {
            break Stop::Replaced(info);
        }
        if !peer.reconnects(None) {
            let problem = end.to_string();
            break Stop::Failed(ConnectError::Broken { address, problem });
        }
        if connected_at.elapsed() > STABLE {
            backoff = Backoff::new();
        }
        connection = match reconnect(&peer, &mut dialer, &mut backoff, timeouts.connect).await {
            Ok(connection) => connection,
            Err(stop) => break stop,
        };
    };
    running.stop = Some(stop);
}

/// Tells the peer that its I/O task ends, also when that is because the runtime does: whoever
/// waits for the peer must not wait for ever.
struct Running<P: Peer> {
    peer: Arc<P>,
    stop: Option<Stop>,
}

impl<P: Peer> Drop for Running<P> {
    fn drop(&mut self) {
        self.peer.stopped(self.stop.take().unwrap_or(Stop::Left));
    }
}

/// Whether the end says not to come back.
fn replaced(end: &End, goaway: Option<&Goaway>) -> Option<ErrorInfo> {
    match (goaway, end) {
        (Some(goaway), _) if !goaway.reconnect => {
            Some(ErrorInfo::new(goaway.code, goaway.message.clone()))
        }
        (_, End::Closed { code: Some(code), message }) if is_final(*code) => {
            Some(ErrorInfo::new(*code, message.clone()))
        }
        _ => None,
    }
}

async fn serve<P: Peer>(
    peer: &Arc<P>,
    connection: &mut Connection,
    silence_timeout: Duration,
) -> (End, Option<Goaway>) {
    let mut goaway = None;
    let link = connection.link.clone();
    let end = match serve_until(peer, connection, silence_timeout, &mut goaway).await {
        Ok(()) => {
            if !peer.is_settled() {
                link.finish().await;
            }
            link.close(None, "").await;
            return (End::Left, goaway);
        }
        Err(end) => end,
    };
    match &end {
        End::Violation(code, message) => {
            link.push_error(*code, message);
            link.finish().await;
            link.close(Some(*code), message).await;
        }
        // Not an orderly close: the session and the registration shall live on.
        End::Silent(_) => link.abort(Some(ErrorCode::LeaseExpired), "no sign of life"),
        End::Closed { .. } | End::Refused(_) | End::Broken(_) | End::Left => {}
    }
    (end, goaway)
}

/// `Ok` when the connection is to be closed in an orderly way.
async fn serve_until<P: Peer>(
    peer: &Arc<P>,
    connection: &mut Connection,
    silence_timeout: Duration,
    goaway: &mut Option<Goaway>,
) -> Result<(), End> {
    let control = peer.control();
    let link = connection.link.clone();
    let (address, reports) = (link.address(), connection.reports.clone());
    let mut read_at = Instant::now();
    let mut liveness = Liveness::new(silence_timeout, read_at);
    let mut batch = Vec::new();
    let mut probe = FIRST_PROBE;
    // The number of the last PING, and how long its answer is waited for.
    let mut farewell: Option<(u64, tokio::time::Instant)> = None;

    let mut wake = pin!(control.wake.notified());
    let mut leave = pin!(control.leave.cancelled());
    let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
    loop {
        let (notices, is_last) = connection.take(&mut batch)?;
        // First: what the broker refuses after it has to be understood as its consequence.
        if let Some(notice) = notices.goaway {
            tracing::info!(code = %notice.code, message = notice.message, "the broker says goodbye");
            peer.going_away(&notice);
            *goaway = Some(notice);
        }
        if !batch.is_empty() {
            peer.received(&mut batch, read_at);
        }
        match farewell {
            Some((seq, _)) if notices.pong >= Some(seq) => return Ok(()),
            Some(_) => {}
            None if goaway.as_ref().is_some_and(|it| it.reconnect) && peer.may_leave() => {
                return Ok(());
            }
            None => {}
        }
        if !is_last {
            continue;
        }
        link.lane.flush();

        tokio::select! {
            biased;
            () = &mut leave, if farewell.is_none() => {
                if peer.is_settled() {
                    return Ok(());
                }
                probe += 1;
                ping(&link, probe);
                let until = tokio::time::Instant::now() + FAREWELL_TIMEOUT;
                farewell = Some((probe, until));
                timer.as_mut().reset(tokio::time::Instant::now());
            }
            () = &mut wake => {
                wake.set(control.wake.notified());
                timer.as_mut().reset(tokio::time::Instant::now());
            }
            () = &mut timer => {
                let now = Instant::now();
                if farewell.is_some_and(|(_, until)| until <= now.into()) {
                    return Ok(());
                }
                let mut next = match liveness.check(now, peer.is_owed()) {
                    Verdict::Wait(at) => at,
                    Verdict::Ask => {
                        probe += 1;
                        ping(&link, probe);
                        liveness.asked(now);
                        now
                    }
                    Verdict::Dead => return Err(End::Silent(silence_timeout)),
                };
                if let Some(at) = peer.timeout(now) {
                    next = next.min(at);
                }
                let next = tokio::time::Instant::from_std(next);
                timer.as_mut().reset(farewell.map_or(next, |(_, until)| until.min(next)));
            }
            () = reports.about(address) => {
                // A hint, not a proof: it is asked. Should only another one come back, it is gone.
                if liveness.is_asked() {
                    return Err(End::Broken("nothing listens there any more".to_owned()));
                }
                probe += 1;
                ping(&link, probe);
                liveness.asked(Instant::now());
                timer.as_mut().reset(tokio::time::Instant::now());
            }
            read = connection.read() => {
                read?;
                read_at = Instant::now();
                liveness.heard(read_at);
                tokio::task::consume_budget().await;
            }
        }
    }
}

fn ping(link: &Link, seq: u64) {
    link.lane.push(&Message::Ping(Ping::probe(seq)), &Bytes::new());
}
