//! The broker's certificate: given, or made by a local authority for development.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mcp_proto::secret;
use mcp_proto::transport::crypto_provider;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;

use super::auth::Certificates;
use super::authority::{self, Issued};
use super::clock;
use super::error::{StartError, TlsError};
use super::state_dir::{Access, StateDir};

const CA_CERT_FILE: &str = "ca.pem";
const CA_KEY_FILE: &str = "ca.key";
const CERT_FILE: &str = "cert.pem";
const KEY_FILE: &str = "key.pem";

/// A certificate with less than this left is made anew at start.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Names that a development certificate always has.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Where the broker's certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tls {
    /// An authority made at start and kept in memory: peers get it by
    /// [`Broker::ca_pem`](crate::Broker::ca_pem). For embedded brokers and tests.
    Ephemeral {
        /// Names and addresses besides localhost.
        names: Vec<String>,
    },
    /// A local authority kept in the state directory (`ca.pem`, `ca.key`, `cert.pem`, `key.pem`;
    /// keys with mode 0600), made at the first start and when it no longer serves. For development.
    Dev {
        /// Names and addresses besides localhost.
        names: Vec<String>,
    },
    /// Given files.
    Files {
        /// PEM: the broker's certificate and those between it and the authority.
        cert: PathBuf,
        /// PEM: its private key.
        key: PathBuf,
    },
}

/// A certificate in use.
pub(super) struct ServerTls {
    pub(super) config: rustls::ServerConfig,
    /// The authority to trust, when it was made here.
    pub(super) ca_pem: Option<String>,
}

/// Reads or makes the certificate. `host` is a further name for one that is made.
pub(super) fn server_tls(
    tls: &Tls,
    state: Option<&StateDir>,
    host: Option<String>,
    peers: Option<&Certificates>,
) -> Result<ServerTls, StartError> {
    let names = |names: &[String]| {
        let mut all: Vec<String> = LOCAL_NAMES.map(str::to_owned).into();
        all.extend(names.iter().cloned().chain(host.clone()));
        all.sort();
        all.dedup();
        all
    };
    match tls {
        Tls::Ephemeral { names: extra } => {
            let authority = authority::create()?;
            let issued = authority::issue(&authority.key_pem, &names(extra))?;
            serve(issued, Some(authority.cert_pem), peers)
        }
        Tls::Dev { names: extra } => {
            let state = state.ok_or(TlsError::NoStateDir)?;
            let (issued, ca_pem) = kept(state, &names(extra))?;
            serve(issued, Some(ca_pem), peers)
        }
        Tls::Files { cert, key } => {
            let certs = certificates(cert)?;
            let key_pem =
                secret::read(key).map_err(|error| unreadable("private key", key, error))?;
            let key_der = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
                .map_err(|error| unreadable("private key", key, error))?;
            Ok(ServerTls { config: config(certs, key_der, peers)?, ca_pem: None })
        }
    }
}

pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certs: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable("certificate", path, error))?;
    if certs.is_empty() {
        return Err(unreadable("certificate", path, "there is none in it"));
    }
    Ok(certs)
}

pub(super) fn unreadable(what: &'static str, path: &Path, problem: impl ToString) -> TlsError {
    TlsError::File { what, path: path.to_owned(), problem: problem.to_string() }
}

fn serve(
    issued: Issued,
    ca_pem: Option<String>,
    peers: Option<&Certificates>,
) -> Result<ServerTls, StartError> {
    let (certs, key) = issued.parse().map_err(TlsError::Unusable)?;
    Ok(ServerTls { config: config(certs, key, peers)?, ca_pem })
}

fn config(
    certs: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    peers: Option<&Certificates>,
) -> Result<rustls::ServerConfig, TlsError> {
    let unusable = |error: rustls::Error| TlsError::Unusable(error.to_string());
    let config = rustls::ServerConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?;
    let config = match peers {
        Some(peers) => config.with_client_cert_verifier(peers.verifier()),
        None => config.with_no_client_auth(),
    };
    let mut config = config.with_single_cert(certs, key).map_err(unusable)?;
    config.alpn_protocols = vec![mcp_proto::ALPN.to_vec()];
    // No 0-RTT: what it carries can be replayed.
    config.max_early_data_size = 0;
    Ok(config)
}

/// The development certificate of a state directory: the one kept there while it serves all
/// `names`; else a new one by the authority kept there; else by a new authority.
fn kept(state: &StateDir, names: &[String]) -> Result<(Issued, String), StartError> {
    let ca = state.read(CA_CERT_FILE)?.zip(state.read(CA_KEY_FILE)?);
    if let Some((ca_pem, ca_key_pem)) = ca {
        if let Some((cert_pem, key_pem)) = state.read(CERT_FILE)?.zip(state.read(KEY_FILE)?) {
            let issued = Issued { cert_pem, key_pem };
            match check(&issued, &ca_pem, names) {
                Ok(()) => return Ok((issued, ca_pem)),
                Err(problem) => tracing::info!(problem, "the certificate is made anew"),
            }
        }
        let issued = authority::issue(&ca_key_pem, names);
        match issued.map_err(|error| error.to_string()).and_then(|issued| {
            check(&issued, &ca_pem, names)?;
            Ok(issued)
        }) {
            Ok(issued) => {
                store(state, &issued)?;
                return Ok((issued, ca_pem));
            }
            Err(problem) => tracing::warn!(
                problem,
                "the local authority is made anew: clients need the new {CA_CERT_FILE}"
            ),
        }
    }
    let authority = authority::create()?;
    state.replace(CA_KEY_FILE, &authority.key_pem, Access::Private)?;
    state.replace(CA_CERT_FILE, &authority.cert_pem, Access::Shared)?;
    let issued = authority::issue(&authority.key_pem, names)?;
    store(state, &issued)?;
    Ok((issued, authority.cert_pem))
}

fn store(state: &StateDir, issued: &Issued) -> Result<(), StartError> {
    state.replace(KEY_FILE, &issued.key_pem, Access::Private)?;
    state.replace(CERT_FILE, &issued.cert_pem, Access::Shared)
}

/// Whether a client that trusts `ca_pem` would accept the certificate for all `names`, now and for
/// a while to come.
fn check(issued: &Issued, ca_pem: &str, names: &[String]) -> Result<(), String> {
    let (certs, key) = issued.parse()?;
    let provider = crypto_provider();
    CertifiedKey::from_der(certs.clone(), key, &provider).map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(ca_pem.as_bytes()).map_err(|it| it.to_string())?;
    roots.add(ca).map_err(|error| error.to_string())?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| error.to_string())?;
    let [leaf, intermediates @ ..] = &certs[..] else {
        return Err("there is no certificate".to_owned());
    };
    let now = clock::since_1970();
    for name in names {
        let server = ServerName::try_from(name.as_str()).map_err(|error| error.to_string())?;
        for at in [now, now + RENEW_BEFORE] {
            let at = UnixTime::since_unix_epoch(at);
            verifier
                .verify_server_cert(leaf, intermediates, &server, &[], at)
                .map_err(|error| format!("for {name}: {error}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> (tempfile::TempDir, StateDir) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        (dir, state)
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_certificate_that_serves_is_kept() {
        let (_dir, state) = open();
        let (first, ca) = kept(&state, &names(&["localhost", "::1"])).unwrap();
        let (again, same_ca) = kept(&state, &names(&["localhost"])).unwrap();
        assert_eq!((first.cert_pem, ca), (again.cert_pem, same_ca));
    }

    #[test]
    fn a_new_name_makes_a_new_certificate_by_the_same_authority() {
        let (_dir, state) = open();
        let (first, ca) = kept(&state, &names(&["localhost"])).unwrap();
        let (second, same_ca) = kept(&state, &names(&["localhost", "10.1.2.3"])).unwrap();
        assert_eq!(ca, same_ca);
        assert_ne!(first.cert_pem, second.cert_pem);
        check(&second, &ca, &names(&["localhost", "10.1.2.3"])).unwrap();
    }

    #[test]
    fn an_authority_whose_key_is_another_is_made_anew() {
        let (_dir, state) = open();
        let (_, ca) = kept(&state, &names(&["localhost"])).unwrap();
        state.remove(CERT_FILE);
        let other = authority::create().unwrap();
        state.replace(CA_KEY_FILE, &other.key_pem, Access::Private).unwrap();
        let (issued, new_ca) = kept(&state, &names(&["localhost"])).unwrap();
        assert_ne!(ca, new_ca);
        check(&issued, &new_ca, &names(&["localhost"])).unwrap();
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let tls = Tls::Files { cert: "/nowhere/cert.pem".into(), key: "/nowhere/key.pem".into() };
        let error = server_tls(&tls, None, None, None).err().unwrap().to_string();
        assert!(error.contains("certificate from /nowhere/cert.pem"), "{error}");
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let authority = authority::create().unwrap();
        let one = authority::issue(&authority.key_pem, &names(&["localhost"])).unwrap();
        let two = authority::issue(&authority.key_pem, &names(&["localhost"])).unwrap();
        let mixed = Issued { cert_pem: one.cert_pem, key_pem: two.key_pem };
        assert!(matches!(serve(mixed, None, None), Err(StartError::Tls(TlsError::Unusable(_)))));
    }
}
