//! The defaults, which hold for most. Their reasons are told with the keys.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use mcp_proto::DEFAULT_PORT;
use mcp_proto::limits::{MAX_AGENT_ATTEMPTS, MAX_BODY_BYTES, MAX_HEADER_BYTES};
use mcp_proto::transport::MAX_UDP_PAYLOAD_BYTES;

use super::{Config, DurableConfig, LimitsConfig, TimingConfig, TlsConfig};
use crate::broker::{ActionRules, DurableRules};

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)),
            admin: None,
            admin_allow_remote: false,
            state_dir: None,
            broker_id: None,
            threads: 1,
            tls: TlsConfig::default(),
            limits: LimitsConfig::default(),
            timing: TimingConfig::default(),
            durable: DurableConfig::default(),
            scheduling: ActionRules::default(),
            actions: BTreeMap::new(),
        }
    }
}

impl Default for DurableConfig {
    fn default() -> Self {
        Self { enabled: true, dir: None, rules: DurableRules::default() }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            max_connections: 20_000,
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

impl Default for TimingConfig {
    fn default() -> Self {
        Self {
            hello_timeout_ms: 3_000,
            slow_peer_ms: 15_000,
            idle_timeout_ms: 30_000,
            lease_ms: 30_000,
            ping_interval_ms: 10_000,
            probe_after_ms: 500,
            lost_after_ms: 2_000,
            resume_grace_ms: 10_000,
            detach_ms: 30_000,
            no_worker_wait_ms: 5_000,
            restart_grace_ms: 15_000,
            cancel_grace_ms: 5_000,
            drain_ms: 10_000,
            close_flush_ms: 1_000,
        }
    }
}
