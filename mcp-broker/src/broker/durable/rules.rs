//! What is kept of durable tasks, and for how long.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The key `[durable]`: bounds of what is kept of durable tasks, in memory and in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct DurableRules {
    /// Bytes of durable tasks without an outcome and of kept outcomes. Beyond it, no durable task is
    /// taken. What runs may still end, so it can be exceeded by the outcomes of what was taken.
    /// Default: 512 MiB.
    pub max_bytes: usize,
    /// An outcome that nobody settles is kept for this long, ms. Default: 86,400,000, a day.
    pub retention_ms: u64,
    /// The id of a settled task is kept for this long, so that it does not run again, ms. Default:
    /// 600,000, 10 minutes.
    pub settled_retention_ms: u64,
    /// Ids of settled tasks; the oldest are forgotten first. Each takes some 200 bytes. Default:
    /// 200,000.
    pub max_settled: usize,
    /// Dead letters; the oldest are dropped first. Default: 10,000.
    pub max_dead_letters: usize,
    /// Bytes of dead letters; the oldest are dropped first. Default: 64 MiB.
    pub max_dead_letter_bytes: usize,
    /// A dead letter is kept for this long, ms. Default: 604,800,000, a week.
    pub dead_letter_retention_ms: u64,
}

impl Default for DurableRules {
    fn default() -> Self {
        const HOUR_MS: u64 = 60 * 60 * 1000;
        Self {
            max_bytes: 512 * 1024 * 1024,
            retention_ms: 24 * HOUR_MS,
            settled_retention_ms: HOUR_MS / 6,
            max_settled: 200_000,
            max_dead_letters: 10_000,
            max_dead_letter_bytes: 64 * 1024 * 1024,
            dead_letter_retention_ms: 7 * 24 * HOUR_MS,
        }
    }
}
