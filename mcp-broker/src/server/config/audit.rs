//! `[audit]`.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::audit::Target;
use super::super::error::StartError;

/// The key `[audit]`: who did what, as lines of JSON.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct AuditConfig {
    /// File that records are appended to, made with mode 0600; `"stderr"` for the standard error.
    /// Default: none, nothing is recorded.
    pub file: Option<PathBuf>,
}

impl AuditConfig {
    /// Opens what it says.
    pub(in crate::server) fn open(&self) -> Result<Option<Target>, StartError> {
        match self.file.as_deref() {
            None => Ok(None),
            Some(path) if path == Path::new("stderr") => Ok(Some(Target::Stderr)),
            Some(path) => {
                let failed = |source| StartError::Audit { path: path.to_owned(), source };
                Target::file(path).map(Some).map_err(failed)
            }
        }
    }
}
