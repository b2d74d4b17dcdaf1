//! Where the keys of tokens, and the list of revoked ones, come from.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, Uri};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use mcp_proto::transport::crypto_provider;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

use super::keys::KeySet;
use super::revoked::Revoked;

/// Longest key set: a hundred keys with certificates beside them.
const MAX_KEYS_BYTES: usize = 256 * 1024;
/// Longest list of revoked tokens.
const MAX_REVOKED_BYTES: usize = 16 * 1024 * 1024;
/// A key set that takes longer than this is not answered.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Where they come from.
#[derive(Debug)]
pub(super) struct Source {
    keys: Keys,
    revoked: Option<PathBuf>,
}

#[derive(Debug)]
enum Keys {
    File(PathBuf),
    Url(Uri, Box<Client<HttpsConnector<HttpConnector>, Empty<Bytes>>>),
}

/// What there was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trusted {
    pub(super) keys: KeySet,
    pub(super) revoked: Revoked,
}

impl Source {
    pub(super) fn file(path: PathBuf, revoked: Option<PathBuf>) -> Self {
        Self { keys: Keys::File(path), revoked }
    }

    /// Trusts the authorities of a PEM file, or those of this machine.
    ///
    /// # Errors
    /// When there is no authority to trust.
    pub(super) fn url(
        url: Uri,
        ca_file: Option<&Path>,
        revoked: Option<PathBuf>,
    ) -> Result<Self, String> {
        let tls = ClientConfig::builder_with_provider(crypto_provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let tls = match ca_file {
            Some(path) => {
                let mut roots = RootCertStore::empty();
                let authorities = crate::server::tls::certificates(path);
                for authority in authorities.map_err(|error| error.to_string())? {
                    roots.add(authority).map_err(|error| error.to_string())?;
                }
                tls.with_root_certificates(roots)
            }
            None if is_https(&url) => tls.with_native_roots().map_err(|error| {
                format!("there is no authority to trust ({error}): set auth.token_keys_ca_file")
            })?,
            None => tls.with_root_certificates(RootCertStore::empty()),
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls.with_no_client_auth())
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        // A connection a time: the next one is some seconds away.
        let client =
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(Self { keys: Keys::Url(url, Box::new(client)), revoked })
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// What can't be had, and why; for people.
    pub(super) async fn read(&self) -> Result<Trusted, String> {
        let (from, text) = match &self.keys {
            Keys::File(path) => {
                (path.display().to_string(), read_file(path, MAX_KEYS_BYTES).await?)
            }
            Keys::Url(url, client) => {
                let fetched = timeout(FETCH_TIMEOUT, fetch(url, client)).await;
                let fetched =
                    fetched.unwrap_or_else(|_| Err(format!("no answer in {FETCH_TIMEOUT:?}")));
                let text = fetched.map_err(|problem| format!("cannot fetch {url}: {problem}"))?;
                (url.to_string(), text)
            }
        };
        let keys =
            KeySet::parse(&text).map_err(|problem| format!("cannot use {from}: {problem}"))?;
        let revoked = match &self.revoked {
            Some(path) => {
                let text = read_file(path, MAX_REVOKED_BYTES).await?;
                Revoked::parse(&text)
                    .map_err(|problem| format!("cannot use {}: {problem}", path.display()))?
            }
            None => Revoked::default(),
        };
        Ok(Trusted { keys, revoked })
    }
}

pub(super) fn is_https(url: &Uri) -> bool {
    url.scheme_str() == Some("https")
}

async fn fetch(
    url: &Uri,
    client: &Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
) -> Result<String, String> {
    let request = Request::get(url.clone())
        .header("accept", "application/json")
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    let answer = client.request(request).await.map_err(chain)?;
    if answer.status() != hyper::StatusCode::OK {
        return Err(format!("it answers {}", answer.status()));
    }
    let body = Limited::new(answer.into_body(), MAX_KEYS_BYTES).collect().await;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    String::from_utf8(body.into()).map_err(|_| "the answer is no text".to_owned())
}

/// An error with what led to it, which hyper leaves out.
fn chain(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

async fn read_file(path: &Path, max: usize) -> Result<String, String> {
    let owned = path.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        File::open(owned)?.take(max as u64 + 1).read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    });
    let failed = |problem: String| format!("cannot read {}: {problem}", path.display());
    let text = read
        .await
        .map_err(|error| failed(error.to_string()))?
        .map_err(|error| failed(error.to_string()))?;
    match text.len() > max {
        true => Err(failed(format!("it is longer than {max} bytes"))),
        false => Ok(text),
    }
}
