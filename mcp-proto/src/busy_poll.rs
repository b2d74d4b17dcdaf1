//! Waiting awake for the next packets, while that pays.
//!
//! To wake a thread that sleeps takes longer than most of what it then does: on a virtual machine tens
//! of microseconds, half of them the sender's. So where packets follow one another closely, an endpoint
//! does not sleep between them:
//!
//! ```text
//!            packets                 nothing came in time            packets
//!   asleep ───────────▶ waits awake ──────────────────────▶ asleep ───────────▶ waits awake …
//!                        ▲     │
//!                        └─────┘ packets
//!
//!   in vain more often than not, much work each time, or the processor taken ──▶ off for a while
//! ```
//!
//! That is what the `haltpoll` governor of Linux does for a guest's processor. Packets that come now and
//! then cost next to nothing: nine times of waiting in vain, then none for 100 ms.
//!
//! Each turn of waiting lets the runtime's other tasks run, and other threads of the machine
//! ([`std::thread::yield_now`]). One of these that computes keeps the processor until its slice ends,
//! and would have been interrupted for a thread that wakes up: so when that has happened, it is off, too.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::sleep;

/// So many of the latest times of waiting have to have been rewarded: half.
const ENOUGH: u32 = Rewards::REMEMBERED / 2;

/// Another thread that has the processor for this long in a turn computes. Linux lets it go on for its
/// slice, 1.4 ms with two processors and more with more; what peers do on receiving packets takes less.
const TAKEN: Duration = Duration::from_millis(1);

/// Work that took so many times as long as may be waited makes little of waking up; and packets that
/// come meanwhile are cheaper together. It counts as waited in vain.
const LONG_WORK: u32 = 3;

/// How long it is off until it is tried again: nine times of 100 µs in vain are then less than a hundredth
/// of a processor.
const PAUSE: Duration = Duration::from_millis(100);

/// Waits awake for the packets of a [socket](crate::socket::quic_socket).
#[derive(Debug, Default)]
pub struct BusyPoll {
    packets: Notify,
    waited_ns: AtomicU64,
}

impl BusyPoll {
    /// Packets have come.
    pub(crate) fn note(&self) {
        self.packets.notify_one();
    }

    /// How long was waited awake, in all: time in which the thread is not idle to the system, and would be
    /// otherwise.
    pub fn waited(&self) -> Duration {
        Duration::from_nanos(self.waited_ns.load(Ordering::Relaxed))
    }

    /// Keeps the runtime's thread awake after packets, for up to `most` each time. Runs until dropped;
    /// cancel-safe.
    ///
    /// Returns at once where there are several threads: there another one sleeps until packets come, and
    /// would have to be woken all the same.
    pub async fn run(&self, most: Duration) {
        while Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
            self.poll_while_it_pays(most).await;
            sleep(PAUSE).await;
        }
    }

    async fn poll_while_it_pays(&self, most: Duration) {
        let mut rewards = Rewards::default();
        let mut awake_since = Instant::now();
        while rewards.are_enough() {
            self.settle().await;
            let began = Instant::now();
            let waited = if began - awake_since > most * LONG_WORK {
                Waited::InVain
            } else {
                self.wait_awake(began, most).await
            };
            self.waited_ns.fetch_add(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
            match waited {
                Waited::Came => rewards.note(true),
                Waited::InVain => {
                    rewards.note(false);
                    self.packets.notified().await;
                }
                Waited::Taken => return,
            }
            awake_since = Instant::now();
        }
    }

    /// Returns when all that came has been handled.
    async fn settle(&self) {
        loop {
            // Returns when nothing else is left to do, and the runtime has looked for packets.
            yield_now().await;
            if !self.came() {
                return;
            }
        }
    }

    async fn wait_awake(&self, began: Instant, most: Duration) -> Waited {
        loop {
            let turn = Instant::now();
            if turn - began >= most {
                return Waited::InVain;
            }
            thread::yield_now();
            if turn.elapsed() >= TAKEN {
                return Waited::Taken;
            }
            yield_now().await;
            if self.came() {
                return Waited::Came;
            }
        }
    }

    fn came(&self) -> bool {
        self.packets.notified().now_or_never().is_some()
    }
}

/// How waiting awake ended.
enum Waited {
    Came,
    InVain,
    /// Another thread took the processor.
    Taken,
}

/// Which of the latest times of waiting were rewarded: a bit each.
struct Rewards(u16);

impl Rewards {
    const REMEMBERED: u32 = u16::BITS;

    fn note(&mut self, was_rewarded: bool) {
        self.0 = self.0 << 1 | u16::from(was_rewarded);
    }

    fn are_enough(&self) -> bool {
        self.0.count_ones() >= ENOUGH
    }
}

/// With trust.
impl Default for Rewards {
    fn default() -> Self {
        Self(u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Longer than any test.
    const FOR_EVER: Duration = Duration::from_secs(3_600);

    #[test]
    fn the_thread_does_not_sleep_between_packets() {
        let sleeps = Arc::new(AtomicU64::new(0));
        let counted = sleeps.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .on_thread_park(move || {
                counted.fetch_add(1, Ordering::Relaxed);
            })
            .build()
            .unwrap();
        runtime.block_on(async {
            let busy_poll = Arc::new(BusyPoll::default());
            let polling = busy_poll.clone();
            // A machine that is busy takes the processor now and then.
            tokio::spawn(async move {
                loop {
                    polling.poll_while_it_pays(FOR_EVER).await;
                }
            });
            for _ in 0..100 {
                let packet = tokio::task::spawn_blocking(thread::yield_now);
                packet.await.unwrap();
                busy_poll.note();
            }
            assert!(busy_poll.waited() > Duration::ZERO);
        });
        assert_eq!(sleeps.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn waiting_in_vain_ends_it() {
        let busy_poll = Arc::new(BusyPoll::default());
        let polling = busy_poll.clone();
        let polling = tokio::spawn(async move { polling.poll_while_it_pays(Duration::ZERO).await });
        for _ in ENOUGH..=Rewards::REMEMBERED {
            // Until it sleeps, which takes two.
            for _ in 0..10 {
                yield_now().await;
            }
            assert!(!polling.is_finished());
            busy_poll.note();
        }
        polling.await.unwrap();
    }

    #[tokio::test]
    async fn much_work_each_time_ends_it() {
        let busy_poll = Arc::new(BusyPoll::default());
        let (polling, most) = (busy_poll.clone(), Duration::from_millis(1));
        let polling = tokio::spawn(async move { polling.poll_while_it_pays(most).await });
        for _ in 0..Rewards::REMEMBERED {
            busy_poll.note();
            yield_now().await;
            // The work, as which any other task of the runtime counts.
            thread::sleep(most * (LONG_WORK + 1));
            for _ in 0..10 {
                yield_now().await;
            }
        }
        assert!(polling.is_finished(), "packets that came while it worked kept it on");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn with_several_threads_there_is_nothing_to_run() {
        BusyPoll::default().run(FOR_EVER).await;
    }

    #[test]
    fn more_rewards_than_not_keep_it_on() {
        let mut rewards = Rewards::default();
        for _ in 0..100 {
            rewards.note(false);
            rewards.note(true);
            assert!(rewards.are_enough());
        }
        rewards.note(false);
        rewards.note(false);
        assert!(!rewards.are_enough());
    }
}
