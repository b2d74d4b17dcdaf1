//! A lane: the one stream of a connection, on which all frames are multiplexed and coalesced.
//!
//! Frames are *pushed* into a buffer, at any time and in the order that they shall have on the
//! wire, and *flushed* from it to the stream. Whoever flushes does so itself, without a hop to
//! another task ([`Lane::flush`]); only when the stream is blocked by flow control does the
//! lane's writer task ([`Lane::drive`]) take over.
//!
//! Two locks, always in this order, sink before buffer, and each held briefly: a push takes only
//! the buffer's, so it never waits for the network. A flush that finds the sink in use returns: the
//! one who holds it looks at the buffer again after it let go, so nothing is left behind.

use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, Wake, Waker};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use crate::codec::FrameCodec;
use crate::message::Message;

/// Bodies below this are copied behind their headers: many small chunks are slow in quinn.
const COALESCE_BELOW_BYTES: usize = 8 * 1024;

/// A buffer of small frames grows by this.
const BUFFER_BYTES: usize = 16 * 1024;

/// Where a lane's bytes go.
pub trait Sink: Send + 'static {
    /// Writes from the front of `chunks`, advancing what it wrote, and returns how many bytes that
    /// were. When it is blocked, it wakes `cx` once it is not.
    fn poll_write(&mut self, cx: &mut Context<'_>, chunks: &mut [Bytes])
    -> Poll<io::Result<usize>>;

    /// No more will be written.
    fn finish(&mut self);
}

impl Sink for quinn::SendStream {
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut [Bytes],
    ) -> Poll<io::Result<usize>> {
        // Cancel-safe: a pending write has written nothing.
        pin!(self.write_chunks(chunks))
            .poll(cx)
            .map(|result| result.map(|written| written.bytes).map_err(io::Error::from))
    }

    fn finish(&mut self) {
        // Fails only when the stream is closed already.
        let _ = quinn::SendStream::finish(self);
    }
}

/// What a flush came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Everything is written, or someone else is writing it.
    Done,
    /// The stream is blocked; the writer task goes on when it is not.
    Blocked,
    /// The stream is closed; what is left will not be written.
    Closed,
}

/// The sending half of a connection's lane.
pub struct Lane<S> {
    buffer: Mutex<Buffer>,
    sink: Mutex<Writing<S>>,
    /// Bytes pushed and not yet written.
    queued_bytes: AtomicUsize,
    is_closed: AtomicBool,
    is_finishing: AtomicBool,
    /// Whether anyone waits for `progress`.
    is_awaited: AtomicBool,
    /// Bytes were written, or the stream was closed.
    progress: Notify,
    writer: Arc<WriterSignal>,
    waker: Waker,
}

#[derive(Default)]
struct Buffer {
    chunks: VecDeque<Bytes>,
    /// Small frames, coalesced; behind all `chunks`.
    tail: BytesMut,
}

struct Writing<S> {
    sink: S,
    /// Taken from the buffer and not yet written.
    batch: VecDeque<Bytes>,
}

struct WriterSignal(Notify);

impl Wake for WriterSignal {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

impl<S: Sink> Lane<S> {
    /// A lane that writes to `sink`.
    pub fn new(sink: S) -> Self {
        let writer = Arc::new(WriterSignal(Notify::new()));
        Self {
            buffer: Mutex::default(),
            sink: Mutex::new(Writing { sink, batch: VecDeque::new() }),
            queued_bytes: AtomicUsize::new(0),
            is_closed: AtomicBool::new(false),
            is_finishing: AtomicBool::new(false),
            is_awaited: AtomicBool::new(false),
            progress: Notify::new(),
            waker: writer.clone().into(),
            writer,
        }
    }

    /// Appends a frame. It is written by the next flush.
    pub fn push(&self, message: &Message, body: &Bytes) {
        if self.is_closed() {
            return;
        }
        let mut buffer = lock(&self.buffer);
        if buffer.tail.capacity() - buffer.tail.len() < 512 {
            buffer.tail.reserve(BUFFER_BYTES);
        }
        let before = buffer.tail.len();
        FrameCodec::encode_head(message, body.len(), &mut buffer.tail);
        let mut bytes = buffer.tail.len() - before;
        if body.len() < COALESCE_BELOW_BYTES {
            buffer.tail.extend_from_slice(body);
        } else {
            buffer.seal();
            buffer.chunks.push_back(body.clone());
        }
        bytes += body.len();
        self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Writes what was pushed, as far as the stream takes it.
    pub fn flush(&self) -> Flush {
        loop {
            let mut writing = match self.sink.try_lock() {
                Ok(writing) => writing,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return Flush::Done,
            };
            match self.write(&mut writing) {
                Poll::Pending => return Flush::Blocked,
                Poll::Ready(Err(_)) => {
                    self.close();
                    return Flush::Closed;
                }
                Poll::Ready(Ok(())) => {}
            }
            drop(writing);
            if lock(&self.buffer).is_empty() {
                if self.is_finishing.load(Ordering::Acquire) {
                    // The writer task may have found the sink in use, by this flush.
                    self.writer.0.notify_one();
                }
                return Flush::Done;
            }
        }
    }

    /// Lets the writer task flush. Frames pushed until it runs go out together.
    pub fn flush_soon(&self) {
        self.writer.0.notify_one();
    }

    /// The writer task: flushes when woken, until the stream is closed or [`Lane::finish`] was
    /// called and everything is written.
    pub async fn drive(&self) {
        loop {
            let flushed = self.flush();
            if flushed == Flush::Closed || self.is_closed() {
                return;
            }
            if self.is_finishing.load(Ordering::Acquire) && self.queued_bytes() == 0 {
                lock(&self.sink).sink.finish();
                return;
            }
            self.writer.0.notified().await;
        }
    }

    /// Ends the stream once everything is written.
    pub fn finish(&self) {
        self.is_finishing.store(true, Ordering::Release);
        self.writer.0.notify_one();
    }

    /// The connection is gone: nothing more is written, and [`Lane::drive`] returns.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.writer.0.notify_one();
        self.progress.notify_waiters();
    }

    /// Waits until at most `bytes` are queued, or the stream is closed. Cancel-safe.
    pub async fn drained(&self, bytes: usize) {
        loop {
            let mut progress = pin!(self.progress.notified());
            progress.as_mut().enable();
            // Announced before the check, and the writer checks it after it counted: one of the
            // two sees the other.
            self.is_awaited.store(true, Ordering::SeqCst);
            if self.queued_bytes.load(Ordering::SeqCst) <= bytes || self.is_closed() {
                return;
            }
            progress.await;
        }
    }

    /// Whether the stream is closed.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Bytes pushed and not yet written.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes.load(Ordering::Relaxed)
    }

    fn write(&self, writing: &mut Writing<S>) -> Poll<io::Result<()>> {
        let mut cx = Context::from_waker(&self.waker);
        loop {
            lock(&self.buffer).take(&mut writing.batch);
            if writing.batch.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let Writing { sink, batch } = writing;
            let written = match sink.poll_write(&mut cx, batch.make_contiguous()) {
                Poll::Ready(result) => result?,
                Poll::Pending => return Poll::Pending,
            };
            self.queued_bytes.fetch_sub(written, Ordering::SeqCst);
            if self.is_awaited.load(Ordering::SeqCst)
                && self.is_awaited.swap(false, Ordering::SeqCst)
            {
                self.progress.notify_waiters();
            }
            while batch.front().is_some_and(Bytes::is_empty) {
                batch.pop_front();
            }
        }
    }
}

impl Buffer {
    fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.tail.is_empty()
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            let tail = self.tail.split().freeze();
            self.chunks.push_back(tail);
        }
    }

    fn take(&mut self, batch: &mut VecDeque<Bytes>) {
        self.seal();
        batch.append(&mut self.chunks);
    }
}

/// A lock whose holder panicked is still usable: every critical section here leaves its data whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;
    use crate::codec::{Frame, Incoming};
    use crate::limits::Limits;

    /// Takes a few bytes at a time and is blocked every other time.
    struct SlowSink {
        written: mpsc::Sender<Bytes>,
        blocks: bool,
    }

    impl Sink for SlowSink {
        fn poll_write(
            &mut self,
            cx: &mut Context<'_>,
            chunks: &mut [Bytes],
        ) -> Poll<io::Result<usize>> {
            self.blocks = !self.blocks;
            if self.blocks {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let take = chunks[0].len().min(100);
            self.written.send(chunks[0].split_to(take)).unwrap();
            Poll::Ready(Ok(take))
        }

        fn finish(&mut self) {}
    }

    /// Many threads push under one outer lock, as connections do under the core's, and flush after
    /// they let go of it: what arrives has the outer lock's order.
    #[test]
    fn frames_keep_the_order_in_which_they_were_pushed() {
        const THREADS: usize = 4;
        const FRAMES: u64 = 5_000;
        let (written, wire) = mpsc::channel();
        let lane = Arc::new(Lane::new(SlowSink { written, blocks: false }));
        let counter = Arc::new(Mutex::new(0u64));
        let pushers: Vec<_> = (0..THREADS)
            .map(|_| {
                let (lane, counter) = (lane.clone(), counter.clone());
                thread::spawn(move || {
                    for _ in 0..FRAMES {
                        let mut next = counter.lock().unwrap();
                        let body = if *next % 97 == 0 { 9_000 } else { 3 };
                        lane.push(&Message::Pong(*next), &Bytes::from(vec![1; body]));
                        *next += 1;
                        drop(next);
                        lane.flush();
                    }
                })
            })
            .collect();
        pushers.into_iter().for_each(|pusher| pusher.join().unwrap());
        while lane.flush() != Flush::Done || lane.queued_bytes() > 0 {}
        drop(lane);

        let mut codec = FrameCodec::new(&Limits::default());
        let mut buffer = BytesMut::new();
        let mut expected = 0;
        for chunk in wire {
            buffer.extend_from_slice(&chunk);
            while let Some(incoming) = codec.decode(&mut buffer).unwrap() {
                match incoming {
                    Incoming::Frame(Frame { message: Message::Pong(seq), .. }) => {
                        assert_eq!(seq, expected);
                        expected += 1;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(expected, THREADS as u64 * FRAMES);
    }

    /// Takes nothing until it is opened.
    struct Gate(Arc<AtomicBool>);

    impl Sink for Gate {
        fn poll_write(
            &mut self,
            _cx: &mut Context<'_>,
            chunks: &mut [Bytes],
        ) -> Poll<io::Result<usize>> {
            if !self.0.load(Ordering::SeqCst) {
                return Poll::Pending;
            }
            let bytes = chunks[0].len();
            chunks[0].clear();
            Poll::Ready(Ok(bytes))
        }

        fn finish(&mut self) {}
    }

    #[test]
    fn who_waits_for_room_is_woken_by_a_write_or_the_end() {
        let is_open = Arc::new(AtomicBool::new(false));
        let lane = Lane::new(Gate(is_open.clone()));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(pin!(lane.drained(0)).poll(&mut cx).is_ready());

        lane.push(&Message::Pong(1), &Bytes::new());
        assert_eq!(lane.flush(), Flush::Blocked);
        let mut drained = pin!(lane.drained(0));
        assert!(drained.as_mut().poll(&mut cx).is_pending());
        is_open.store(true, Ordering::SeqCst);
        assert_eq!(lane.flush(), Flush::Done);
        assert!(drained.poll(&mut cx).is_ready());

        is_open.store(false, Ordering::SeqCst);
        lane.push(&Message::Pong(2), &Bytes::new());
        let mut drained = pin!(lane.drained(0));
        assert!(drained.as_mut().poll(&mut cx).is_pending());
        lane.close();
        assert!(drained.poll(&mut cx).is_ready());
    }

    #[test]
    fn a_lane_that_another_flush_emptied_still_ends() {
        let is_open = Arc::new(AtomicBool::new(false));
        let lane = Lane::new(Gate(is_open.clone()));
        let mut cx = Context::from_waker(Waker::noop());
        lane.push(&Message::Pong(1), &Bytes::new());
        let mut drive = pin!(lane.drive());
        assert!(drive.as_mut().poll(&mut cx).is_pending());
        lane.finish();
        assert!(drive.as_mut().poll(&mut cx).is_pending());
        is_open.store(true, Ordering::SeqCst);
        lane.flush();
        assert!(drive.poll(&mut cx).is_ready());
    }
}
