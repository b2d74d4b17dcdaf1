//! Tasks asked for by their ids: those that another process sent, or this one before.
//!
//! Synchronous: pushes frames to an [`Outbox`], and answers whoever asked. To the broker, a session
//! that asked for a task waits for its outcome from then on, as if it had sent it. So each task that
//! was asked for takes room until its DELIVER, even if nobody here waits for that.

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use bytes::Bytes;
use mcp_proto::{Message, TaskId, TaskState};
use tokio::sync::oneshot;

use crate::connection::Outbox;
use crate::task::Delivered;

/// What the broker has of a task.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Ended(Delivered),
    /// It has no outcome, or is not known.
    State(TaskState),
}

/// Who asked for a task.
#[derive(Debug)]
pub(super) struct Asker {
    /// Whether only an outcome will do, as long as the task is known.
    pub(super) waits: bool,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// The tasks that were asked for.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    tasks: HashMap<TaskId, Vec<Asker>>,
}

impl Fetches {
    /// Whether the broker owes an answer.
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Asks for a task. Returns whether it takes room from now on.
    pub(super) fn ask(&mut self, id: &TaskId, asker: Asker, mut out: impl Outbox) -> bool {
        out.push(&Message::Fetch(id.clone()), &Bytes::new());
        match self.tasks.get_mut(id) {
            Some(askers) => {
                askers.push(asker);
                false
            }
            None => {
                self.tasks.insert(id.clone(), vec![asker]);
                true
            }
        }
    }

    /// There is a connection: asks again for what somebody still wants to know. Returns how much
    /// room the rest gives back.
    pub(super) fn connected(&mut self, mut out: impl Outbox) -> usize {
        let before = self.tasks.len();
        self.tasks.retain(|id, askers| {
            askers.retain(|asker| !asker.answer.is_closed());
            if !askers.is_empty() {
                out.push(&Message::Fetch(id.clone()), &Bytes::new());
            }
            !askers.is_empty()
        });
        before - self.tasks.len()
    }

    /// STATUS. Returns how much room it gives back.
    pub(super) fn status(&mut self, id: &TaskId, state: TaskState) -> usize {
        if state == TaskState::Unknown {
            return self.end(id, &Answer::State(state));
        }
        if let Some(askers) = self.tasks.get_mut(id) {
            for asker in askers.extract_if(.., |asker| !asker.waits) {
                asker.tell(Answer::State(state));
            }
        }
        0
    }

    /// DELIVER. Returns how much room it gives back.
    pub(super) fn delivered(&mut self, end: &Delivered) -> usize {
        self.end(&end.deliver.task_id, &Answer::Ended(end.clone()))
    }

    /// There will be no connection any more: nobody is answered.
    pub(super) fn give_up(&mut self) {
        self.tasks.clear();
    }

    fn end(&mut self, id: &TaskId, answer: &Answer) -> usize {
        let Some(askers) = self.tasks.remove(id) else { return 0 };
        for asker in askers {
            asker.tell(answer.clone());
        }
        1
    }
}

impl Asker {
    fn tell(self, answer: Answer) {
        // Who dropped the future does not want to know.
        let _ = self.answer.send(answer);
    }
}
