//! What the model knows of a task.

use mcp_broker::broker::Mono;
use mcp_proto::{ActionName, Executed, Outcome, Priority, Retry, Task, TaskId};

/// What a task asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asks {
    pub(super) flags: u8,
    pub(super) shape: u8,
}

impl Asks {
    fn has(self, bit: u8) -> bool {
        self.flags & 1 << bit != 0
    }

    pub(super) fn is_idempotent(self) -> bool {
        self.has(0)
    }

    /// In all, those that were handed back unstarted aside.
    pub(super) fn max_attempts(self) -> u32 {
        if self.has(1) { 2 } else { u32::MAX }
    }

    pub(super) fn is_durable(self) -> bool {
        self.has(4)
    }

    /// Bytes of chunks that its client takes before it gives credit.
    pub(super) fn window_bytes(self) -> u32 {
        if self.has(5) { 300 } else { 0 }
    }

    pub(super) fn is_upload(self) -> bool {
        self.has(6)
    }

    pub(super) fn ttl_ms(self) -> u64 {
        [50, 3_000, 60_000, 7 * 24 * 60 * 60 * 1000][usize::from(self.shape & 3)]
    }

    /// For so long it waits before it goes to a worker.
    pub(super) fn delay_ms(self) -> u64 {
        if self.shape & 0x40 == 0 { 0 } else { 20 }
    }

    /// As it is sent.
    pub(super) fn task(self, id: TaskId, parent: Option<TaskId>) -> Task {
        let retry = Retry { max_attempts: 2, initial_ms: 50, ..Retry::default() };
        let key = ["", "a", "b", "c"][usize::from(self.shape >> 4 & 3)];
        Task {
            idempotent: self.is_idempotent(),
            retry: self.has(1).then_some(retry),
            attempt_timeout_ms: if self.has(2) { 30 } else { 0 },
            cancel_on_disconnect: self.has(3),
            delivery: match self.is_durable() {
                true => mcp_proto::Delivery::Durable,
                false => mcp_proto::Delivery::Fast,
            },
            explain: self.has(7),
            priority: Priority::ALL[usize::from(self.shape >> 2 & 3)],
            tenant: key.into(),
            affinity_key: key.into(),
            parent,
            ..Task::new(id, ActionName::try_from("work").unwrap())
        }
    }
}

/// A task that was sent. It is named by its number.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) asks: Asks,
    /// Not before this it goes to a worker.
    pub(super) start: Mono,
    /// It ends before this, or then.
    pub(super) deadline: Mono,
    pub(super) parent: Option<usize>,
    /// It was cancelled or expired with its parent.
    pub(super) is_cut_short: bool,
    /// Attempts that were routed and not handed back unstarted.
    pub(super) begun: u32,
    /// The broker was started again since one began.
    pub(super) began_before: bool,
    /// How it ended for good.
    pub(super) outcome: Option<(Outcome, Executed, u32)>,
    /// A client is done with its outcome.
    pub(super) is_settled: bool,
    /// Until a record of this number is on disk, nobody may hear of it that it was taken, or how it
    /// ended.
    pub(super) accepted_seq: u64,
    pub(super) ended_seq: u64,
}

impl Sent {
    /// One of which nothing is known yet.
    pub(super) fn new(asks: Asks, start: Mono, deadline: Mono) -> Self {
        Self {
            asks,
            start,
            deadline,
            parent: None,
            is_cut_short: false,
            begun: 0,
            began_before: false,
            outcome: None,
            is_settled: false,
            accepted_seq: 0,
            ended_seq: 0,
        }
    }
}

pub(super) fn task_id(number: usize) -> TaskId {
    TaskId::try_from(format!("t{number}")).unwrap()
}

pub(super) fn number(id: &TaskId) -> usize {
    id.as_str()[1..].parse().unwrap()
}
