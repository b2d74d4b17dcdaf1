//! Leaving in order: everybody is told, what runs may finish, nothing is left without an outcome.

use mcp_proto::{CancelReason, ErrorCode, ErrorInfo, Executed, Goaway, HopEvent, Message, Outcome};

use super::ending::End;
use super::inflight::{Task, TaskKey, TaskState};
use super::{ConnectionId, Core, Event, Now, Timer};

impl Core {
    /// Starts to shut down: peers get GOAWAY, waiting tasks end rejected(SHUTTING_DOWN), no new
    /// ones are taken. What runs may go on for `drain_ms`; then it ends too. Durable tasks do not
    /// end: they stay in the journal. Done when [`Core::is_drained`] says so.
    pub fn begin_shutdown(&mut self, now: Now, drain_ms: u64) {
        if std::mem::replace(&mut self.is_shutting_down, true) {
            return;
        }
        let mut peers: Vec<ConnectionId> = self.peers.keys().copied().collect();
        peers.sort_unstable();
        for peer in peers {
            let goaway = Goaway {
                code: ErrorCode::ShuttingDown,
                message: "the broker is shutting down".into(),
                reconnect: true,
            };
            self.send(peer, Message::Goaway(goaway));
        }
        self.end_copies(now);
        for key in self.tasks.keys() {
            let state = self.tasks.get(key).map(|task| &task.state);
            if state.is_some_and(|state| state.waits_since().is_some()) {
                self.end_for_shutdown(now, key);
            }
        }
        self.event(Event::ShuttingDown { running: self.tasks.len() });
        self.timers.set(now.mono.plus_ms(drain_ms), Timer::Drain);
    }

    /// Whether it takes no more connections and tasks.
    pub fn is_shutting_down(&self) -> bool {
        self.is_shutting_down
    }

    /// Whether it is shutting down and every task has its outcome, or stays in the journal.
    pub fn is_drained(&self) -> bool {
        let in_journal = self.delayed.live.tasks + self.delayed.shadow.tasks;
        self.is_shutting_down && self.tasks.len() == in_journal
    }

    /// Whether a task goes on after a restart. What is on disk does so even if the journal has failed.
    fn stays_in_journal(&self, key: TaskKey) -> bool {
        let stays = |task: &Task| task.is_on_disk || task.is_durable && self.can_be_durable();
        self.tasks.get(key).is_some_and(stays)
    }

    pub(super) fn drain_is_over(&mut self, now: Now) {
        for key in self.tasks.keys() {
            let Some(TaskState::Running(_)) = self.tasks.get(key).map(|it| &it.state) else {
                continue;
            };
            let why = "the broker is shutting down";
            self.end_attempts(now, key, HopEvent::Cancelled, why, CancelReason::Shutdown);
            if self.stays_in_journal(key) {
                self.delay(now, key, u64::MAX);
                continue;
            }
            let message = "the broker shut down while a worker had it";
            let error = ErrorInfo::new(ErrorCode::ShuttingDown, message);
            self.end(now, key, End::without_result(Outcome::Failed, Executed::Maybe, error));
        }
    }

    /// Ends a task that waits, or that a worker gave back, while the broker shuts down. A durable one
    /// goes on when the broker is back.
    pub(super) fn end_for_shutdown(&mut self, now: Now, key: TaskKey) {
        if self.stays_in_journal(key) {
            self.leave_queue(key);
            return self.delay(now, key, u64::MAX);
        }
        let executed = self.executed_so_far(key);
        let outcome = match executed {
            Executed::No => Outcome::Rejected,
            Executed::Maybe | Executed::Yes => Outcome::Failed,
        };
        let message = "the broker is shutting down; send the task again when it is back";
        let error = ErrorInfo::new(ErrorCode::ShuttingDown, message).retry_after_ms(1_000);
        self.end(now, key, End::without_result(outcome, executed, error));
    }
}
