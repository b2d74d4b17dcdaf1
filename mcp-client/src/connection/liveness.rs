//! Whether the broker is still there: it is asked when it owes an answer and is silent.

use std::time::{Duration, Instant};

/// When to ask, and when to give up. Pure: told the time, tells what to do.
///
/// Silent for a third of the timeout while it owes an answer: it is asked (PING). Silent for
/// another two thirds after that: it is gone.
#[derive(Debug)]
pub(crate) struct Liveness {
    timeout: Duration,
    heard_at: Instant,
    asked_at: Option<Instant>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Look again at this time.
    Wait(Instant),
    /// Send PING, then look again.
    Ask,
    /// The connection is dead.
    Dead,
}

impl Liveness {
    pub(crate) fn new(timeout: Duration, now: Instant) -> Self {
        Self { timeout, heard_at: now, asked_at: None }
    }

    /// Something arrived.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard_at = now;
        self.asked_at = None;
    }

    /// PING was sent.
    pub(crate) fn asked(&mut self, now: Instant) {
        self.asked_at.get_or_insert(now);
    }

    /// Whether it has been asked and not been heard since.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked_at.is_some()
    }

    /// What to do now. `is_owed`: whether an answer is waited for.
    pub(crate) fn check(&self, now: Instant, is_owed: bool) -> Verdict {
        let third = self.timeout / 3;
        match self.asked_at {
            Some(asked_at) if now >= asked_at + 2 * third => Verdict::Dead,
            Some(asked_at) => Verdict::Wait(asked_at + 2 * third),
            None if is_owed && now >= self.heard_at + third => Verdict::Ask,
            // Also when nothing is owed yet: something may be sent in between.
            None => Verdict::Wait((self.heard_at + third).max(now + third / 2)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(15);

    #[test]
    fn a_broker_that_owes_nothing_may_be_silent() {
        let start = Instant::now();
        let liveness = Liveness::new(TIMEOUT, start);
        let later = start + Duration::from_secs(3600);
        assert!(matches!(liveness.check(later, false), Verdict::Wait(at) if at > later));
    }

    #[test]
    fn a_silent_broker_is_asked_and_then_given_up() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut liveness = Liveness::new(TIMEOUT, start);
        assert_eq!(liveness.check(at(1), true), Verdict::Wait(at(5)));
        assert_eq!(liveness.check(at(5), true), Verdict::Ask);
        liveness.asked(at(5));
        assert_eq!(liveness.check(at(6), true), Verdict::Wait(at(15)));
        assert_eq!(liveness.check(at(15), false), Verdict::Dead);
    }

    #[test]
    fn any_sign_of_life_counts() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut liveness = Liveness::new(TIMEOUT, start);
        liveness.asked(at(5));
        liveness.heard(at(14));
        assert_eq!(liveness.check(at(15), true), Verdict::Wait(at(19)));
    }
}
