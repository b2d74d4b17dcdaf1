//! Durable tasks: what waits for the journal.

use std::collections::VecDeque;

use bytes::Bytes;
use mcp_proto::{
    CancelReason, Deliver, EncodedTask, ErrorCode, ErrorInfo, Executed, HopEvent, Message, Outcome,
};

use super::ending::End;
use super::inflight::{TaskKey, TaskState};
use super::sessions::SessionKey;
use super::{Core, Event, Now, Output, Record};

/// How far the journal is.
#[derive(Debug, Default)]
pub(super) struct Journaling {
    /// Of the last record emitted.
    seq: u64,
    waiting: VecDeque<(u64, Waits)>,
    has_failed: bool,
}

/// What a sync lets go.
#[derive(Debug)]
enum Waits {
    Accepted(TaskKey, SessionKey),
    Deliver(TaskKey),
}

impl Core {
    /// Whether durable tasks are taken.
    pub(super) fn can_be_durable(&self) -> bool {
        self.config.is_durable && !self.journaling.has_failed
    }

    fn journal(&mut self, record: Record, waits: Waits) {
        self.journaling.seq += 1;
        let seq = self.journaling.seq;
        self.journaling.waiting.push_back((seq, waits));
        self.outputs.push_back(Output::Journal { seq, record });
    }

    pub(super) fn journal_accepted(
        &mut self,
        now: Now,
        key: TaskKey,
        session: SessionKey,
        ttl_ms: u64,
    ) {
        let Some(task) = self.tasks.get(key) else { return };
        let record = Record::Accepted {
            identity: self.sessions.identity_of(task.identity).clone(),
            task: EncodedTask(Bytes::copy_from_slice(task.payload.task())),
            body: Bytes::copy_from_slice(task.payload.body()),
            deadline_wall_ms: now.wall_ms.saturating_add(ttl_ms),
        };
        self.journal(record, Waits::Accepted(key, session));
    }

    pub(super) fn journal_ended(&mut self, key: TaskKey, deliver: Deliver, body: Bytes) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let record = Record::Ended {
            identity: self.sessions.identity_of(task.identity).clone(),
            task_id: task.id.clone(),
            deliver: Box::new(deliver.clone()),
            body: body.clone(),
        };
        task.state = TaskState::Ending(Box::new((deliver, body)));
        self.journal(record, Waits::Deliver(key));
    }

    /// Every record up to `up_to` is on disk.
    pub fn journal_synced(&mut self, now: Now, up_to: u64) {
        while let Some((seq, _)) = self.journaling.waiting.front()
            && *seq <= up_to
            && let Some((_, waits)) = self.journaling.waiting.pop_front()
        {
            match waits {
                Waits::Accepted(task, session) => self.tell_accepted(task, session),
                Waits::Deliver(task) => self.finish_ending(now, task),
            }
        }
    }

    fn tell_accepted(&mut self, key: TaskKey, session: SessionKey) {
        let connection = self.sessions.get(session).and_then(|session| session.connection);
        if let (Some(to), Some(task)) = (connection, self.tasks.get(key)) {
            let id = task.id.clone();
            self.send(to, Message::Accepted(id));
        }
    }

    fn finish_ending(&mut self, now: Now, key: TaskKey) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        if let TaskState::Ending(ending) = &mut task.state {
            let (deliver, body) = (ending.0.clone(), ending.1.clone());
            self.finish(now, key, deliver, body);
        }
    }

    /// The journal can't be written, or not be said to be on disk. Tasks that were not acknowledged
    /// end; outcomes that are there are told; no durable task is taken any more.
    pub fn journal_failed(&mut self, now: Now, message: &str) {
        if std::mem::replace(&mut self.journaling.has_failed, true) {
            return;
        }
        self.event(Event::JournalFailed { message: message.to_owned() });
        for (_, waits) in std::mem::take(&mut self.journaling.waiting) {
            match waits {
                Waits::Deliver(task) => self.finish_ending(now, task),
                Waits::Accepted(task, _) => self.give_up_unjournalled(now, task, message),
            }
        }
    }

    fn give_up_unjournalled(&mut self, now: Now, key: TaskKey, message: &str) {
        let executed = match self.tasks.get(key).map(|task| &task.state) {
            Some(TaskState::Running(_)) => {
                let why = "the journal failed";
                self.end_attempts(now, key, HopEvent::Cancelled, why, CancelReason::Superseded);
                Executed::Maybe
            }
            Some(TaskState::Ending(_)) | None => return,
            Some(_) => self.executed_so_far(key),
        };
        let error = ErrorInfo::new(
            ErrorCode::DurableUnavailable,
            format!("the journal failed before the task was acknowledged: {message}"),
        );
        self.end(now, key, End::without_result(Outcome::Rejected, executed, error));
    }
}
