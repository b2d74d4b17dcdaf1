//! Another configuration while the broker runs: checked whole, taken whole, and the old one kept on any
//! error.
//!
//! What could fail is done first, by every [`Part`], and changes nothing: files are read, certificates
//! looked at, logs opened. Only when all of that went well is anything put in force, by what can't fail.

mod certificate;
mod difference;
mod gauges;
mod level;
mod logs;
mod policy;
mod watch;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mcp_proto::{ActionName, NodeId};
use serde_json::json;

use super::audit;
use super::config::{Config, Layers};
use super::error::StartError;
use super::listener::Entrance;
use super::shared::{Outbox, Shared};
use difference::Difference;

pub(super) use certificate::Certificate;
pub(super) use gauges::{Figures, Gauges};
pub(super) use level::{LogLevel, PrepareLevel};
pub(super) use logs::AuditFile;
pub(super) use policy::PolicyFile;
pub(super) use watch::{Seen, run as watch};

/// Something that follows the configuration by itself.
pub(super) trait Part: Send + Sync {
    /// Does all that could fail, and changes nothing.
    fn prepare(&self, config: &Config) -> Result<Apply, StartError>;

    /// The files that it reads, besides the configuration: a change of one is a reason to reload.
    fn files(&self, _config: &Config) -> Vec<PathBuf> {
        Vec::new()
    }
}

/// Puts in force what was prepared.
pub(in crate::server) type Apply = Box<dyn FnOnce() + Send>;

/// What a reload came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reloaded {
    /// The keys whose values are others now.
    pub changed: Vec<String>,
    /// The keys whose values take effect with the next start only: they are not what the broker runs
    /// with.
    pub needs_restart: Vec<String>,
    /// The actions that go on by the rules that an operator gave them, until these are reset.
    pub kept_rules: Vec<ActionName>,
}

/// Takes other configurations.
pub(super) struct Reloader {
    pub(super) shared: Arc<Shared>,
    pub(super) layers: Option<Layers>,
    /// What was said to the builder, whatever the layers say.
    pub(super) overrides: Box<dyn Fn(&mut Config) + Send + Sync>,
    pub(super) entrance: Entrance,
    /// What was started with: what needs a restart is so.
    pub(super) started: Config,
    /// One reload at a time.
    pub(super) state: Mutex<State>,
    pub(super) seen: Mutex<Seen>,
}

/// What holds, and what follows it.
pub(super) struct State {
    pub(super) config: Config,
    pub(super) parts: Vec<Box<dyn Part>>,
    pub(super) is_over: bool,
}

impl Reloader {
    /// Loads the configuration again from where it came.
    pub(super) fn reload(&self, why: &str) -> Result<Reloaded, StartError> {
        // Before they are read: what changes after that is another reason to reload.
        self.see();
        let loaded = match &self.layers {
            Some(layers) => layers.load().map(|loaded| loaded.config).map_err(StartError::from),
            None => Ok(self.config()),
        };
        let taken = self.take(why, loaded);
        self.see_more();
        taken
    }

    /// Takes a configuration, unless there is something wrong with it, or it could not even be loaded.
    pub(super) fn take(
        &self,
        why: &str,
        config: Result<Config, StartError>,
    ) -> Result<Reloaded, StartError> {
        let mut state = self.lock();
        if state.is_over {
            return Ok(Reloaded::default());
        }
        let taken = config.and_then(|config| self.replace(&mut state, config));
        let event = audit::Event::new(audit::Kind::Reload, "configuration");
        match &taken {
            Ok(reloaded) => {
                let Reloaded { changed, needs_restart, kept_rules } = reloaded;
                let details = json!({
                    "why": why,
                    "changed": changed,
                    "needs_restart": needs_restart,
                });
                self.shared.audit.record(event.details(details));
                tracing::info!(why, changed = changed.join(", "), "the configuration was reloaded");
                if !needs_restart.is_empty() {
                    let keys = needs_restart.join(", ");
                    tracing::warn!(keys, "these changes take effect with the next start only");
                }
                if !kept_rules.is_empty() {
                    let actions: Vec<_> = kept_rules.iter().map(ActionName::as_str).collect();
                    let actions = actions.join(", ");
                    tracing::info!(actions, "these go on by the rules that an operator gave them");
                }
            }
            Err(error) => {
                let details = json!({ "why": why });
                self.shared.audit.record(event.details(details).refused(error.to_string()));
                tracing::error!(
                    why,
                    "the configuration was not reloaded, and nothing has changed: {error}"
                );
            }
        }
        self.shared.reloads.note(&taken);
        drop(state);
        taken
    }

    fn replace(&self, state: &mut State, mut config: Config) -> Result<Reloaded, StartError> {
        (self.overrides)(&mut config);
        config.check()?;
        let Difference { config, changed, needs_restart } =
            Difference::between(&self.started, &state.config, &config)?;
        let prepared: Vec<_> =
            state.parts.iter().map(|part| part.prepare(&config)).collect::<Result<_, _>>()?;

        for apply in prepared {
            apply();
        }
        self.shared.outgoing.set_bounds(&config.limits);
        self.entrance.set_bounds(&config);
        let kept_rules = self.shared.hold(&mut Outbox::default(), |core, now| {
            let it = core.config();
            let (id, epoch, seed): (NodeId, _, _) = (it.broker_id.clone(), it.epoch, it.seed);
            core.reconfigure(now, config.core(id, epoch, seed))
        });
        state.config = config;
        Ok(Reloaded { changed, needs_restart, kept_rules })
    }

    /// A copy of what holds.
    pub(super) fn config(&self) -> Config {
        self.lock().config.clone()
    }

    /// There will be no reload any more. Lets go of all that the parts have.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.is_over = true;
        state.parts.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The files that what holds was read from.
    fn files(&self) -> Vec<PathBuf> {
        let state = self.lock();
        let own = self.layers.as_ref().and_then(Layers::path).map(PathBuf::from);
        let of_parts = state.parts.iter().flat_map(|part| part.files(&state.config));
        own.into_iter().chain(of_parts).collect()
    }

    /// Looks at the files as they are.
    fn see(&self) {
        let seen = Seen::of(self.files());
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }

    /// Looks at those that were not looked at before.
    pub(super) fn see_more(&self) {
        let files = self.files();
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).limit_to(files);
    }
}
