//! Which values are allowed.

use std::borrow::Cow;

use mcp_proto::limits::{MAX_AGENT_ATTEMPTS, MAX_BODY_BYTES, MAX_HEADER_BYTES};
use mcp_proto::transport::{MAX_UDP_PAYLOAD_BYTES, MIN_UDP_PAYLOAD_BYTES};

use super::{Config, ConfigError};

/// Several of the largest frames, so that one alone never stops a connection.
const MIN_OUTGOING_BYTES: usize = 4 * (MAX_BODY_BYTES + MAX_HEADER_BYTES);
const MIN_HEADER_BYTES: u32 = 4096;
/// A task has at most 100 attempts.
const MAX_RETRY_BUDGET_PERCENT: u32 = 100 * 100;
/// A day: beyond it, an interval is a slip of the pen, and within it no sum overflows.
const MAX_INTERVAL_MS: u64 = 24 * 60 * 60 * 1000;
/// A year: what is kept for longer belongs in a database.
const MAX_RETENTION_MS: u64 = 365 * 24 * 60 * 60 * 1000;

impl Config {
    /// Checks every value by itself and against the others.
    ///
    /// # Errors
    /// The first value that is not allowed.
    pub fn check(&self) -> Result<(), ConfigError> {
        let Self { limits, timing, tls, .. } = self;
        at_least("threads", self.threads, 1)?;
        if let Some(admin) = self.admin.filter(|it| it.is_remote() && !self.admin_allow_remote) {
            let problem = format!(
                "is {admin}, which other machines reach, and it asks nobody who they are; give a \
                 loopback address, or allow it: admin_allow_remote"
            );
            return Err(wrong("admin", problem));
        }
        at_least("limits.max_connections", limits.max_connections, 1)?;
        at_least("limits.max_handshakes", limits.max_handshakes, 1)?;
        at_least("limits.outgoing_soft_bytes", limits.outgoing_soft_bytes, MIN_OUTGOING_BYTES)?;
        at_least(
            "limits.outgoing_hard_bytes",
            limits.outgoing_hard_bytes,
            limits.outgoing_soft_bytes,
        )?;
        let udp_payload = MIN_UDP_PAYLOAD_BYTES..=MAX_UDP_PAYLOAD_BYTES;
        within("limits.max_udp_payload_bytes", limits.max_udp_payload_bytes, udp_payload)?;
        // HELLO lists labels, actions and held attempts: a smaller header refuses honest workers.
        let header = MIN_HEADER_BYTES..=MAX_HEADER_BYTES as u32;
        within("limits.max_header_bytes", limits.max_header_bytes, header)?;
        within("limits.max_body_bytes", limits.max_body_bytes, 0..=MAX_BODY_BYTES as u32)?;
        within("limits.max_agent_attempts", limits.max_agent_attempts, 1..=MAX_AGENT_ATTEMPTS)?;
        at_least("limits.max_session_tasks", limits.max_session_tasks as usize, 1)?;
        at_least("limits.max_tasks", limits.max_tasks, 1)?;
        at_least("limits.max_queue_tasks", limits.max_queue_tasks, 1)?;
        at_least("limits.max_waiting_bytes", limits.max_waiting_bytes, 1)?;
        at_least("limits.max_agents", limits.max_agents, 1)?;
        at_least("limits.max_sessions", limits.max_sessions, 1)?;
        at_least("limits.max_waiters", limits.max_waiters, 1)?;
        let budget = 0..=MAX_RETRY_BUDGET_PERCENT;
        within("limits.retry_budget_percent", limits.retry_budget_percent, budget)?;

        for (key, ms) in [
            ("timing.hello_timeout_ms", timing.hello_timeout_ms),
            ("timing.slow_peer_ms", timing.slow_peer_ms),
            ("timing.idle_timeout_ms", timing.idle_timeout_ms),
            ("timing.lease_ms", timing.lease_ms),
            ("timing.ping_interval_ms", timing.ping_interval_ms),
            ("timing.probe_after_ms", timing.probe_after_ms),
            ("timing.lost_after_ms", timing.lost_after_ms),
            ("timing.detach_ms", timing.detach_ms),
        ] {
            within(key, ms, 1..=MAX_INTERVAL_MS)?;
        }
        for (key, ms) in [
            ("timing.resume_grace_ms", timing.resume_grace_ms),
            ("timing.no_worker_wait_ms", timing.no_worker_wait_ms),
            ("timing.restart_grace_ms", timing.restart_grace_ms),
            ("timing.cancel_grace_ms", timing.cancel_grace_ms),
            ("timing.drain_ms", timing.drain_ms),
            ("timing.close_flush_ms", timing.close_flush_ms),
        ] {
            within(key, ms, 0..=MAX_INTERVAL_MS)?;
        }
        for (key, ms, below_key, below) in [
            ("timing.ping_interval_ms", timing.ping_interval_ms, "lease_ms", timing.lease_ms),
            ("timing.probe_after_ms", timing.probe_after_ms, "lost_after_ms", timing.lost_after_ms),
        ] {
            if ms >= below {
                return Err(wrong(key, format!("is {ms}; it must be less than {below_key}")));
            }
        }

        let durable = &self.durable.rules;
        at_least("durable.max_bytes", durable.max_bytes, 1)?;
        for (key, ms) in [
            ("durable.retention_ms", durable.retention_ms),
            ("durable.settled_retention_ms", durable.settled_retention_ms),
            ("durable.dead_letter_retention_ms", durable.dead_letter_retention_ms),
        ] {
            within(key, ms, 1..=MAX_RETENTION_MS)?;
        }

        self.scheduling
            .check()
            .map_err(|(key, problem)| wrong(format!("scheduling.{key}"), problem))?;
        for (action, rules) in &self.actions {
            rules
                .check()
                .and_then(|()| rules.check_of(action))
                .map_err(|(key, problem)| wrong(format!("actions.\"{action}\".{key}"), problem))?;
        }

        match (&tls.cert_file, &tls.key_file) {
            (Some(_), None) => Err(wrong("tls.key_file", "is missing beside cert_file")),
            (None, Some(_)) => Err(wrong("tls.cert_file", "is missing beside key_file")),
            (Some(_), Some(_)) if tls.dev => {
                Err(wrong("tls.dev", "makes a certificate, but cert_file gives one"))
            }
            _ => Ok(()),
        }
    }
}

fn wrong(key: impl Into<Cow<'static, str>>, problem: impl Into<String>) -> ConfigError {
    ConfigError::Value { key: key.into(), problem: problem.into() }
}

fn at_least(key: &'static str, value: usize, min: usize) -> Result<(), ConfigError> {
    if value < min {
        return Err(wrong(key, format!("is {value}; it must be at least {min}")));
    }
    Ok(())
}

fn within<T: PartialOrd + std::fmt::Display>(
    key: &'static str,
    value: T,
    range: std::ops::RangeInclusive<T>,
) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(wrong(key, format!("is {value}; allowed are {} to {}", range.start(), range.end())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_not_allowed_is_named() {
        for (text, expected) in [
            ("threads = 0", "threads is 0; it must be at least 1"),
            ("admin = '0.0.0.0:1'", "admin is 0.0.0.0:1, which other machines reach"),
            ("[limits]\nmax_body_bytes = 65537", "limits.max_body_bytes is 65537; allowed are 0"),
            (
                "[limits]\nmax_udp_payload_bytes = 9000",
                "max_udp_payload_bytes is 9000; allowed are 1200",
            ),
            ("[timing]\nping_interval_ms = 30000", "must be less than lease_ms"),
            (
                "[limits]\nretry_budget_percent = 10001",
                "limits.retry_budget_percent is 10001; allowed are 0 to 10000",
            ),
            (
                "[scheduling.mirror]\npercent = 101.0",
                "scheduling.mirror.percent is 101; allowed are 0 to 100",
            ),
            ("[actions.a]\nmirror = { percent = 1.5, max_running = 0 }", "mirror.max_running is 0"),
            (
                "[scheduling]\nrate_limit = { per_s = -1 }",
                "scheduling.rate_limit.per_s is -1; allowed are 0 (no limit), and 0.001 to 1000000",
            ),
            (
                "[actions.a]\ntenant_rate_limit = { per_s = nan }",
                "actions.\"a\".tenant_rate_limit.per_s is NaN",
            ),
            (
                "[scheduling.hedge]\nbudget_percent = 101",
                "scheduling.hedge.budget_percent is 101; allowed are 0 to 100",
            ),
            (
                "[actions.a.hedge]\nmin_samples = 0",
                "actions.\"a\".hedge.min_samples is 0; allowed are 1 to 1000000",
            ),
            (
                "[scheduling]\nfallback = [{ cached = { max_age_ms = 0 } }]",
                "scheduling.fallback step 1: max_age_ms is 0",
            ),
            (
                "[actions.a]\nfallback = [{ action = 'a' }]",
                "actions.\"a\".fallback names the action that it is for",
            ),
            ("[tls]\ncert_file = 'c'", "tls.key_file is missing"),
            ("[limits]\noutgoing_hard_bytes = 1", "limits.outgoing_hard_bytes is 1"),
            (
                "[scheduling]\nbreaker.error_percent = 101",
                "scheduling.breaker.error_percent is 101; allowed are 1 to 100",
            ),
            (
                "[actions.a]\noutlier.sigmas = -1.0",
                "actions.\"a\".outlier.sigmas is -1; allowed are 0",
            ),
            (
                "[actions.a]\npoison_after = 33",
                "actions.\"a\".poison_after is 33; allowed are 0 to 32",
            ),
        ] {
            let error = toml::from_str::<Config>(text).unwrap().check().unwrap_err().to_string();
            assert!(error.contains(expected), "{expected} is not in {error}");
        }
    }
}
