//! The frames of a lane, in batches.

use bytes::Bytes;
use mcp_proto::{DecodeError, Frame, FrameCodec, Hello, Incoming, Limits, Message};

/// What one hold of the core handles at most; then what it caused is flushed, and the timer and other
/// readers get their turn.
///
/// The first hold of a read is small, so that workers begin with its tasks while the rest is handled.
/// If all of a burst went on at once, it would go round as one, and of client, broker and worker only
/// one would ever be at work: with 64 tasks in flight, this is half as much throughput again (16
/// frames give no more, and cost each of the three 10 % more CPU). Each further hold has twice as
/// many, for fewer and larger packets.
const FIRST_HOLD_FRAMES: usize = 32;
const MOST_HOLD_FRAMES: usize = 128;
/// How many bytes go with each of these frames.
const HOLD_FRAME_BYTES: usize = 1024;

/// Room for frames that a connection keeps between bursts.
const IDLE_FRAMES: usize = 32;

/// Makes batches of frames.
pub(super) struct Frames {
    codec: FrameCodec,
    pub(super) batch: Vec<Incoming>,
    /// What the next hold handles at most.
    hold_frames: usize,
    /// HELLO came.
    pub(super) is_greeted: bool,
    /// It was a worker's.
    pub(super) from_worker: bool,
}

impl Frames {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            codec: FrameCodec::new(limits).with_bodies_apart(),
            batch: Vec::new(),
            hold_frames: FIRST_HOLD_FRAMES,
            is_greeted: false,
            from_worker: false,
        }
    }

    /// Fills the batch with what one hold of the core handles, and says whether more is waiting.
    pub(super) fn decode(&mut self, chunks: &mut &mut [Bytes]) -> Result<bool, DecodeError> {
        let mut bytes = 0;
        while let Some(chunk) = chunks.first_mut() {
            let before = chunk.len();
            let Some(incoming) = self.codec.decode(chunk)? else {
                // It is empty, but may be a part of a large allocation.
                *chunk = Bytes::new();
                *chunks = &mut std::mem::take(chunks)[1..];
                continue;
            };
            if let Incoming::Frame(frame) = &incoming
                && let Message::Hello(hello) = &frame.message
            {
                self.is_greeted = true;
                self.from_worker = hello.worker.is_some();
            }
            self.batch.push(incoming);
            bytes += before - chunk.len();
            if self.batch.len() >= self.hold_frames || bytes >= self.hold_frames * HOLD_FRAME_BYTES
            {
                self.hold_frames = (2 * self.hold_frames).min(MOST_HOLD_FRAMES);
                return Ok(true);
            }
        }
        self.hold_frames = FIRST_HOLD_FRAMES;
        Ok(false)
    }

    /// HELLO, if the batch begins with it.
    pub(super) fn greeting(&self) -> Option<&Hello> {
        match self.batch.first() {
            Some(Incoming::Frame(Frame { message: Message::Hello(hello), .. })) => Some(hello),
            _ => None,
        }
    }

    /// Whether a frame has begun whose end has not come.
    pub(super) fn is_within_one(&self) -> bool {
        self.codec.is_within_frame()
    }

    /// Gives back memory between bursts: most connections are idle most of the time.
    pub(super) fn release(&mut self) {
        self.batch.shrink_to(IDLE_FRAMES);
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    /// How many frames go in each hold of one read.
    fn holds(frames: &mut Frames, count: usize, body_bytes: usize) -> Vec<usize> {
        let mut bytes = BytesMut::new();
        for seq in 0..count {
            let body = vec![0; body_bytes].into();
            let message = Message::Pong(seq as u64);
            FrameCodec::encode(&Frame { message, body }, &mut bytes);
        }
        let mut chunks = [bytes.freeze()];
        let mut chunks = &mut chunks[..];
        let mut holds = Vec::new();
        loop {
            let is_more = frames.decode(&mut chunks).unwrap();
            holds.push(std::mem::take(&mut frames.batch).len());
            if !is_more {
                return holds;
            }
        }
    }

    #[test]
    fn a_burst_begins_with_a_small_hold_and_goes_on_with_larger_ones() {
        let mut frames = Frames::new(&Limits::default());
        assert_eq!(holds(&mut frames, 3, 0), [3]);
        for _ in 0..2 {
            assert_eq!(holds(&mut frames, 500, 0), [32, 64, 128, 128, 128, 20]);
        }
        // By their bytes: 32, 64 and 128 KiB.
        assert_eq!(holds(&mut frames, 40, 10_000), [4, 7, 14, 14, 1]);
    }
}
