//! What a broker keeps of tasks and outcomes: bytes that are ready to be sent, apart from the packets
//! that they came in.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::codec::FrameCodec;
use crate::error::InvalidMessage;
use crate::id::ActionRef;
use crate::message::{self, Deliver, EncodedTask, RouteHead, TaskHead};

/// What an arena of frames grows by, and when.
const ARENA_BYTES: usize = 32 * 1024;
const MIN_ARENA_BYTES: usize = 1024;

/// Bodies below this are copied behind their headers: many small chunks are slow in quinn.
pub(crate) const COALESCE_BELOW_BYTES: usize = 8 * 1024;

/// A frame in its wire form: encoded once, for whoever gets it, now or later. Like a [`Payload`],
/// held apart from the packets that its body came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedFrame {
    /// With a small body behind it. A part of an arena.
    pub(crate) head: Bytes,
    /// A larger body.
    pub(crate) body: Bytes,
}

impl EncodedFrame {
    /// A DELIVER. It becomes a part of `arena`, which is to be used for many: a block of some 32 KiB
    /// is allocated at a time, and freed with the last frame in it. Frames that are kept in order
    /// cost no allocation each, and are freed without being touched.
    pub fn deliver(deliver: &Deliver, body: Bytes, arena: &mut BytesMut) -> Self {
        debug_assert!(arena.is_empty());
        if arena.capacity() < MIN_ARENA_BYTES {
            arena.reserve(ARENA_BYTES);
        }
        FrameCodec::encode_with(body.len(), arena, |to| deliver.encode_header(to));
        if body.len() < COALESCE_BELOW_BYTES {
            arena.extend_from_slice(&body);
            return Self { head: arena.split().freeze(), body: Bytes::new() };
        }
        Self { head: arena.split().freeze(), body }
    }

    /// The same in an allocation of its own, for one that will be kept out of order.
    pub fn detached(&self) -> Self {
        Self { head: Bytes::copy_from_slice(&self.head), body: self.body.clone() }
    }

    /// All of it.
    pub fn to_bytes(&self) -> BytesMut {
        let mut bytes = BytesMut::with_capacity(self.len());
        bytes.extend_from_slice(&self.head);
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Its bytes.
    #[allow(clippy::len_without_is_empty, reason = "no frame is empty")]
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

/// A task and its body in their wire form, held apart from the packets that they came in, which would
/// otherwise stay allocated as long as they do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// The task, with a small body behind it.
    bytes: Arc<[u8]>,
    task_bytes: usize,
    /// A larger body.
    large_body: Bytes,
}

impl Payload {
    /// Copies the task, and a small body. A larger one is taken as it is: a codec made
    /// [`with_bodies_apart`](FrameCodec::with_bodies_apart) gave it an allocation of its own. `scratch`
    /// is cleared and used; it saves an allocation when it is used again.
    pub fn new(task: &EncodedTask, body: Bytes, scratch: &mut BytesMut) -> Self {
        scratch.clear();
        scratch.extend_from_slice(&task.0);
        let task_bytes = task.0.len();
        let large_body = if body.len() < COALESCE_BELOW_BYTES {
            scratch.extend_from_slice(&body);
            Bytes::new()
        } else {
            body
        };
        Self { bytes: scratch[..].into(), task_bytes, large_body }
    }

    /// The same task and body for another action; none when the task would be too long. `scratch` as
    /// above.
    pub fn with_action(&self, action: ActionRef<'_>, scratch: &mut BytesMut) -> Option<Self> {
        scratch.clear();
        if !message::write_with_action(self.task(), action, scratch) {
            return None;
        }
        let task_bytes = scratch.len();
        scratch.extend_from_slice(&self.bytes[self.task_bytes..]);
        let large_body = self.large_body.clone();
        Some(Self { bytes: scratch[..].into(), task_bytes, large_body })
    }

    /// See [`EncodedTask::head`].
    ///
    /// # Errors
    /// As there.
    pub fn head(&self) -> Result<TaskHead<'_>, InvalidMessage> {
        message::head(self.task())
    }

    /// The task.
    pub fn task(&self) -> &[u8] {
        &self.bytes[..self.task_bytes]
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        if self.large_body.is_empty() { &self.bytes[self.task_bytes..] } else { &self.large_body }
    }

    /// Bytes of both.
    #[allow(clippy::len_without_is_empty, reason = "no task is empty")]
    pub fn len(&self) -> usize {
        self.bytes.len() + self.large_body.len()
    }

    /// Appends a ROUTE and a small body, and gives the larger one that is to follow.
    pub fn encode_route(&self, route: &RouteHead, to: &mut BytesMut) -> &Bytes {
        FrameCodec::encode_with(self.body().len(), to, |to| route.encode_header(self.task(), to));
        if self.large_body.is_empty() {
            to.extend_from_slice(self.body());
        }
        &self.large_body
    }
}
