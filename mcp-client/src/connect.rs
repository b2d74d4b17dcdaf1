//! Where a broker is, and how to trust it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mcp_proto::DEFAULT_PORT;

use crate::credentials::{CertificateFiles, Credentials, TokenFrom};
use crate::error::ConnectError;

/// Most addresses of a host that are tried.
const MAX_ADDRESSES: usize = 8;

/// Where a broker is, and how to trust it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    address: String,
    server_name: Option<String>,
    ca: Option<Ca>,
    credentials: Credentials,
}

/// Certificates to trust, and where they came from, for messages.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Ca {
    pub(crate) pem: Arc<str>,
    pub(crate) from: Arc<str>,
}

impl Endpoint {
    /// A broker at `address`: `host:port`, where the host is a DNS name or an IP address (IPv6 in
    /// brackets). A name is resolved anew for each connection; without a port, it is 7447.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            server_name: None,
            ca: None,
            credentials: Credentials::default(),
        }
    }

    /// Trusts brokers whose certificate is signed by one of these certificates (PEM).
    pub fn ca_pem(mut self, pem: &str) -> Self {
        self.ca = Some(Ca { pem: pem.into(), from: "that was given as text".into() });
        self
    }

    /// Trusts brokers whose certificate is signed by one of the certificates in this PEM file,
    /// which is read now.
    pub fn ca_file(mut self, path: impl AsRef<Path>) -> Result<Self, ConnectError> {
        self.ca = Some(Ca::read(path.as_ref())?);
        Ok(self)
    }

    /// The name that the broker's certificate is for, when that is not the address's host.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Proves who this is with a token. It is a secret: rather keep it in a file, where it can be
    /// renewed, too.
    pub fn token(mut self, token: impl Into<Arc<str>>) -> Self {
        self.credentials.token = Some(TokenFrom::Text(token.into()));
        self
    }

    /// Proves who this is with the token in this file, which must be its owner's alone (mode 0600). It
    /// is read for each connection: when the broker ends one because its token has expired, the next
    /// one has what the file has then.
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.credentials.token = Some(TokenFrom::File(path.into()));
        self
    }

    /// Proves who this is with a certificate: PEM files, with the certificate and those between it and
    /// the authority, and with its private key, which must be its owner's alone (mode 0600). They are
    /// read for each connection.
    pub fn certificate_files(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.credentials.certificate =
            Some(CertificateFiles { cert: cert.into(), key: key.into() });
        self
    }

    /// Proves who this is with what the environment has: the file of `MCP_TOKEN_FILE` or the token of
    /// `MCP_TOKEN`, and the files of `MCP_CERT` and `MCP_KEY`. What was given before, and is not in the
    /// environment, stays.
    ///
    /// # Errors
    /// When one of `MCP_CERT` and `MCP_KEY` is set without the other.
    pub fn credentials_from_env(mut self) -> Result<Self, ConnectError> {
        let Credentials { token, certificate } = Credentials::from_env()?;
        self.credentials.token = token.or(self.credentials.token);
        self.credentials.certificate = certificate.or(self.credentials.certificate);
        Ok(self)
    }

    /// The broker that `mcp-broker serve --dev --state DIR` runs: reads `DIR/address` and
    /// `DIR/ca.pem`, which it wrote.
    pub fn from_state_dir(dir: impl AsRef<Path>) -> Result<Self, ConnectError> {
        let dir = dir.as_ref();
        let path = dir.join("address");
        let address = std::fs::read_to_string(&path)
            .map_err(|error| ConnectError::StateDir { path, problem: error.to_string() })?;
        let path = dir.join("ca.pem");
        let ca = Ca::read(&path)
            .map_err(|error| ConnectError::StateDir { path, problem: error.to_string() })?;
        Ok(Self { ca: Some(ca), ..Self::new(address.trim()).server_name("localhost") })
    }

    /// The address as given.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The addresses that a connection would try now: at most 8, in the order that the
    /// system's resolver gives them.
    ///
    /// # Errors
    /// [`ConnectError::Address`] and [`ConnectError::UnknownHost`]. How long the resolver takes is the
    /// system's choice; dropping the future waits no longer.
    pub async fn resolve(&self) -> Result<Vec<SocketAddr>, ConnectError> {
        self.target()?.resolve().await
    }

    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    pub(crate) fn ca(&self) -> Option<&Ca> {
        self.ca.as_ref()
    }

    /// The address taken apart.
    pub(crate) fn target(&self) -> Result<Target, ConnectError> {
        let (host, port) = split(&self.address).map_err(|problem| ConnectError::Address {
            address: self.address.clone(),
            problem: problem.to_owned(),
        })?;
        let server_name = self.server_name.clone().unwrap_or_else(|| host.clone());
        Ok(Target { host, port, server_name })
    }
}

impl Ca {
    fn read(path: &Path) -> Result<Self, ConnectError> {
        let from = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(pem) => Ok(Self { pem: pem.into(), from: from.into() }),
            Err(error) => Err(ConnectError::Ca { from, problem: error.to_string() }),
        }
    }
}

/// What to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// What the certificate must be for.
    pub(crate) server_name: String,
}

impl Target {
    pub(crate) async fn resolve(&self) -> Result<Vec<SocketAddr>, ConnectError> {
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let addresses: Vec<_> =
            found.map_err(|error| self.unknown(error))?.take(MAX_ADDRESSES).collect();
        if addresses.is_empty() {
            return Err(self.unknown("it has no address"));
        }
        Ok(addresses)
    }

    pub(crate) fn unknown(&self, problem: impl ToString) -> ConnectError {
        ConnectError::UnknownHost { host: self.host.clone(), problem: problem.to_string() }
    }
}

fn split(address: &str) -> Result<(String, u16), &'static str> {
    if let Ok(address) = address.parse::<SocketAddr>() {
        return Ok((address.ip().to_string(), address.port()));
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Ok(ip) = bare.unwrap_or(address).parse::<IpAddr>() {
        return Ok((ip.to_string(), DEFAULT_PORT));
    }
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) => {
            (host, port.parse().map_err(|_| "the port is not a number from 1 to 65535")?)
        }
        None => (address, DEFAULT_PORT),
    };
    if port == 0 {
        return Err("the port is 0");
    }
    if host.is_empty() {
        return Err("there is no host before the port");
    }
    if host.contains([':', '/', '[', ']', ' ']) {
        return Err("the host is not a name or an IP address");
    }
    Ok((host.to_owned(), port))
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("address", &self.address)
            .field("server_name", &self.server_name)
            .field("ca", &self.ca.as_ref().map(|ca| &*ca.from))
            .finish()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        let split = |address: &str| split(address).map(|(host, port)| format!("{host} {port}"));
        assert_eq!(split("127.0.0.1:7000").unwrap(), "127.0.0.1 7000");
        assert_eq!(split("[::1]:7000").unwrap(), "::1 7000");
        assert_eq!(split("::1").unwrap(), "::1 7447");
        assert_eq!(split("[::1]").unwrap(), "::1 7447");
        assert_eq!(split("broker.example.com:80").unwrap(), "broker.example.com 80");
        assert_eq!(split("broker").unwrap(), "broker 7447");
        for wrong in ["", ":80", "a:b", "a:0", "a:70000", "https://a:80", "[::1:80", "a b:80"] {
            assert!(split(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_state_directory_gives_address_and_trust() {
        let dir = tempfile::tempdir().unwrap();
        let error = Endpoint::from_state_dir(dir.path()).unwrap_err();
        assert!(error.to_string().contains("start the broker with --state"), "{error}");
        std::fs::write(dir.path().join("address"), "127.0.0.1:7001\n").unwrap();
        std::fs::write(dir.path().join("ca.pem"), "pem").unwrap();
        let endpoint = Endpoint::from_state_dir(dir.path()).unwrap();
        let target = endpoint.target().unwrap();
        assert_eq!(target.server_name, "localhost");
        assert_eq!((target.host.as_str(), target.port), ("127.0.0.1", 7001));
        assert_eq!(&*endpoint.ca().unwrap().pem, "pem");
    }
}
