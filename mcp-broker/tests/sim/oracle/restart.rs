//! What must be found after a restart.

use std::collections::BTreeMap;

use mcp_broker::broker::{AcceptedTask, Now, Record, TaskName};

use super::sessions::Sessions;
use super::task::{Before, End, Ended, Span, Task, UNSURE};
use super::{Attempt, Oracle};

/// What the journal has of a task.
#[derive(Debug, Default)]
struct Found<'a> {
    accepted: Option<&'a AcceptedTask>,
    ended: Option<Ended>,
    is_settled: bool,
    is_dead: bool,
}

fn name(record: &Record) -> &TaskName {
    match record {
        Record::Accepted(name, _)
        | Record::Ended(name, _)
        | Record::Settled(name, _)
        | Record::Forgotten(name)
        | Record::Dead(name, _)
        | Record::DeadForgotten(name) => name,
    }
}

impl Oracle {
    /// A core begins, and knows only what is in the journal. Of one that can't be written to, what was
    /// written last may not be on disk.
    pub(crate) fn began(&mut self, epoch: u64, now: Now, records: &[Record], is_sure: bool) {
        assert!(epoch > self.epoch);
        let mut found = BTreeMap::<&str, Found<'_>>::new();
        for record in records {
            let of = found.entry(name(record).task_id.as_str()).or_default();
            match record {
                Record::Accepted(_, task) => of.accepted = Some(task),
                Record::Ended(_, it) => {
                    let since_ms = now.wall_ms.saturating_sub(it.ended_wall_ms);
                    let left_ms = self.retention_ms.saturating_sub(since_ms);
                    let end = End::of(&it.deliver, &it.body);
                    of.ended = Some(Ended { seq: 0, end, kept_until: now.mono.plus_ms(left_ms) });
                }
                Record::Settled(..) => of.is_settled = true,
                Record::Dead(..) => of.is_dead = true,
                Record::Forgotten(_) | Record::DeadForgotten(_) => {}
            }
        }
        for (id, task) in &mut self.tasks {
            if task.asks.is_durable {
                let found = found.remove(id.as_str()).unwrap_or_default();
                if self.is_taken_back {
                    task.check_taken_back(id, &found, self.synced);
                }
                task.restart(id, now, found, self.synced, is_sure);
            } else {
                (task.span, task.told) = (None, None);
                task.attempts.clear();
            }
        }
        assert!(found.is_empty(), "the journal has what nobody sent: {found:?}");
        self.attempts.values_mut().for_each(Attempt::is_of_the_past);
        self.agents.clear();
        self.sessions = Sessions::default();
        self.epoch = epoch;
        (self.is_stopping, self.has_failed, self.synced) = (false, false, 0);
        self.is_taken_back = false;
    }
}

impl Task {
    fn restart(&mut self, id: &str, now: Now, mut found: Found<'_>, synced: u64, is_sure: bool) {
        if let Some(ended) = &mut found.ended
            && !is_sure
            && !self.has_kept_end(synced)
        {
            ended.seq = UNSURE;
        }
        let is_taken_for_sure = is_sure || self.is_accepted;
        let is_taken_again = self.taken.is_some_and(|seq| seq <= synced);
        if std::mem::take(&mut self.is_forgotten) && !is_taken_again {
            // It may have been forgotten in vain.
            self.is_settled = found.is_settled;
            if std::mem::take(&mut self.is_told_in_vain) {
                self.told = None;
            }
        } else {
            self.compare(id, &found, synced, is_sure);
        }
        let is_unsure = found.accepted.is_some() && !is_taken_for_sure;
        (self.taken, self.at_hand) = (is_unsure.then_some(UNSURE), None);
        self.span = found.accepted.map(|task| Span::of(task, now));
        self.ended = found.ended;
    }

    /// What was refused because it was not on disk is not there.
    fn check_taken_back(&self, id: &str, found: &Found<'_>, synced: u64) {
        let is_refused = self.told.as_ref().is_some_and(End::is_refusal);
        let was_on_its_way = self.before.is_none() && self.taken.is_some_and(|seq| seq > synced);
        if is_refused && was_on_its_way {
            let is_there = found.accepted.is_some() || found.ended.is_some();
            assert!(!is_there, "{id} was refused, and is to run: {found:?} {self:?}");
        }
    }

    /// What was promised is there.
    fn compare(&mut self, id: &str, found: &Found<'_>, synced: u64, is_sure: bool) {
        let end = found.ended.as_ref().map(|ended| &ended.end);
        let was_in_vain = self.is_told_in_vain;
        self.is_told_in_vain &= !is_sure;
        if was_in_vain && end != self.told.as_ref() {
            (self.told, self.is_settled) = (None, false);
        }
        if let Some(before) = self.before.take_if(|before| before.seq > synced) {
            let is_settled = found.is_settled && before.is_settled;
            let has_end = is_settled || before.is_forgotten || end == before.told.as_ref();
            let has_later_end = self.is_settled && found.is_settled
                || end.is_some() && end == self.ended.as_ref().map(|ended| &ended.end);
            let is_as_before = found.accepted.is_none() && has_end && !has_later_end;
            if is_as_before {
                assert!(found.is_dead, "{id} is neither dead nor done again: {found:?} {self:?}");
                // It may have been forgotten in vain.
                let is_settled =
                    if before.is_forgotten { found.is_settled } else { before.is_settled };
                self.undo_replay(Before { is_settled, ..before });
            } else if !is_sure {
                self.before = Some(Before { seq: UNSURE, ..before });
            }
        }
        // Had it been acknowledged, it would have been as good.
        self.is_accepted |= self.before.take_if(|before| before.seq != UNSURE).is_some();
        let is_there = found.accepted.is_some() || found.ended.is_some() || found.is_settled;
        assert!(is_there || !self.is_accepted, "{id} was ACCEPTED and is lost: {self:?}");
        assert!(self.is_settled || !found.is_settled, "{id} is settled by nobody: {self:?}");
        if self.is_settled {
            assert!(found.accepted.is_none(), "{id} was settled, and is to run: {self:?}");
        }
        let is_refused = self.told.as_ref().is_some_and(End::is_refusal);
        if let Some(told) = self.told.as_ref().filter(|_| !is_refused && !found.is_settled) {
            assert_eq!(end, Some(told), "{id} is not in the journal as it was told: {self:?}");
        }
        if is_refused && is_there {
            // It was on its way to the disk when that failed.
            self.begin_anew();
        }
    }
}
