//! `/api/v1/live`: the overview, again every second, as server-sent events.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use bytestring::ByteString;
use futures_util::stream::unfold;
use mcp_proto::ErrorInfo;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::super::shared::Shared;
use super::api;
use crate::broker::{AdminFunction, Mono};

/// Those who look on at once. Half of the listener's connections are left for all else.
const MAX_LISTENERS: usize = 16;

const EVERY: Duration = Duration::from_secs(1);

/// A snapshot serves all who look on for so long.
const FRESH_US: u64 = 900_000;

/// Snapshots over one connection; a browser connects again then. So the end of a listener that is no
/// longer read from is not waited for, see `CONNECTION_LIMIT`.
const SNAPSHOTS: u32 = 50;

/// Who looks on.
pub(super) struct Live {
    shared: Arc<Shared>,
    listeners: Arc<Semaphore>,
    last: Mutex<Option<(Mono, ByteString)>>,
}

struct Listener {
    live: Arc<Live>,
    interval: Interval,
    left: u32,
    _permit: OwnedSemaphorePermit,
}

impl Live {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let listeners = Arc::new(Semaphore::new(MAX_LISTENERS));
        Self { shared, listeners, last: Mutex::new(None) }
    }

    /// The overview as it was less than a second ago.
    fn snapshot(&self) -> Result<ByteString, ErrorInfo> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.shared.clock.now().mono;
        if let Some((at, snapshot)) = last.as_ref()
            && now.since(*at) < FRESH_US
        {
            return Ok(snapshot.clone());
        }
        let mut overview = api::ask(&self.shared, None, AdminFunction::Overview, b"")?;
        overview.pop();
        let journal = self.shared.journal.as_ref().map(|it| it.figures()).map(|it| {
            json!({
                "is_up": it.is_up,
                "bytes": it.bytes,
                "records": it.records,
                "sync_p99_us": it.syncs.estimate_us(0.99),
            })
        });
        let rest = json!({ "journal": journal, "version": env!("CARGO_PKG_VERSION") }).to_string();
        // Two objects made one.
        overview.push(b',');
        overview.extend_from_slice(&rest.as_bytes()[1..]);
        let snapshot = ByteString::try_from(overview).unwrap_or_default();
        *last = Some((now, snapshot.clone()));
        Ok(snapshot)
    }
}

/// Looks on.
pub(super) async fn live(State(live): State<Arc<Live>>) -> Response {
    let Ok(permit) = live.listeners.clone().try_acquire_owned() else {
        let problem = format!("{MAX_LISTENERS} look on already; close a console elsewhere\n");
        return (StatusCode::TOO_MANY_REQUESTS, problem).into_response();
    };
    let mut interval = interval(EVERY);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let listener = Listener { live, interval, left: SNAPSHOTS, _permit: permit };
    let events = unfold(listener, |mut listener| async move {
        listener.left = listener.left.checked_sub(1)?;
        listener.interval.tick().await;
        let snapshot = listener.live.snapshot().ok()?;
        Some((Ok::<_, Infallible>(Event::default().event("overview").data(snapshot)), listener))
    });
    Sse::new(events).into_response()
}
