//! Another policy: who may do what, from now on. What was taken goes on.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Apply, Part};
use crate::server::auth;
use crate::server::config::Config;
use crate::server::error::StartError;
use crate::server::shared::{Outbox, Shared};

pub(in crate::server) struct PolicyFile(pub(in crate::server) Arc<Shared>);

impl Part for PolicyFile {
    fn prepare(&self, config: &Config) -> Result<Apply, StartError> {
        let policy = auth::policy(&config.auth)?;
        let shared = self.0.clone();
        Ok(Box::new(move || {
            shared.hold(&mut Outbox::default(), |core, now| core.set_policy(now, policy));
        }))
    }

    fn files(&self, config: &Config) -> Vec<PathBuf> {
        config.auth.policy_file.iter().cloned().collect()
    }
}
