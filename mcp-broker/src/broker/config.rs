//! Every limit and interval of the core, with its reason.

use std::collections::BTreeMap;

use mcp_proto::{ActionName, Limits, NodeId};

use super::durable::DurableRules;
use super::rules::ActionRules;
use super::traced::TraceRules;

/// Configuration of a [`Core`](super::Core). All durations are in milliseconds.
#[derive(Debug, Clone)]
pub struct CoreConfig {
    /// This broker's name, in ACK and in traces.
    pub broker_id: NodeId,
    /// Grows with every start of this broker: attempts of an earlier one can't be mistaken for
    /// this one's.
    pub epoch: u64,
    /// Seed of every random choice, and of the hash tables.
    pub seed: u64,
    /// What a connection may send.
    pub limits: Limits,
    /// The rules of all actions that have none of their own.
    pub rules: ActionRules,
    /// The rules of these actions.
    pub actions: BTreeMap<ActionName, ActionRules>,

    /// A connection without HELLO for this long is closed.
    pub hello_timeout_ms: u64,
    /// A worker silent for this long is lost, even if it holds nothing.
    pub lease_ms: u64,
    /// How often a worker sends PING: a third of the lease, so that one may be late.
    pub ping_interval_ms: u64,
    /// A worker that holds attempts and was silent for this long is probed.
    pub probe_after_ms: u64,
    /// A worker that holds attempts and was silent for this long, probes included, is lost.
    pub lost_after_ms: u64,
    /// Attempts of a lost worker that may not run twice can be resumed for this long.
    pub resume_grace_ms: u64,
    /// A client's session outlives its connection for this long.
    pub detach_ms: u64,
    /// A task that no ready worker could take is rejected after this long.
    pub no_worker_wait_ms: u64,
    /// For this long after its start, a broker that was restarted rejects no task for want of a
    /// worker: those of before are coming back. 0: this is not a restart.
    pub restart_grace_ms: u64,
    /// A worker that has not confirmed a CANCEL for this long is at fault.
    pub cancel_grace_ms: u64,

    /// Tasks without an outcome, of all actions together.
    pub max_tasks: usize,
    /// Tasks without an outcome of one identity, unless it is the one that is everybody's.
    pub max_identity_tasks: usize,
    /// Bytes of those, of inputs in chunks what came with SEND.
    pub max_identity_bytes: usize,
    /// Tasks that wait in one action's queue.
    pub max_queue_tasks: usize,
    /// Bytes of the tasks that wait in one action's queue.
    pub max_queue_bytes: usize,
    /// Bytes of the tasks that wait in all queues: however many actions there are.
    pub max_waiting_bytes: usize,
    /// Registered workers, lost ones included.
    pub max_agents: usize,
    /// Client sessions, detached ones included.
    pub max_sessions: usize,
    /// Sessions that wait for the same task.
    pub max_waiters: usize,
    /// Tasks in flight that descend from the same one. They are cancelled in one step, which takes
    /// some µs for each, and nothing else is done meanwhile.
    pub max_family: usize,
    /// Results held for a detached session.
    pub max_detached_results: usize,
    /// Bytes of the results held for a detached session.
    pub max_detached_bytes: usize,
    /// Bytes of the results held for all detached sessions.
    pub detached_bytes: usize,
    /// Results kept after delivery, to answer duplicates and FETCH.
    pub kept_results: usize,
    /// Bytes of the results kept after delivery.
    pub kept_result_bytes: usize,
    /// Bytes of chunks kept for readers that come back, of all streams together. As many streams of
    /// tasks that have ended are kept as results.
    pub stream_bytes: usize,
    /// Bytes set aside for inputs on their way in chunks, of all tasks together.
    pub max_upload_bytes: usize,
    /// Last good answers kept for actions with a cached fallback, of all together.
    pub cached_answers: usize,
    /// Bytes of those.
    pub cached_answer_bytes: usize,
    /// How often workers may hand a task back before it is rejected; a durable one is offered again
    /// every second instead.
    pub max_nacks: u32,
    /// Retries after failures and time-outs, in percent of the tasks taken lately; besides them
    /// there may always be a few.
    pub retry_budget_percent: u32,
    /// Whether durable tasks are taken: the journal outlives the process.
    pub is_durable: bool,
    /// What is kept of durable tasks.
    pub durable: DurableRules,
    /// Which tasks are recorded as traces.
    pub tracing: TraceRules,
}

impl CoreConfig {
    /// The defaults for a broker of this name, epoch and seed.
    pub fn new(broker_id: NodeId, epoch: u64, seed: u64) -> Self {
        Self {
            broker_id,
            epoch,
            seed,
            limits: Limits::default(),
            rules: ActionRules::default(),
            actions: BTreeMap::new(),
            hello_timeout_ms: 3_000,
            lease_ms: 30_000,
            ping_interval_ms: 10_000,
            probe_after_ms: 500,
            lost_after_ms: 2_000,
            resume_grace_ms: 10_000,
            detach_ms: 30_000,
            no_worker_wait_ms: 5_000,
            restart_grace_ms: 0,
            cancel_grace_ms: 5_000,
            max_tasks: 4_000_000,
            max_identity_tasks: 1_000_000,
            max_identity_bytes: 1024 * 1024 * 1024,
            max_queue_tasks: 1_000_000,
            max_queue_bytes: 1024 * 1024 * 1024,
            max_waiting_bytes: 2 * 1024 * 1024 * 1024,
            max_agents: 100_000,
            max_sessions: 100_000,
            max_waiters: 8,
            max_family: 4_096,
            max_detached_results: 10_000,
            max_detached_bytes: 16 * 1024 * 1024,
            detached_bytes: 256 * 1024 * 1024,
            kept_results: 10_000,
            kept_result_bytes: 64 * 1024 * 1024,
            stream_bytes: 64 * 1024 * 1024,
            max_upload_bytes: 64 * 1024 * 1024,
            cached_answers: 10_000,
            cached_answer_bytes: 32 * 1024 * 1024,
            max_nacks: 8,
            retry_budget_percent: 20,
            is_durable: false,
            durable: DurableRules::default(),
            tracing: TraceRules::default(),
        }
    }
}
