//! What clients ask for.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use mcp_proto::{ActionName, AttemptId, Delivery, Priority, Retry, Send, Task, TaskId};

use crate::plan::Plan;
use crate::rng::Rng;

/// A task, as its client knows it.
#[derive(Debug)]
pub(crate) struct Asks {
    pub(crate) id: TaskId,
    pub(crate) is_durable: bool,
    pub(crate) is_idempotent: bool,
    pub(crate) ttl_ms: u64,
    pub(crate) delay_ms: u64,
    pub(crate) retry: Option<Retry>,
    pub(crate) attempt_timeout_ms: u32,
    pub(crate) priority: Priority,
    /// Whether it ends with its client's connection.
    pub(crate) is_tied: bool,
    /// Whether anybody has asked for that.
    pub(crate) is_cancelled: Cell<bool>,
}

/// What all tasks ask for.
pub(crate) fn action() -> ActionName {
    ActionName::try_from("work").unwrap()
}

impl Asks {
    pub(crate) fn new(id: String, plan: &Plan, rng: &mut Rng) -> Rc<Self> {
        let ttl_ms = rng.time_us(plan.ttl_ms.clone());
        let is_delayed = rng.chance(plan.delayed_percent);
        let delay_ms = if is_delayed { rng.time_us(1..5_000).min(ttl_ms - 1) } else { 0 };
        let retry = Retry { max_attempts: 1 + rng.index(4) as u32, ..Retry::default() };
        Rc::new(Self {
            id: TaskId::try_from(id).unwrap(),
            is_durable: rng.chance(plan.durable_percent),
            is_idempotent: rng.chance(plan.idempotent_percent),
            ttl_ms,
            delay_ms,
            retry: rng.chance(30).then_some(retry),
            attempt_timeout_ms: if rng.chance(10) { 2_000 } else { 0 },
            priority: rng.pick(&[Priority::Low, Priority::Normal, Priority::Urgent]),
            is_tied: rng.chance(plan.tied_percent),
            is_cancelled: Cell::new(false),
        })
    }

    pub(crate) fn may_run_twice(&self) -> bool {
        self.is_durable || self.is_idempotent
    }

    pub(crate) fn send(&self, ttl_ms: u64, delay_ms: u64) -> Send {
        let delivery = if self.is_durable { Delivery::Durable } else { Delivery::Fast };
        let task = Task {
            delivery,
            idempotent: self.is_idempotent,
            retry: self.retry,
            attempt_timeout_ms: self.attempt_timeout_ms,
            priority: self.priority,
            cancel_on_disconnect: self.is_tied,
            ..Task::new(self.id.clone(), action())
        };
        Send { delay_ms, ..Send::new(task.encode(), ttl_ms) }
    }

    pub(crate) fn body(&self) -> Bytes {
        Bytes::from(format!("input of {}", self.id))
    }

    /// What the handler of an attempt makes of it: each something else.
    pub(crate) fn result(attempt: AttemptId) -> Bytes {
        Bytes::from(attempt.0.to_string())
    }

    /// The attempt whose result this is.
    pub(crate) fn attempt_of(result: &[u8]) -> Option<AttemptId> {
        std::str::from_utf8(result).ok()?.parse().ok().map(AttemptId)
    }
}
