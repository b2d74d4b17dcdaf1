//! Being told to stop by the system.

/// SIGTERM and SIGINT, or Ctrl-C where there are no signals.
pub(super) struct StopSignals {
    #[cfg(unix)]
    signals: Option<[tokio::signal::unix::Signal; 2]>,
}

impl StopSignals {
    /// From now on, these signals don't end the process.
    pub(super) fn new() -> Self {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let both = signal(SignalKind::terminate())
                .and_then(|terminate| Ok([terminate, signal(SignalKind::interrupt())?]));
            if let Err(error) = &both {
                tracing::warn!(%error, "SIGTERM and SIGINT can't be listened to");
            }
            Self { signals: both.ok() }
        }
        #[cfg(not(unix))]
        Self {}
    }

    /// Waits for the next one. Cancel-safe.
    pub(super) async fn next(&mut self) {
        #[cfg(unix)]
        if let Some([terminate, interrupt]) = &mut self.signals {
            tokio::select! {
                Some(()) = terminate.recv() => return,
                Some(()) = interrupt.recv() => return,
                else => {}
            }
        }
        #[cfg(not(unix))]
        if tokio::signal::ctrl_c().await.is_ok() {
            return;
        }
        std::future::pending().await
    }
}
