//! The timer task: calls the core when it wants to be called.

use std::future::pending;
use std::sync::Arc;

use super::shared::{Outbox, Shared};

/// Runs until dropped.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut outbox = Outbox::default();
    loop {
        let next = shared.arm_timer();
        shared.timer_turned.notify_waiters();
        let sleep = async {
            match next {
                Some(at) => tokio::time::sleep(shared.clock.until(at)).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = sleep => {
                shared.hold(&mut outbox, |core, now| {
                    // It may have been moved back meanwhile.
                    if core.poll_timeout().is_some_and(|at| at <= now.mono) {
                        core.handle_timeout(now);
                    }
                });
            }
            () = shared.timer_moved.notified() => {}
        }
    }
}
