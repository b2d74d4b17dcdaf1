//! Messages about tasks and attempts.

use std::collections::BTreeMap;

use bytes::Bytes;
use bytestring::ByteString;
use prost::Message as _;

use super::field::{In, task_id, wire_enum};
use super::task::{EncodedTask, entry, write_map};
use super::{Failure, LazyTrace, MessageKind};
use crate::error::{ErrorInfo, InvalidMessage};
use crate::generated as wire;
use crate::id::{AttemptId, TaskId};
use crate::limits::{MAX_HEADERS, MAX_RESULT_HEADER_BYTES, MAX_TTL_MS};
use crate::trace_context::SpanId;
use crate::wire::{Reader, WireError, Writer, part};

wire_enum! {
    /// How a task ends: exactly one of these for each task.
    Outcome {
        /// The handler returned a result.
        Ok = 1, "ok";
        /// The handler returned an error, or its worker was lost.
        Failed = 2, "failed";
        /// Its time to live ran out.
        Expired = 3, "expired";
        /// Its client or an operator cancelled it.
        Cancelled = 4, "cancelled";
        /// The broker did not take it, or gave up placing it.
        Rejected = 5, "rejected";
        /// Nobody knows: decided by a client whose broker is gone, never sent.
        Lost = 6, "lost";
    }
}

wire_enum! {
    /// Whether the handler ran: what decides if trying again is safe.
    Executed {
        /// It did not start.
        No = 1, "no";
        /// It may have started.
        Maybe = 2, "maybe";
        /// It started.
        Yes = 3, "yes";
    }
}

wire_enum! {
    /// Why a task or attempt shall end.
    CancelReason {
        /// The client asked.
        Client = 1, "client";
        /// The time to live ran out.
        Expired = 2, "expired";
        /// Another attempt took over, or the task has ended otherwise.
        Superseded = 3, "superseded";
        /// The broker is stopping.
        Shutdown = 4, "shutdown";
    }
}

wire_enum! {
    /// What the broker knows of a task without an outcome.
    TaskState {
        /// Nothing, or no longer.
        Unknown = 1, "unknown";
        /// It waits for a worker.
        Queued = 2, "queued";
        /// A worker holds it.
        Running = 3, "running";
    }
}

/// How long an input is that comes in chunks, the body of SEND or ROUTE included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputLength {
    /// Its client does not say.
    Unknown,
    /// So many bytes.
    Bytes(u64),
}

impl InputLength {
    fn from_fields(follows: bool, bytes: u64) -> Option<Self> {
        match bytes {
            _ if !follows => None,
            0 => Some(InputLength::Unknown),
            bytes => Some(InputLength::Bytes(bytes)),
        }
    }

    /// Its two fields, of which this is the first.
    fn write(self, first: u32, to: &mut Writer<'_>) {
        to.uint(first, 1);
        if let InputLength::Bytes(bytes) = self {
            to.uint(first + 1, bytes);
        }
    }
}

/// A task for the broker.
#[derive(Debug, Clone, PartialEq)]
pub struct Send {
    /// The task.
    pub task: EncodedTask,
    /// Time to live from now, ms, 1 to 7 days.
    pub ttl_ms: u64,
    /// Bytes of chunks that the client takes before it gives credit; 0: none.
    pub stream_window_bytes: u32,
    /// Set when the body is only the beginning of the input: chunks with the rest follow.
    pub input_follows: Option<InputLength>,
    /// The task waits for so many ms from now before it may go to a worker; less than `ttl_ms`.
    pub delay_ms: u64,
}

impl Send {
    /// A task that may go to a worker at once, whose body is all of its input, and whose client wants
    /// no chunks.
    pub fn new(task: EncodedTask, ttl_ms: u64) -> Self {
        Self { task, ttl_ms, stream_window_bytes: 0, input_follows: None, delay_ms: 0 }
    }

    pub(super) fn parse(frame: &Bytes, it: &[u8]) -> Result<Self, Failure> {
        let (mut task, mut ttl_ms, mut stream_window_bytes) = (Bytes::new(), 0, 0);
        let (mut follows, mut input_bytes, mut delay_ms) = (false, 0, 0);
        let mut fields = Reader(it);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => task = part(frame, field.bytes()?),
                2 => ttl_ms = field.uint()?,
                3 => stream_window_bytes = field.uint()?.min(u32::MAX.into()) as u32,
                4 => follows = field.uint()? != 0,
                5 => input_bytes = field.uint()?,
                6 => delay_ms = field.uint()?,
                _ => {}
            }
        }
        let task = EncodedTask(task);
        let is_ttl_allowed = (1..=MAX_TTL_MS).contains(&ttl_ms);
        if !is_ttl_allowed || delay_ms >= ttl_ms {
            let task = task.decode().ok();
            let task_id = task.as_ref().map(|task| &task.id);
            let at = In { kind: MessageKind::Send, task_id };
            return Err(match is_ttl_allowed {
                false => {
                    let problem = format!("is {ttl_ms}; 1 to {MAX_TTL_MS} ms are allowed");
                    at.invalid("ttl_ms", problem)
                }
                true => {
                    let problem = format!("is {delay_ms}; it must be less than ttl_ms, {ttl_ms}");
                    at.invalid("delay_ms", problem)
                }
            }
            .into());
        }
        let input_follows = InputLength::from_fields(follows, input_bytes);
        Ok(Self { task, ttl_ms, stream_window_bytes, input_follows, delay_ms })
    }

    pub(super) fn write(&self, to: &mut Writer<'_>) {
        to.bytes(1, &self.task.0);
        to.uint(2, self.ttl_ms);
        to.uint(3, self.stream_window_bytes.into());
        if let Some(length) = self.input_follows {
            length.write(4, to);
        }
        to.uint(6, self.delay_ms);
    }
}

/// An attempt at a task, for a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Names this attempt.
    pub attempt_id: AttemptId,
    /// 1 for the task's first.
    pub attempt: u32,
    /// What remains of the time to live, ms.
    pub ttl_ms: u64,
    /// The task.
    pub task: EncodedTask,
    /// Bytes of chunks that the worker may send before it gets credit; 0: none.
    pub stream_window_bytes: u32,
    /// See [`Send::input_follows`].
    pub input_follows: Option<InputLength>,
    /// The attempt's span, of a task whose broker records its trace: the parent of what its worker
    /// records.
    pub span_id: Option<SpanId>,
}

/// What a [`Route`] says besides the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteHead {
    /// See [`Route::attempt_id`].
    pub attempt_id: AttemptId,
    /// See [`Route::attempt`].
    pub attempt: u32,
    /// See [`Route::ttl_ms`].
    pub ttl_ms: u64,
    /// See [`Route::stream_window_bytes`].
    pub stream_window_bytes: u32,
    /// See [`Send::input_follows`].
    pub input_follows: Option<InputLength>,
    /// See [`Route::span_id`].
    pub span_id: Option<SpanId>,
}

impl Route {
    pub(super) fn parse(frame: &Bytes, it: &[u8]) -> Result<Self, WireError> {
        let (mut attempt_id, mut attempt, mut ttl_ms, mut task) = (0, 0, 0, &[][..]);
        let (mut stream_window_bytes, mut follows, mut input_bytes) = (0, false, 0);
        let mut span_id = None;
        let mut fields = Reader(it);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => attempt_id = field.fixed64()?,
                2 => attempt = field.uint()? as u32,
                3 => ttl_ms = field.uint()?.min(MAX_TTL_MS),
                4 => task = field.bytes()?,
                5 => stream_window_bytes = field.uint()?.min(u32::MAX.into()) as u32,
                6 => follows = field.uint()? != 0,
                7 => input_bytes = field.uint()?,
                8 => span_id = SpanId::new(field.fixed64()?),
                _ => {}
            }
        }
        let (attempt_id, task) = (AttemptId(attempt_id), EncodedTask(part(frame, task)));
        let input_follows = InputLength::from_fields(follows, input_bytes);
        Ok(Self { attempt_id, attempt, ttl_ms, task, stream_window_bytes, input_follows, span_id })
    }

    pub(super) fn write(&self, to: &mut Writer<'_>) {
        let Self { attempt_id, attempt, ttl_ms, stream_window_bytes, .. } = *self;
        let Self { input_follows, span_id, .. } = *self;
        RouteHead { attempt_id, attempt, ttl_ms, stream_window_bytes, input_follows, span_id }
            .write(&self.task.0, to);
    }
}

impl RouteHead {
    pub(super) fn write(&self, task: &[u8], to: &mut Writer<'_>) {
        to.fixed64(1, self.attempt_id.0);
        to.uint(2, self.attempt.into());
        to.uint(3, self.ttl_ms);
        to.bytes(4, task);
        to.uint(5, self.stream_window_bytes.into());
        if let Some(length) = self.input_follows {
            length.write(6, to);
        }
        if let Some(span_id) = self.span_id {
            to.fixed64(8, span_id.get());
        }
    }
}

/// The end of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskResult {
    /// Which.
    pub attempt_id: AttemptId,
    /// Ok or Failed; Cancelled or Expired to confirm a CANCEL.
    pub outcome: Outcome,
    /// Whether the handler ran.
    pub executed: Executed,
    /// Of the result's body.
    pub content_type: ByteString,
    /// For all but Ok.
    pub error: Option<Box<ErrorInfo>>,
    /// From the arrival of ROUTE to the start of the handler, µs.
    pub queue_us: u64,
    /// In the handler, µs.
    pub work_us: u64,
    /// How many chunks came before.
    pub chunks: u32,
    /// Another attempt would fail in the same way.
    pub permanent: bool,
    /// Of the result.
    pub headers: ResultHeaders,
}

impl TaskResult {
    /// An end with nothing else to say.
    pub fn new(attempt_id: AttemptId, outcome: Outcome, executed: Executed) -> Self {
        Self {
            attempt_id,
            outcome,
            executed,
            content_type: ByteString::new(),
            error: None,
            queue_us: 0,
            work_us: 0,
            chunks: 0,
            permanent: false,
            headers: None,
        }
    }

    pub(super) fn parse(frame: &Bytes, it: &[u8]) -> Result<Self, Failure> {
        let at = In::new(MessageKind::Result);
        let (mut outcome, mut executed, mut content_type) = (0, 0, &[][..]);
        let (mut attempt_id, mut error, mut queue_us, mut work_us) = (0, None, 0, 0);
        let (mut chunks, mut permanent, mut headers) = (0, false, Vec::new());
        let mut fields = Reader(it);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => attempt_id = field.fixed64()?,
                2 => outcome = field.enumeration()?,
                3 => executed = field.enumeration()?,
                4 => content_type = field.bytes()?,
                5 => error = Some(error_info(field.bytes()?)?),
                6 => queue_us = field.uint()?,
                7 => work_us = field.uint()?,
                8 => chunks = field.uint()? as u32,
                9 => permanent = field.uint()? != 0,
                10 => headers.push(entry(field.bytes()?)?),
                _ => {}
            }
        }
        let outcome = match Outcome::from_wire(outcome) {
            Some(
                outcome @ (Outcome::Ok | Outcome::Failed | Outcome::Expired | Outcome::Cancelled),
            ) => outcome,
            Some(Outcome::Rejected | Outcome::Lost) | None => {
                let problem = format!("{outcome} is not one that a worker reports");
                return Err(at.invalid("outcome", problem).into());
            }
        };
        Ok(Self {
            attempt_id: AttemptId(attempt_id),
            outcome,
            executed: Executed::from_wire(executed).unwrap_or(Executed::Yes),
            content_type: at.text("content_type", part(frame, content_type))?,
            error,
            queue_us,
            work_us,
            chunks,
            permanent,
            headers: parse_headers(&at, &headers)?,
        })
    }

    pub(super) fn write(&self, to: &mut Writer<'_>) {
        to.fixed64(1, self.attempt_id.0);
        to.uint(2, self.outcome.to_wire() as u64);
        to.uint(3, self.executed.to_wire() as u64);
        to.bytes(4, self.content_type.as_bytes());
        if let Some(error) = &self.error {
            to.generated(5, &error.to_wire());
        }
        to.uint(6, self.queue_us);
        to.uint(7, self.work_us);
        to.uint(8, self.chunks.into());
        to.uint(9, self.permanent.into());
        write_headers(to, 10, &self.headers);
    }
}

/// What there is to know of a result besides its body. Most have none.
pub type ResultHeaders = Option<Box<BTreeMap<String, String>>>;

fn parse_headers(at: &In, headers: &[(&[u8], &[u8])]) -> Result<ResultHeaders, InvalidMessage> {
    if headers.is_empty() {
        return Ok(None);
    }
    let headers = at.text_map("headers", headers, MAX_HEADERS)?;
    let bytes: usize = headers.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > MAX_RESULT_HEADER_BYTES {
        let problem =
            format!("has {bytes} bytes; at most {MAX_RESULT_HEADER_BYTES} are allowed together");
        return Err(at.invalid("headers", problem));
    }
    Ok(Some(Box::new(headers)))
}

fn write_headers(to: &mut Writer<'_>, field: u32, headers: &ResultHeaders) {
    if let Some(headers) = headers {
        write_map(to, field, headers);
    }
}

fn error_info(it: &[u8]) -> Result<Box<ErrorInfo>, Failure> {
    Ok(Box::new(ErrorInfo::from_wire(wire::Error::decode(it)?)))
}

/// The end of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Deliver {
    /// Which.
    pub task_id: TaskId,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether the handler ran.
    pub executed: Executed,
    /// Of the result's body.
    pub content_type: ByteString,
    /// For all but Ok.
    pub error: Option<Box<ErrorInfo>>,
    /// What happened on its way.
    pub trace: LazyTrace,
    /// How many chunks belong to the result.
    pub chunks: u32,
    /// Of which attempt.
    pub attempt: u32,
    /// Of the result.
    pub headers: ResultHeaders,
    /// The step of its action's fallback chain that this is of: `"cached"`, `"action:NAME"` or
    /// `"default"`; none: the action's own workers.
    pub fallback: Option<Box<str>>,
}

impl Deliver {
    /// An outcome with nothing else to say.
    pub fn new(task_id: TaskId, outcome: Outcome, executed: Executed) -> Self {
        Self {
            task_id,
            outcome,
            executed,
            content_type: ByteString::new(),
            error: None,
            trace: LazyTrace::default(),
            chunks: 0,
            attempt: 0,
            headers: None,
            fallback: None,
        }
    }

    pub(super) fn parse(frame: &Bytes, it: &[u8]) -> Result<Self, Failure> {
        let (mut id, mut outcome, mut executed, mut content_type) = (&[][..], 0, 0, &[][..]);
        let (mut error, mut trace) = (None, LazyTrace::default());
        let (mut chunks, mut attempt, mut headers) = (0, 0, Vec::new());
        let mut fallback = &[][..];
        let mut fields = Reader(it);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => id = field.bytes()?,
                2 => outcome = field.enumeration()?,
                3 => executed = field.enumeration()?,
                4 => content_type = field.bytes()?,
                5 => error = Some(error_info(field.bytes()?)?),
                6 => trace = LazyTrace::Encoded(part(frame, field.bytes()?)),
                7 => chunks = field.uint()? as u32,
                8 => attempt = field.uint()? as u32,
                9 => headers.push(entry(field.bytes()?)?),
                10 => fallback = field.bytes()?,
                _ => {}
            }
        }
        let task_id = task_id(MessageKind::Deliver, id)?;
        let at = In { kind: MessageKind::Deliver, task_id: Some(&task_id) };
        Ok(Self {
            outcome: Outcome::from_wire(outcome)
                .ok_or_else(|| at.invalid("outcome", format!("has unknown value {outcome}")))?,
            executed: Executed::from_wire(executed).unwrap_or(Executed::Maybe),
            content_type: at.text("content_type", part(frame, content_type))?,
            error,
            trace,
            chunks,
            attempt,
            headers: parse_headers(&at, &headers)?,
            fallback: match fallback.is_empty() {
                true => None,
                false => Some((*at.text("fallback", part(frame, fallback))?).into()),
            },
            task_id,
        })
    }

    pub(super) fn write(&self, to: &mut Writer<'_>) {
        to.bytes(1, self.task_id.as_bytes());
        to.uint(2, self.outcome.to_wire() as u64);
        to.uint(3, self.executed.to_wire() as u64);
        to.bytes(4, self.content_type.as_bytes());
        if let Some(error) = &self.error {
            to.generated(5, &error.to_wire());
        }
        to.message(6, |to| self.trace.write(to));
        to.uint(7, self.chunks.into());
        to.uint(8, self.attempt.into());
        write_headers(to, 9, &self.headers);
        if let Some(fallback) = &self.fallback {
            to.bytes(10, fallback.as_bytes());
        }
    }
}

/// End a task, or an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Cancel {
    /// From a client: its task.
    Task(TaskId),
    /// From the broker: this attempt.
    Attempt(AttemptId, CancelReason),
}

impl Cancel {
    pub(super) fn from_wire(it: wire::Cancel) -> Result<Self, InvalidMessage> {
        if it.attempt_id != 0 {
            let reason = CancelReason::from_wire(it.reason).unwrap_or(CancelReason::Superseded);
            return Ok(Cancel::Attempt(AttemptId(it.attempt_id), reason));
        }
        Ok(Cancel::Task(task_id(MessageKind::Cancel, &it.task_id)?))
    }

    pub(super) fn to_wire(&self) -> wire::Cancel {
        match self {
            Cancel::Task(id) => wire::Cancel {
                task_id: Bytes::copy_from_slice(id.as_bytes()),
                attempt_id: 0,
                reason: CancelReason::Client.to_wire(),
            },
            Cancel::Attempt(id, reason) => {
                wire::Cancel { task_id: Bytes::new(), attempt_id: id.0, reason: reason.to_wire() }
            }
        }
    }
}

/// Hands an attempt back that was not started.
#[derive(Debug, Clone, PartialEq)]
pub struct Nack {
    /// Which.
    pub attempt_id: AttemptId,
    /// Why.
    pub error: Option<Box<ErrorInfo>>,
}

impl Nack {
    pub(super) fn from_wire(it: wire::Nack) -> Self {
        Self {
            attempt_id: AttemptId(it.attempt_id),
            error: it.error.map(|error| Box::new(ErrorInfo::from_wire(error))),
        }
    }

    pub(super) fn to_wire(&self) -> wire::Nack {
        wire::Nack {
            attempt_id: self.attempt_id.0,
            error: self.error.as_ref().map(|error| error.to_wire()),
        }
    }
}
