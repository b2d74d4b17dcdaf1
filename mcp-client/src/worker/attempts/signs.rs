//! Signs of life of running handlers, and how far they are. At most [`SIGNS_PER_S`] of an attempt
//! are sent; of those that come faster the latest is, once it is time.

use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;
use mcp_proto::{AttemptId, Message, Progress, Subject};

use super::Attempts;
use crate::connection::Outbox;

/// What the protocol says makes sense for one attempt.
const SIGNS_PER_S: u32 = 20;

/// A sign of life, and what its handler says with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::worker) struct Sign {
    pub(in crate::worker) permille: Option<u16>,
    pub(in crate::worker) message: ByteString,
}

/// The signs of an attempt.
#[derive(Debug, Default)]
pub(super) struct Signs {
    /// When the next one may be sent; none was when not said.
    next_at: Option<Instant>,
    waiting: Option<Sign>,
}

/// What is to be done after a sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Signed {
    /// It was pushed, and is to be flushed.
    Pushed,
    /// It waits, and the next time-out is earlier than it was.
    Waits,
    /// Nothing: others wait already, or the attempt is over, or about to be.
    Nothing,
}

impl Attempts {
    /// A handler gives a sign of life.
    pub(in crate::worker) fn sign(
        &mut self,
        id: AttemptId,
        sign: Sign,
        now: Instant,
        mut out: impl Outbox,
    ) -> Signed {
        let is_connected = self.connection.is_some();
        let attempt = self.held.get_mut(&id);
        let Some(attempt) = attempt.filter(|it| it.started_at.is_some() && it.ending.is_none())
        else {
            return Signed::Nothing;
        };
        let signs = attempt.signs.get_or_insert_default();
        // A sign that says nothing does not replace one that does.
        let waiting = signs.waiting.take().filter(|_| sign == Sign::default());
        let sign = waiting.unwrap_or(sign);
        match signs.next_at.filter(|at| *at > now || !is_connected) {
            None if is_connected => {
                signs.next_at = Some(now + Duration::from_secs(1) / SIGNS_PER_S);
                push(id, sign, &mut out);
                Signed::Pushed
            }
            at => {
                signs.waiting = Some(sign);
                let at = at.unwrap_or(now);
                if self.sign_at.is_some_and(|earliest| earliest <= at) {
                    return Signed::Nothing;
                }
                self.sign_at = Some(at);
                Signed::Waits
            }
        }
    }

    /// Sends the signs whose time has come. Without a connection they go on waiting.
    pub(super) fn send_signs(&mut self, now: Instant, out: &mut impl Outbox) {
        if self.connection.is_none() || self.sign_at.is_none_or(|at| at > now) {
            return;
        }
        self.sign_at = None;
        for (id, attempt) in &mut self.held {
            let Some(signs) = &mut attempt.signs else { continue };
            match (signs.waiting.take(), signs.next_at) {
                (Some(sign), Some(at)) if at > now => {
                    signs.waiting = Some(sign);
                    self.sign_at = Some(self.sign_at.map_or(at, |earliest| earliest.min(at)));
                }
                (Some(sign), _) if attempt.ending.is_none() => {
                    signs.next_at = Some(now + Duration::from_secs(1) / SIGNS_PER_S);
                    push(*id, sign, out);
                }
                _ => {}
            }
        }
    }
}

fn push(id: AttemptId, sign: Sign, out: &mut impl Outbox) {
    let Sign { permille, message } = sign;
    let progress = Progress { of: Subject::Attempt(id), permille, message };
    out.push(&Message::Progress(progress), &Bytes::new());
}
