//! What a pool has learnt of a worker from the attempts that it made.

use mcp_proto::{ErrorCode, Outcome, TaskResult};

use super::balancer::Member;
use super::inflight::{Attempt, AttemptKey};
use super::pool::{Pool, PoolKey};
use super::{Core, Now};

/// What the end of an attempt says of its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It did the task.
    Ok,
    /// The task failed by itself: the worker did what it could.
    TaskError,
    /// It could not take the task now.
    Pushback,
    /// It panicked, was lost, gave no sign of life, or broke the protocol.
    Fault,
}

impl Verdict {
    pub(super) fn of(result: &TaskResult) -> Self {
        let has_panicked =
            || result.error.as_ref().is_some_and(|it| it.code == ErrorCode::HandlerPanic);
        match result.outcome {
            Outcome::Ok => Self::Ok,
            Outcome::Failed if has_panicked() => Self::Fault,
            Outcome::Cancelled => Self::Pushback,
            Outcome::Failed | Outcome::Expired | Outcome::Rejected | Outcome::Lost => {
                Self::TaskError
            }
        }
    }
}

const UNITS_PER_US: u64 = 64;

/// A share of 1.
const ALL: u32 = 1 << 16;

/// How fast a new observation replaces what was known: it weighs 1/2^n.
#[derive(Debug, Clone, Copy)]
struct Smoothing {
    service: u32,
    ok_share: u32,
}

/// Of one worker: 1/8, as TCP smooths its round-trip time (RFC 6298), and 1/16 for the coarser
/// question whether it did a task.
const OF_ONE: Smoothing = Smoothing { service: 3, ok_share: 4 };

/// Of all workers together, whose times differ more.
const OF_ALL: Smoothing = Smoothing { service: 6, ok_share: 6 };

/// What was seen of a worker counts half after all together have ended so many attempts a worker
/// without one of its own: who once was slow is tried again, with one task in some hundred of its share.
const HALF_LIFE_ATTEMPTS: u64 = 128;

/// What is known of attempts at one action, a worker's or all together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    /// Smoothed time that it had those tasks that it did, the network included, in 1/64 µs, so that
    /// small steps are not lost; 0 before there was one. What failed is left out: it would make a
    /// worker look fast that fails at once.
    service: u64,
    /// Smoothed share of the attempts that ended ok, in 1/65,536.
    ok_share: u32,
    /// Attempts of all that had ended when the last of these did.
    seen: u64,
}

impl Default for Standing {
    fn default() -> Self {
        Self { service: 0, ok_share: ALL, seen: 0 }
    }
}

impl Standing {
    /// Of a worker that comes to others of this standing: it is taken to fail as often as they do.
    pub(super) fn among(all: &Standing) -> Self {
        Self { service: 0, ..*all }
    }

    fn note(&mut self, verdict: Verdict, held_us: u64, smoothing: Smoothing) {
        let Smoothing { service, ok_share } = smoothing;
        self.ok_share -= self.ok_share >> ok_share;
        if verdict == Verdict::Ok {
            self.ok_share += ALL >> ok_share;
            self.note_time(held_us, service);
        }
    }

    fn note_time(&mut self, held_us: u64, smoothing: u32) {
        let held = held_us.max(1) * UNITS_PER_US;
        self.service = match self.service {
            0 => held,
            before => before - (before >> smoothing) + (held >> smoothing),
        };
    }

    /// What is known, after it faded to what is known of `all`, of so many workers, while others had
    /// the tasks.
    #[inline]
    pub(super) fn faded(self, all: &Standing, workers: usize) -> Self {
        let service = if self.service == 0 { all.service } else { self.service };
        let (missed, half_life) = (all.seen - self.seen, HALF_LIFE_ATTEMPTS * workers as u64);
        let known = Self { service, ..self };
        if missed < half_life { known } else { known.faded_by_halves(all, missed, half_life) }
    }

    /// The same, where that is a half-life or more.
    #[cold]
    fn faded_by_halves(self, all: &Standing, missed: u64, half_life: u64) -> Self {
        let halvings = missed.checked_div(half_life).unwrap_or(0).min(63);
        let fade = |own: u64, all: u64| match own >= all {
            true => all + ((own - all) >> halvings),
            false => all - ((all - own) >> halvings),
        };
        let ok_share = fade(self.ok_share.into(), all.ok_share.into()) as u32;
        Self { service: fade(self.service, all.service), ok_share, ..self }
    }

    /// Smoothed µs that a task takes, at least 1.
    pub(super) fn service_us(&self) -> u64 {
        (self.service / UNITS_PER_US).max(1)
    }

    /// The same, if there was one yet.
    pub(super) fn known_service_us(&self) -> Option<u64> {
        (self.service > 0).then(|| self.service_us())
    }

    /// Smoothed share of the attempts that ended ok, 0 to 1.
    pub(super) fn ok_share(&self) -> f64 {
        f64::from(self.ok_share) / f64::from(ALL)
    }
}

impl Core {
    /// An attempt has ended, of which this is to be thought. Its worker still has it.
    pub(super) fn judge(&mut self, now: Now, key: PoolKey, attempt: &Attempt, verdict: Verdict) {
        let Some(member) = self.registry.member(attempt.agent, key) else { return };
        let Some(pool) = self.pools.get_mut(key) else { return };
        let held_us = attempt.held_us(now.mono);
        pool.judge(member, verdict, held_us);
        let turn = match verdict {
            Verdict::Ok | Verdict::TaskError => {
                pool.note_service(attempt.tenant, held_us);
                let service_us = (verdict == Verdict::Ok).then_some(held_us);
                pool.note_good(now.mono, member, attempt.probe, service_us)
            }
            Verdict::Pushback => None,
            Verdict::Fault => return self.note_fault(now, key, attempt.agent, attempt.task),
        };
        if let Some(turn) = turn {
            self.health_turns(now, key, member, turn);
        }
    }

    /// An attempt lost to one that began later. It would have taken longer than it has; were it left
    /// out, a worker would never seem slow whose slow attempts lose.
    pub(super) fn note_lost(&mut self, now: Now, key: PoolKey, attempt: AttemptKey) {
        let Some(attempt) = self.attempts.get(attempt) else { return };
        let held_us = attempt.held_us(now.mono);
        let member = self.registry.member(attempt.agent, key);
        let Some(pool) = self.pools.get_mut(key) else { return };
        if let Some(hedging) = &mut pool.hedging {
            hedging.note_lost(held_us);
        }
        pool.standing.note_time(held_us, OF_ALL.service);
        let Some(member) = member else { return };
        if let Some(Some(it)) = pool.members.get_mut(member as usize) {
            it.standing.note_time(held_us, OF_ONE.service);
        }
        if let Some(turn) = pool.note_slow(now.mono, member, held_us) {
            self.health_turns(now, key, member, turn);
        }
    }
}

impl Pool {
    #[inline]
    fn judge(&mut self, member: Member, verdict: Verdict, held_us: u64) {
        if verdict == Verdict::Pushback {
            // It says nothing of how well it does tasks.
            return;
        }
        if let (Verdict::Ok, Some(hedging)) = (verdict, &mut self.hedging) {
            hedging.note_ok(held_us);
        }
        let workers = self.workers();
        let all = &mut self.standing;
        all.seen += 1;
        all.note(verdict, held_us, OF_ALL);
        if let Some(Some(member)) = self.members.get_mut(member as usize) {
            let standing = &mut member.standing;
            if standing.service != 0 {
                *standing = standing.faded(all, workers);
            }
            standing.seen = all.seen;
            standing.note(verdict, held_us, OF_ONE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_counts_for_the_share_but_not_for_the_time() {
        let mut it = Standing::default();
        it.note(Verdict::Ok, 8_000, OF_ONE);
        assert_eq!((it.service_us(), it.ok_share()), (8_000, 1.0));
        (0..16).for_each(|_| it.note(Verdict::TaskError, 10, OF_ONE));
        assert_eq!(it.service_us(), 8_000);
        assert!((0.33..0.38).contains(&it.ok_share()), "{it:?}");
        it.note(Verdict::Ok, 16_000, OF_ONE);
        assert_eq!(it.service_us(), 9_000);
        (0..200).for_each(|_| it.note(Verdict::Ok, 1, OF_ONE));
        assert_eq!((it.service_us(), it.ok_share()), (1, 1.0));
    }

    #[test]
    fn what_was_seen_of_a_worker_fades_while_others_have_the_tasks() {
        let (mut all, mut slow) = (Standing::default(), Standing::default());
        slow.note(Verdict::Ok, 90_000, OF_ONE);
        all.note(Verdict::Ok, 10_000, OF_ALL);
        all.seen = 4 * 2 * HALF_LIFE_ATTEMPTS;
        assert_eq!(slow.faded(&all, 4).service_us(), 30_000);
        assert_eq!(slow.faded(&all, 1_000).service_us(), 90_000);
        assert_eq!(Standing::among(&all).faded(&all, 4).service_us(), 10_000);
    }
}
