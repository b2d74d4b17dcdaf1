//! Durable tasks: what makes them outlive the broker.
//!
//! ```text
//!  SEND ─▶ in flight ── outcome ─▶ Ending ── synced ─▶ in the ledger ── SETTLE ─▶ settled ─▶ forgotten
//!            │   └─ synced ─▶ ACCEPTED                    │  (its outcome)          (its id)      ▲
//!            │                                            └─────── retention is over ─────────────┘
//!            └─ not ok, not cancelled ─▶ also a dead letter ── dropped, replayed, or too old
//! ```
//!
//! Each step is a [`Record`]; what waits for it to be on disk is in `journaling`. `restore` takes a
//! journal's records at the start.

mod dead_letters;
mod journal;
mod journaling;
mod ledger;
mod restore;
mod rules;

use bytes::Bytes;
use mcp_proto::{
    ActionName, ContextTrace, Deliver, EncodedFrame, ErrorCode, ErrorInfo, Executed, Outcome,
    Payload, TaskId,
};

use super::digest::Digest;
use super::fallback::Detour;
use super::identities::IdentityKey;
use super::inflight::{Name, TaskKey};
use super::sessions::SessionKey;
use super::{Core, Now, Timer};

use dead_letters::{DeadLetters, Kept};
use journaling::Journaling;
use ledger::{Entry, Ledger};

pub(super) use dead_letters::Kept as KeptLetter;
pub(super) use ledger::LedgerKey;

pub use journal::{AcceptedTask, DeadLetter, EndedTask, Journal, Record, SettledTask, TaskName};
pub use restore::Restored;
pub use rules::DurableRules;

/// All that the core keeps of durable tasks besides those in flight.
#[derive(Debug, Default)]
pub(super) struct Durable {
    pub(super) journaling: Journaling,
    pub(super) ledger: Ledger,
    pub(super) dead_letters: DeadLetters,
    /// Durable tasks in flight.
    tasks: usize,
    /// Their bytes.
    task_bytes: usize,
}

/// Of durable tasks, now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct DurableStats {
    /// Without an outcome.
    pub in_flight: u64,
    /// With an outcome that is kept.
    pub ended: u64,
    /// With an outcome that was settled lately.
    pub settled: u64,
    /// Bytes of those in flight and of kept outcomes.
    pub bytes: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Whether durable tasks are taken.
    pub is_available: bool,
}

/// What is the same of a durable task over restarts: of its action and input.
fn lasting_fingerprint(action: &str, body: &[u8]) -> u64 {
    let mut digest = Digest::new();
    digest.add(action.as_bytes());
    // No action has it.
    digest.add(&[0]);
    digest.add(body);
    digest.hash().0
}

/// What a known durable task makes of a SEND with its id, or of FETCH.
enum Known {
    Outcome(EncodedFrame),
    Settled(Executed),
    /// Another action or input.
    Mismatch,
}

impl Core {
    pub(super) fn durable_stats(&self) -> DurableStats {
        DurableStats {
            in_flight: self.durable.tasks as u64,
            ended: self.durable.ledger.outcomes() as u64,
            settled: self.durable.ledger.settled() as u64,
            bytes: self.durable_bytes() as u64,
            dead_letters: self.durable.dead_letters.len() as u64,
            is_available: self.can_be_durable(),
        }
    }

    fn durable_bytes(&self) -> usize {
        self.durable.task_bytes + self.durable.ledger.bytes()
    }

    /// Whether a durable task of so many bytes can be taken.
    pub(super) fn room_for_durable(&self, bytes: usize) -> Result<(), ErrorInfo> {
        if let Some(why) = self.why_not_durable() {
            return Err(ErrorInfo::new(ErrorCode::DurableUnavailable, why));
        }
        let (kept, max) = (self.durable_bytes(), self.config.durable.max_bytes);
        if kept.saturating_add(bytes) <= max {
            return Ok(());
        }
        let message = format!(
            "durable tasks and their kept outcomes have {kept} bytes, of {max} that they may have; \
             outcomes that are settled make room"
        );
        Err(ErrorInfo::new(ErrorCode::QueueFull, message).retry_after_ms(1_000))
    }

    pub(super) fn durable_enters(&mut self, bytes: usize) {
        self.durable.tasks += 1;
        self.durable.task_bytes += bytes;
    }

    /// A durable task has its outcome on disk, or there is no use in waiting for that: keeps it until
    /// it is settled.
    pub(super) fn durable_ends(&mut self, now: Now, ended: DurableEnd<'_>) {
        self.durable.tasks -= 1;
        self.durable.task_bytes -= ended.payload.len();
        if !self.can_be_durable() {
            return;
        }
        let DurableEnd { name, action, payload, executed, frame } = ended;
        self.forget_ended(name);
        let outcome = Some(frame.detached());
        let fingerprint = lasting_fingerprint(action.as_str(), payload.body());
        let retention_ms = self.config.durable.retention_ms;
        self.enter_in_ledger(now, name, fingerprint, executed, outcome, retention_ms);
    }

    fn enter_in_ledger(
        &mut self,
        now: Now,
        name: Name<'_>,
        fingerprint: u64,
        executed: Executed,
        outcome: Option<EncodedFrame>,
        left_ms: u64,
    ) {
        let Name { identity, id, hash } = name;
        let key = self.durable.ledger.insert(Entry {
            identity,
            task_id: id.clone(),
            name_hash: hash,
            fingerprint,
            executed,
            outcome,
            timer: None,
        });
        self.set_forget_timer(now, key, left_ms);
    }

    fn set_forget_timer(&mut self, now: Now, key: LedgerKey, left_ms: u64) {
        let Some(entry) = self.durable.ledger.get_mut(key) else { return };
        let timer = self.timers.set(now.mono.plus_ms(left_ms), Timer::Forget(key));
        if let Some(before) = entry.timer.replace(timer) {
            self.timers.cancel(before);
        }
    }

    fn known(&self, name: Name<'_>, asked: Option<(&str, &[u8])>) -> Option<Known> {
        let entry = self.durable.ledger.get(self.durable.ledger.find(name)?)?;
        let is_other =
            |(action, body): (&str, &[u8])| lasting_fingerprint(action, body) != entry.fingerprint;
        Some(match &entry.outcome {
            _ if asked.is_some_and(is_other) => Known::Mismatch,
            Some(outcome) => Known::Outcome(outcome.clone()),
            None => Known::Settled(entry.executed),
        })
    }

    /// Answers for a durable task that has ended, if the name is one's: for a SEND of this action
    /// and input, or for FETCH.
    pub(super) fn answer_from_ledger(
        &mut self,
        session: SessionKey,
        name: Name<'_>,
        asked: Option<(&str, &[u8])>,
    ) -> bool {
        let Some(known) = self.known(name, asked) else { return false };
        match known {
            Known::Outcome(frame) => self.deliver(session, frame, None),
            Known::Settled(executed) => {
                if !self.deliver_again(session, name) {
                    self.tell_settled(session, name.id.clone(), executed);
                }
            }
            Known::Mismatch => self.reject_mismatch(session, name.id),
        }
        true
    }

    fn tell_settled(&mut self, session: SessionKey, task_id: TaskId, executed: Executed) {
        let broker_id = self.config.broker_id.clone();
        let message = format!(
            "task {task_id} has ended, and its outcome was settled; send it under a new id to have \
             it done again"
        );
        let error = ErrorInfo::new(ErrorCode::Settled, message);
        let error = error.task(task_id.clone()).node(broker_id.clone());
        let deliver = Deliver {
            error: Some(Box::new(error)),
            trace: ContextTrace { broker_id: Some(broker_id), ..Default::default() }.into(),
            ..Deliver::new(task_id, Outcome::Rejected, executed)
        };
        self.tell(session, &deliver, Bytes::new());
    }

    pub(super) fn handle_settle(&mut self, now: Now, session: SessionKey, id: &TaskId) {
        let Some(identity) = self.sessions.get(session).map(|session| session.identity) else {
            return;
        };
        let Some(key) = self.durable.ledger.find(self.tasks.name(identity, id)) else { return };
        if !self.durable.ledger.settle(key) {
            return;
        }
        let Some(entry) = self.durable.ledger.get(key) else { return };
        let settled = SettledTask {
            fingerprint: entry.fingerprint,
            executed: entry.executed,
            settled_wall_ms: now.wall_ms,
        };
        let name = self.task_name(identity, id.clone());
        self.append(Record::Settled(name, settled));
        self.set_forget_timer(now, key, self.config.durable.settled_retention_ms);
        self.keep_settled_to_bound();
    }

    fn keep_settled_to_bound(&mut self) {
        while let Some(oldest) = self.durable.ledger.settled_over(self.config.durable.max_settled) {
            self.forget(oldest);
        }
    }

    /// The retention of an outcome, or of a settled id, is over; or it has to make room.
    pub(super) fn forget(&mut self, key: LedgerKey) {
        let Some(entry) = self.remove_from_ledger(key) else { return };
        let name = self.task_name(entry.identity, entry.task_id);
        self.append(Record::Forgotten(name));
    }

    /// A task that has ended is done again, or was: its earlier end does not count any more.
    fn forget_ended(&mut self, name: Name<'_>) {
        if let Some(key) = self.durable.ledger.find(name) {
            self.remove_from_ledger(key);
        }
    }

    fn remove_from_ledger(&mut self, key: LedgerKey) -> Option<Entry> {
        let entry = self.durable.ledger.remove(key)?;
        if let Some(timer) = entry.timer {
            self.timers.cancel(timer);
        }
        Some(entry)
    }

    fn task_name(&self, identity: IdentityKey, task_id: TaskId) -> TaskName {
        TaskName { identity: self.identities.get(identity).clone(), task_id }
    }

    /// Keeps a durable task that ends so for operators, if it should not have ended so.
    pub(super) fn bury(&mut self, now: Now, key: TaskKey, deliver: &Deliver) {
        if matches!(deliver.outcome, Outcome::Ok | Outcome::Cancelled) {
            return;
        }
        let Some(task) = self.tasks.get(key) else { return };
        let original = task.detour().and_then(|Detour { action, .. }| {
            task.payload.with_action(action.into(), &mut self.scratch)
        });
        let letter = DeadLetter {
            payload: original.unwrap_or_else(|| task.payload.clone()),
            deliver: Box::new(deliver.clone()),
            ttl_ms: task.ttl_ms(),
            attempts: task.attempts,
            died_wall_ms: now.wall_ms,
        };
        let name = self.task_name(task.identity, task.id.clone());
        self.append(Record::Dead(name.clone(), letter.clone()));
        self.keep_dead_letter(now, name, letter, self.config.durable.dead_letter_retention_ms);
    }

    fn keep_dead_letter(&mut self, now: Now, name: TaskName, letter: DeadLetter, left_ms: u64) {
        if let Some(older) = self.durable.dead_letters.find(&name) {
            self.remove_dead_letter(older);
        }
        let number = self.durable.dead_letters.next();
        let timer = self.timers.set(now.mono.plus_ms(left_ms), Timer::DeadLetter(number));
        self.durable.dead_letters.push(Kept { name, letter, timer });
        let rules = &self.config.durable;
        let (max, max_bytes) = (rules.max_dead_letters, rules.max_dead_letter_bytes);
        while let Some(oldest) = self.durable.dead_letters.over(max, max_bytes) {
            self.drop_dead_letter(oldest);
        }
    }

    fn remove_dead_letter(&mut self, number: u64) -> Option<Kept> {
        let kept = self.durable.dead_letters.remove(number)?;
        self.timers.cancel(kept.timer);
        Some(kept)
    }

    /// An operator is done with a dead letter, or it is too old. Returns whether there was one.
    pub(super) fn drop_dead_letter(&mut self, number: u64) -> bool {
        let Some(kept) = self.remove_dead_letter(number) else { return false };
        self.append(Record::DeadForgotten(kept.name));
        true
    }

    /// Has the task of a dead letter done again, with this time to live or the one it had. Its earlier
    /// outcome is forgotten, and the dead letter with it.
    ///
    /// # Errors
    /// When the task is in flight, or none can be taken. The dead letter stays.
    pub(super) fn replay_dead_letter(
        &mut self,
        now: Now,
        number: u64,
        ttl_ms: Option<u64>,
    ) -> Result<(), ErrorInfo> {
        let Some(kept) = self.durable.dead_letters.get(number) else {
            return Err(ErrorInfo::new(ErrorCode::InvalidTask, "there is no such dead letter"));
        };
        let (name, payload) = (kept.name.clone(), kept.letter.payload.clone());
        let ttl_ms = ttl_ms.unwrap_or(kept.letter.ttl_ms);
        let identity = self.identities.key_of(&name.identity);
        if self.tasks.find(self.tasks.name(identity, &name.task_id)).is_some() {
            let message = format!("task {} is in flight", name.task_id);
            return Err(ErrorInfo::new(ErrorCode::InvalidTask, message));
        }
        self.room_for_durable(payload.len())?;
        self.room_for_task(false)?;
        let key = self.take_up(
            now,
            &name.identity,
            AcceptedTask {
                payload,
                received_wall_ms: now.wall_ms,
                start_wall_ms: now.wall_ms,
                deadline_wall_ms: now.wall_ms.saturating_add(ttl_ms),
            },
        )?;
        self.forget_ended(self.tasks.name(identity, &name.task_id));
        self.wait_again(key, identity, &name.task_id);
        // In this order: with both of them on disk, the task counts.
        self.journal_accepted(now, key, ttl_ms, 0);
        self.drop_dead_letter(number);
        self.set_off(now, key, 0);
        Ok(())
    }

    /// Who was not told yet how a task ended that is done again is told how it ends then.
    fn wait_again(&mut self, key: TaskKey, identity: IdentityKey, task_id: &TaskId) {
        for session in self.sessions.drop_held(identity, task_id) {
            if let Err(error) = self.join(session, key) {
                self.reject(session, task_id.clone(), error);
            }
        }
    }
}

/// What is kept of a durable task that has ended.
pub(super) struct DurableEnd<'a> {
    pub(super) name: Name<'a>,
    /// What its client asked for.
    pub(super) action: &'a ActionName,
    pub(super) payload: &'a Payload,
    pub(super) executed: Executed,
    pub(super) frame: &'a EncodedFrame,
}
