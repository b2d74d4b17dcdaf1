//! Which values are allowed: of the keys that are in no section, and of all together.

use std::borrow::Cow;

use super::{Config, ConfigError};

/// To wake a thread takes less than a tenth of it.
const MAX_BUSY_POLL_US: u64 = 1_000;

impl Config {
    /// Checks every value by itself and against the others.
    ///
    /// # Errors
    /// The first value that is not allowed.
    pub fn check(&self) -> Result<(), ConfigError> {
        at_least("threads", self.threads, 1)?;
        within("busy_poll_us", self.busy_poll_us, 0..=MAX_BUSY_POLL_US)?;
        self.console.check(self.admin)?;
        self.limits.check()?;
        self.timing.check()?;
        self.durable.check()?;
        self.tls.check()?;
        self.auth.check()?;
        self.telemetry.check()?;
        self.scheduling
            .check()
            .map_err(|(key, problem)| wrong(format!("scheduling.{key}"), problem))?;
        for (action, rules) in &self.actions {
            rules
                .check()
                .and_then(|()| rules.check_of(action))
                .map_err(|(key, problem)| wrong(format!("actions.\"{action}\".{key}"), problem))?;
        }
        Ok(())
    }
}

pub(super) fn wrong(key: impl Into<Cow<'static, str>>, problem: impl Into<String>) -> ConfigError {
    ConfigError::Value { key: key.into(), problem: problem.into() }
}

pub(super) fn at_least(key: &'static str, value: usize, min: usize) -> Result<(), ConfigError> {
    if value < min {
        return Err(wrong(key, format!("is {value}; it must be at least {min}")));
    }
    Ok(())
}

pub(super) fn within<T: PartialOrd + std::fmt::Display>(
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
            ("busy_poll_us = 1001", "busy_poll_us is 1001; allowed are 0 to 1000"),
            ("threads = 0", "threads is 0; it must be at least 1"),
            ("admin = '0.0.0.0:1'", "admin is 0.0.0.0:1, which other machines reach"),
            ("[limits]\nmax_body_bytes = 65537", "limits.max_body_bytes is 65537; allowed are 0"),
            (
                "[limits]\nmax_udp_payload_bytes = 65000",
                "max_udp_payload_bytes is 65000; allowed are 1200",
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
            (
                "[telemetry]\notlp_endpoint = 'https://h:1'",
                "telemetry.otlp_endpoint is not http://HOST:PORT",
            ),
            (
                "[telemetry]\nsample_ratio = 1.5",
                "telemetry.sample_ratio is 1.5; allowed are 0 to 1",
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
