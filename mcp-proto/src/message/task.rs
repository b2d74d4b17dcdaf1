//! A task, as SEND and ROUTE carry it.

use std::collections::BTreeMap;

use bytes::Bytes;
use bytestring::ByteString;
use prost::Message as _;

use super::MessageKind;
use super::field::{In, task_id, wire_enum};
use crate::error::InvalidMessage;
use crate::generated as wire;
use crate::id::{ActionName, TaskId};
use crate::limits::{MAX_DEPTH, MAX_HEADERS, MAX_LABELS, MAX_TASK_BYTES};

wire_enum! {
    /// Which of the waiting tasks goes first.
    Priority {
        /// After all others.
        Low = 1, "low";
        /// The default.
        Normal = 2, "normal";
        /// Before normal ones.
        High = 3, "high";
        /// Before all others.
        Urgent = 4, "urgent";
    }
}

wire_enum! {
    /// What the broker promises for a task.
    Delivery {
        /// In memory; at most once unless idempotent.
        Fast = 1, "fast";
        /// Journalled before ACCEPTED; at least once.
        Durable = 2, "durable";
    }
}

/// Labels by key: capabilities of a worker, or requirements of a task.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, serde::Serialize)]
pub struct Labels(pub BTreeMap<String, String>);

impl Labels {
    /// Whether each of `required` is here with the same value.
    pub fn satisfy(&self, required: &Labels) -> bool {
        required.0.iter().all(|(key, value)| self.0.get(key) == Some(value))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What a task is, unchanged from client to worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Its name, unique among those of the client's identity.
    pub id: TaskId,
    /// What it asks for.
    pub action: ActionName,
    /// Of its body.
    pub content_type: ByteString,
    /// Which of the waiting tasks goes first.
    pub priority: Priority,
    /// On whose account.
    pub tenant: ByteString,
    /// Tasks with the same key prefer the same worker.
    pub affinity_key: ByteString,
    /// Labels that a worker must have.
    pub required_labels: Labels,
    /// What the broker promises.
    pub delivery: Delivery,
    /// Whether running it twice does no harm.
    pub idempotent: bool,
    /// Load test: only workers labelled shadow get it.
    pub shadow: bool,
    /// For the handler.
    pub headers: BTreeMap<String, String>,
    /// The task whose handler sent this one.
    pub parent: Option<TaskId>,
    /// 0 without a parent, at most 16.
    pub depth: u8,
    /// W3C Trace Context.
    pub traceparent: ByteString,
    /// W3C Trace Context.
    pub tracestate: ByteString,
}

impl Task {
    /// A task with defaults for all but its id and action.
    pub fn new(id: TaskId, action: ActionName) -> Self {
        Self {
            id,
            action,
            content_type: ByteString::new(),
            priority: Priority::Normal,
            tenant: ByteString::new(),
            affinity_key: ByteString::new(),
            required_labels: Labels::default(),
            delivery: Delivery::Fast,
            idempotent: false,
            shadow: false,
            headers: BTreeMap::new(),
            parent: None,
            depth: 0,
            traceparent: ByteString::new(),
            tracestate: ByteString::new(),
        }
    }

    fn from_wire(it: wire::Task) -> Result<Self, InvalidMessage> {
        let id = task_id(MessageKind::Send, it.task_id)?;
        let at = In { kind: MessageKind::Send, task_id: Some(id.clone()) };
        at.text_map("required_labels", &it.required_labels, MAX_LABELS)?;
        at.text_map("headers", &it.headers, MAX_HEADERS)?;
        let unknown = |field, number| at.invalid(field, format!("has unknown value {number}"));
        let depth = u8::try_from(it.depth).ok().filter(|depth| *depth <= MAX_DEPTH);
        Ok(Self {
            action: at.id("action", ActionName::from_bytes, it.action)?,
            content_type: at.text("content_type", it.content_type)?,
            priority: match it.priority {
                0 => Priority::Normal,
                number => Priority::from_wire(number).ok_or_else(|| unknown("priority", number))?,
            },
            tenant: at.text("tenant", it.tenant)?,
            affinity_key: at.text("affinity_key", it.affinity_key)?,
            required_labels: Labels(it.required_labels),
            delivery: match it.delivery {
                0 => Delivery::Fast,
                number => Delivery::from_wire(number).ok_or_else(|| unknown("delivery", number))?,
            },
            idempotent: it.idempotent,
            shadow: it.shadow,
            headers: it.headers,
            parent: at.optional_id("parent_task_id", TaskId::from_bytes, it.parent_task_id)?,
            depth: depth.ok_or_else(|| {
                at.invalid("depth", format!("is {}; at most {MAX_DEPTH} is allowed", it.depth))
            })?,
            traceparent: at.text("traceparent", it.traceparent)?,
            tracestate: at.text("tracestate", it.tracestate)?,
            id,
        })
    }

    /// Its wire form, as SEND and ROUTE carry it.
    pub fn encode(&self) -> EncodedTask {
        let it = wire::Task {
            task_id: self.id.to_bytes(),
            action: self.action.to_bytes(),
            content_type: self.content_type.as_bytes().clone(),
            priority: if self.priority == Priority::Normal { 0 } else { self.priority.to_wire() },
            tenant: self.tenant.as_bytes().clone(),
            affinity_key: self.affinity_key.as_bytes().clone(),
            required_labels: self.required_labels.0.clone(),
            delivery: if self.delivery == Delivery::Fast { 0 } else { self.delivery.to_wire() },
            idempotent: self.idempotent,
            shadow: self.shadow,
            headers: self.headers.clone(),
            parent_task_id: self.parent.as_ref().map(TaskId::to_bytes).unwrap_or_default(),
            depth: u32::from(self.depth),
            traceparent: self.traceparent.as_bytes().clone(),
            tracestate: self.tracestate.as_bytes().clone(),
        };
        EncodedTask(it.encode_to_vec().into())
    }
}

/// A [`Task`] in its wire form, not looked into yet. The broker forwards it as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedTask(pub Bytes);

impl EncodedTask {
    /// Parses it. The parts of the task are slices of these bytes.
    pub fn decode(&self) -> Result<Task, InvalidMessage> {
        let it = wire::Task::decode(self.0.clone())
            .map_err(|error| In::new(MessageKind::Send).invalid("task", error))?;
        let task = Task::from_wire(it)?;
        if self.0.len() > MAX_TASK_BYTES {
            let at = In { kind: MessageKind::Send, task_id: Some(task.id) };
            let problem =
                format!("has {} bytes; at most {MAX_TASK_BYTES} are allowed", self.0.len());
            return Err(at.invalid("task", problem));
        }
        Ok(task)
    }
}
