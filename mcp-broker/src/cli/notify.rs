//! What systemd is told, by `NOTIFY_SOCKET` (sd_notify(3)): that the broker is ready, reads its
//! configuration again, stops, and that it lives. Where there is no such socket, nothing.

use std::convert::Infallible;
use std::fmt::Display;
use std::future::pending;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::net::UnixDatagram;
use tokio::time::{sleep, timeout};

/// Beats for each time that the watchdog allows: sd_watchdog_enabled(3) asks for two, and one may be
/// late on a machine that has much to do.
const BEATS: u32 = 3;

/// For systemd to take a message. The broker goes on without.
const TELL_LIMIT: Duration = Duration::from_secs(1);

/// It takes connections. `status` is what `systemctl status` shows.
pub(super) async fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]).await;
}

/// It reads its configuration again; [`ready`] says that it has.
pub(super) async fn reloading() {
    let status = NotifyState::Status("reading the configuration again");
    // Since when is part of it, so that systemd takes no earlier READY for the answer.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now, status]).await,
        Err(error) => untold(&error),
    }
}

/// It stops, and may take this long, whatever `TimeoutStopSec` says.
pub(super) async fn stopping(limit: Duration) {
    let limit = format!("EXTEND_TIMEOUT_USEC={}", limit.as_micros());
    let status = NotifyState::Status("stopping: running tasks may finish");
    tell(&[NotifyState::Stopping, NotifyState::Custom(&limit), status]).await;
}

/// Tells the watchdog that it lives, as long as `alive` says so: when that does not return, nothing is
/// told, and systemd starts the broker anew after `WatchdogSec`.
pub(super) async fn watchdog<F: Future<Output = ()>>(alive: impl Fn() -> F) -> Infallible {
    let limit = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero());
    let Some(limit) = limit else { return pending().await };
    loop {
        alive().await;
        tell(&[NotifyState::Watchdog]).await;
        sleep(limit / BEATS).await;
    }
}

/// `sd_notify::notify` would wait in the runtime's thread while systemd reads nothing.
async fn tell(states: &[NotifyState<'_>]) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let lines: String = states.iter().map(|state| format!("{state}\n")).collect();
    let sent = async {
        let systemd = UnixDatagram::unbound()?;
        systemd.connect(socket)?;
        systemd.send(lines.as_bytes()).await
    };
    match timeout(TELL_LIMIT, sent).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => untold(&error),
        Err(late) => untold(&late),
    }
}

fn untold(error: &dyn Display) {
    tracing::warn!(%error, "systemd was not told how the broker is");
}
