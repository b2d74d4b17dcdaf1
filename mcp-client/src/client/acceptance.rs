//! Whether the broker has a durable task on disk.

use tokio_util::sync::CancellationToken;

/// Set once, when ACCEPTED comes, and shared with all who wait for that.
#[derive(Debug, Clone, Default)]
pub(crate) struct Acceptance(CancellationToken);

impl Acceptance {
    pub(super) fn set(&self) {
        self.0.cancel();
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until it is set. Cancel-safe.
    pub(crate) async fn wait(&self) {
        self.0.cancelled().await;
    }
}
