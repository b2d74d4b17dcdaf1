//! `[timing]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::check::{within, wrong};

/// A day: beyond it, an interval is a slip of the pen, and within it no sum overflows.
const MAX_INTERVAL_MS: u64 = 24 * 60 * 60 * 1000;

/// The key `[timing]`. All in milliseconds.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct TimingConfig {
    /// A connection may take this long for each of: the handshake, opening its lane, HELLO. 3,000.
    pub hello_timeout_ms: u64,
    /// A peer that has begun a frame must send 64 KiB of it, or all, in each such time, or is closed
    /// with FRAME_TIMEOUT; one for which something waits must take as much, or is closed with
    /// SLOW_CONSUMER after this time or up to twice as long. Longer than a network is silent and comes
    /// back. 15,000.
    pub slow_peer_ms: u64,
    /// A connection without any packet for this long is dead to QUIC. 30,000.
    pub idle_timeout_ms: u64,
    /// A worker silent for this long is lost, even when it holds nothing. 30,000.
    pub lease_ms: u64,
    /// How often workers send PING: a third of the lease, so that one may come late. 10,000.
    pub ping_interval_ms: u64,
    /// A worker that holds tasks is probed after this much silence. 500.
    pub probe_after_ms: u64,
    /// A worker that holds tasks is lost after this much silence, probes included. 2,000.
    pub lost_after_ms: u64,
    /// A lost worker can come back for this long and go on with what it held. 10,000.
    pub resume_grace_ms: u64,
    /// A client's session outlives its connection for this long. 30,000.
    pub detach_ms: u64,
    /// A task that no ready worker serves is rejected after this long, or at its deadline. 5,000.
    pub no_worker_wait_ms: u64,
    /// For this long after a restart no task is rejected for want of a worker: those of before are
    /// coming back. The last of them knows after a PING interval and some seconds. 15,000.
    #[schemars(extend("x-restart" = true))]
    pub restart_grace_ms: u64,
    /// A worker may take this long to confirm a CANCEL before that counts as its fault. 5,000.
    pub cancel_grace_ms: u64,
    /// At shutdown, running tasks may take this long to finish. 10,000.
    pub drain_ms: u64,
    /// A connection that is being closed may take this long to read its last frames. 1,000.
    pub close_flush_ms: u64,
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

impl TimingConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        for (key, ms) in [
            ("timing.hello_timeout_ms", self.hello_timeout_ms),
            ("timing.slow_peer_ms", self.slow_peer_ms),
            ("timing.idle_timeout_ms", self.idle_timeout_ms),
            ("timing.lease_ms", self.lease_ms),
            ("timing.ping_interval_ms", self.ping_interval_ms),
            ("timing.probe_after_ms", self.probe_after_ms),
            ("timing.lost_after_ms", self.lost_after_ms),
            ("timing.detach_ms", self.detach_ms),
        ] {
            within(key, ms, 1..=MAX_INTERVAL_MS)?;
        }
        for (key, ms) in [
            ("timing.resume_grace_ms", self.resume_grace_ms),
            ("timing.no_worker_wait_ms", self.no_worker_wait_ms),
            ("timing.restart_grace_ms", self.restart_grace_ms),
            ("timing.cancel_grace_ms", self.cancel_grace_ms),
            ("timing.drain_ms", self.drain_ms),
            ("timing.close_flush_ms", self.close_flush_ms),
        ] {
            within(key, ms, 0..=MAX_INTERVAL_MS)?;
        }
        for (key, ms, below_key, below) in [
            ("timing.ping_interval_ms", self.ping_interval_ms, "lease_ms", self.lease_ms),
            ("timing.probe_after_ms", self.probe_after_ms, "lost_after_ms", self.lost_after_ms),
        ] {
            if ms >= below {
                return Err(wrong(key, format!("is {ms}; it must be less than {below_key}")));
            }
        }
        Ok(())
    }
}
