//! What of a configuration is another one than before.

use serde::Deserialize as _;
use serde_json::Value;

use crate::server::config::{Config, ConfigError, Key};

/// What there is to do about another configuration.
#[derive(Debug)]
pub(super) struct Difference {
    /// It, with what needs a restart as it was.
    pub(super) config: Config,
    pub(super) changed: Vec<String>,
    pub(super) needs_restart: Vec<String>,
}

impl Difference {
    /// Of `new` to what holds, and to what was started with.
    pub(super) fn between(
        started: &Config,
        holds: &Config,
        new: &Config,
    ) -> Result<Self, ConfigError> {
        let keys = Config::keys();
        let (started, holds, new) = (value(started)?, value(holds)?, value(new)?);
        let mut config = new.clone();
        let (mut changed, mut needs_restart) = (Vec::new(), Vec::new());
        for Key { path, needs_restart: is_fixed, .. } in keys {
            let pointer = format!("/{}", path.replace('.', "/"));
            let at = |of: &Value| of.pointer(&pointer).cloned().unwrap_or_default();
            if !is_fixed {
                if at(&holds) != at(&new) {
                    changed.push(path);
                }
                continue;
            }
            if at(&started) != at(&new) {
                needs_restart.push(path);
            }
            if let Some(place) = config.pointer_mut(&pointer) {
                *place = at(&started);
            }
        }
        changed.extend(changed_actions(&holds["actions"], &new["actions"]));
        let config = Config::deserialize(config).map_err(|error| unusable(&error))?;
        Ok(Self { config, changed, needs_restart })
    }
}

fn changed_actions(holds: &Value, new: &Value) -> Vec<String> {
    let names = |of: &Value| of.as_object().into_iter().flatten().map(|it| it.0.clone()).collect();
    let mut all: Vec<String> = names(holds);
    all.extend::<Vec<_>>(names(new));
    all.sort_unstable();
    all.dedup();
    all.retain(|name| holds.get(name) != new.get(name));
    all.iter().map(|name| format!("actions.\"{name}\"")).collect()
}

fn value(config: &Config) -> Result<Value, ConfigError> {
    serde_json::to_value(config).map_err(|error| unusable(&error))
}

/// Only with a path that is no text.
fn unusable(error: &serde_json::Error) -> ConfigError {
    ConfigError::Value {
        key: "the configuration".into(),
        problem: format!("can't be used: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Policy;

    #[test]
    fn what_needs_a_restart_stays_as_it_was_and_is_told_until_it_is_so_again() {
        let started = Config::default();
        let mut new = started.clone();
        new.listen.set_port(9);
        new.limits.max_tasks = 7;
        new.scheduling.policy = Policy::P2c;
        new.actions.insert("a".try_into().unwrap(), new.scheduling.clone());
        let first = Difference::between(&started, &started, &new).unwrap();
        assert_eq!(first.changed, ["limits.max_tasks", "scheduling.policy", "actions.\"a\""]);
        assert_eq!(first.needs_restart, ["listen"]);
        assert_eq!(first.config.listen, started.listen);
        assert_eq!(first.config.limits.max_tasks, 7);

        let again = Difference::between(&started, &first.config, &new).unwrap();
        assert_eq!(
            (again.changed.len(), &again.needs_restart[..]),
            (0, &["listen".to_owned()][..])
        );
        let back = Difference::between(&started, &first.config, &started).unwrap();
        assert_eq!((back.changed, back.needs_restart.len()), (first.changed, 0));
    }
}
