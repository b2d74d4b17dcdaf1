//! What an attempt's handler and its worker say to each other while it runs.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::{Bytes, BytesMut};
use mcp_proto::{AttemptId, InputLength};
use tokio::sync::Notify;

use super::attempts::{Emitted, Sign};
use super::inlet::{Inlet, Told};
use super::serve::Registration;
use crate::record::Processing;

/// Between a handler and its worker. One is made for every attempt.
#[derive(Debug, Clone)]
pub(crate) struct Line(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    registration: Weak<Registration>,
    id: AttemptId,
    /// Whether the client takes the result in parts.
    is_streamed: bool,
    /// Set when more of the input follows.
    inlet: Option<Box<Inlet>>,
    is_over: AtomicBool,
    /// The attempt is over, or its credit has changed. A `CancellationToken`, which can have children,
    /// costs several times as much.
    changed: Notify,
    /// Parts of the result, for a client that takes none.
    collected: Mutex<BytesMut>,
    /// Set when it is recorded.
    processing: Option<Box<Processing>>,
}

impl Line {
    pub(super) fn new(
        registration: &Arc<Registration>,
        id: AttemptId,
        is_streamed: bool,
        input_follows: Option<InputLength>,
        processing: Option<Box<Processing>>,
    ) -> Self {
        Self::of(Arc::downgrade(registration), id, is_streamed, input_follows, processing)
    }

    /// One that leads nowhere.
    #[cfg(test)]
    pub(crate) fn dead() -> Self {
        Self::of(Weak::new(), AttemptId(0), false, None, None)
    }

    /// The same, of an attempt with more input.
    #[cfg(test)]
    pub(crate) fn dead_with_input(length: InputLength) -> Self {
        Self::of(Weak::new(), AttemptId(0), false, Some(length), None)
    }

    /// More input comes in.
    #[cfg(test)]
    #[allow(dead_code, clippy::unwrap_used, reason = "for tests of backends, each a feature")]
    pub(crate) fn chunk(&self, seq: u32, is_last: bool, body: impl Into<Bytes>) {
        self.inlet().unwrap().chunk(seq, is_last, body.into());
    }

    fn of(
        registration: Weak<Registration>,
        id: AttemptId,
        is_streamed: bool,
        input_follows: Option<InputLength>,
        processing: Option<Box<Processing>>,
    ) -> Self {
        Self(Arc::new(Shared {
            registration,
            id,
            is_streamed,
            inlet: input_follows.map(|length| Box::new(Inlet::new(length))),
            is_over: AtomicBool::new(false),
            changed: Notify::new(),
            collected: Mutex::default(),
            processing,
        }))
    }

    pub(super) fn is_streamed(&self) -> bool {
        self.0.is_streamed
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.is_over.load(Ordering::Acquire)
    }

    /// The attempt is over.
    pub(super) fn end(&self) {
        self.0.is_over.store(true, Ordering::Release);
        self.0.changed.notify_waiters();
        if let Some(inlet) = self.inlet() {
            inlet.end();
        }
    }

    /// Where more of the input comes in, if more follows.
    pub(super) fn inlet(&self) -> Option<&Inlet> {
        self.0.inlet.as_deref()
    }

    /// What is recorded of it, if anything is.
    pub(super) fn processing(&self) -> Option<&Processing> {
        self.0.processing.as_deref()
    }

    /// Says what was read of the input.
    pub(super) fn credit_input(&self, told: Told) {
        if let Some(registration) = self.0.registration.upgrade() {
            registration.credit_input(self.0.id, told);
        }
    }

    /// There is more credit, or none will come: whoever waits for it looks again.
    pub(super) fn wake(&self) {
        self.0.changed.notify_waiters();
    }

    /// Waits until the attempt is over. Cancel-safe.
    pub(super) async fn ended(&self) {
        loop {
            let mut changed = pin!(self.0.changed.notified());
            // Listens before it looks, so that nothing is missed in between.
            changed.as_mut().enable();
            if self.is_over() {
                return;
            }
            changed.await;
        }
    }

    /// The handler waits: its slot is free until what is returned has ended.
    pub(super) fn park(&self) -> Parked<'_> {
        if let Some(registration) = self.0.registration.upgrade() {
            registration.park(self.0.id);
        }
        Parked { line: self, is_over: false }
    }

    pub(super) fn sign(&self, sign: Sign) {
        if let Some(registration) = self.0.registration.upgrade() {
            registration.sign(self.0.id, sign);
        }
    }

    /// Sends a part of the result, as there is credit for it; false when the attempt is over.
    pub(super) async fn send(&self, mut part: Bytes) -> bool {
        while !part.is_empty() {
            let mut changed = pin!(self.0.changed.notified());
            // Listens before it tries, so that no credit is missed in between.
            changed.as_mut().enable();
            let Some(registration) = self.0.registration.upgrade() else { return false };
            match registration.emit(self.0.id, &mut part) {
                Emitted::Some => {}
                Emitted::NoCredit => {
                    drop(registration);
                    changed.await;
                }
                Emitted::Over => return false,
            }
        }
        true
    }

    /// What was given out for a client that takes no parts.
    pub(super) fn collected(&self) -> MutexGuard<'_, BytesMut> {
        self.0.collected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the slot back when dropped.
pub(super) struct Parked<'a> {
    line: &'a Line,
    is_over: bool,
}

impl Parked<'_> {
    /// Waits for a slot.
    pub(super) async fn end(mut self) {
        // Whoever waits does not keep a registration that has ended.
        let unpark = || self.line.0.registration.upgrade()?.unpark(self.line.0.id);
        while let Some(turn) = unpark() {
            turn.cancelled().await;
        }
        self.is_over = true;
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        if !self.is_over
            && let Some(registration) = self.line.0.registration.upgrade()
        {
            registration.reclaim(self.line.0.id);
        }
    }
}

/// Tells when an attempt is cancelled or its time to live has run out. A handler's own end is neither.
#[derive(Debug, Clone)]
pub struct Cancellation(Line);

impl Cancellation {
    pub(super) fn of(line: Line) -> Self {
        Self(line)
    }

    /// Whether that is so.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_over()
    }

    /// Waits until that is so. Cancel-safe.
    pub async fn wait(&self) {
        self.0.ended().await;
    }
}
