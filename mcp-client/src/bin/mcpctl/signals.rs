//! Ctrl-C and SIGTERM.

use std::io;
use std::thread;

use tokio::runtime;
use tokio_util::sync::CancellationToken;

use crate::exit::Exit;

/// From now on each Ctrl-C or SIGTERM cancels the next of the returned tokens, and one more ends
/// the process at once. The signals have a thread of their own, so that they are heard while the
/// command is blocked on its output.
pub(crate) fn tokens<const N: usize>() -> io::Result<[CancellationToken; N]> {
    let tokens = std::array::from_fn(|_| CancellationToken::new());
    let to_cancel: [CancellationToken; N] = tokens.clone();
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    let mut signals = {
        let _context = runtime.enter();
        Signals::listen()?
    };
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            for token in to_cancel {
                signals.next().await;
                token.cancel();
            }
            signals.next().await;
            std::process::exit(Exit::Cancelled as i32);
        });
    })?;
    Ok(tokens)
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
