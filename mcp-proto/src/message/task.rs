//! A task, as SEND and ROUTE carry it.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;

use super::MessageKind;
use super::Retry;
use super::field::{In, task_id, wire_enum};
use crate::error::InvalidMessage;
use crate::id::{ActionName, ActionRef, TaskId};
use crate::limits::{
    MAX_DEPTH, MAX_HEADERS, MAX_LABELS, MAX_RETRY_WAIT_MS, MAX_TASK_BYTES, MAX_TASK_ID_BYTES,
};
use crate::trace_context::{TraceContext, TraceId};
use crate::wire::{Reader, WireError, Writer, part};

/// The header that makes a task a shadow task when its value is `true`, in any case.
const LOAD_TEST_HEADER: &[u8] = b"x-load-test";

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
#[derive(
    Debug,
    Clone,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
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
    /// Load test: only workers labelled shadow get it. Also set by the header `x-load-test` with the
    /// value `true`.
    pub shadow: bool,
    /// For the handler.
    pub headers: BTreeMap<String, String>,
    /// The task whose handler sent this one.
    pub parent: Option<TaskId>,
    /// 0 without a parent, at most 16.
    pub depth: u8,
    /// W3C Trace Context. Without a valid one, its trace is [`TraceId::of_task`].
    pub traceparent: ByteString,
    /// W3C Trace Context.
    pub tracestate: ByteString,
    /// When to try again after a failure; none: a handler's failure is final.
    pub retry: Option<Retry>,
    /// An attempt without a sign of life for this long ends, ms, at most an hour; 0: only the time
    /// to live counts.
    pub attempt_timeout_ms: u32,
    /// Whether to cancel it when its client's connection is lost.
    pub cancel_on_disconnect: bool,
    /// Whether its context trace tells why each worker was chosen.
    pub explain: bool,
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
            retry: None,
            attempt_timeout_ms: 0,
            cancel_on_disconnect: false,
            explain: false,
        }
    }

    fn from_fields(whole: &Bytes, it: &Fields<'_>) -> Result<Self, InvalidMessage> {
        let head = TaskHead::from_fields(whole.len(), it)?;
        let at = In { kind: MessageKind::Send, task_id: Some(&head.id) };
        let extras = head.extras.map_or_else(TaskExtras::default, |extras| *extras);
        // Checked with the head.
        let text = |it| ByteString::try_from(part(whole, it)).unwrap_or_default();
        Ok(Self {
            content_type: text(it.content_type),
            tenant: text(it.tenant),
            affinity_key: text(it.affinity_key),
            headers: at.text_map("headers", &it.headers, MAX_HEADERS)?,
            parent: extras.parent,
            depth: it.depth as u8,
            traceparent: text(it.traceparent),
            tracestate: text(it.tracestate),
            retry: extras.retry,
            attempt_timeout_ms: extras.attempt_timeout_ms,
            cancel_on_disconnect: extras.cancel_on_disconnect,
            explain: extras.explain,
            action: at.id("action", ActionName::from_bytes, part(whole, it.action))?,
            id: head.id,
            priority: head.priority,
            required_labels: head.required_labels,
            delivery: head.delivery,
            idempotent: head.idempotent,
            shadow: head.shadow,
        })
    }

    /// The trace that it belongs to: its `traceparent`'s, or [`TraceId::of_task`].
    pub fn trace_id(&self) -> TraceId {
        let given = TraceContext::parse(self.traceparent.as_bytes());
        given.map_or_else(|| TraceId::of_task(&self.id), |given| given.trace_id)
    }

    /// Its wire form, as SEND and ROUTE carry it.
    pub fn encode(&self) -> EncodedTask {
        let mut bytes = BytesMut::with_capacity(self.max_bytes());
        let mut to = Writer(&mut bytes);
        to.bytes(1, self.id.as_bytes());
        to.bytes(2, self.action.as_bytes());
        to.bytes(3, self.content_type.as_bytes());
        if self.priority != Priority::Normal {
            to.uint(4, self.priority.to_wire() as u64);
        }
        to.bytes(5, self.tenant.as_bytes());
        to.bytes(6, self.affinity_key.as_bytes());
        write_map(&mut to, 7, &self.required_labels.0);
        if self.delivery != Delivery::Fast {
            to.uint(8, self.delivery.to_wire() as u64);
        }
        to.uint(9, self.idempotent.into());
        to.uint(10, self.shadow.into());
        write_map(&mut to, 11, &self.headers);
        if let Some(parent) = &self.parent {
            to.bytes(12, parent.as_bytes());
        }
        to.uint(13, self.depth.into());
        to.bytes(14, self.traceparent.as_bytes());
        to.bytes(15, self.tracestate.as_bytes());
        if let Some(retry) = &self.retry {
            to.message(16, |to| retry.write(to));
        }
        to.uint(17, self.attempt_timeout_ms.into());
        to.uint(18, self.cancel_on_disconnect.into());
        to.uint(19, self.explain.into());
        // It is kept for as long as the task is in flight, so no larger than it needs to be.
        EncodedTask(Bytes::copy_from_slice(&bytes))
    }

    /// Enough for its texts, with a few bytes of tag and length for each.
    fn max_bytes(&self) -> usize {
        let texts = [&self.content_type, &self.tenant, &self.affinity_key]
            .into_iter()
            .chain([&self.traceparent, &self.tracestate]);
        let ids = self.id.as_bytes().len() + self.action.as_bytes().len() + 2 * MAX_TASK_ID_BYTES;
        ids + texts.map(|text| text.len()).sum::<usize>() + 32
    }
}

pub(super) fn write_map(to: &mut Writer<'_>, field: u32, map: &BTreeMap<String, String>) {
    for (key, value) in map {
        to.message(field, |to| {
            to.bytes(1, key.as_bytes());
            to.bytes(2, value.as_bytes());
        });
    }
}

/// What a broker needs to know of a task that it forwards.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskHead<'a> {
    /// See [`Task::id`].
    pub id: TaskId,
    /// See [`Task::action`].
    pub action: ActionRef<'a>,
    /// See [`Task::priority`].
    pub priority: Priority,
    /// See [`Task::required_labels`].
    pub required_labels: Labels,
    /// See [`Task::delivery`].
    pub delivery: Delivery,
    /// See [`Task::idempotent`].
    pub idempotent: bool,
    /// See [`Task::shadow`].
    pub shadow: bool,
    /// See [`Task::tenant`]; UTF-8.
    pub tenant: &'a [u8],
    /// See [`Task::affinity_key`]; UTF-8.
    pub affinity_key: &'a [u8],
    /// See [`Task::traceparent`]; UTF-8.
    pub traceparent: &'a [u8],
    /// What most tasks have nothing of.
    pub extras: Option<Box<TaskExtras>>,
}

/// What most tasks have nothing of, and a broker needs to know.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TaskExtras {
    /// See [`Task::parent`].
    pub parent: Option<TaskId>,
    /// See [`Task::retry`].
    pub retry: Option<Retry>,
    /// See [`Task::attempt_timeout_ms`].
    pub attempt_timeout_ms: u32,
    /// See [`Task::cancel_on_disconnect`].
    pub cancel_on_disconnect: bool,
    /// See [`Task::explain`].
    pub explain: bool,
}

impl TaskExtras {
    #[inline]
    fn from_fields(it: &Fields<'_>, at: &In) -> Result<Option<Box<Self>>, InvalidMessage> {
        let is_plain = it.parent_task_id.is_empty()
            && it.retry.is_none()
            && it.attempt_timeout_ms == 0
            && !it.cancel_on_disconnect
            && !it.explain;
        if is_plain {
            return Ok(None);
        }
        let attempt_timeout_ms = match u32::try_from(it.attempt_timeout_ms) {
            Ok(timeout_ms) if timeout_ms <= MAX_RETRY_WAIT_MS => timeout_ms,
            Ok(_) | Err(_) => {
                let problem =
                    format!("is {}; at most {MAX_RETRY_WAIT_MS} is allowed", it.attempt_timeout_ms);
                return Err(at.invalid("attempt_timeout_ms", problem));
            }
        };
        Ok(Some(Box::new(Self {
            parent: parent(at, it.parent_task_id)?,
            retry: it.retry.map(|retry| Retry::parse(retry, at)).transpose()?,
            attempt_timeout_ms,
            cancel_on_disconnect: it.cancel_on_disconnect,
            explain: it.explain,
        })))
    }
}

impl<'a> TaskHead<'a> {
    /// Checks every field of a task of so many bytes, and keeps what a broker needs.
    #[inline]
    fn from_fields(task_bytes: usize, it: &Fields<'a>) -> Result<Self, InvalidMessage> {
        let id = task_id(MessageKind::Send, it.task_id)?;
        let at = In { kind: MessageKind::Send, task_id: Some(&id) };
        let unknown = |field, number| at.invalid(field, format!("has unknown value {number}"));
        for (field, text) in [
            ("content_type", it.content_type),
            ("tenant", it.tenant),
            ("affinity_key", it.affinity_key),
            ("traceparent", it.traceparent),
            ("tracestate", it.tracestate),
        ] {
            at.check_text(field, text)?;
        }
        let mut shadow = it.shadow;
        if !it.headers.is_empty() {
            at.text_map("headers", &it.headers, MAX_HEADERS)?;
            shadow |= it.headers.iter().any(says_load_test);
        }
        if it.depth > u64::from(MAX_DEPTH) {
            let problem = format!("is {}; at most {MAX_DEPTH} is allowed", it.depth);
            return Err(at.invalid("depth", problem));
        }
        if task_bytes > MAX_TASK_BYTES {
            let problem = format!("has {task_bytes} bytes; at most {MAX_TASK_BYTES} are allowed");
            return Err(at.invalid("task", problem));
        }
        Ok(Self {
            action: ActionRef::from_bytes(it.action)
                .map_err(|error| at.invalid("action", error))?,
            priority: match it.priority {
                0 => Priority::Normal,
                number => Priority::from_wire(number).ok_or_else(|| unknown("priority", number))?,
            },
            required_labels: Labels(at.text_map(
                "required_labels",
                &it.required_labels,
                MAX_LABELS,
            )?),
            delivery: match it.delivery {
                0 => Delivery::Fast,
                number => Delivery::from_wire(number).ok_or_else(|| unknown("delivery", number))?,
            },
            idempotent: it.idempotent,
            shadow,
            tenant: it.tenant,
            affinity_key: it.affinity_key,
            traceparent: it.traceparent,
            extras: TaskExtras::from_fields(it, &at)?,
            id,
        })
    }
}

fn says_load_test((name, value): &(&[u8], &[u8])) -> bool {
    name.eq_ignore_ascii_case(LOAD_TEST_HEADER) && *value == b"true"
}

fn parent(at: &In, id: &[u8]) -> Result<Option<TaskId>, InvalidMessage> {
    if id.is_empty() {
        return Ok(None);
    }
    TaskId::from_bytes(id).map(Some).map_err(|error| at.invalid("parent_task_id", error))
}

/// The fields of a task, not checked yet.
#[derive(Default)]
struct Fields<'a> {
    task_id: &'a [u8],
    action: &'a [u8],
    content_type: &'a [u8],
    priority: i32,
    tenant: &'a [u8],
    affinity_key: &'a [u8],
    required_labels: Vec<(&'a [u8], &'a [u8])>,
    delivery: i32,
    idempotent: bool,
    shadow: bool,
    headers: Vec<(&'a [u8], &'a [u8])>,
    parent_task_id: &'a [u8],
    depth: u64,
    traceparent: &'a [u8],
    tracestate: &'a [u8],
    retry: Option<&'a [u8]>,
    attempt_timeout_ms: u64,
    cancel_on_disconnect: bool,
    explain: bool,
}

impl<'a> Fields<'a> {
    /// In place: it is large, and returned it would be moved.
    #[inline(always)]
    fn read(&mut self, task: &'a [u8]) -> Result<(), WireError> {
        let it = self;
        let mut fields = Reader(task);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => it.task_id = field.bytes()?,
                2 => it.action = field.bytes()?,
                3 => it.content_type = field.bytes()?,
                4 => it.priority = field.enumeration()?,
                5 => it.tenant = field.bytes()?,
                6 => it.affinity_key = field.bytes()?,
                7 => it.required_labels.push(entry(field.bytes()?)?),
                8 => it.delivery = field.enumeration()?,
                9 => it.idempotent = field.uint()? != 0,
                10 => it.shadow = field.uint()? != 0,
                11 => it.headers.push(entry(field.bytes()?)?),
                12 => it.parent_task_id = field.bytes()?,
                13 => it.depth = field.uint()?,
                14 => it.traceparent = field.bytes()?,
                15 => it.tracestate = field.bytes()?,
                16 => it.retry = Some(field.bytes()?),
                17 => it.attempt_timeout_ms = field.uint()?,
                18 => it.cancel_on_disconnect = field.uint()? != 0,
                19 => it.explain = field.uint()? != 0,
                _ => {}
            }
        }
        Ok(())
    }
}

pub(super) fn entry(it: &[u8]) -> Result<(&[u8], &[u8]), WireError> {
    let (mut key, mut value) = (&[][..], &[][..]);
    let mut fields = Reader(it);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => key = field.bytes()?,
            2 => value = field.bytes()?,
            _ => {}
        }
    }
    Ok((key, value))
}

/// A [`Task`] in its wire form, not looked into yet. The broker forwards it as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedTask(pub Bytes);

impl EncodedTask {
    /// Parses it. Texts are slices of these bytes.
    ///
    /// # Errors
    /// The first field that is missing or wrong.
    pub fn decode(&self) -> Result<Task, InvalidMessage> {
        let mut it = Fields::default();
        it.read(&self.0).map_err(malformed)?;
        Task::from_fields(&self.0, &it)
    }

    /// Checks all of it, and parses what a broker needs.
    ///
    /// # Errors
    /// The first field that is missing or wrong.
    #[inline]
    pub fn head(&self) -> Result<TaskHead<'_>, InvalidMessage> {
        head(&self.0)
    }
}

fn malformed(error: WireError) -> InvalidMessage {
    In::new(MessageKind::Send).invalid("task", error)
}

/// As [`EncodedTask::head`].
#[inline]
pub(crate) fn head(task: &[u8]) -> Result<TaskHead<'_>, InvalidMessage> {
    let mut it = Fields::default();
    it.read(task).map_err(malformed)?;
    TaskHead::from_fields(task.len(), &it)
}

/// Appends a task that asks for another action, and is the same otherwise: also what is not known
/// here. Returns whether it could be read, and is not too long then.
pub(crate) fn write_with_action(task: &[u8], action: ActionRef<'_>, to: &mut BytesMut) -> bool {
    const ACTION: u32 = 2;
    let start = to.len();
    let mut fields = Reader(task);
    loop {
        let before = fields.0;
        match fields.next() {
            Ok(Some(field)) if field.number == ACTION => {
                Writer(to).bytes(ACTION, action.as_str().as_bytes());
            }
            Ok(Some(_)) => to.extend_from_slice(&before[..before.len() - fields.0.len()]),
            Ok(None) => return to.len() - start <= MAX_TASK_BYTES,
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_makes_a_shadow_task() {
        let is_shadow = |name: &str, value: &str| {
            let id = TaskId::try_from("t").unwrap();
            let action = ActionName::try_from("a").unwrap();
            let headers = [(name.to_owned(), value.to_owned())].into();
            let task = Task { headers, ..Task::new(id, action) }.encode();
            assert_eq!(task.decode().unwrap().shadow, task.head().unwrap().shadow);
            task.head().unwrap().shadow
        };
        assert!(is_shadow("x-load-test", "true") && is_shadow("X-Load-Test", "true"));
        for (name, value) in [("x-load-test", "false"), ("x-load-test", ""), ("x-load", "true")] {
            assert!(!is_shadow(name, value), "{name}: {value}");
        }
    }
}
