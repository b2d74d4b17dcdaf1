//! What is told of reloads.

use std::sync::{Mutex, PoisonError};

use super::Reloaded;
use crate::server::clock;
use crate::server::error::StartError;

/// Of reloads, for whoever looks on.
#[derive(Debug, Default)]
pub(in crate::server) struct Gauges(Mutex<Figures>);

/// How reloads went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::server) struct Figures {
    pub(in crate::server) taken: u64,
    pub(in crate::server) refused: u64,
    /// Why the last one was refused; none if it was taken.
    pub(in crate::server) error: Option<String>,
    /// When the configuration that holds was read, since 1970.
    pub(in crate::server) loaded_s: u64,
    /// Keys that wait for a restart.
    pub(in crate::server) needs_restart: Vec<String>,
}

impl Gauges {
    /// The configuration was read at the start.
    pub(in crate::server) fn started() -> Self {
        let loaded_s = clock::since_1970().as_secs();
        Self(Mutex::new(Figures { loaded_s, ..Figures::default() }))
    }

    pub(in crate::server) fn figures(&self) -> Figures {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn note(&self, outcome: &Result<Reloaded, StartError>) {
        let mut it = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(reloaded) => {
                it.taken += 1;
                it.error = None;
                it.loaded_s = clock::since_1970().as_secs();
                it.needs_restart.clone_from(&reloaded.needs_restart);
            }
            Err(error) => {
                it.refused += 1;
                it.error = Some(error.to_string());
            }
        }
    }
}
