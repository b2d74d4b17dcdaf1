//! Peers that are slow, on purpose or by a fault: that begin a frame and do not send the rest, or do not
//! take what waits for them. Who has something to send or to take has to get on with it; who has not
//! may be silent for as long as its connection lasts.

use std::pin::Pin;
use std::time::Duration;

use mcp_proto::lane::Lane;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::clock::Clock;

/// What a peer has to send of a frame, or to take, if that is not all of it, in each `slow_peer_ms`.
/// One on the worst of networks does so in a few seconds.
const LEAST_BYTES: u64 = 64 * 1024;

/// How long a frame may take that is being read.
#[derive(Debug)]
pub(super) struct FrameTime {
    limit: Duration,
    over_at: Instant,
    /// Bytes since it began to run.
    bytes: u64,
    /// Made for a peer that once kept the broker waiting within a frame.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl FrameTime {
    pub(super) fn new(clock: &Clock, limit: Duration) -> Self {
        Self { limit, over_at: clock.instant_in(limit), bytes: 0, sleep: None }
    }

    /// So many bytes came, and perhaps the end of a frame with them: then the next one has all the time.
    pub(super) fn came(&mut self, clock: &Clock, bytes: usize, ended: bool) {
        self.bytes += bytes as u64;
        if ended || self.bytes >= LEAST_BYTES {
            self.begin(clock);
        }
    }

    /// The time begins to run: what was before was not the peer's fault.
    pub(super) fn begin(&mut self, clock: &Clock) {
        self.bytes = 0;
        self.over_at = clock.instant_in(self.limit);
    }

    /// Waits until it is over. Cancel-safe.
    pub(super) async fn over(&mut self) {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(self.over_at)));
        if sleep.deadline() != self.over_at {
            sleep.as_mut().reset(self.over_at);
        }
        sleep.await;
    }
}

/// Waits until a peer has taken too little of what waits for it, for `limit` at least. Cancel-safe.
pub(super) async fn takes_too_little<S>(lane: &Lane<S>, limit: Duration)
where
    S: mcp_proto::lane::Sink,
{
    let mut before = lane.until_blocked().await;
    loop {
        sleep(limit).await;
        before = match lane.blocked() {
            Some(it) if it.time != before.time => it,
            Some(it) if it.taken_bytes - before.taken_bytes >= LEAST_BYTES => it,
            Some(_) => return,
            None => lane.until_blocked().await,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use mcp_proto::Message;
    use mcp_proto::lane::Sink;
    use tokio::time::timeout;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_frame_that_comes_too_slowly_has_no_time_left() {
        let clock = Clock::start();
        let mut time = FrameTime::new(&clock, LIMIT);
        for _ in 0..20 {
            // Enough, or the end of one.
            assert!(timeout(LIMIT / 2, time.over()).await.is_err());
            time.came(&clock, LEAST_BYTES as usize, false);
            assert!(timeout(LIMIT / 2, time.over()).await.is_err());
            time.came(&clock, 1, true);
        }
        assert!(timeout(LIMIT / 2, time.over()).await.is_err());
        time.came(&clock, LEAST_BYTES as usize - 1, false);
        assert!(timeout(LIMIT, time.over()).await.is_ok());
    }

    /// Takes as many bytes as it is told.
    struct Taker(Arc<AtomicUsize>);

    impl Sink for Taker {
        fn poll_write(
            &mut self,
            _: &mut Context<'_>,
            chunks: &mut [Bytes],
        ) -> Poll<io::Result<usize>> {
            let bytes = self.0.load(Ordering::SeqCst).min(chunks[0].len());
            if bytes == 0 {
                return Poll::Pending;
            }
            self.0.fetch_sub(bytes, Ordering::SeqCst);
            drop(chunks[0].split_to(bytes));
            Poll::Ready(Ok(bytes))
        }

        fn finish(&mut self) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_too_little_is_noticed() {
        let takes = Arc::new(AtomicUsize::new(0));
        let lane = Lane::new(Taker(takes.clone()));
        let mut noticed = Box::pin(takes_too_little(&lane, LIMIT));
        // Nothing waits.
        assert!(timeout(10 * LIMIT, &mut noticed).await.is_err());
        lane.push(&Message::Pong(1), &Bytes::from(vec![0; 10 * LEAST_BYTES as usize]));
        for _ in 0..5 {
            lane.flush();
            assert!(timeout(LIMIT / 2, &mut noticed).await.is_err());
            takes.store(LEAST_BYTES as usize, Ordering::SeqCst);
            lane.flush();
            assert!(timeout(LIMIT / 2, &mut noticed).await.is_err());
        }
        takes.store(LEAST_BYTES as usize - 1, Ordering::SeqCst);
        lane.flush();
        assert!(timeout(2 * LIMIT, &mut noticed).await.is_ok());
    }
}
