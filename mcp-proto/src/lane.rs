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
//!
//! What a peer that does not read makes wait is counted ([`Lane::counted_in`]), and how far it comes is
//! told ([`Lane::blocked`]). Both cost a lane that is not blocked nothing.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::ops::RangeInclusive;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, Wake, Waker};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use crate::codec::FrameCodec;
use crate::encoded::{COALESCE_BELOW_BYTES, EncodedFrame, Payload};
use crate::message::{Message, RouteHead};

/// A buffer for small frames has eight times the bytes of the one before, within these: a busy lane
/// rarely allocates, and an idle one keeps little. Many small ones are slow in quinn.
const BUFFER_BYTES: RangeInclusive<usize> = 1024..=32 * 1024;

/// The head of most frames is smaller.
const HEAD_BYTES: usize = 512;

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

/// How far a lane has come since it is blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocked {
    /// Another one each time that it is blocked after it was not.
    pub time: u64,
    /// Bytes that the stream has taken since the lane began.
    pub taken_bytes: u64,
}

/// The sending half of a connection's lane.
pub struct Lane<S> {
    buffer: Mutex<Buffer>,
    sink: Mutex<Writing<S>>,
    /// Grows when the lane is blocked, and again when it is not any more: odd while it is.
    blocks: AtomicU64,
    /// Known while it is blocked.
    taken_bytes: AtomicU64,
    /// It was blocked.
    was_blocked: Notify,
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
    /// What was sealed last.
    last_bytes: usize,
}

struct Writing<S> {
    sink: S,
    /// Taken from the buffer and not yet written.
    batch: VecDeque<Bytes>,
    taken_bytes: u64,
    waiting: Waiting,
}

/// What waits in a blocked lane, counted among what waits in others.
#[derive(Default)]
struct Waiting {
    bytes: usize,
    of_all: Arc<AtomicUsize>,
}

impl Waiting {
    fn set(&mut self, bytes: usize) {
        // Wraps when it is less than before, and back.
        self.of_all.fetch_add(bytes.wrapping_sub(self.bytes), Ordering::Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.set(0);
    }
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
            sink: Mutex::new(Writing {
                sink,
                batch: VecDeque::new(),
                taken_bytes: 0,
                waiting: Waiting::default(),
            }),
            blocks: AtomicU64::new(0),
            taken_bytes: AtomicU64::new(0),
            was_blocked: Notify::new(),
            queued_bytes: AtomicUsize::new(0),
            is_closed: AtomicBool::new(false),
            is_finishing: AtomicBool::new(false),
            is_awaited: AtomicBool::new(false),
            progress: Notify::new(),
            waker: writer.clone().into(),
            writer,
        }
    }

    /// Has the bytes that wait while it is blocked counted in `of_all`, too, which lanes can share.
    pub fn counted_in(self, of_all: Arc<AtomicUsize>) -> Self {
        lock(&self.sink).waiting.of_all = of_all;
        self
    }

    /// Appends a frame. It is written by the next flush.
    pub fn push(&self, message: &Message, body: &Bytes) {
        self.append(coalesced_bytes(body), |to| {
            FrameCodec::encode_head(message, body.len(), to);
            if body.len() < COALESCE_BELOW_BYTES {
                to.extend_from_slice(body);
                return Bytes::new();
            }
            body.clone()
        });
    }

    /// Appends a frame that is encoded already.
    pub fn push_encoded(&self, frame: &EncodedFrame) {
        self.append(frame.head.len(), |to| {
            to.extend_from_slice(&frame.head);
            frame.body.clone()
        });
    }

    /// Appends a ROUTE.
    pub fn push_route(&self, route: &RouteHead, payload: &Payload) {
        self.append(coalesced_bytes(payload.body()), |to| payload.encode_route(route, to).clone());
    }

    /// Appends what `write` writes, some `small_bytes` beside a head, and then the larger body that it
    /// returns.
    fn append(&self, small_bytes: usize, write: impl FnOnce(&mut BytesMut) -> Bytes) {
        if self.is_closed() {
            return;
        }
        let mut buffer = lock(&self.buffer);
        buffer.make_room(HEAD_BYTES + small_bytes);
        let before = buffer.tail.len();
        let large = write(&mut buffer.tail);
        let bytes = buffer.tail.len() - before + large.len();
        if !large.is_empty() {
            buffer.seal();
            buffer.chunks.push_back(large);
        }
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
                Poll::Pending => {
                    self.is_blocked(&mut writing);
                    return Flush::Blocked;
                }
                Poll::Ready(Err(_)) => {
                    self.close();
                    return Flush::Closed;
                }
                Poll::Ready(Ok(())) => self.is_not_blocked(&mut writing),
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

    /// How far it has come, while it is blocked.
    pub fn blocked(&self) -> Option<Blocked> {
        let time = self.blocks.load(Ordering::Acquire);
        let taken_bytes = self.taken_bytes.load(Ordering::Relaxed);
        (time % 2 == 1).then_some(Blocked { time, taken_bytes })
    }

    /// Waits until it is blocked. For one waiter. Cancel-safe.
    pub async fn until_blocked(&self) -> Blocked {
        loop {
            if let Some(blocked) = self.blocked() {
                return blocked;
            }
            self.was_blocked.notified().await;
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
            let Writing { sink, batch, taken_bytes, .. } = writing;
            let written = match sink.poll_write(&mut cx, batch.make_contiguous()) {
                Poll::Ready(result) => result?,
                Poll::Pending => return Poll::Pending,
            };
            *taken_bytes += written as u64;
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

impl<S> Lane<S> {
    fn is_blocked(&self, writing: &mut Writing<S>) {
        let was_blocked = writing.waiting.bytes > 0;
        writing.waiting.set(self.queued_bytes.load(Ordering::Relaxed));
        self.taken_bytes.store(writing.taken_bytes, Ordering::Relaxed);
        if !was_blocked {
            self.blocks.fetch_add(1, Ordering::Release);
            self.was_blocked.notify_one();
        }
    }

    fn is_not_blocked(&self, writing: &mut Writing<S>) {
        if writing.waiting.bytes > 0 {
            writing.waiting.set(0);
            self.blocks.fetch_add(1, Ordering::Release);
        }
    }
}

impl Buffer {
    fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.tail.is_empty()
    }

    /// Begins another tail where this one has too little room: to let it grow would be to copy it.
    fn make_room(&mut self, bytes: usize) {
        if self.tail.capacity() - self.tail.len() < bytes {
            self.seal();
            let usual = (8 * self.last_bytes).clamp(*BUFFER_BYTES.start(), *BUFFER_BYTES.end());
            self.tail.reserve(usual.max(bytes));
        }
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            let tail = self.tail.split().freeze();
            self.last_bytes = tail.len();
            self.chunks.push_back(tail);
        }
    }

    fn take(&mut self, batch: &mut VecDeque<Bytes>) {
        self.seal();
        batch.append(&mut self.chunks);
    }
}

/// How much of a body goes behind its frame's head.
fn coalesced_bytes(body: &[u8]) -> usize {
    if body.len() < COALESCE_BELOW_BYTES { body.len() } else { 0 }
}

/// A lock whose holder panicked is still usable: every critical section here leaves its data whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
