//! `[auth]`.

use std::path::PathBuf;

use hyper::Uri;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::check::{at_least, within, wrong};

/// A week: what lives for longer is a password.
const MAX_TOKEN_LIFE_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// Who revokes a token does not want to wait for longer.
const MAX_REFRESH_MS: u64 = 60 * 60 * 1000;
/// Clocks that differ by more are broken.
const MAX_LEEWAY_MS: u64 = 10 * 60 * 1000;

/// The key `[auth]`: who peers are, and what they may do. Without any of `client_certificates`,
/// `token_keys` and `token_keys_url` nobody is asked, and all are `anonymous`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct AuthConfig {
    /// TOML file: roles, and what they allow and deny. With it, what no role allows is denied; without
    /// it, those who proved who they are may send and serve anything, and a token that names the role
    /// `operator` what operators do.
    pub policy_file: Option<PathBuf>,
    /// Whether peers without a certificate or token are let in, as `anonymous`, where others are asked
    /// for one. Default: no.
    #[schemars(extend("x-restart" = true))]
    pub allow_anonymous: bool,

    /// PEM file: the authorities that may sign certificates of peers.
    #[schemars(extend("x-restart" = true))]
    pub client_ca_file: Option<PathBuf>,
    /// Whether peers are asked for a certificate in the handshake: `"off"`; `"optional"`, for those that
    /// have no token; `"required"`, of all. Default: off.
    #[schemars(extend("x-restart" = true))]
    pub client_certificates: ClientCertificates,

    /// File: the public keys that tokens are signed with, Ed25519, a JSON Web Key set or PEM.
    #[schemars(extend("x-restart" = true))]
    pub token_keys: Option<PathBuf>,
    /// The same from an HTTPS URL; HTTP only from this machine.
    #[schemars(extend("x-restart" = true))]
    pub token_keys_url: Option<String>,
    /// PEM file: the authorities that may sign that server's certificate. Default: this machine's.
    #[schemars(extend("x-restart" = true))]
    pub token_keys_ca_file: Option<PathBuf>,
    /// How often keys, and the list of revoked tokens, are read. 30,000.
    #[schemars(extend("x-restart" = true))]
    pub token_keys_refresh_ms: u64,
    /// What `aud` of a token has to have. Default: it is not looked at.
    #[schemars(extend("x-restart" = true))]
    pub token_audience: Option<String>,
    /// Longest life of a token, from `iat` to `exp`. 86,400,000: a day.
    #[schemars(extend("x-restart" = true))]
    pub token_max_life_ms: u64,
    /// By how much the clocks of the issuer and of this machine may differ. 30,000.
    #[schemars(extend("x-restart" = true))]
    pub token_leeway_ms: u64,
    /// File: revoked tokens, a line each: `jti ID`, or `sub NAME SECONDS` for all of an identity that
    /// were issued before that second since 1970.
    #[schemars(extend("x-restart" = true))]
    pub revoked_file: Option<PathBuf>,

    /// While keys or the list of revoked tokens can't be read, identities that were verified in this
    /// time before are still let in, also with a token that has expired since. 0: none. 14,400,000:
    /// four hours.
    #[schemars(extend("x-restart" = true))]
    pub offline_max_age_ms: u64,
    /// How many identities are remembered for that. 10,000.
    #[schemars(extend("x-restart" = true))]
    pub offline_max_identities: usize,
}

/// Whether peers are asked for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    /// Nobody is.
    #[default]
    Off,
    /// Everybody is, and may have none.
    Optional,
    /// Everybody is, and has to have one.
    Required,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            policy_file: None,
            allow_anonymous: false,
            client_ca_file: None,
            client_certificates: ClientCertificates::Off,
            token_keys: None,
            token_keys_url: None,
            token_keys_ca_file: None,
            token_keys_refresh_ms: 30_000,
            token_audience: None,
            token_max_life_ms: 24 * 60 * 60 * 1000,
            token_leeway_ms: 30_000,
            revoked_file: None,
            offline_max_age_ms: 4 * 60 * 60 * 1000,
            offline_max_identities: 10_000,
        }
    }
}

impl AuthConfig {
    /// Whether anybody is asked who they are.
    pub fn is_on(&self) -> bool {
        self.client_certificates != ClientCertificates::Off || self.takes_tokens()
    }

    fn takes_tokens(&self) -> bool {
        self.token_keys.is_some() || self.token_keys_url.is_some()
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        match (&self.client_ca_file, self.client_certificates) {
            (None, ClientCertificates::Optional | ClientCertificates::Required) => {
                let problem = "is missing beside client_certificates: a PEM file with the authority \
                               that signs certificates of peers";
                return Err(wrong("auth.client_ca_file", problem));
            }
            (Some(_), ClientCertificates::Off) => {
                let problem = "is off beside client_ca_file; say \"optional\" or \"required\"";
                return Err(wrong("auth.client_certificates", problem));
            }
            _ => {}
        }
        if self.token_keys.is_some() && self.token_keys_url.is_some() {
            return Err(wrong("auth.token_keys_url", "is given beside token_keys; keep one"));
        }
        if !self.takes_tokens() && self.revoked_file.is_some() {
            return Err(wrong("auth.revoked_file", "is given, but no token_keys"));
        }
        if self.allow_anonymous && !self.is_on() {
            return Err(wrong(
                "auth.allow_anonymous",
                "is given, but nobody is asked who they are",
            ));
        }
        self.keys_url()?;
        let refresh = self.token_keys_refresh_ms;
        within("auth.token_keys_refresh_ms", refresh, 100..=MAX_REFRESH_MS)?;
        let life = self.token_max_life_ms;
        within("auth.token_max_life_ms", life, 1_000..=MAX_TOKEN_LIFE_MS)?;
        within("auth.token_leeway_ms", self.token_leeway_ms, 0..=MAX_LEEWAY_MS)?;
        within("auth.offline_max_age_ms", self.offline_max_age_ms, 0..=MAX_TOKEN_LIFE_MS)?;
        at_least("auth.offline_max_identities", self.offline_max_identities, 1)
    }

    /// The URL of the keys, if they come from one.
    pub(in crate::server) fn keys_url(&self) -> Result<Option<Uri>, ConfigError> {
        let Some(text) = &self.token_keys_url else { return Ok(None) };
        let problem = "is not an https:// URL; http:// is for localhost and loopback addresses only, \
                       since whoever can change the keys can be anybody";
        let url = text.parse::<Uri>().map_err(|_| wrong("auth.token_keys_url", problem))?;
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_local = host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        match url.scheme_str() {
            Some("https") => Ok(Some(url)),
            Some("http") if is_local => Ok(Some(url)),
            _ => Err(wrong("auth.token_keys_url", problem)),
        }
    }
}
