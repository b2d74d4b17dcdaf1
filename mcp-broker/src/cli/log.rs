//! The log of this process.

use std::sync::Arc;

use mcp_broker::{LogConfig, LogFormat};
use mcp_telemetry::{Format, Level};
use tracing_subscriber::EnvFilter;

pub(super) fn start(config: &LogConfig) -> Result<Arc<Level>, String> {
    let filter = filter(&config.level)?;
    let format = match config.format {
        LogFormat::Json => Format::Json,
        _ => Format::Text,
    };
    Ok(Arc::new(format.start("mcp-broker", filter)))
}

/// What a `log.level` stands for, or what is wrong with it.
pub(super) fn filter(level: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(level).map_err(|error| format!("is {level:?}: {error}"))
}
