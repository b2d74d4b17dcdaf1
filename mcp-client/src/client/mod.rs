//! The client: sends tasks, many at once, on one connection that is made again when it breaks.

mod acceptance;
mod feed;
mod fetches;
mod ids;
mod incoming;
mod outgoing;
mod pending;
mod results;
mod session;
mod settlements;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mcp_proto::json::JsonTask;
use mcp_proto::{ActionName, NodeId, SessionId, Task};

use crate::connect::Endpoint;
use crate::connection::{Dialer, Timeouts};
use crate::error::{ConnectError, InvalidTask};
use crate::record::Recorder;
use crate::task::TaskBuilder;

pub(crate) use acceptance::Acceptance;
pub(crate) use feed::Source;
pub(crate) use incoming::{Incoming, Told};
pub(crate) use pending::local_end;
pub use results::Fetched;
pub(crate) use session::{Draft, Submitted, Ticket};
use session::{Session, Settings};

/// A connection to a broker, for sending tasks. Cheap to clone; all clones share the connection.
///
/// It connects again by itself, for as long as a clone or a [`TaskHandle`](crate::TaskHandle)
/// lives. When the last one is dropped, what was sent is written out and the connection is closed;
/// [`close`](Self::close) does the same and waits for it.
#[derive(Clone)]
pub struct Client {
    owner: Arc<Owner>,
}

/// What the clones share: the last to go closes the session.
struct Owner {
    session: Arc<Session>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.session.begin_close();
    }
}

impl Client {
    /// Settings for a client of the broker at `endpoint`.
    pub fn builder(endpoint: Endpoint) -> ClientBuilder {
        ClientBuilder {
            endpoint,
            timeouts: Timeouts::default(),
            settings: Settings::default(),
            recorder: Recorder::default(),
        }
    }

    /// A task for a worker that serves `action`: 1 to 128 of `[A-Za-z0-9._:/-]`.
    pub fn task<A>(&self, action: A) -> TaskBuilder
    where
        A: TryInto<ActionName>,
        A::Error: fmt::Display,
    {
        let task = match (action.try_into(), self.session().next_task_id()) {
            (Ok(action), Some(id)) => Ok(Task::new(id, action)),
            (Err(error), _) => Err(InvalidTask::new("action", error)),
            (_, None) => Err(InvalidTask::new("task_id", "can't be made")),
        };
        TaskBuilder::new(self.clone(), task)
    }

    /// A task as it is.
    pub fn task_from(&self, task: Task, ttl: Duration, body: impl Into<Bytes>) -> TaskBuilder {
        TaskBuilder::new(self.clone(), Ok(task)).ttl(ttl).body(body)
    }

    /// A task in its JSON form.
    pub fn task_from_json(&self, json: &JsonTask) -> TaskBuilder {
        self.task_from(json.task.clone(), Duration::from_millis(json.ttl_ms), json.body.clone())
            .delay(Duration::from_millis(json.delay_ms))
    }

    /// Closes the connection in an orderly way once all that was sent has arrived, and waits for
    /// that, at most 6 s. Tasks without an outcome end `lost` here; the broker lets them run on.
    /// All clones are closed with it. Goes on when this future is dropped.
    pub async fn close(&self) {
        self.session().begin_close();
        self.session().closed().await;
    }

    /// Whether it was closed, or gave up: then nothing can be sent any more.
    pub fn is_closed(&self) -> bool {
        self.session().is_closed()
    }

    /// Whether there is a connection now.
    pub fn is_connected(&self) -> bool {
        self.session().is_connected()
    }

    /// The broker's name, as it told at the latest connection.
    pub fn broker_id(&self) -> Option<NodeId> {
        self.session().broker_id()
    }

    /// The session's name at the broker.
    pub fn session_id(&self) -> Option<SessionId> {
        self.session().session_id()
    }

    /// Tasks without an outcome.
    pub fn pending(&self) -> usize {
        self.session().pending()
    }

    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.owner.session
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("broker_id", &self.broker_id())
            .field("is_connected", &self.is_connected())
            .field("pending", &self.pending())
            .finish_non_exhaustive()
    }
}

/// Settings of a [`Client`].
#[derive(Debug, Clone)]
#[must_use = "connect() makes the connection"]
pub struct ClientBuilder {
    endpoint: Endpoint,
    timeouts: Timeouts,
    settings: Settings,
    recorder: Recorder,
}

impl ClientBuilder {
    /// How long one attempt to connect may take, up to the broker's ACK. 5 s when not said.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.timeouts.connect = timeout;
        self
    }

    /// Whether to connect again when the connection breaks; true when not said. Without it, the
    /// tasks in flight end `lost` then.
    pub fn reconnect(mut self, reconnect: bool) -> Self {
        self.settings.reconnects = reconnect;
        self
    }

    /// How long the broker may be silent, while it owes an answer, before the connection counts as
    /// broken; it is asked for a sign of life after a third of it. 6 s when not said.
    pub fn silence_timeout(mut self, timeout: Duration) -> Self {
        self.timeouts.silence = timeout;
        self
    }

    /// Bytes of task bodies without an outcome before `send` waits. 64 MiB when not said.
    pub fn max_pending_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_pending_bytes = u32::try_from(bytes).unwrap_or(u32::MAX).max(1);
        self
    }

    /// Makes a span of each task that is sampled, from `send` to its end, and gives it to `exporter`. A
    /// task with a [`traceparent`](TaskBuilder::traceparent) is sampled when that says so, and of the
    /// others this share, 0 to 1; the broker and the workers that have it are told. What is not
    /// sampled here can be by the broker.
    #[cfg(feature = "otlp")]
    pub fn telemetry(mut self, exporter: mcp_telemetry::Exporter, sample_ratio: f64) -> Self {
        self.recorder = Recorder::new(exporter, sample_ratio);
        self
    }

    /// Connects. One attempt: tries each address of the host, and fails when none answers in time.
    /// Must be called within a tokio runtime with I/O and time, which the client then uses.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        let dialer = Dialer::new(&self.endpoint)?;
        let session = Session::open(dialer, self.settings, self.timeouts, self.recorder).await?;
        Ok(Client { owner: Arc::new(Owner { session }) })
    }
}
