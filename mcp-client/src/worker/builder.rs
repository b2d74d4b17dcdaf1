//! Settings of a worker.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use mcp_proto::limits::{MAX_ACTIONS, MAX_AGENT_ATTEMPTS, MAX_LABELS, MAX_TEXT_BYTES};
use mcp_proto::{ActionName, AgentId, InstanceId, Labels, Readiness, WorkerHello};
use uuid::Uuid;

use super::serve::Registration;
use super::{Handler, Worker};
use crate::connect::Endpoint;
use crate::connection::{Dialer, Timeouts};
use crate::error::ConnectError;
use crate::record::Recorder;

/// Settings of a [`Worker`].
#[must_use = "start() connects and registers"]
pub struct WorkerBuilder {
    endpoint: Endpoint,
    agent_id: Option<AgentId>,
    slots: u32,
    prefetch: u32,
    weight: u32,
    labels: Labels,
    service_type: ByteString,
    handlers: HashMap<ActionName, Arc<dyn Handler>>,
    timeouts: Timeouts,
    recorder: Recorder,
    /// What is wrong with the above, the first thing.
    problem: Option<ConnectError>,
}

impl WorkerBuilder {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            agent_id: None,
            slots: 1,
            prefetch: 0,
            weight: 1,
            labels: Labels::default(),
            service_type: ByteString::new(),
            handlers: HashMap::new(),
            timeouts: Timeouts::default(),
            recorder: Recorder::default(),
            problem: None,
        }
    }

    fn refuse(&mut self, field: &'static str, problem: impl fmt::Display) {
        let problem = problem.to_string();
        self.problem.get_or_insert(ConnectError::Config { field, problem });
    }

    /// The agent's own stable name; at most one process runs under it. 1 to 128 printable ASCII
    /// bytes. A new UUID when not said.
    pub fn agent_id<I>(mut self, id: I) -> Self
    where
        I: TryInto<AgentId>,
        I::Error: fmt::Display,
    {
        match id.try_into() {
            Ok(id) => self.agent_id = Some(id),
            Err(error) => self.refuse("agent_id", error),
        }
        self
    }

    /// Handlers that may run at once, at least 1. 1 when not said.
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots;
        self
    }

    /// Tasks that it takes beyond those running, to save the way to the broker and back between
    /// two tasks. 0 when not said. `slots + prefetch` is at most 4096, or less as the broker says.
    pub fn prefetch(mut self, prefetch: u32) -> Self {
        self.prefetch = prefetch;
        self
    }

    /// Its share under weighted policies. 1 when not said.
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// A capability label that tasks can require. At most 64.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.0.insert(key.into(), value.into());
        self
    }

    /// What kind of agent this is, for people and metrics.
    pub fn service_type(mut self, service_type: impl Into<ByteString>) -> Self {
        self.service_type = service_type.into();
        self
    }

    /// Serves `action` with `handler`: an async function of a [`Job`](super::Job), or a [`Handler`]. At least
    /// one, at most 256; the last one given for an action counts.
    pub fn handler<A, H>(mut self, action: A, handler: H) -> Self
    where
        A: TryInto<ActionName>,
        A::Error: fmt::Display,
        H: Handler,
    {
        match action.try_into() {
            Ok(action) => {
                self.handlers.insert(action, Arc::new(handler));
            }
            Err(error) => self.refuse("action", error),
        }
        self
    }

    /// How long one attempt to connect may take, up to the broker's ACK. 5 s when not said.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.timeouts.connect = timeout;
        self
    }

    /// How long the broker may be silent, while it owes an answer, before the connection counts as
    /// broken; it is asked for a sign of life after a third of it. 6 s when not said.
    pub fn silence_timeout(mut self, timeout: Duration) -> Self {
        self.timeouts.silence = timeout;
        self
    }

    /// Makes a span of each attempt whose task is sampled, from the beginning of its handler to its end,
    /// and gives it to `exporter`. Whether it is sampled was decided by its client, or by the broker.
    #[cfg(feature = "otlp")]
    pub fn telemetry(mut self, exporter: mcp_telemetry::Exporter) -> Self {
        self.recorder = Recorder::new(exporter, 0.0);
        self
    }

    /// Connects and registers. One attempt: fails when the broker can't be reached or refuses.
    pub async fn start(mut self) -> Result<Worker, ConnectError> {
        if let Some(problem) = self.problem.take() {
            return Err(problem);
        }
        self.check()?;
        let mut actions: Vec<_> = self.handlers.keys().cloned().collect();
        actions.sort();
        let hello = WorkerHello {
            agent_id: match self.agent_id {
                Some(id) => id,
                None => unique("agent_id")?,
            },
            instance_id: unique::<InstanceId>("instance_id")?,
            service_type: self.service_type,
            labels: self.labels,
            actions,
            slots: self.slots,
            prefetch: self.prefetch,
            weight: self.weight.max(1),
            held: Vec::new(),
            received: None,
            readiness: Readiness::Ready,
        };
        let dialer = Dialer::new(&self.endpoint)?;
        let (handlers, timeouts) = (self.handlers, self.timeouts);
        let registration =
            Registration::open(dialer, hello, handlers, timeouts, self.recorder).await?;
        Ok(Worker { registration })
    }

    fn check(&self) -> Result<(), ConnectError> {
        let wrong = |field, problem: String| Err(ConnectError::Config { field, problem });
        if self.slots == 0 {
            return wrong("slots", "is 0: a worker has at least one".to_owned());
        }
        if self.slots.saturating_add(self.prefetch) > MAX_AGENT_ATTEMPTS {
            let problem = format!("and prefetch are together over {MAX_AGENT_ATTEMPTS}");
            return wrong("slots", problem);
        }
        if self.handlers.is_empty() || self.handlers.len() > MAX_ACTIONS {
            let problem =
                format!("are {}: a worker serves 1 to {MAX_ACTIONS} actions", self.handlers.len());
            return wrong("handlers", problem);
        }
        if self.labels.0.len() > MAX_LABELS {
            let problem = format!("are {}; at most {MAX_LABELS} are allowed", self.labels.0.len());
            return wrong("labels", problem);
        }
        if self.labels.0.contains_key("") {
            return wrong("labels", "have one without a name".to_owned());
        }
        let texts = self.labels.0.iter().flat_map(|(key, value)| [key.len(), value.len()]);
        if texts.chain([self.service_type.len()]).any(|len| len > MAX_TEXT_BYTES) {
            let problem = format!("and service_type have at most {MAX_TEXT_BYTES} bytes each");
            return wrong("labels", problem);
        }
        Ok(())
    }
}

impl fmt::Debug for WorkerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerBuilder")
            .field("endpoint", &self.endpoint)
            .field("agent_id", &self.agent_id)
            .field("slots", &self.slots)
            .field("actions", &self.handlers.keys())
            .finish_non_exhaustive()
    }
}

fn unique<I>(field: &'static str) -> Result<I, ConnectError>
where
    I: TryFrom<String>,
    I::Error: fmt::Display,
{
    I::try_from(Uuid::now_v7().to_string())
        .map_err(|error| ConnectError::Config { field, problem: error.to_string() })
}
