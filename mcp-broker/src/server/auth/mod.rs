//! Who peers are: by the certificate of their connection, or by the token in their HELLO.
//!
//! The core is told an identity and roles, and decides what they may do. Here it is found out
//! whether they are proven: when a peer comes, again when its token is over, when keys or the list of
//! revoked tokens change, and now and then for certificates.

mod certificate;
mod identity;
mod keys;
mod known;
mod policy;
mod revoked;
mod signing;
mod source;
mod token;
mod tokens;
mod watching;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mcp_proto::Token;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use super::audit::{self, Audit};
use super::config::{AuthConfig, ClientCertificates};
use super::error::StartError;
use crate::broker::{AccessPolicy, Identity, RoleNames};

pub use keys::KeySet;
pub use signing::SigningKey;
pub use token::{Audience, Claims, TokenError, inspect};

pub(super) use certificate::Certificates;
pub(super) use watching::Watch;

use known::Known;
use source::Source;
use token::Rules;
use tokens::Tokens;

/// A certificate is looked at again this often while its connection lasts.
const CERTIFICATE_EVERY: Duration = Duration::from_secs(10 * 60);

/// Finds out who peers are.
#[derive(Debug, Default)]
pub(super) struct Auth {
    certificates: Option<Certificates>,
    tokens: Option<Tokens>,
    /// Whether peers without a proof are let in.
    takes_anonymous: bool,
}

/// What a peer proves with who it is.
#[derive(Debug, Clone)]
pub(super) enum Proof {
    Certificate(Arc<[CertificateDer<'static>]>),
    Token(Token),
}

/// A peer that is let in.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) identity: Identity,
    pub(super) roles: RoleNames,
    /// None: nobody asked for one.
    pub(super) proof: Option<Proof>,
    seen: Seen,
}

/// What a proof was when it was looked at.
#[derive(Debug, Clone)]
struct Seen {
    /// When it is to be looked at again.
    until: Duration,
    /// What may make it hold no longer, since before it was looked at.
    changes: Option<watch::Receiver<u64>>,
    /// It holds only because its identity was verified before the keys could be read no more.
    is_offline: bool,
}

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figures {
    pub(super) is_offline: bool,
    pub(super) offline_admissions: u64,
}

impl Auth {
    /// Reads what it needs. Keys from a URL that can't be reached are waited for; a file that can't be
    /// read is an error.
    pub(super) async fn start(config: &AuthConfig) -> Result<Self, StartError> {
        let certificates = match (&config.client_ca_file, config.client_certificates) {
            (Some(ca_file), ClientCertificates::Optional) => {
                Some(Certificates::trusting(ca_file, false)?)
            }
            (Some(ca_file), ClientCertificates::Required) => {
                Some(Certificates::trusting(ca_file, true)?)
            }
            _ => None,
        };
        let tokens = tokens(config).await?;
        Ok(Self { certificates, tokens, takes_anonymous: config.allow_anonymous })
    }

    /// Whether anybody is asked who they are.
    pub(super) fn is_on(&self) -> bool {
        self.certificates.is_some() || self.tokens.is_some()
    }

    /// Of peers, for the handshake.
    pub(super) fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    /// Keeps up with keys and revoked tokens. Runs for ever.
    pub(super) async fn run(&self) {
        match &self.tokens {
            Some(tokens) => tokens.keep_reading().await,
            None => std::future::pending().await,
        }
    }

    /// Why tokens can't be verified as they should be.
    pub(super) fn outage(&self) -> Option<String> {
        self.tokens.as_ref().and_then(Tokens::outage).map(|outage| outage.why)
    }

    /// What is measured, where tokens are taken.
    pub(super) fn figures(&self) -> Option<Figures> {
        let tokens = self.tokens.as_ref()?;
        let is_offline = tokens.outage().is_some();
        Some(Figures { is_offline, offline_admissions: tokens.offline_admissions() })
    }

    /// Who a peer is that came with this.
    ///
    /// # Errors
    /// Why it is not let in, for the peer.
    pub(super) fn admit(
        &self,
        chain: Option<Arc<[CertificateDer<'static>]>>,
        token: Option<Token>,
    ) -> Result<Admission, String> {
        if !self.is_on() {
            return Ok(Admission::anonymous());
        }
        let proof = match (token, chain) {
            (Some(token), _) => Proof::Token(token),
            (None, Some(chain)) => Proof::Certificate(chain),
            (None, None) if self.takes_anonymous => return Ok(Admission::anonymous()),
            (None, None) => return Err(self.what_is_missing()),
        };
        self.verify(proof)
    }

    /// Looks at a proof, for the first time or again.
    fn verify(&self, proof: Proof) -> Result<Admission, String> {
        match (&proof, &self.tokens, &self.certificates) {
            (Proof::Token(token), Some(tokens), _) => {
                let changes = Some(tokens.changes());
                let holds = tokens.verify(token).map_err(|error| error.to_string())?;
                let roles = holds.claims.roles.iter().map(|role| role.as_str().into()).collect();
                Ok(Admission {
                    identity: Identity::new(&holds.claims.sub),
                    roles,
                    proof: Some(proof),
                    seen: Seen { until: holds.until, changes, is_offline: holds.is_offline },
                })
            }
            (Proof::Token(_), None, _) => {
                Err("this broker takes no tokens: leave it out, and connect with a certificate"
                    .to_owned())
            }
            (Proof::Certificate(chain), _, Some(certificates)) => Ok(Admission {
                identity: Identity::new(&certificates.identity(chain)?),
                proof: Some(proof),
                seen: Seen { until: CERTIFICATE_EVERY, ..Seen::for_ever() },
                ..Admission::anonymous()
            }),
            (Proof::Certificate(_), _, None) => {
                Err("this broker takes no certificates: connect with a token".to_owned())
            }
        }
    }

    /// Somebody was let in, or stays, who could not be verified as they should be.
    pub(super) fn note_offline(&self, audit: &Audit, identity: &Identity, peer: SocketAddr) {
        if let Some(tokens) = &self.tokens {
            tokens.count_offline_admission();
        }
        let event = audit::Event::new(audit::Kind::OfflineAdmission, "connection");
        audit.record(event.by(identity.as_str()).from(peer));
    }

    fn what_is_missing(&self) -> String {
        let what = match (&self.certificates, &self.tokens) {
            (Some(_), Some(_)) => "a certificate (--cert, --key) or a token (--token-file)",
            (Some(_), None) => "a certificate (--cert, --key)",
            (None, _) => "a token (--token-file, MCP_TOKEN)",
        };
        format!("this broker asks who you are: connect with {what}")
    }
}

impl Admission {
    /// It holds only because its identity was verified before the keys could be read no more.
    pub(super) fn is_offline(&self) -> bool {
        self.seen.is_offline
    }

    fn anonymous() -> Self {
        Self {
            identity: Identity::anonymous(),
            roles: RoleNames::default(),
            proof: None,
            seen: Seen::for_ever(),
        }
    }
}

impl Seen {
    fn for_ever() -> Self {
        Self { until: Duration::MAX, changes: None, is_offline: false }
    }
}

/// The policy that a configuration names.
pub(super) fn policy(config: &AuthConfig) -> Result<AccessPolicy, super::ConfigError> {
    match &config.policy_file {
        Some(path) => policy::read(path).map(AccessPolicy::Roles),
        None if config.is_on() => Ok(AccessPolicy::Authenticated),
        None => Ok(AccessPolicy::Open),
    }
}

async fn tokens(config: &AuthConfig) -> Result<Option<Tokens>, StartError> {
    let revoked = config.revoked_file.clone();
    let source = match (&config.token_keys, config.keys_url()?) {
        (Some(path), _) => Source::file(path.clone(), revoked),
        (None, Some(url)) => {
            let ca_file = config.token_keys_ca_file.as_deref();
            Source::url(url, ca_file, revoked).map_err(StartError::Auth)?
        }
        (None, None) => return Ok(None),
    };
    let rules = Rules {
        leeway_s: config.token_leeway_ms / 1000,
        max_life_s: config.token_max_life_ms / 1000,
        audience: config.token_audience.clone(),
    };
    let known = Known::new(config.offline_max_identities, config.offline_max_age_ms);
    let every = Duration::from_millis(config.token_keys_refresh_ms);
    let tokens = Tokens::new(rules, source, every, known);
    match tokens.read().await {
        // It may come later: peers with certificates need not wait for it.
        Err(_) if config.token_keys.is_none() => {}
        read => read.map_err(StartError::Auth)?,
    }
    Ok(Some(tokens))
}
