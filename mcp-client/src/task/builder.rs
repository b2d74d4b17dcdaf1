//! A task being put together, and checked.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::{FutureExt, Stream};
use mcp_proto::limits::{
    MAX_DEPTH, MAX_HEADERS, MAX_LABELS, MAX_RETRY_WAIT_MS, MAX_TASK_BYTES, MAX_TEXT_BYTES,
    MAX_TTL_MS,
};
use mcp_proto::{Delivery, Priority, Retry, Task, TaskId};
use tokio::io::AsyncRead;

use super::input::Input;
use super::send::{Calling, Sending};
use super::{Reply, TaskHandle, TaskStream};
use crate::client::{Client, Draft, Incoming};
use crate::conversation::{self, Conversation};
use crate::error::{CallError, InvalidTask};
use crate::record;
use crate::worker::Job;

/// Time to live of a task that does not say, beyond its delay.
const DEFAULT_TTL: Duration = Duration::from_secs(30);

/// A task being put together. Nothing is sent before [`send`](Self::send) or
/// [`call`](Self::call), which also report what is not valid in it.
#[must_use = "a task is sent by send() or call()"]
pub struct TaskBuilder {
    client: Client,
    /// Or what is wrong with it, the first thing. Apart, as each method moves the rest.
    task: Result<Box<Task>, InvalidTask>,
    body: Bytes,
    ttl: Option<Duration>,
    start: Start,
    settles: bool,
    input: Option<Box<Input>>,
    input_bytes: Option<u64>,
}

/// When a task may go to a worker.
#[derive(Debug, Clone, Copy)]
enum Start {
    After(Duration),
    At(SystemTime),
}

impl Start {
    /// From now on.
    fn delay(self) -> Duration {
        match self {
            Start::After(delay) => delay,
            // Zero, if that is past.
            Start::At(time) => time.duration_since(SystemTime::now()).unwrap_or_default(),
        }
    }
}

impl TaskBuilder {
    pub(crate) fn new(client: Client, task: Result<Task, InvalidTask>) -> Self {
        let task = task.map(Box::new);
        let (body, start) = (Bytes::new(), Start::After(Duration::ZERO));
        let (ttl, input, input_bytes) = (None, None, None);
        Self { client, task, body, ttl, start, settles: true, input, input_bytes }
    }

    fn with(mut self, set: impl FnOnce(&mut Task)) -> Self {
        if let Ok(task) = &mut self.task {
            set(task);
        }
        self
    }

    fn refuse(mut self, invalid: InvalidTask) -> Self {
        self.task = self.task.and(Err(invalid));
        self
    }

    /// Its id, when it shall not be a new UUID: sending the same task again under the same id
    /// makes the broker join the two. 1 to 64 printable ASCII bytes.
    pub fn id<I>(self, id: I) -> Self
    where
        I: TryInto<TaskId>,
        I::Error: fmt::Display,
    {
        match id.try_into() {
            Ok(id) => self.with(|task| task.id = id),
            Err(error) => self.refuse(InvalidTask::new("task_id", error)),
        }
    }

    /// Its input. At most what the broker accepts, 1 GiB when its operator does not say otherwise; more is
    /// rejected(BODY_TOO_LARGE) without being sent. More than 64 KiB go in chunks, and need a handler
    /// that [takes them](Job::input).
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Its input, as agents that talk take it: [`conversation`]. Sets the content type, too.
    pub fn conversation(self, conversation: &Conversation) -> Self {
        match serde_json::to_vec(conversation) {
            Ok(body) => self.body(body).content_type(conversation::CONTENT_TYPE),
            Err(error) => self.refuse(InvalidTask::new("body", error)),
        }
    }

    /// What follows the [`body`](Self::body) of its input, sent as it comes and as the handler reads it:
    /// never more than 256 KiB are held here. The task is sent at once. Its handler has to
    /// [take it](Job::input), however short it turns out to be.
    ///
    /// When the stream fails, the task is cancelled, and its end tells why. It is polled by the client's
    /// runtime, and dropped when the task has ended, or is cancelled because its handle was dropped. The
    /// broker gives the task up when this client is gone before the stream has ended.
    pub fn input<S, B, E>(mut self, parts: S) -> Self
    where
        S: Stream<Item = Result<B, E>> + Send + 'static,
        B: Into<Bytes> + 'static,
        E: fmt::Display + 'static,
    {
        self.input = Some(Box::new(Input::live(parts)));
        self
    }

    /// How long all of an [`input`](Self::input) is, the body included, if that is known: of a longer
    /// stream no more is sent, a shorter one fails. When what follows the body is at most about 250 KiB,
    /// the broker then keeps all of it while the task runs, and can dispatch it again when its worker is
    /// lost. Of a longer one, or of a length that is not told, it forgets what its worker has read.
    pub fn input_bytes(mut self, bytes: u64) -> Self {
        self.input_bytes = Some(bytes);
        self
    }

    /// As [`input`](Self::input), but what fits a body is read before the task is sent, in place of the
    /// [`body`](Self::body): any handler takes an input that is no longer.
    pub fn input_reader(mut self, reader: impl AsyncRead + Send + 'static) -> Self {
        self.input = Some(Box::new(Input::reader(reader)));
        self
    }

    /// The same with a file. One that can't be opened, or read at its beginning, is not sent.
    pub fn input_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.input = Some(Box::new(Input::file(path.into())));
        self
    }

    /// Its time to live from the call of `send` or `call` on, 1 ms to 7 days. 30 s when not said, and
    /// its [`delay`](Self::delay) besides.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// How long it waits, from the call of `send` or `call` on, before a worker may have it; less than
    /// its time to live, which counts from there, too.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.start = Start::After(delay);
        self
    }

    /// When a worker may have it, by this machine's clock, in place of a [`delay`](Self::delay): the
    /// broker is told how long that is from now, so their clocks need not agree. At once, when that
    /// is past.
    pub fn not_before(mut self, time: SystemTime) -> Self {
        self.start = Start::At(time);
        self
    }

    /// The content type of its body. At most 1024 bytes, as for all texts below.
    pub fn content_type(self, content_type: impl Into<ByteString>) -> Self {
        self.with(|task| task.content_type = content_type.into())
    }

    /// Which of the waiting tasks goes first.
    pub fn priority(self, priority: Priority) -> Self {
        self.with(|task| task.priority = priority)
    }

    /// On whose account.
    pub fn tenant(self, tenant: impl Into<ByteString>) -> Self {
        self.with(|task| task.tenant = tenant.into())
    }

    /// Tasks with the same key prefer the same worker.
    pub fn affinity_key(self, key: impl Into<ByteString>) -> Self {
        self.with(|task| task.affinity_key = key.into())
    }

    /// A label that its worker must have. At most 64.
    pub fn label(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.with(|task| {
            task.required_labels.0.insert(key.into(), value.into());
        })
    }

    /// A header for its handler. At most 64.
    pub fn header(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.with(|task| {
            task.headers.insert(key.into(), value.into());
        })
    }

    /// Whether running it twice does no harm: then it is dispatched again when its worker is lost,
    /// and sent again when the broker is.
    pub fn idempotent(self, idempotent: bool) -> Self {
        self.with(|task| task.idempotent = idempotent)
    }

    /// When the broker tries it again after its handler failed, or was silent for its
    /// [attempt time-out](Self::attempt_timeout): after waits that grow, with another worker if there
    /// is one, within its time to live. Only if it may run twice ([`idempotent`](Self::idempotent) or
    /// durable) or its handler did not begin, and only as long as retries are a small part of the
    /// broker's work (20 % when its operator does not say otherwise). The result's context trace
    /// tells why there was another attempt, or none.
    ///
    /// Bounds the attempts after lost workers, too. Refused when a number in it is out of its range.
    pub fn retry(self, retry: Retry) -> Self {
        self.with(|task| task.retry = Some(retry))
    }

    /// An attempt that gives no sign of life for this long ends: the broker gives the task to another
    /// worker if it may run twice, else it ends failed(ATTEMPT_TIMEOUT). Signs are the handler's
    /// beginning, its [progress](Job::progress) and [refreshes](Job::refresh), and parts of its
    /// result. At most an hour, in ms, rounded up; zero: only the time to live counts, as when not
    /// said.
    pub fn attempt_timeout(self, timeout: Duration) -> Self {
        let ms = u32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX);
        self.with(|task| task.attempt_timeout_ms = ms)
    }

    /// What the broker promises for it. [`Delivery::Durable`]: once [accepted](TaskHandle::accepted),
    /// it is on the broker's disk and not lost whatever ends the broker, its workers or this process.
    /// It runs at least once, so perhaps twice, and its outcome is kept until it is settled.
    ///
    /// This client sends it again, under the same id, to a broker that went before it accepted it, or
    /// that has lost its journal; and waits for its end, over any number of connections, for as long
    /// as it lives (its time to live, and 10 s more): a longer one than the default lets it survive
    /// longer pauses of the broker. Only closing the client, or a client that does not
    /// [reconnect](crate::ClientBuilder::reconnect), ends that waiting before.
    ///
    /// Input and result fit one frame each, 64 KiB: more is rejected(UNSUPPORTED) without being sent.
    pub fn delivery(self, delivery: Delivery) -> Self {
        self.with(|task| task.delivery = delivery)
    }

    /// Leaves it to [`Client::settle`] to tell the broker that the outcome of a durable task was
    /// taken; otherwise that is told as soon as the handle, or `call`, is awaited to its end. For an
    /// outcome that is to be safe elsewhere before the broker may forget it.
    pub fn settle_manually(mut self) -> Self {
        self.settles = false;
        self
    }

    /// Load test: only workers labelled `shadow=true` get it, which get no other tasks, and it is kept
    /// out of the broker's counts of real ones. So are the tasks that its handler sends.
    pub fn shadow(self, shadow: bool) -> Self {
        self.with(|task| task.shadow = shadow)
    }

    /// Whether the broker cancels it when nobody who waits for it has a connection any more: for one
    /// that is worth nothing without its client. Otherwise its result waits for the client.
    pub fn cancel_on_disconnect(self, cancel: bool) -> Self {
        self.with(|task| task.cancel_on_disconnect = cancel)
    }

    /// Whether its context trace tells why each of its workers was chosen, in
    /// [`Hop::explanation`](crate::Hop::explanation). It costs the broker more than a task does
    /// otherwise: for looking into single tasks.
    pub fn explain(self, explain: bool) -> Self {
        self.with(|task| task.explain = explain)
    }

    /// The task whose handler sends this one. Takes over its trace context, and is refused when
    /// that makes a chain of more than 16. A shadow task's child is one, too. While the parent is in flight, this one is cancelled with
    /// it and ends with it at the latest, and becomes a part of its trace.
    pub fn parent(self, parent: &Task) -> Self {
        if parent.depth >= MAX_DEPTH {
            let problem = format!("is over {MAX_DEPTH}: too many tasks that send tasks");
            return self.refuse(InvalidTask::new("depth", problem));
        }
        self.with(|task| {
            task.parent = Some(parent.id.clone());
            task.depth = parent.depth + 1;
            task.shadow |= parent.shadow;
            record::follow(task, parent);
        })
    }

    /// Like [`parent`](Self::parent), and the time to live, if said before, is cut to what remains
    /// of the job's. To wait for it, see [`Job::wait_for`].
    pub fn child_of(self, job: &Job) -> Self {
        // Nothing remains only while the handler is being dropped.
        let ttl = self.ttl.unwrap_or(DEFAULT_TTL).min(job.remaining());
        let ttl = ttl.max(Duration::from_millis(1));
        self.parent(&job.task).ttl(ttl)
    }

    /// W3C Trace Context.
    pub fn traceparent(self, traceparent: impl Into<ByteString>) -> Self {
        self.with(|task| task.traceparent = traceparent.into())
    }

    /// W3C Trace Context.
    pub fn tracestate(self, tracestate: impl Into<ByteString>) -> Self {
        self.with(|task| task.tracestate = tracestate.into())
    }

    /// Sends it. Waits for room when the session has as many tasks as the broker allows, or when
    /// more is waiting to be written than the connection takes; not for the outcome.
    ///
    /// Without a connection, and when one will be made again, the task waits for it within its
    /// time to live. Fails when it can't be sent: the task did not run then.
    ///
    /// Dropping this future before it is ready sends nothing.
    pub fn send(self) -> impl Future<Output = Result<TaskHandle, CallError>> + Send {
        self.sending(None)
    }

    /// Sends it and waits for its reply. Dropping this future cancels the task, if it is not durable.
    pub fn call(self) -> impl Future<Output = Result<Reply, CallError>> + Send {
        Calling::Sending(self.sending(None))
    }

    /// Sends it, and gives its result in parts as they come. As [`send`](Self::send) otherwise.
    ///
    /// A handler that does not emit parts gives none: its result is the body of the outcome. So is that
    /// of a durable task, always.
    pub async fn stream(self) -> Result<TaskStream, CallError> {
        let incoming = Arc::new(Incoming::new());
        let is_durable = self.task.as_ref().is_ok_and(|task| task.delivery == Delivery::Durable);
        let handle = self.sending((!is_durable).then(|| incoming.clone())).await?;
        Ok(TaskStream::new(handle, incoming))
    }

    fn sending(self, incoming: Option<Arc<Incoming>>) -> Sending {
        let Self { client, task, body, ttl, start, settles, input, input_bytes } = self;
        let delay = start.delay();
        let ttl = ttl.unwrap_or(DEFAULT_TTL.saturating_add(delay));
        let mut sent = None;
        let draft = task.and_then(|mut task| {
            sent = client.session().recorder().sending(&mut task);
            draft(&task, body, ttl, delay)
        });
        let draft = draft.map(|it| Draft { incoming, settles: it.settles && settles, sent, ..it });
        match (draft, input) {
            (Ok(draft), Some(input)) => {
                let max_body_bytes = client.session().max_body_bytes();
                let reading = input.complete(draft, input_bytes, max_body_bytes).boxed();
                Sending::Reading(client, reading)
            }
            (draft, _) => Sending::Start(client, draft),
        }
    }
}

fn draft(task: &Task, body: Bytes, ttl: Duration, delay: Duration) -> Result<Draft, InvalidTask> {
    check(task, ttl, delay)?;
    let encoded = task.encode();
    check_encoded(encoded.0.len())?;
    let is_durable = task.delivery == Delivery::Durable;
    Ok(Draft {
        is_idempotent: task.idempotent,
        is_durable,
        settles: is_durable,
        id: task.id.clone(),
        task: encoded,
        body,
        ttl,
        delay,
        incoming: None,
        source: None,
        sent: None,
    })
}

impl fmt::Debug for TaskBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskBuilder")
            .field("task", &self.task)
            .field("body_bytes", &self.body.len())
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

/// Whether the broker would take it, as far as that can be told here.
fn check(task: &Task, ttl: Duration, delay: Duration) -> Result<(), InvalidTask> {
    if ttl.is_zero() || ttl > Duration::from_millis(MAX_TTL_MS) {
        return Err(InvalidTask::new("ttl", format!("is {ttl:?}; 1 ms to 7 days are allowed")));
    }
    if delay >= ttl {
        let problem = format!("is {delay:?}, and its time to live {ttl:?}: that has to be longer");
        return Err(InvalidTask::new("delay", problem));
    }
    let texts = [
        ("content_type", &task.content_type),
        ("tenant", &task.tenant),
        ("affinity_key", &task.affinity_key),
        ("traceparent", &task.traceparent),
        ("tracestate", &task.tracestate),
    ];
    for (field, text) in texts {
        check_text(field, text)?;
    }
    let maps = [
        ("required_labels", &task.required_labels.0, MAX_LABELS),
        ("headers", &task.headers, MAX_HEADERS),
    ];
    for (field, map, max) in maps {
        if map.len() > max {
            let problem = format!("has {} entries; at most {max} are allowed", map.len());
            return Err(InvalidTask::new(field, problem));
        }
        if map.contains_key("") {
            return Err(InvalidTask::new(field, "has an entry without a name"));
        }
        for text in map.iter().flat_map(|(key, value)| [key, value]) {
            check_text(field, text)?;
        }
    }
    if task.depth > MAX_DEPTH {
        let problem = format!("is {}; at most {MAX_DEPTH} is allowed", task.depth);
        return Err(InvalidTask::new("depth", problem));
    }
    if let Some((field, problem)) = task.retry.and_then(|retry| retry.check().err()) {
        return Err(InvalidTask::new(field, problem));
    }
    if task.attempt_timeout_ms > MAX_RETRY_WAIT_MS {
        return Err(InvalidTask::new("attempt_timeout", "is more than an hour"));
    }
    Ok(())
}

fn check_text(field: &'static str, text: &str) -> Result<(), InvalidTask> {
    if text.len() > MAX_TEXT_BYTES {
        let problem =
            format!("has a text of {} bytes; at most {MAX_TEXT_BYTES} are allowed", text.len());
        return Err(InvalidTask::new(field, problem));
    }
    Ok(())
}

/// What was just encoded: labels and headers are also bounded together.
fn check_encoded(len: usize) -> Result<(), InvalidTask> {
    if len > MAX_TASK_BYTES {
        let problem = format!(
            "with its labels and headers has {len} bytes; at most {MAX_TASK_BYTES} are allowed"
        );
        return Err(InvalidTask::new("task", problem));
    }
    Ok(())
}
