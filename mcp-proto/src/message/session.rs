//! Messages about the session itself: HELLO, ACK, PING, GOAWAY.

use bytestring::ByteString;

use super::MessageKind;
use super::field::{In, cut, lossy, wire_enum};
use super::task::Labels;
use crate::error::{ErrorCode, InvalidMessage};
use crate::generated as wire;
use crate::id::{ActionName, AgentId, AttemptId, InstanceId, NodeId, SessionId};
use crate::limits::{Limits, MAX_ACTIONS, MAX_AGENT_ATTEMPTS, MAX_FEATURES, MAX_LABELS};
use crate::token::Token;

wire_enum! {
    /// What a dialling side does on a connection.
    Role {
        /// Sends tasks.
        Client = 1, "client";
        /// Serves actions.
        Worker = 2, "worker";
    }
}

wire_enum! {
    /// Whether a worker takes tasks.
    Readiness {
        /// Connected, its dependencies are not up yet: no tasks.
        Standby = 1, "standby";
        /// Takes tasks.
        Ready = 2, "ready";
        /// Finishes what it holds, takes nothing new.
        Draining = 3, "draining";
    }
}

/// The roles of a connection: at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Roles {
    /// Sends tasks.
    pub client: bool,
    /// Serves actions.
    pub worker: bool,
}

/// Opens a session.
#[derive(Debug, Clone, PartialEq)]
pub struct Hello {
    /// The version that the dialling side speaks, as it wrote it.
    pub mcp_version: ByteString,
    /// Its SDK, for people.
    pub sdk: ByteString,
    /// Optional parts of the protocol that it speaks.
    pub features: Vec<ByteString>,
    /// Whether it sends tasks.
    pub client: bool,
    /// The session to resume, or to open under this name.
    pub session_id: Option<SessionId>,
    /// Proves who it is, where its certificate does not.
    pub token: Option<Token>,
    /// What it serves, when it is a worker.
    pub worker: Option<WorkerHello>,
}

/// What a worker says of itself in HELLO.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerHello {
    /// The agent's own stable name.
    pub agent_id: AgentId,
    /// This process of it.
    pub instance_id: InstanceId,
    /// What kind of agent this is.
    pub service_type: ByteString,
    /// Its capability labels.
    pub labels: Labels,
    /// What it serves, without repeats.
    pub actions: Vec<ActionName>,
    /// Handlers that may run at once, at least 1.
    pub slots: u32,
    /// Tasks it takes beyond its running ones.
    pub prefetch: u32,
    /// Its share under weighted policies, at least 1.
    pub weight: u32,
    /// Attempts it still holds from an earlier connection.
    pub held: Vec<AttemptId>,
    /// What it received on its earlier connection, if it says so.
    pub received: Option<RoutesReceived>,
    /// Whether it takes tasks yet.
    pub readiness: Readiness,
}

/// How much has arrived of what was sent to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoutesReceived {
    /// Of the latest ACK that the worker received.
    pub epoch: u64,
    /// Of the same ACK, not 0.
    pub generation: u64,
    /// ROUTE frames that it received on that ACK's connection.
    pub routes: u64,
}

impl Hello {
    /// The roles it takes.
    pub fn roles(&self) -> Roles {
        Roles { client: self.client, worker: self.worker.is_some() }
    }

    pub(super) fn from_wire(it: wire::Hello) -> Result<Self, InvalidMessage> {
        let at = In::new(MessageKind::Hello);
        let has = |role| it.roles.iter().any(|number| Role::from_wire(*number) == Some(role));
        let (client, worker) = (has(Role::Client), has(Role::Worker));
        if !client && !worker {
            return Err(at.invalid("roles", "must have CLIENT, WORKER or both"));
        }
        let worker = if worker { Some(WorkerHello::from_wire(&at, &it)?) } else { None };
        at.at_most("features", it.features.len(), MAX_FEATURES)?;
        Ok(Self {
            mcp_version: at.text("mcp_version", it.mcp_version)?,
            sdk: at.text("sdk", it.sdk)?,
            features: it
                .features
                .into_iter()
                .map(|name| at.text("features", name))
                .collect::<Result<_, _>>()?,
            client,
            session_id: at.optional_id("session_id", SessionId::from_bytes, it.session_id)?,
            token: at.optional_id("token", Token::from_bytes, it.token)?,
            worker,
        })
    }

    pub(super) fn to_wire(&self) -> wire::Hello {
        let mut it = wire::Hello {
            mcp_version: self.mcp_version.as_bytes().clone(),
            sdk: self.sdk.as_bytes().clone(),
            features: self.features.iter().map(|name| name.as_bytes().clone()).collect(),
            session_id: self.session_id.as_ref().map(SessionId::to_bytes).unwrap_or_default(),
            token: self.token.as_ref().map(Token::to_bytes).unwrap_or_default(),
            ..Default::default()
        };
        if self.client {
            it.roles.push(Role::Client.to_wire());
        }
        if let Some(worker) = &self.worker {
            it.roles.push(Role::Worker.to_wire());
            it.agent_id = worker.agent_id.to_bytes();
            it.instance_id = worker.instance_id.to_bytes();
            it.service_type = worker.service_type.as_bytes().clone();
            it.labels = worker.labels.0.clone();
            it.actions = worker.actions.iter().map(ActionName::to_bytes).collect();
            it.slots = worker.slots;
            it.prefetch = worker.prefetch;
            it.weight = worker.weight;
            it.held = worker.held.iter().map(|id| id.0).collect();
            if let Some(received) = worker.received {
                it.epoch = received.epoch;
                it.generation = received.generation;
                it.routes_received = received.routes;
            }
            it.readiness = worker.readiness.to_wire();
        }
        it
    }
}

impl WorkerHello {
    fn from_wire(at: &In, it: &wire::Hello) -> Result<Self, InvalidMessage> {
        at.at_most("actions", it.actions.len(), MAX_ACTIONS)?;
        let mut actions = Vec::with_capacity(it.actions.len());
        for name in &it.actions {
            let name = at.id("actions", ActionName::from_bytes, name.clone())?;
            if !actions.contains(&name) {
                actions.push(name);
            }
        }
        if actions.is_empty() {
            return Err(at.invalid("actions", "is empty: a worker serves at least one action"));
        }
        if it.slots == 0 {
            return Err(at.invalid("slots", "is 0: a worker has at least one slot"));
        }
        if it.slots.saturating_add(it.prefetch) > MAX_AGENT_ATTEMPTS {
            let problem = format!("and prefetch are together over {MAX_AGENT_ATTEMPTS}");
            return Err(at.invalid("slots", problem));
        }
        at.check_map("labels", &it.labels, MAX_LABELS)?;
        at.at_most("held", it.held.len(), MAX_AGENT_ATTEMPTS as usize)?;
        Ok(Self {
            agent_id: at.id("agent_id", AgentId::from_bytes, it.agent_id.clone())?,
            instance_id: at.id("instance_id", InstanceId::from_bytes, it.instance_id.clone())?,
            service_type: at.text("service_type", it.service_type.clone())?,
            labels: Labels(it.labels.clone()),
            actions,
            slots: it.slots,
            prefetch: it.prefetch,
            weight: it.weight.max(1),
            held: it.held.iter().copied().map(AttemptId).collect(),
            received: (it.generation != 0).then_some(RoutesReceived {
                epoch: it.epoch,
                generation: it.generation,
                routes: it.routes_received,
            }),
            readiness: readiness(at, it.readiness)?,
        })
    }
}

fn readiness(at: &In, number: i32) -> Result<Readiness, InvalidMessage> {
    match number {
        0 => Ok(Readiness::Ready),
        _ => Readiness::from_wire(number)
            .ok_or_else(|| at.invalid("readiness", format!("has unknown value {number}"))),
    }
}

/// Answers HELLO.
#[derive(Debug, Clone, PartialEq)]
pub struct Ack {
    /// The version that the broker speaks.
    pub mcp_version: ByteString,
    /// The broker.
    pub broker_id: NodeId,
    /// Grows with every start of this broker.
    pub epoch: u64,
    /// Optional parts of the protocol that the broker speaks.
    pub features: Vec<ByteString>,
    /// What it accepts on this connection.
    pub limits: Limits,
    /// Worker: its node id.
    pub node_id: Option<NodeId>,
    /// Worker: grows with every registration of its agent_id.
    pub generation: u64,
    /// Worker: the registration ends when no frame arrives for this long.
    pub lease_ms: u32,
    /// Worker: send PING this often.
    pub ping_interval_ms: u32,
    /// Worker: the held attempts it shall go on with; it abandons the others.
    pub keep: Vec<AttemptId>,
    /// Client: its session's name.
    pub session_id: Option<SessionId>,
    /// Client: whether an earlier session was resumed.
    pub resumed: bool,
    /// Client: how long the session outlives a broken connection.
    pub detach_ms: u32,
}

impl Ack {
    pub(super) fn from_wire(it: wire::Ack) -> Result<Self, InvalidMessage> {
        let at = In::new(MessageKind::Ack);
        at.at_most("features", it.features.len(), MAX_FEATURES)?;
        at.at_most("keep", it.keep.len(), MAX_AGENT_ATTEMPTS as usize)?;
        let limits = it.limits.ok_or_else(|| at.invalid("limits", "is missing"))?;
        Ok(Self {
            mcp_version: at.text("mcp_version", it.mcp_version)?,
            broker_id: at.id("broker_id", NodeId::from_bytes, it.broker_id)?,
            epoch: it.epoch,
            features: it
                .features
                .into_iter()
                .map(|name| at.text("features", name))
                .collect::<Result<_, _>>()?,
            limits: Limits {
                max_header_bytes: limits.max_header_bytes,
                max_body_bytes: limits.max_body_bytes,
                max_session_tasks: limits.max_session_tasks,
                max_agent_attempts: limits.max_agent_attempts,
                max_input_bytes: limits.max_input_bytes,
            },
            node_id: at.optional_id("node_id", NodeId::from_bytes, it.node_id)?,
            generation: it.generation,
            lease_ms: it.lease_ms,
            ping_interval_ms: it.ping_interval_ms,
            keep: it.keep.into_iter().map(AttemptId).collect(),
            session_id: at.optional_id("session_id", SessionId::from_bytes, it.session_id)?,
            resumed: it.resumed,
            detach_ms: it.detach_ms,
        })
    }

    pub(super) fn to_wire(&self) -> wire::Ack {
        wire::Ack {
            mcp_version: self.mcp_version.as_bytes().clone(),
            broker_id: self.broker_id.to_bytes(),
            epoch: self.epoch,
            features: self.features.iter().map(|name| name.as_bytes().clone()).collect(),
            limits: Some(wire::Limits {
                max_header_bytes: self.limits.max_header_bytes,
                max_body_bytes: self.limits.max_body_bytes,
                max_session_tasks: self.limits.max_session_tasks,
                max_agent_attempts: self.limits.max_agent_attempts,
                max_input_bytes: self.limits.max_input_bytes,
            }),
            node_id: self.node_id.as_ref().map(NodeId::to_bytes).unwrap_or_default(),
            generation: self.generation,
            lease_ms: self.lease_ms,
            ping_interval_ms: self.ping_interval_ms,
            keep: self.keep.iter().map(|id| id.0).collect(),
            session_id: self.session_id.as_ref().map(SessionId::to_bytes).unwrap_or_default(),
            resumed: self.resumed,
            detach_ms: self.detach_ms,
        }
    }
}

/// A sign of life. A worker's renews its lease and lists what it holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Ping {
    /// Returned in PONG.
    pub seq: u64,
    /// Worker: its readiness from now on. Without it, the PING only asks for a PONG, and the
    /// fields after it say nothing.
    pub readiness: Option<Readiness>,
    /// Worker: how many ROUTE frames it has received on this connection.
    pub routes_received: u64,
    /// Worker: every attempt it holds.
    pub held: Vec<AttemptId>,
}

impl Ping {
    /// A PING that only asks for a PONG: a broker's, a client's, or a worker's between reports.
    pub fn probe(seq: u64) -> Self {
        Self { seq, readiness: None, routes_received: 0, held: Vec::new() }
    }

    pub(super) fn from_wire(it: wire::Ping) -> Result<Self, InvalidMessage> {
        let at = In::new(MessageKind::Ping);
        at.at_most("held", it.held.len(), MAX_AGENT_ATTEMPTS as usize)?;
        Ok(Self {
            seq: it.seq,
            readiness: match it.readiness {
                0 => None,
                number => Some(readiness(&at, number)?),
            },
            routes_received: it.routes_received,
            held: it.held.into_iter().map(AttemptId).collect(),
        })
    }

    pub(super) fn to_wire(&self) -> wire::Ping {
        wire::Ping {
            seq: self.seq,
            readiness: self.readiness.map_or(0, Readiness::to_wire),
            routes_received: self.routes_received,
            held: self.held.iter().map(|id| id.0).collect(),
        }
    }
}

/// This connection will end.
#[derive(Debug, Clone, PartialEq)]
pub struct Goaway {
    /// Why.
    pub code: ErrorCode,
    /// What happened, for a person.
    pub message: String,
    /// Whether to connect again afterwards.
    pub reconnect: bool,
}

impl Goaway {
    pub(super) fn from_wire(it: wire::Goaway) -> Self {
        Self {
            code: ErrorCode::from_u32(it.code.unsigned_abs()).unwrap_or(ErrorCode::Internal),
            message: lossy(&it.message),
            reconnect: it.reconnect,
        }
    }

    pub(super) fn to_wire(&self) -> wire::Goaway {
        wire::Goaway {
            code: self.code as i32,
            message: cut(&self.message),
            reconnect: self.reconnect,
        }
    }
}
