//! `[telemetry]`.

use mcp_telemetry::OtlpEndpoint;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::check::{within, wrong};

/// The key `[telemetry]`: spans of tasks, for OpenTelemetry.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct TelemetryConfig {
    /// Where spans are sent: a collector that takes OTLP over HTTP, `"http://127.0.0.1:4318"`, and its
    /// path, if that is not `/v1/traces`. Default: none, no spans are made.
    #[schemars(extend("x-restart" = true))]
    pub otlp_endpoint: Option<String>,
    /// Of tasks whose client does not say whether it records them, this share is recorded: 0 to 1.
    /// Default: 0.01, which is not noticed beside the tasks themselves.
    #[schemars(extend("x-restart" = true))]
    pub sample_ratio: f64,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { otlp_endpoint: None, sample_ratio: 0.01 }
    }
}

impl TelemetryConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.endpoint()?;
        within("telemetry.sample_ratio", self.sample_ratio, 0.0..=1.0)
    }

    pub(in crate::server) fn endpoint(&self) -> Result<Option<OtlpEndpoint>, ConfigError> {
        let endpoint = self.otlp_endpoint.as_deref().map(str::parse).transpose();
        endpoint.map_err(|problem: mcp_telemetry::InvalidEndpoint| {
            wrong("telemetry.otlp_endpoint", problem.to_string())
        })
    }
}
