//! `[log]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The key `[log]`: what the process `mcp-broker` writes to stderr.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct LogConfig {
    /// `"text"`, for people, or `"json"`: an object a line, with `timestamp` (ms since 1970), `level`,
    /// `service_name`, and `trace_id` where it is about a task. Default: text.
    #[schemars(extend("x-restart" = true))]
    pub format: LogFormat,
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or by module, as in
    /// `info,mcp_broker=debug`. Default: `info,quinn_udp=error`.
    pub level: String,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For collectors.
    Json,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info,quinn_udp=error".to_owned() }
    }
}
