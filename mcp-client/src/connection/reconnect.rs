//! Connecting again, as often as it takes, while the peer's time-outs go on.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::driver::{Peer, Stop};
use super::{Connection, Dialer};
use crate::backoff::Backoff;

/// The first attempt to connect again is given up after this, so that one whose packets met a
/// broker that was still down is soon followed by another; later ones get more.
const FIRST_REDIAL: Duration = Duration::from_secs(2);

/// Dials until there is a connection, and tells the peer of it. Fails when the peer wants none.
pub(super) async fn reconnect<P: Peer>(
    peer: &Arc<P>,
    dialer: &mut Dialer,
    backoff: &mut Backoff,
    timeout: Duration,
) -> Result<Connection, Stop> {
    for attempt in 0u32.. {
        meanwhile(&**peer, tokio::time::sleep(backoff.next_delay())).await?;
        let patience = FIRST_REDIAL.saturating_mul(1 + attempt / 4).min(timeout);
        let dialling = dialer.dial(peer.hello(), patience);
        match meanwhile(&**peer, dialling).await? {
            Ok((connection, ack)) => {
                tracing::info!(broker = %ack.broker_id, "connected again");
                peer.connected(&connection.link, &ack);
                return Ok(connection);
            }
            Err(error) if peer.reconnects(Some(&error)) => {
                tracing::debug!(%error, "no connection yet");
            }
            Err(error) => return Err(Stop::Failed(error)),
        }
    }
    Err(Stop::Left)
}

/// Waits for `future`, and serves the peer's time-outs meanwhile. Fails when the peer leaves.
async fn meanwhile<P: Peer, F: Future>(peer: &P, future: F) -> Result<F::Output, Stop> {
    let control = peer.control();
    let mut future = pin!(future);
    loop {
        let next = peer.timeout(Instant::now());
        let timer = async {
            match next {
                Some(next) => tokio::time::sleep_until(next.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = control.leave.cancelled() => return Err(Stop::Left),
            output = &mut future => return Ok(output),
            () = control.wake.notified() => {}
            () = timer => {}
        }
    }
}
