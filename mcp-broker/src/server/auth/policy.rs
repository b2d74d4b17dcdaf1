//! The policy's file.

use std::path::Path;

use crate::broker::Roles;
use crate::server::{ConfigError, Problem};

/// Reads a policy.
///
/// # Errors
/// When it can't be read, is not TOML, or says what it can't; the error names it.
pub(super) fn read(path: &Path) -> Result<Roles, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let wrong = |key: String, problem: String| {
        let place = path.display().to_string();
        ConfigError::Wrong(vec![Problem { place, key, problem }])
    };
    let roles: Roles =
        toml::from_str(&text).map_err(|error| wrong(String::new(), error.to_string()))?;
    roles.check().map_err(|(key, problem)| wrong(key, problem))?;
    Ok(roles)
}
