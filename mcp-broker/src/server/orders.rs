//! What operators have said is kept in the state directory, for the next start.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::error::StartError;
use super::shared::Shared;
use super::state_dir::{Access, StateDir};
use crate::broker::Orders;

const FILE: &str = "orders.json";

/// What was kept. A file that is not understood is told, moved aside, and no reason not to start.
pub(super) fn read(state: &StateDir) -> Result<Orders, StartError> {
    let Some(text) = state.read(FILE)? else { return Ok(Orders::default()) };
    match serde_json::from_str::<Orders>(&text) {
        Ok(orders) => {
            if orders != Orders::default() {
                let (agents, actions) = (orders.drained.len(), orders.degraded.len());
                tracing::info!(agents, actions, "drained and degraded, as operators said before");
            }
            Ok(orders)
        }
        Err(error) => {
            let path = state.set_aside(FILE);
            tracing::error!(
                %error,
                path = %path.display(),
                "what operators have said can't be read: nothing is drained or degraded"
            );
            Ok(Orders::default())
        }
    }
}

/// Keeps what changes, until it is stopped; then once more.
pub(super) async fn run(
    shared: Arc<Shared>,
    state: Arc<StateDir>,
    mut kept: Orders,
    stop: CancellationToken,
) {
    loop {
        let changed = shared.orders_changed.notified();
        let is_over = stop.run_until_cancelled(changed).await.is_none();
        let Some(orders) = shared.look(|core, _| core.orders()) else { return };
        // What could not be written is tried again with the next change, and at the end.
        if orders != kept && keep(state.clone(), orders.clone()).await {
            kept = orders;
        }
        if is_over {
            return;
        }
    }
}

/// Whether it is written.
async fn keep(state: Arc<StateDir>, orders: Orders) -> bool {
    let write = move || {
        let text = serde_json::to_string_pretty(&orders).unwrap_or_default();
        state.replace(FILE, &format!("{text}\n"), Access::Private)
    };
    match tokio::task::spawn_blocking(write).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::error!(
                "{error}: what operators said holds until the broker is started again only"
            );
            false
        }
        // A runtime that ends runs no more of it.
        Err(_) => false,
    }
}
