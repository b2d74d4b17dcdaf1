//! `[tls]`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::tls::Tls;
use super::ConfigError;
use super::check::wrong;

/// The key `[tls]`: where the broker's certificate comes from.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct TlsConfig {
    /// PEM file: the broker's certificate, then those between it and the authority.
    pub cert_file: Option<PathBuf>,
    /// PEM file: its private key.
    pub key_file: Option<PathBuf>,
    /// Make a local authority and certificate in the state directory, for development.
    #[schemars(extend("x-restart" = true))]
    pub dev: bool,
    /// Names and addresses that the development certificate has besides localhost and the address
    /// listened on.
    #[schemars(extend("x-restart" = true))]
    pub dev_names: Vec<String>,
}

impl TlsConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        match (&self.cert_file, &self.key_file) {
            (Some(_), None) => Err(wrong("tls.key_file", "is missing beside cert_file")),
            (None, Some(_)) => Err(wrong("tls.cert_file", "is missing beside key_file")),
            (Some(_), Some(_)) if self.dev => {
                Err(wrong("tls.dev", "makes a certificate, but cert_file gives one"))
            }
            _ => Ok(()),
        }
    }

    /// Where the certificate comes from; `None` when the configuration doesn't say.
    pub(in crate::server) fn source(&self) -> Option<Tls> {
        match (&self.cert_file, &self.key_file) {
            (Some(cert), Some(key)) => Some(Tls::Files { cert: cert.clone(), key: key.clone() }),
            _ if self.dev => Some(Tls::Dev { names: self.dev_names.clone() }),
            _ => None,
        }
    }
}
