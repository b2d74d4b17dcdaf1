//! Raw peers, and a steady flow of tasks beside what a test does.

mod authority;
mod flow;
mod lying;
mod peer;

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mcp_broker::{Broker, Config};
use tokio::time::{sleep, timeout};

pub(crate) use authority::{Authority, dns, uri};
pub(crate) use flow::Flow;
pub(crate) use lying::Lie;
pub(crate) use peer::{Dialled, How, RawPeer, dial, hello, result, send, with_token, worker_hello};

/// Longer than anything here takes on the slowest machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A broker on a free port.
pub(crate) async fn broker(configure: impl FnOnce(&mut Config)) -> Broker {
    let mut config = Config::default();
    config.listen.set_port(0);
    configure(&mut config);
    Broker::builder().config(config).start().await.unwrap()
}

/// A name that nothing else has.
pub(crate) fn unique(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Waits for something that has to come.
pub(crate) async fn within<T>(what: &str, it: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, it).await {
        Ok(it) => it,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

/// Waits until `is_true`.
pub(crate) async fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    within(what, async {
        while !is_true() {
            sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}
