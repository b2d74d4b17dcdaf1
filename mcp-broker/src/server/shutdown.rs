//! The orderly end of a broker: nothing is dropped that its peers could still be told.
//!
//! 1. no new connections;
//! 2. GOAWAY to every peer; queued and new tasks are rejected (SHUTTING_DOWN, not executed); running
//!    ones may finish within the drain time, then they fail and their workers are told;
//! 3. what is queued for each peer is flushed, and its connection closed with SHUTTING_DOWN; until
//!    then the admin listener says that the broker is draining;
//! 4. the journal is synced, the last spans are sent, and the audit log is written.
//!
//! Each step is bounded, so the whole is ([`limit`]): the drain time and a few seconds, or some more
//! when a disk or a collector hangs.

use std::sync::Arc;
use std::time::Duration;

use mcp_proto::ErrorCode;
use tokio::time::{sleep, timeout};

use super::audit;
use super::config::TimingConfig;
use super::connections::Link;
use super::running::Running;
use super::shared::Outbox;

/// Beyond its own limits, for a step that hangs on a fault.
const SLACK: Duration = Duration::from_secs(1);

/// For the last packets to arrive: QUIC answers stragglers for three of its time-outs.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);

/// For the last sync.
const JOURNAL_LIMIT: Duration = Duration::from_secs(10);

/// For the last records of the audit log.
const AUDIT_LIMIT: Duration = Duration::from_secs(5);

/// For the last spans: nobody waits long for a collector that does not answer.
const TELEMETRY_LIMIT: Duration = Duration::from_secs(3);

/// What peers are told when their connection is closed.
pub(super) const REASON: &str = "the broker is shutting down; connect again later";

/// The longest that [`run`] takes.
pub(super) fn limit(timing: &TimingConfig) -> Duration {
    let asked_for = Duration::from_millis(timing.drain_ms + timing.close_flush_ms);
    asked_for + 2 * SLACK + CLOSE_LIMIT + JOURNAL_LIMIT + TELEMETRY_LIMIT + AUDIT_LIMIT
}

pub(super) async fn run(running: &mut Running) {
    let Some(quic) = running.quic.clone() else {
        return;
    };
    let timing = running.reloader.config().timing;
    let drain = Duration::from_millis(timing.drain_ms);
    let close_flush = Duration::from_millis(timing.close_flush_ms);
    let shared = &running.shared;
    running.stop_accepting.cancel();
    running.reloader.end();
    quic.take_no_more();

    shared.begin_shutdown(drain.as_millis() as u64);
    tokio::select! {
        biased;
        () = shared.drained.cancelled() => {}
        () = shared.failed.cancelled() => {}
        () = sleep(drain + SLACK) => {
            // A process that did nothing for as long may see this before the core's timer.
            shared.hold(&mut Outbox::default(), |core, now| core.handle_timeout(now));
            if !shared.drained.is_cancelled() {
                tracing::error!("tasks are left after the drain time");
            }
        }
    }

    let links: Vec<Arc<Link>> = shared.connections.iter().map(|it| it.value().clone()).collect();
    for link in links {
        link.close(Some(ErrorCode::ShuttingDown), REASON.to_owned());
    }
    running.stop.cancel();
    running.tasks.close();
    if timeout(close_flush + SLACK, running.tasks.wait()).await.is_err() {
        tracing::debug!("connections are left after the flush time");
    }
    quic.close(ErrorCode::ShuttingDown, REASON);
    drop((quic, running.quic.take()));
    running.drivers.close();
    if timeout(CLOSE_LIMIT, running.drivers.wait()).await.is_err() {
        tracing::debug!("the address is still in use");
    }

    shared.end_journal();
    if let Some(journal) = running.journal.take() {
        // What it was given is synced before the process goes, unless the disk hangs.
        let ended = tokio::task::spawn_blocking(|| journal.join());
        if timeout(JOURNAL_LIMIT, ended).await.is_err() {
            tracing::error!("the journal does not end");
        }
    }
    if timeout(TELEMETRY_LIMIT, shared.telemetry.flush()).await.is_err() {
        tracing::debug!("the last spans are lost");
    }
    if let Some(audit) = running.audit.take() {
        let log = shared.audit.clone();
        log.record(audit::Event::new(audit::Kind::Broker, "stop"));
        let ended = tokio::task::spawn_blocking(move || {
            log.end();
            audit.join()
        });
        if timeout(AUDIT_LIMIT, ended).await.is_err() {
            tracing::error!("the audit log does not end");
        }
    }
}
