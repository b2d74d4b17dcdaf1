//! What waits for the journal.

use std::collections::VecDeque;

use bytes::Bytes;
use mcp_proto::{
    CancelReason, Deliver, ErrorCode, ErrorInfo, Executed, HopEvent, Message, Outcome,
};

use super::journal::{AcceptedTask, EndedTask, Record};
use super::lasting_fingerprint;
use crate::broker::ending::End;
use crate::broker::inflight::{TaskKey, TaskState};
use crate::broker::{Core, Event, Now, Output};

/// How far the journal is.
#[derive(Debug, Default)]
pub(in crate::broker) struct Journaling {
    /// Of the last record emitted.
    seq: u64,
    waiting: VecDeque<(u64, Waits)>,
    /// Why it can't be used any more.
    failed: Option<String>,
}

/// What a sync lets go.
#[derive(Debug)]
enum Waits {
    Accepted(TaskKey),
    Deliver(TaskKey),
}

impl Core {
    /// Whether durable tasks are taken.
    pub(in crate::broker) fn can_be_durable(&self) -> bool {
        self.config.is_durable && self.durable.journaling.failed.is_none()
    }

    /// Why durable tasks are not taken, if they are not.
    pub fn why_not_durable(&self) -> Option<String> {
        match &self.durable.journaling.failed {
            Some(why) => Some(format!(
                "this broker's journal failed, and it takes no durable tasks until it is started \
                 again: {why}"
            )),
            None if self.config.is_durable => None,
            None => Some(
                "this broker keeps no journal: start it with a state directory (mcp-broker serve \
                 --state DIR), or send the task with delivery fast"
                    .to_owned(),
            ),
        }
    }

    /// A record that nothing waits for.
    pub(in crate::broker) fn append(&mut self, record: Record) {
        if self.can_be_durable() {
            self.durable.journaling.seq += 1;
            let (seq, record) = (self.durable.journaling.seq, Box::new(record));
            self.outputs.push_back(Output::Journal { seq, record });
        }
    }

    fn append_and_wait(&mut self, record: Record, waits: Waits) {
        self.append(record);
        self.durable.journaling.waiting.push_back((self.durable.journaling.seq, waits));
    }

    pub(in crate::broker) fn journal_accepted(
        &mut self,
        now: Now,
        key: TaskKey,
        ttl_ms: u64,
        delay_ms: u64,
    ) {
        let Some(task) = self.tasks.get(key) else { return };
        let accepted = AcceptedTask {
            payload: task.payload.clone(),
            received_wall_ms: now.wall_ms,
            start_wall_ms: now.wall_ms.saturating_add(delay_ms),
            deadline_wall_ms: now.wall_ms.saturating_add(ttl_ms),
        };
        let name = self.task_name(task.identity, task.id.clone());
        self.append_and_wait(Record::Accepted(name, accepted), Waits::Accepted(key));
    }

    pub(in crate::broker) fn journal_ended(
        &mut self,
        now: Now,
        key: TaskKey,
        deliver: Deliver,
        body: Bytes,
    ) {
        let Some(task) = self.tasks.get(key) else { return };
        let Some(action) = self.action_of(task) else { return };
        let ended = EndedTask {
            fingerprint: lasting_fingerprint(action.as_str(), task.payload.body()),
            deliver: Box::new(deliver.clone()),
            body: body.clone(),
            ended_wall_ms: now.wall_ms,
        };
        let name = self.task_name(task.identity, task.id.clone());
        if let Some(task) = self.tasks.get_mut(key) {
            task.state = TaskState::Ending(Box::new((deliver, body)));
        }
        self.append_and_wait(Record::Ended(name, ended), Waits::Deliver(key));
    }

    /// Every record up to `up_to` is on disk.
    pub fn journal_synced(&mut self, now: Now, up_to: u64) {
        while let Some((seq, _)) = self.durable.journaling.waiting.front()
            && *seq <= up_to
            && let Some((_, waits)) = self.durable.journaling.waiting.pop_front()
        {
            match waits {
                Waits::Accepted(task) => self.is_accepted(task),
                Waits::Deliver(task) => self.finish_ending(now, task),
            }
        }
    }

    fn is_accepted(&mut self, key: TaskKey) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.is_on_disk = true;
        let connection =
            |session| self.sessions.get(session).and_then(|session| session.connection);
        for to in task.waiters.iter().filter_map(|session| connection(*session)) {
            let message = Message::Accepted(task.id.clone());
            self.outputs.push_back(Output::Send { to, message });
        }
    }

    fn finish_ending(&mut self, now: Now, key: TaskKey) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        if let TaskState::Ending(ending) = &mut task.state {
            let (mut deliver, body) = (ending.0.clone(), ending.1.clone());
            self.finish(now, key, &mut deliver, body);
        }
    }

    /// The journal can't be written, or not be said to be on disk. Tasks that were not acknowledged
    /// end; outcomes that are there are told; no durable task is taken any more.
    pub fn journal_failed(&mut self, now: Now, message: &str) {
        if self.durable.journaling.failed.is_some() {
            return;
        }
        self.durable.journaling.failed = Some(message.to_owned());
        self.event(Event::JournalFailed { message: message.to_owned() });
        for (_, waits) in std::mem::take(&mut self.durable.journaling.waiting) {
            match waits {
                Waits::Deliver(task) => self.tell_unjournalled(now, task),
                Waits::Accepted(task) => self.give_up_unjournalled(now, task, message),
            }
        }
    }

    /// Tells an outcome that is not on disk, where the task may be: after a restart it runs then.
    fn tell_unjournalled(&mut self, now: Now, key: TaskKey) {
        if let Some(TaskState::Ending(ending)) = self.tasks.get_mut(key).map(|it| &mut it.state)
            && ending.0.executed == Executed::No
        {
            ending.0.executed = Executed::Maybe;
        }
        self.finish_ending(now, key);
    }

    fn give_up_unjournalled(&mut self, now: Now, key: TaskKey, message: &str) {
        match self.tasks.get(key).map(|task| &task.state) {
            Some(TaskState::Running(_)) => {
                let why = "the journal failed";
                self.end_attempts(now, key, HopEvent::Cancelled, why, CancelReason::Superseded);
            }
            Some(TaskState::Ending(_)) | None => return,
            Some(_) => {}
        }
        let error = ErrorInfo::new(
            ErrorCode::DurableUnavailable,
            format!("the journal failed before the task was acknowledged: {message}"),
        );
        // It may be on disk all the same, and run after a restart.
        self.end(now, key, End::without_result(Outcome::Rejected, Executed::Maybe, error));
    }
}
