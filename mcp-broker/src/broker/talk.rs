//! Frames that do nothing for a task: PING, PONG and ERROR, and what is wrong and answered with an
//! error. Each costs little, but who sends nothing else, and as fast as it can, takes turns from those
//! who work. So a peer that goes on is read more slowly, and closed in the end.

use mcp_proto::{ErrorCode, Incoming, MessageKind};

use super::{ConnectionId, Core, Mono, Now};

/// So many may come at once, and then in a second; what is done for tasks counts against them, so a
/// worker may have each of its RESULTs confirmed by a PING.
const FRAMES: u32 = 1_000;
const FRAMES_PER_S: u64 = 100;
const US_PER_FRAME: u64 = 1_000_000 / FRAMES_PER_S;

/// What a frame counts that is answered with an error, which is more work than a PONG.
const WRONG: u32 = 2;

/// A peer that goes on for so long is closed.
const PATIENCE_US: u64 = 30 * 1_000_000;

/// What a peer has sent of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Talk {
    frames: u32,
    /// Until when those that time allows are taken off.
    at: Mono,
    /// Since when they are too many.
    too_many_since: Option<Mono>,
}

/// What is done about it.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Pause { ms: u64 },
    Close,
}

impl Talk {
    pub(super) fn new(now: Mono) -> Self {
        Self { frames: 0, at: now, too_many_since: None }
    }

    /// Counts a frame, as far as nothing is wrong with it, and returns whether there are too many.
    #[inline]
    pub(super) fn note(&mut self, incoming: &Incoming) -> bool {
        let Incoming::Frame(frame) = incoming else { return false };
        match frame.message.kind() {
            MessageKind::Ping | MessageKind::Pong | MessageKind::Error => self.add(1),
            _ => {
                self.done_for_a_task();
                false
            }
        }
    }

    fn add(&mut self, frames: u32) -> bool {
        self.frames += frames;
        self.frames > FRAMES
    }

    fn done_for_a_task(&mut self) {
        self.frames = self.frames.saturating_sub(1);
    }

    fn judge(&mut self, now: Mono) -> Verdict {
        let allowed = now.since(self.at) / US_PER_FRAME;
        self.at = self.at + allowed * US_PER_FRAME;
        self.frames = self.frames.saturating_sub(u32::try_from(allowed).unwrap_or(u32::MAX));
        let too_many = self.frames.saturating_sub(FRAMES);
        if too_many == 0 {
            self.too_many_since = None;
            return Verdict::Pause { ms: 0 };
        }
        let since = *self.too_many_since.get_or_insert(now);
        if now.since(since) >= PATIENCE_US {
            return Verdict::Close;
        }
        Verdict::Pause { ms: u64::from(too_many) * US_PER_FRAME / 1_000 }
    }
}

impl Core {
    /// How long to wait before more is read from a connection: it has sent too much that does nothing
    /// for a task. To be asked after its frames were handled.
    pub fn pause_ms(&mut self, now: Now, id: ConnectionId) -> u64 {
        if self.talks_too_much.take() != Some(id) {
            return 0;
        }
        let Some(peer) = self.peers.get_mut(&id) else { return 0 };
        match peer.talk.judge(now.mono) {
            Verdict::Pause { ms } => ms,
            Verdict::Close => {
                let message = format!(
                    "more than {FRAMES_PER_S} frames a second that do nothing for a task, such as \
                     PING, or are wrong"
                );
                self.refuse(now, id, (ErrorCode::LimitExceeded, message));
                0
            }
        }
    }

    /// What the peer sent is answered with an error.
    pub(super) fn note_wrong(&mut self, id: ConnectionId) {
        if let Some(peer) = self.peers.get_mut(&id)
            && peer.talk.add(WRONG)
        {
            self.talks_too_much = Some(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_talks_too_much_waits_and_is_closed_if_it_goes_on() {
        let mut now = Mono(7);
        let mut talk = Talk::new(now);
        assert!(!talk.add(FRAMES));
        assert!(talk.add(100));
        assert_eq!(talk.judge(now), Verdict::Pause { ms: 1_000 });
        let end = now + PATIENCE_US;
        while now < end {
            assert_eq!(talk.judge(now), Verdict::Pause { ms: 1_000 });
            now = now.plus_ms(1_000);
            talk.add(100);
        }
        assert_eq!(talk.judge(now), Verdict::Close);
    }

    #[test]
    fn who_stops_for_a_while_may_talk_again() {
        let mut now = Mono(7);
        let mut talk = Talk::new(now);
        for _ in 0..100 {
            talk.add(FRAMES + 100);
            assert_eq!(talk.judge(now), Verdict::Pause { ms: 1_000 });
            now = now + u64::from(FRAMES + 100) * US_PER_FRAME;
            assert_eq!(talk.judge(now), Verdict::Pause { ms: 0 });
        }
    }

    #[test]
    fn a_ping_for_each_result_is_not_too_much() {
        let mut talk = Talk::new(Mono(0));
        for _ in 0..100 * FRAMES {
            assert!(!talk.add(1));
            talk.done_for_a_task();
        }
    }
}
