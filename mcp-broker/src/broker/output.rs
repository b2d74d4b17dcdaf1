//! What the core wants done.

use std::fmt;

use mcp_proto::{
    ActionName, AgentId, Bytes, Chunk, EncodedFrame, ErrorCode, Message, NodeId, Payload,
    RouteHead, SessionId, TaskId, TraceId,
};

use super::audit::Act;
use super::durable::Record;
use super::identity::Identity;
use super::traced::TaskTrace;

/// A connection, as named by whoever holds the core. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disconnect {
    /// The peer closed it with code 0: it means to leave.
    Orderly,
    /// Anything else.
    Broken,
}

/// One thing to do. The order of outputs is the order of effects. They are moved a few times for each
/// task, so what is large and not of each task is apart.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Send a frame. To be appended to the connection's lane while the core is still held.
    Send {
        /// The connection.
        to: ConnectionId,
        /// The frame, without a body.
        message: Message,
    },
    /// Send a ROUTE, in the same way.
    Route {
        /// The worker's connection.
        to: ConnectionId,
        /// The attempt.
        route: RouteHead,
        /// The task.
        payload: Payload,
    },
    /// Send an outcome, in the same way.
    Deliver {
        /// The client's connection.
        to: ConnectionId,
        /// The DELIVER.
        frame: EncodedFrame,
    },
    /// Send a part of a result, in the same way.
    Chunk {
        /// The client's connection.
        to: ConnectionId,
        /// Which part.
        chunk: Box<Chunk>,
        /// The part.
        body: Bytes,
    },
    /// Close a connection once what was sent before is flushed. The core has forgotten it.
    Close {
        /// The connection.
        connection: ConnectionId,
        /// The close code; none for an orderly close, code 0.
        code: Option<ErrorCode>,
        /// The reason, for a person.
        message: String,
    },
    /// Append to the journal, sync, and report with
    /// [`journal_synced`](super::Core::journal_synced).
    Journal {
        /// Grows by one with each record.
        seq: u64,
        /// What to keep.
        record: Box<Record>,
    },
    /// Something an operator may want to read of.
    Event(Box<Event>),
    /// Something to note in an audit log.
    Audit(Box<Act>),
    /// What operators have said is another now: [`orders`](super::Core::orders).
    Orders,
    /// A task ended that is recorded.
    Traced(Box<TaskTrace>),
}

/// How much an operator wants to read of an [`Event`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Only when looking for something.
    Debug,
    /// Ordinary life.
    Info,
    /// Somebody should look at it.
    Warn,
    /// Something the broker promises no longer holds.
    Error,
}

/// Something that happened, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A worker registered, or registered again.
    AgentRegistered {
        /// Its own name.
        agent_id: AgentId,
        /// Its node.
        node_id: NodeId,
        /// Which registration this is.
        generation: u64,
    },
    /// A worker came back with attempts, or was heard again.
    AgentResumed {
        /// Its own name.
        agent_id: AgentId,
        /// Attempts that go on.
        kept: usize,
    },
    /// A worker's connection broke, or it was silent for too long.
    AgentLost {
        /// Its own name.
        agent_id: AgentId,
        /// What was noticed.
        why: &'static str,
        /// Attempts it held.
        held: usize,
    },
    /// A worker's registration ended.
    AgentLeft {
        /// Its own name.
        agent_id: AgentId,
        /// Why.
        why: &'static str,
        /// Attempts it held.
        held: usize,
    },
    /// A connection was refused or closed for what its peer did.
    PeerRefused {
        /// The connection.
        connection: ConnectionId,
        /// Why.
        code: ErrorCode,
        /// In words.
        message: String,
    },
    /// An identity asked for what it may not do.
    Denied {
        /// Who.
        identity: Identity,
        /// What, and which permission is missing.
        message: String,
    },
    /// A client's session waits for it to come back.
    SessionDetached {
        /// Its name.
        session_id: SessionId,
    },
    /// A worker no longer knows an attempt that it received.
    AttemptLeaked {
        /// Its own name.
        agent_id: AgentId,
    },
    /// The breaker of a worker opened: it gets no tasks of an action for a while.
    BreakerOpened {
        /// Its own name.
        agent_id: AgentId,
        /// The action.
        action: ActionName,
        /// In words.
        why: String,
    },
    /// It closed again, after a task went well.
    BreakerClosed {
        /// Its own name.
        agent_id: AgentId,
        /// The action.
        action: ActionName,
    },
    /// A worker is left out of an action for a while.
    WorkerEjected {
        /// Its own name.
        agent_id: AgentId,
        /// The action.
        action: ActionName,
        /// Its time for a task, in percent of the others'.
        percent: u64,
        /// For how long.
        for_ms: u64,
    },
    /// It gets tasks again.
    WorkerReturned {
        /// Its own name.
        agent_id: AgentId,
        /// The action.
        action: ActionName,
    },
    /// A task was ended because too many workers failed with it.
    TaskPoisoned {
        /// Which.
        task_id: TaskId,
        /// Its trace.
        trace_id: TraceId,
        /// Its action.
        action: ActionName,
        /// How many.
        workers: u32,
    },
    /// An operator ended a task.
    TaskCancelled {
        /// Which.
        task_id: TaskId,
        /// Its trace.
        trace_id: TraceId,
        /// The operator's identity.
        by: String,
    },
    /// An operator has a dead letter done again.
    DeadLetterReplayed {
        /// Which task.
        task_id: TaskId,
        /// Its trace.
        trace_id: TraceId,
        /// The operator's identity.
        by: String,
    },
    /// An operator is done with a dead letter.
    DeadLetterDropped {
        /// Which task.
        task_id: TaskId,
        /// Its trace.
        trace_id: TraceId,
        /// The operator's identity.
        by: String,
    },
    /// An operator keeps new tasks from a worker.
    AgentDrained {
        /// Its own name.
        agent_id: AgentId,
        /// The operator's identity.
        by: String,
        /// What the operator says; may be empty.
        why: String,
    },
    /// An operator lets a worker have tasks again.
    AgentUndrained {
        /// Its own name.
        agent_id: AgentId,
        /// The operator's identity.
        by: String,
    },
    /// An operator keeps an action's tasks from its workers.
    ActionDegraded {
        /// Which.
        action: ActionName,
        /// The operator's identity.
        by: String,
        /// What the operator says; may be empty.
        why: String,
    },
    /// An operator gives an action's tasks to its workers again.
    ActionRestored {
        /// Which.
        action: ActionName,
        /// The operator's identity.
        by: String,
    },
    /// Tasks of actions that are not core are refused, or take their fallbacks.
    SheddingBegan {
        /// What is mostly used up.
        of: &'static str,
        /// To so much.
        percent: usize,
    },
    /// They are taken again.
    SheddingEnded,
    /// An operator changed the rules of an action.
    RulesChanged {
        /// Whose.
        action: ActionName,
        /// What was changed, as JSON; none: the rules are those of the configuration again.
        change: Option<String>,
        /// The operator's identity.
        by: String,
    },
    /// A worker did not confirm a CANCEL in time.
    CancelUnconfirmed {
        /// Its own name.
        agent_id: AgentId,
    },
    /// Durable tasks are refused from now on.
    JournalFailed {
        /// Why.
        message: String,
    },
    /// A task in the journal was not taken up: it stays there.
    NotRestored {
        /// Which, and why.
        message: String,
    },
    /// The broker stops.
    ShuttingDown {
        /// Tasks that are still running.
        running: usize,
    },
}

impl Event {
    /// The trace of the task that it is about, if it is about one.
    pub fn trace_id(&self) -> Option<TraceId> {
        match self {
            Event::TaskPoisoned { trace_id, .. }
            | Event::TaskCancelled { trace_id, .. }
            | Event::DeadLetterReplayed { trace_id, .. }
            | Event::DeadLetterDropped { trace_id, .. } => Some(*trace_id),
            _ => None,
        }
    }

    /// How much an operator wants to read of it.
    pub fn level(&self) -> Level {
        match self {
            Event::AgentRegistered { .. }
            | Event::AgentResumed { .. }
            | Event::AgentLeft { .. }
            | Event::BreakerClosed { .. }
            | Event::WorkerReturned { .. }
            | Event::TaskCancelled { .. }
            | Event::DeadLetterReplayed { .. }
            | Event::DeadLetterDropped { .. }
            | Event::AgentDrained { .. }
            | Event::AgentUndrained { .. }
            | Event::ActionRestored { .. }
            | Event::SheddingEnded
            | Event::RulesChanged { .. }
            | Event::ShuttingDown { .. } => Level::Info,
            Event::SessionDetached { .. } => Level::Debug,
            Event::AgentLost { .. }
            | Event::PeerRefused { .. }
            | Event::Denied { .. }
            | Event::AttemptLeaked { .. }
            | Event::BreakerOpened { .. }
            | Event::WorkerEjected { .. }
            | Event::TaskPoisoned { .. }
            | Event::ActionDegraded { .. }
            | Event::SheddingBegan { .. }
            | Event::CancelUnconfirmed { .. } => Level::Warn,
            Event::JournalFailed { .. } | Event::NotRestored { .. } => Level::Error,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::AgentRegistered { agent_id, node_id, generation } => {
                write!(f, "agent {agent_id} registered as {node_id}, generation {generation}")
            }
            Event::AgentResumed { agent_id, kept } => {
                write!(f, "agent {agent_id} is back and goes on with {kept} attempts")
            }
            Event::AgentLost { agent_id, why, held } => {
                write!(f, "agent {agent_id} is lost ({why}); it holds {held} attempts")
            }
            Event::AgentLeft { agent_id, why, held } => {
                write!(f, "agent {agent_id} left ({why}); it held {held} attempts")
            }
            Event::PeerRefused { connection, code, message } => {
                write!(f, "connection {} closed: {code}: {message}", connection.0)
            }
            Event::Denied { message, .. } => write!(f, "denied: {message}"),
            Event::SessionDetached { session_id } => {
                write!(f, "session {session_id} waits for its client")
            }
            Event::AttemptLeaked { agent_id } => {
                write!(f, "agent {agent_id} no longer knows an attempt that it received")
            }
            Event::BreakerOpened { agent_id, action, why } => {
                write!(f, "agent {agent_id} gets no {action} tasks, its breaker opened: {why}")
            }
            Event::BreakerClosed { agent_id, action } => {
                write!(f, "agent {agent_id} gets {action} tasks again, its breaker closed")
            }
            Event::WorkerEjected { agent_id, action, percent, for_ms } => write!(
                f,
                "agent {agent_id} is left out of {action} for {for_ms} ms: its tasks take \
                 {percent} % of the time of the others'"
            ),
            Event::WorkerReturned { agent_id, action } => {
                write!(f, "agent {agent_id} gets {action} tasks again, slowly at first")
            }
            Event::TaskPoisoned { task_id, action, workers, .. } => {
                write!(
                    f,
                    "task {task_id} of {action} was given up: {workers} workers failed with it"
                )
            }
            Event::TaskCancelled { task_id, by, .. } => {
                write!(f, "task {task_id} was cancelled by an operator, {by}")
            }
            Event::DeadLetterReplayed { task_id, by, .. } => {
                write!(f, "task {task_id} is done again: replayed by an operator, {by}")
            }
            Event::DeadLetterDropped { task_id, by, .. } => {
                write!(f, "the dead letter of task {task_id} was dropped by an operator, {by}")
            }
            Event::AgentDrained { agent_id, by, why } => {
                write!(f, "agent {agent_id} is drained by an operator, {by}")?;
                if why.is_empty() { Ok(()) } else { write!(f, ": {why}") }
            }
            Event::AgentUndrained { agent_id, by } => {
                write!(f, "agent {agent_id} may have tasks again, says an operator, {by}")
            }
            Event::ActionDegraded { action, by, why } => {
                write!(f, "action {action} was degraded by an operator, {by}")?;
                if why.is_empty() { Ok(()) } else { write!(f, ": {why}") }
            }
            Event::ActionRestored { action, by } => {
                write!(f, "action {action} was restored by an operator, {by}")
            }
            Event::SheddingBegan { of, percent } => {
                write!(
                    f,
                    "{percent} % of the {of} there may be: tasks of actions that are not core are shed"
                )
            }
            Event::SheddingEnded => write!(f, "there is room again for actions that are not core"),
            Event::RulesChanged { action, change: Some(change), by } => {
                write!(f, "the rules of {action} were changed by an operator, {by}: {change}")
            }
            Event::RulesChanged { action, change: None, by } => {
                write!(f, "the rules of {action} were reset by an operator, {by}")
            }
            Event::CancelUnconfirmed { agent_id } => {
                write!(f, "agent {agent_id} did not confirm a cancel in time")
            }
            Event::JournalFailed { message } => {
                write!(f, "the journal failed, durable tasks are refused: {message}")
            }
            Event::NotRestored { message } => {
                write!(f, "the journal has a task that can't be taken up: {message}")
            }
            Event::ShuttingDown { running } => {
                write!(f, "shutting down; {running} tasks are running")
            }
        }
    }
}
