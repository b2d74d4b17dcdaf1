//! What is logged.

use super::{Apply, Part};
use crate::server::config::{Config, ConfigError};
use crate::server::error::StartError;

/// Given a level: what puts it in force, or what is wrong with it.
pub(in crate::server) type PrepareLevel = Box<dyn Fn(&str) -> Result<Apply, String> + Send + Sync>;

pub(in crate::server) struct LogLevel(pub(in crate::server) PrepareLevel);

impl Part for LogLevel {
    fn prepare(&self, config: &Config) -> Result<Apply, StartError> {
        let prepared = (self.0)(&config.log.level);
        prepared.map_err(|problem| ConfigError::Value { key: "log.level".into(), problem }.into())
    }
}
