//! Tokens and whom they prove, while their keys can be read and while they can't.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mcp_proto::Token;
use tokio::sync::watch;

use super::known::Known;
use super::source::{Source, Trusted};
use super::token::{self, Claims, Rules, TokenError};
use crate::server::clock::{self, Clock};

/// So many times in a row keys can't be read before that is an outage: one lost answer is none.
const FAILURES: u32 = 2;
/// When to try again after a failure, as a part of the interval, and its bounds.
const RETRY_PART: u32 = 4;
const RETRY: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(50)..=Duration::from_secs(5);

const LEAST_VERIFIED_EVERY: Duration = Duration::from_secs(1);

/// Verifies tokens.
#[derive(Debug)]
pub(super) struct Tokens {
    rules: Rules,
    source: Source,
    every: Duration,
    /// So that those who are connected when an outage begins have been verified lately.
    verified_every: Duration,
    state: Mutex<State>,
    /// Counts what makes a token hold or not.
    changes: watch::Sender<u64>,
    clock: Clock,
}

#[derive(Debug)]
struct State {
    /// The last that was read; none before the first.
    trusted: Option<Arc<Trusted>>,
    outage: Option<Outage>,
    failures: u32,
    known: Known,
    offline_admissions: u64,
}

/// Keys can't be read.
#[derive(Debug, Clone)]
pub(super) struct Outage {
    since_s: u64,
    pub(super) why: String,
}

/// A token that holds.
#[derive(Debug)]
pub(super) struct Holds {
    pub(super) claims: Claims,
    /// It is to be looked at again after this.
    pub(super) until: Duration,
    /// Only because its identity was verified before the outage.
    pub(super) is_offline: bool,
}

impl Tokens {
    pub(super) fn new(rules: Rules, source: Source, every: Duration, known: Known) -> Self {
        let verified_every = (known.max_age() / 4).max(LEAST_VERIFIED_EVERY);
        let state =
            State { trusted: None, outage: None, failures: 0, known, offline_admissions: 0 };
        let (changes, _) = watch::channel(0);
        Self {
            rules,
            source,
            every,
            verified_every,
            state: Mutex::new(state),
            changes,
            clock: Clock::start(),
        }
    }

    /// Reads the keys once.
    ///
    /// # Errors
    /// Why they can't be had.
    pub(super) async fn read(&self) -> Result<(), String> {
        let read = self.source.read().await;
        let error = read.as_ref().err().cloned();
        self.take(read);
        error.map_or(Ok(()), Err)
    }

    /// Reads them again and again.
    pub(super) async fn keep_reading(&self) {
        loop {
            let has_failed = self.lock().failures > 0;
            let wait = match has_failed {
                true => {
                    (self.every / RETRY_PART).clamp(*RETRY.start(), *RETRY.end()).min(self.every)
                }
                false => self.every,
            };
            tokio::time::sleep(wait).await;
            let _ = self.read().await;
        }
    }

    /// Tells when tokens that held may hold no longer.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn outage(&self) -> Option<Outage> {
        self.lock().outage.clone()
    }

    pub(super) fn offline_admissions(&self) -> u64 {
        self.lock().offline_admissions
    }

    fn take(&self, read: Result<Trusted, String>) {
        let mut state = self.lock();
        let is_changed = match read {
            Ok(trusted) => {
                let was_out = state.outage.take();
                state.failures = 0;
                if let Some(outage) = &was_out {
                    tracing::info!(
                        lasted_s = clock::since_1970().as_secs().saturating_sub(outage.since_s),
                        "the keys of tokens can be read again: all who were let in are verified again"
                    );
                }
                let is_same = state.trusted.as_deref() == Some(&trusted);
                state.trusted = Some(Arc::new(trusted));
                !is_same || was_out.is_some()
            }
            Err(why) => {
                state.failures = state.failures.saturating_add(1);
                let is_new = state.outage.is_none()
                    && (state.failures >= FAILURES || state.trusted.is_none());
                if is_new {
                    tracing::error!(
                        why,
                        "the keys of tokens can't be read: only identities that were verified before \
                         are let in (offline)"
                    );
                    let since_s = clock::since_1970().as_secs();
                    state.outage = Some(Outage { since_s, why });
                }
                is_new
            }
        };
        drop(state);
        if is_changed {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// Whom a token proves, if it holds now.
    pub(super) fn verify(&self, token: &Token) -> Result<Holds, TokenError> {
        let (trusted, outage) = {
            let state = self.lock();
            (state.trusted.clone(), state.outage.clone())
        };
        let Some(trusted) = trusted else {
            let why = outage.map_or_else(String::new, |outage| format!(" ({})", outage.why));
            return Err(TokenError::Outage(format!(
                "tokens can't be verified: their keys could not be read yet{why}"
            )));
        };
        let claims = token::signed(token.expose(), &trusted.keys, &self.rules)?;
        if trusted.revoked.has(&claims) {
            return Err(TokenError::Revoked { sub: claims.sub });
        }
        let now_s = clock::since_1970().as_secs();
        let in_time = claims.check_time(&self.rules, now_s);
        let left = Duration::from_secs(claims.over_at_s(&self.rules).saturating_sub(now_s));
        let now = self.clock.now().mono;
        let mut state = self.lock();
        let Some(outage) = outage else {
            in_time?;
            state.known.note(now, &claims.sub);
            let until = left.min(self.verified_every);
            return Ok(Holds { claims, until, is_offline: false });
        };
        // A token that was over when the outage began is nobody's excuse.
        match &in_time {
            Err(TokenError::Expired { .. }) if claims.over_at_s(&self.rules) > outage.since_s => {}
            _ => in_time.clone()?,
        }
        let Some(known_until) = state.known.until(now, &claims.sub) else {
            return Err(TokenError::Outage(format!(
                "{} can't be verified: the keys of tokens can't be read now, and it was not verified \
                 lately",
                claims.sub
            )));
        };
        let known = Duration::from_micros(known_until.since(now));
        let until = if in_time.is_ok() { left.min(known) } else { known };
        Ok(Holds { claims, until, is_offline: true })
    }

    /// Somebody was let in although the keys can't be read.
    pub(super) fn count_offline_admission(&self) {
        self.lock().offline_admissions += 1;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
