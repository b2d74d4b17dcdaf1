//! A journal's records at the start.

use std::collections::HashSet;

use mcp_proto::{EncodedFrame, ErrorCode, ErrorInfo, Executed};

use super::journal::{AcceptedTask, EndedTask, Record, SettledTask, TaskName};
use crate::broker::admission::Newcomer;
use crate::broker::inflight::{Extras, TaskKey};
use crate::broker::submission::{Entering, affinity};
use crate::broker::{Core, Event, Identity, Now, shadow};

/// What there was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Restored {
    /// Tasks without an outcome, which go on.
    pub tasks: usize,
    /// Outcomes that nobody has settled.
    pub outcomes: usize,
    /// Tasks whose outcome was settled lately.
    pub settled: usize,
    /// Dead letters.
    pub dead_letters: usize,
    /// Tasks that can't be taken up; they stay in the journal.
    pub left_out: usize,
}

impl Core {
    /// Takes what a journal kept. To be called at the start, before anything else happens but
    /// [`Core::journal_failed`]; what it wants done is then to be carried out as after any input.
    ///
    /// If the journal can't be written to, that comes first: what was written last may then have been
    /// read from the system's memory and not be on disk. So nobody is told that a task was accepted
    /// that was not told so before, and no outcome says `executed: no`.
    pub fn restore_from_journal(
        &mut self,
        now: Now,
        records: impl IntoIterator<Item = Record>,
    ) -> Restored {
        let mut restored = Restored::default();
        let mut in_flight = HashSet::new();
        let mut dead = Vec::new();
        for record in records {
            match record {
                Record::Accepted(name, task) => {
                    match self.restore_task(now, &name, task) {
                        Ok(()) => restored.tasks += 1,
                        Err(error) => {
                            let message = format!("task {}: {}", name.task_id, error.message);
                            self.event(Event::NotRestored { message });
                            restored.left_out += 1;
                        }
                    }
                    in_flight.insert(name);
                }
                Record::Ended(name, ended) => {
                    self.restore_outcome(now, &name, ended);
                    restored.outcomes += 1;
                }
                Record::Settled(name, settled) => {
                    self.restore_settled(now, &name, &settled);
                    restored.settled += 1;
                }
                Record::Dead(name, letter) => dead.push((name, letter)),
                // They are no more than what they end.
                Record::Forgotten(_) | Record::DeadForgotten(_) => {}
            }
        }
        for (name, letter) in dead {
            // Its end was not on disk, so it is not dead yet.
            if in_flight.contains(&name) {
                self.append(Record::DeadForgotten(name));
                continue;
            }
            let retention_ms = self.config.durable.dead_letter_retention_ms;
            let left_ms = left_ms(now, letter.died_wall_ms, retention_ms);
            self.keep_dead_letter(now, name, letter, left_ms);
            restored.dead_letters += 1;
        }
        self.keep_settled_to_bound();
        restored
    }

    fn restore_task(
        &mut self,
        now: Now,
        name: &TaskName,
        task: AcceptedTask,
    ) -> Result<(), ErrorInfo> {
        let wait_ms = task.start_wall_ms.saturating_sub(now.wall_ms);
        let key = self.take_up(now, &name.identity, task)?;
        if let Some(task) = self.tasks.get_mut(key) {
            task.is_on_disk = true;
            task.extras.get_or_insert_default().is_restored = true;
        }
        self.set_off(now, key, wait_ms);
        Ok(())
    }

    /// Takes a task that no session waits for, whatever the bounds. It is not placed yet.
    ///
    /// # Errors
    /// When the task can't be read, or its action has as many sets of required labels as it may.
    pub(super) fn take_up(
        &mut self,
        now: Now,
        identity: &Identity,
        task: AcceptedTask,
    ) -> Result<TaskKey, ErrorInfo> {
        let AcceptedTask { payload, received_wall_ms, deadline_wall_ms, .. } = task;
        let copy = payload.clone();
        let mut spec = copy
            .head()
            .map_err(|invalid| ErrorInfo::new(ErrorCode::InvalidTask, invalid.to_string()))?;
        let identity = self.identities.key_of(identity);
        let name_hash = self.tasks.name(identity, &spec.id).hash;
        let fingerprint = self.tasks.fingerprint(spec.action.as_str(), payload.body(), None);
        if spec.shadow {
            shadow::require(&mut spec.required_labels);
        }
        let is_shadow = shadow::is_shadow(&spec.required_labels);
        let deadline = now.mono.plus_ms(deadline_wall_ms.saturating_sub(now.wall_ms));
        let affinity = affinity(spec.affinity_key);
        let newcomer = Newcomer {
            action: spec.action,
            is_shadow,
            required: &spec.required_labels,
            affinity,
            tenant: spec.tenant,
            sender: None,
            priority: spec.priority,
            bytes: payload.len(),
            deadline,
            is_delayed: false,
        };
        let admitted = self.admit_anyway(now, &newcomer)?;
        let asked = spec.extras.take().map(|asked| *asked).unwrap_or_default();
        let ttl_ms = deadline_wall_ms.saturating_sub(received_wall_ms);
        let extras = Extras { asked, ttl_ms, ..Extras::default() };
        Ok(self.enter(
            now,
            &spec,
            Entering {
                identity,
                name_hash,
                fingerprint,
                payload,
                deadline,
                affinity,
                admitted,
                is_shadow,
                is_durable: true,
                session: None,
                stream: None,
                extras: Some(Box::new(extras)),
                kin: None,
            },
        ))
    }

    fn restore_outcome(&mut self, now: Now, name: &TaskName, ended: EndedTask) {
        let EndedTask { fingerprint, mut deliver, body, ended_wall_ms } = ended;
        if deliver.executed == Executed::No && !self.can_be_durable() {
            deliver.executed = Executed::Maybe;
        }
        let frame = EncodedFrame::deliver(&deliver, body, &mut self.arena);
        let left_ms = left_ms(now, ended_wall_ms, self.config.durable.retention_ms);
        let identity = self.identities.key_of(&name.identity);
        let name = self.tasks.name(identity, &name.task_id);
        self.enter_in_ledger(
            now,
            name,
            fingerprint,
            deliver.executed,
            Some(frame.detached()),
            left_ms,
        );
    }

    fn restore_settled(&mut self, now: Now, name: &TaskName, settled: &SettledTask) {
        let SettledTask { fingerprint, executed, settled_wall_ms } = *settled;
        let left_ms = left_ms(now, settled_wall_ms, self.config.durable.settled_retention_ms);
        let identity = self.identities.key_of(&name.identity);
        let name = self.tasks.name(identity, &name.task_id);
        self.enter_in_ledger(now, name, fingerprint, executed, None, left_ms);
    }
}

/// What is left of a retention that began then. A clock that was set back does not make it longer.
fn left_ms(now: Now, since_wall_ms: u64, retention_ms: u64) -> u64 {
    retention_ms.saturating_sub(now.wall_ms.saturating_sub(since_wall_ms))
}
