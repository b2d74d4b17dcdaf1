//! `[durable]`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::check::{at_least, within};
use crate::broker::DurableRules;

/// A year: what is kept for longer belongs in a database.
const MAX_RETENTION_MS: u64 = 365 * 24 * 60 * 60 * 1000;

/// The key `[durable]`: the journal, and what is kept of durable tasks.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct DurableConfig {
    /// Whether there is a journal: without one, durable tasks are refused. Default: yes, where there is
    /// a state directory.
    #[schemars(extend("x-restart" = true))]
    pub enabled: bool,
    /// Directory of the journal, such as one on a disk of its own. There has to be a state directory
    /// besides. Default: `journal` in the state directory.
    #[schemars(extend("x-restart" = true))]
    pub dir: Option<PathBuf>,
    /// What is kept, in memory and in the journal.
    #[serde(flatten)]
    pub rules: DurableRules,
}

impl Default for DurableConfig {
    fn default() -> Self {
        Self { enabled: true, dir: None, rules: DurableRules::default() }
    }
}

impl DurableConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let Self { rules, .. } = self;
        at_least("durable.max_bytes", rules.max_bytes, 1)?;
        for (key, ms) in [
            ("durable.retention_ms", rules.retention_ms),
            ("durable.settled_retention_ms", rules.settled_retention_ms),
            ("durable.dead_letter_retention_ms", rules.dead_letter_retention_ms),
        ] {
            within(key, ms, 1..=MAX_RETENTION_MS)?;
        }
        Ok(())
    }
}
