//! `[limits]`.

use mcp_proto::limits::{MAX_AGENT_ATTEMPTS, MAX_BODY_BYTES, MAX_HEADER_BYTES};
use mcp_proto::transport::{MAX_UDP_PAYLOAD_BYTES, MIN_UDP_PAYLOAD_BYTES};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::check::{at_least, within};

/// Several of the largest frames, so that one alone never stops a connection.
const MIN_OUTGOING_BYTES: usize = 4 * (MAX_BODY_BYTES + MAX_HEADER_BYTES);
const MIN_HEADER_BYTES: u32 = 4096;
/// More than any machine can do, and a whole number of µs for each.
const MAX_CONNECTIONS_PER_S: u32 = 1_000_000;
/// So that no sum overflows.
const MAX_CONNECTIONS_BURST: u32 = 1_000_000_000;
/// A task has at most 100 attempts.
const MAX_RETRY_BUDGET_PERCENT: u32 = 100 * 100;

/// The key `[limits]`. Sizes are in bytes.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct LimitsConfig {
    /// Open connections; further ones are refused. Each costs about 40 KiB when idle. 20,000.
    pub max_connections: usize,
    /// Open connections of one address (of IPv6: its first 64 bits); further ones are refused. 10,000:
    /// half of all, since many agents can be behind one address.
    pub max_address_connections: usize,
    /// Connections that one address may open a second in the long run; further ones are refused. 0: any
    /// number. 500: a fifth of what a core can do.
    pub address_connections_per_s: u32,
    /// Connections that one address may open at once. From half of them on, a peer must first prove that
    /// its address is its own, so that forged addresses can't use them up. 5,000: as many agents behind
    /// one address come back after a restart without having to wait.
    pub address_connections_burst: u32,
    /// Connections being opened, from the handshake until HELLO; further ones are refused, and those of
    /// one address (of IPv6: its first 64 bits) from eight ninths of them on. Each costs CPU and memory
    /// before anything is known of its peer. 1,024.
    pub max_handshakes: usize,
    /// With so many connections being opened, a further peer must first prove that its address is its
    /// own (QUIC Retry, one round trip more), so that forged addresses cost little. 0: always. 128.
    pub retry_handshakes: usize,
    /// Bytes waiting to be sent to a client beyond which nothing is read from it, until it has read
    /// half of them. Workers are always read. 4 MiB.
    pub outgoing_soft_bytes: usize,
    /// Bytes waiting to be sent to a peer beyond which it is closed with SLOW_CONSUMER; to a worker,
    /// besides the tasks that it holds, up to an eighth of `outgoing_bytes`. 32 MiB.
    pub outgoing_hard_bytes: usize,
    /// Bytes waiting to be sent to peers that do not take them as fast as they come, of all together.
    /// No peer may have more than eight times what is free of it: when many stop reading, each has less
    /// than the above, but 256 KiB always. 1 GiB.
    pub outgoing_bytes: usize,

    /// Largest UDP payload, in both directions: 1,200 to 16,368. Path MTU discovery tries up to 5,232 of
    /// it; more is used within one machine only. Less where a network drops large packets now and then.
    /// 16,368.
    #[schemars(extend("x-restart" = true))]
    pub max_udp_payload_bytes: u16,

    /// Largest frame header, at most the protocol's 65,535: the default.
    pub max_header_bytes: u32,
    /// Largest frame body, at most the protocol's 65,536: the default.
    pub max_body_bytes: u32,
    /// Tasks without an outcome that one client session may have. 65,536.
    pub max_session_tasks: u32,
    /// Largest slots + prefetch of one worker, at most 4,096: the default.
    pub max_agent_attempts: u32,
    /// Longest input that comes in chunks: of tasks whose input does not fit a frame. 0: such tasks
    /// are rejected. 1 GiB.
    pub max_input_bytes: u64,

    /// Tasks without an outcome, of all actions together.
    pub max_tasks: usize,
    /// Tasks without an outcome of one identity; further ones are rejected with LIMIT_EXCEEDED. Not of
    /// `anonymous`, which is everybody where nobody has to prove who he is. 1,000,000: a quarter of all.
    pub max_identity_tasks: usize,
    /// Bytes of those; of inputs in chunks what came with SEND. 1 GiB: half of what may wait.
    pub max_identity_bytes: usize,
    /// Tasks waiting in one action's queue; further ones are rejected with QUEUE_FULL.
    pub max_queue_tasks: usize,
    /// Bytes of the tasks waiting in one action's queue; beyond them, QUEUE_FULL.
    pub max_queue_bytes: usize,
    /// Bytes of the tasks waiting in all queues together; beyond them, QUEUE_FULL. 2 GiB.
    pub max_waiting_bytes: usize,
    /// Registered workers, lost ones included.
    pub max_agents: usize,
    /// Client sessions, detached ones included.
    pub max_sessions: usize,
    /// Sessions that may wait for one task.
    pub max_waiters: usize,
    /// Results held for a client that lost its connection.
    pub max_detached_results: usize,
    /// Bytes of the results held for a client that lost its connection.
    pub max_detached_bytes: usize,
    /// Bytes of the results held for all of those together; none of them may have more than eight times
    /// what is free of it. 256 MiB.
    pub detached_bytes: usize,
    /// Results kept after delivery, which answer duplicates and FETCH.
    pub kept_results: usize,
    /// Bytes of the results kept after delivery.
    pub kept_result_bytes: usize,
    /// Bytes set aside for inputs on their way in chunks, of all tasks together: 64 KiB for each that
    /// waits for a worker or runs, and 256 KiB while less than half is taken. Beyond them, QUEUE_FULL.
    /// 64 MiB.
    pub max_upload_bytes: usize,
    /// Last good answers kept for actions whose rules have a cached fallback, of all together; the
    /// oldest go. 10,000.
    pub cached_answers: usize,
    /// Bytes of those. 32 MiB.
    pub cached_answer_bytes: usize,
    /// How often workers may hand a task back before it is rejected; a durable one is offered again
    /// every second instead.
    pub max_nacks: u32,
    /// The retry budget: attempts after a failure or a time-out, in percent of the tasks taken
    /// lately, 0 to 10,000. When everything fails, retries are no more than this much load on top.
    /// Besides them there are 10, and one a second, so that a quiet broker always retries. 20.
    pub retry_budget_percent: u32,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            max_connections: 20_000,
            max_address_connections: 10_000,
            address_connections_per_s: 500,
            address_connections_burst: 5_000,
            max_handshakes: 1024,
            retry_handshakes: 128,
            outgoing_soft_bytes: 4 * 1024 * 1024,
            outgoing_hard_bytes: 32 * 1024 * 1024,
            outgoing_bytes: 1024 * 1024 * 1024,
            max_udp_payload_bytes: MAX_UDP_PAYLOAD_BYTES,
            max_header_bytes: MAX_HEADER_BYTES as u32,
            max_body_bytes: MAX_BODY_BYTES as u32,
            max_session_tasks: 65_536,
            max_agent_attempts: MAX_AGENT_ATTEMPTS,
            max_input_bytes: 1024 * 1024 * 1024,
            max_tasks: 4_000_000,
            max_identity_tasks: 1_000_000,
            max_identity_bytes: 1024 * 1024 * 1024,
            max_queue_tasks: 1_000_000,
            max_queue_bytes: 1024 * 1024 * 1024,
            max_waiting_bytes: 2 * 1024 * 1024 * 1024,
            max_agents: 100_000,
            max_sessions: 100_000,
            max_waiters: 8,
            max_detached_results: 10_000,
            max_detached_bytes: 16 * 1024 * 1024,
            detached_bytes: 256 * 1024 * 1024,
            kept_results: 10_000,
            kept_result_bytes: 64 * 1024 * 1024,
            max_upload_bytes: 64 * 1024 * 1024,
            cached_answers: 10_000,
            cached_answer_bytes: 32 * 1024 * 1024,
            max_nacks: 8,
            retry_budget_percent: 20,
        }
    }
}

impl LimitsConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        at_least("limits.max_connections", self.max_connections, 1)?;
        at_least("limits.max_address_connections", self.max_address_connections, 1)?;
        let per_s = 0..=MAX_CONNECTIONS_PER_S;
        within("limits.address_connections_per_s", self.address_connections_per_s, per_s)?;
        let burst = 1..=MAX_CONNECTIONS_BURST;
        within("limits.address_connections_burst", self.address_connections_burst, burst)?;
        at_least("limits.max_handshakes", self.max_handshakes, 1)?;
        at_least("limits.outgoing_soft_bytes", self.outgoing_soft_bytes, MIN_OUTGOING_BYTES)?;
        at_least("limits.outgoing_hard_bytes", self.outgoing_hard_bytes, self.outgoing_soft_bytes)?;
        let udp_payload = MIN_UDP_PAYLOAD_BYTES..=MAX_UDP_PAYLOAD_BYTES;
        within("limits.max_udp_payload_bytes", self.max_udp_payload_bytes, udp_payload)?;
        // HELLO lists labels, actions and held attempts: a smaller header refuses honest workers.
        let header = MIN_HEADER_BYTES..=MAX_HEADER_BYTES as u32;
        within("limits.max_header_bytes", self.max_header_bytes, header)?;
        within("limits.max_body_bytes", self.max_body_bytes, 0..=MAX_BODY_BYTES as u32)?;
        within("limits.max_agent_attempts", self.max_agent_attempts, 1..=MAX_AGENT_ATTEMPTS)?;
        at_least("limits.max_session_tasks", self.max_session_tasks as usize, 1)?;
        at_least("limits.max_tasks", self.max_tasks, 1)?;
        at_least("limits.max_identity_tasks", self.max_identity_tasks, 1)?;
        at_least("limits.max_identity_bytes", self.max_identity_bytes, 1)?;
        at_least("limits.max_queue_tasks", self.max_queue_tasks, 1)?;
        at_least("limits.max_waiting_bytes", self.max_waiting_bytes, 1)?;
        at_least("limits.max_agents", self.max_agents, 1)?;
        at_least("limits.max_sessions", self.max_sessions, 1)?;
        at_least("limits.max_waiters", self.max_waiters, 1)?;
        let budget = 0..=MAX_RETRY_BUDGET_PERCENT;
        within("limits.retry_budget_percent", self.retry_budget_percent, budget)?;
        Ok(())
    }
}
