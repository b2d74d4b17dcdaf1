//! A regular wake-up, finer than the milliseconds of tokio's timers.

use std::time::Duration;

/// Waking more often than this costs more CPU than the precision is worth.
const MIN_PERIOD: Duration = Duration::from_micros(50);

#[cfg(target_os = "linux")]
pub(crate) use linux::Ticker;

#[cfg(target_os = "linux")]
mod linux {
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    /// A timer of the kernel's, periodic.
    pub(crate) struct Ticker(Option<AsyncFd<OwnedFd>>);

    impl Ticker {
        pub(crate) fn new(period: Duration) -> Self {
            Self(start(period.max(super::MIN_PERIOD)).ok())
        }

        /// Waits for the next tick, or returns at once when some were missed.
        pub(crate) async fn tick(&mut self) {
            let Some(fd) = &self.0 else { return super::tick_coarsely().await };
            let read = |fd: &OwnedFd| Ok(rustix::io::read(fd, &mut [0; 8])?);
            // Fails only when the descriptor is not a timer.
            let _ = fd.async_io(Interest::READABLE, read).await;
        }
    }

    fn start(period: Duration) -> std::io::Result<AsyncFd<OwnedFd>> {
        let fd = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        let period =
            Timespec { tv_sec: period.as_secs() as i64, tv_nsec: period.subsec_nanos().into() };
        let spec = Itimerspec { it_interval: period, it_value: period };
        timerfd_settime(&fd, TimerfdTimerFlags::empty(), &spec)?;
        // What replaces it is unsafe, for types that are not the one owner of their descriptor.
        #[allow(deprecated)]
        AsyncFd::with_interest(fd, Interest::READABLE)
    }
}

/// Where there is no finer one. Latencies of open loops are up to a millisecond too long then.
#[cfg(not(target_os = "linux"))]
pub(crate) struct Ticker;

#[cfg(not(target_os = "linux"))]
impl Ticker {
    pub(crate) fn new(_: Duration) -> Self {
        Self
    }

    pub(crate) async fn tick(&mut self) {
        tick_coarsely().await;
    }
}

async fn tick_coarsely() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}
