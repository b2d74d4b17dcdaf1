//! `[console]`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::check::wrong;
use crate::server::admin::AdminAddr;

/// The key `[console]`: who may use the admin listener. `/livez` and `/readyz` answer everybody.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ConsoleConfig {
    /// File with the token that operators give, 16 to 4,096 visible characters, which nobody but its
    /// owner may read (mode 0600). Read at the start. Default: none; then whoever is on this machine
    /// is an operator, and nobody else is.
    pub token_file: Option<PathBuf>,
    /// Whether `/metrics` asks for no token, as a Prometheus without one needs it. Default: no.
    pub metrics_public: bool,
}

impl ConsoleConfig {
    pub(super) fn check(&self, admin: Option<AdminAddr>) -> Result<(), ConfigError> {
        let is_open = self.token_file.is_none() && !self.metrics_public;
        if let Some(admin) = admin.filter(|it| it.is_remote() && is_open) {
            let problem = format!(
                "is {admin}, which other machines reach: say how operators prove who they are, \
                 console.token_file, or that there are only probes and metrics, \
                 console.metrics_public; or give a loopback address"
            );
            return Err(wrong("admin", problem));
        }
        Ok(())
    }
}
