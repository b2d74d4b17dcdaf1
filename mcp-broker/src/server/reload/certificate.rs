//! Another certificate: connections that come get it, those that are there stay.
//!
//! QUIC takes another configuration of the server as a whole. So tickets of sessions that were begun
//! under the old certificate are void, and whoever comes with one makes a full handshake.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Apply, Part};
use crate::server::auth::Auth;
use crate::server::config::{Config, ConfigError};
use crate::server::error::StartError;
use crate::server::quic::{Crypto, QuicServer, Transport};
use crate::server::tls::{Tls, server_tls};

pub(in crate::server) struct Certificate {
    quic: QuicServer,
    /// Where it comes from, whatever the configuration says.
    fixed: Option<Tls>,
    auth: Arc<Auth>,
    used: Arc<Mutex<Used>>,
}

/// The certificate in use.
struct Used {
    crypto: Crypto,
    is_of_files: bool,
}

impl Certificate {
    /// Of a server that was started with it.
    pub(in crate::server) fn new(
        quic: QuicServer,
        fixed: Option<Tls>,
        started: &Config,
        auth: Arc<Auth>,
        crypto: Crypto,
    ) -> Self {
        let is_of_files = fixed.is_none() && started.tls.cert_file.is_some();
        Self { quic, fixed, auth, used: Arc::new(Mutex::new(Used { crypto, is_of_files })) }
    }

    fn source(&self, config: &Config) -> Option<Tls> {
        self.fixed.clone().or_else(|| config.tls.source())
    }
}

impl Part for Certificate {
    fn prepare(&self, config: &Config) -> Result<Apply, StartError> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let (crypto, is_of_files) = match self.source(config) {
            Some(tls @ Tls::Files { .. }) => {
                let tls = server_tls(&tls, None, None, self.auth.certificates())?;
                (used.crypto.replaced(tls.config)?, self.fixed.is_none())
            }
            _ if used.is_of_files => {
                let problem = "was taken away, which needs a restart".to_owned();
                return Err(ConfigError::Value { key: "tls.cert_file".into(), problem }.into());
            }
            // One that was made here stays until the next start.
            _ => (used.crypto.clone(), false),
        };
        drop(used);
        let transport = Transport::of(config);
        let (quic, used) = (self.quic.clone(), self.used.clone());
        Ok(Box::new(move || {
            quic.reconfigure(&crypto, &transport);
            *used.lock().unwrap_or_else(PoisonError::into_inner) = Used { crypto, is_of_files };
        }))
    }

    fn files(&self, config: &Config) -> Vec<PathBuf> {
        match self.source(config) {
            Some(Tls::Files { cert, key }) => vec![cert, key],
            _ => Vec::new(),
        }
    }
}
