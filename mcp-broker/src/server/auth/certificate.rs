//! Certificates of peers: whose they are.

use std::path::Path;
use std::sync::Arc;

use mcp_proto::transport::crypto_provider;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use webpki::EndEntityCert;

use super::identity::check_identity;
use crate::server::clock;
use crate::server::error::TlsError;
use crate::server::tls;

/// Verifies peers' certificates, in the handshake and later.
#[derive(Debug, Clone)]
pub(in crate::server) struct Certificates(Arc<dyn ClientCertVerifier>);

impl Certificates {
    /// Trusts the authorities of a PEM file.
    pub(super) fn trusting(ca_file: &Path, are_required: bool) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        let unusable = |problem: String| tls::unreadable("certificate authority", ca_file, problem);
        for authority in tls::certificates(ca_file)? {
            roots.add(authority).map_err(|error| unusable(error.to_string()))?;
        }
        let builder =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), crypto_provider());
        let builder = if are_required { builder } else { builder.allow_unauthenticated() };
        builder.build().map(Self).map_err(|error| unusable(error.to_string()))
    }

    /// For the handshake.
    pub(in crate::server) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        self.0.clone()
    }

    /// Whose a chain is, which has to hold now: a TLS session that was resumed, or a connection that
    /// lasts, brings one that was verified before.
    ///
    /// # Errors
    /// For the peer, and for people.
    pub(super) fn identity(&self, chain: &[CertificateDer<'_>]) -> Result<String, String> {
        let [leaf, intermediates @ ..] = chain else {
            return Err("there is no certificate".to_owned());
        };
        let now = UnixTime::since_unix_epoch(clock::since_1970());
        self.0
            .verify_client_cert(leaf, intermediates, now)
            .map_err(|error| format!("the certificate does not hold: {error}"))?;
        let identity = subject(leaf)?;
        check_identity(&identity)
            .map_err(|problem| format!("the certificate's name (SAN) {problem}"))?;
        Ok(identity)
    }
}

/// The first URI among the alternative names, or else the first DNS name.
fn subject(leaf: &CertificateDer<'_>) -> Result<String, String> {
    let leaf = EndEntityCert::try_from(leaf)
        .map_err(|error| format!("the certificate can't be read: {error}"))?;
    if let Some(uri) = leaf.valid_uri_names().next() {
        return Ok(uri.to_owned());
    }
    match leaf.valid_dns_names().next() {
        Some(name) if name.contains('*') => {
            Err(format!("the certificate is for {name}, which is not one name"))
        }
        Some(name) => Ok(name.to_ascii_lowercase()),
        None => Err("the certificate has neither a URI nor a DNS name among its subject \
                     alternative names; its common name does not count"
            .to_owned()),
    }
}
