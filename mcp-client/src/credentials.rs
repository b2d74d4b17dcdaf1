//! What this side proves with who it is.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mcp_proto::{Token, secret};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::ConnectError;

/// A token, a certificate, both or none. Files are read for each connection, so that what is renewed
/// there just works.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Credentials {
    pub(crate) token: Option<TokenFrom>,
    pub(crate) certificate: Option<CertificateFiles>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum TokenFrom {
    Text(Arc<str>),
    File(PathBuf),
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct CertificateFiles {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Credentials {
    /// Those of `MCP_TOKEN_FILE` or `MCP_TOKEN`, and of `MCP_CERT` with `MCP_KEY`.
    pub(crate) fn from_env() -> Result<Self, ConnectError> {
        let path = |name| env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
        let text = env::var("MCP_TOKEN").ok().filter(|it| !it.is_empty());
        let token = match (path("MCP_TOKEN_FILE"), text) {
            (Some(path), _) => Some(TokenFrom::File(path)),
            (None, Some(text)) => Some(TokenFrom::Text(text.into())),
            (None, None) => None,
        };
        let certificate = match (path("MCP_CERT"), path("MCP_KEY")) {
            (Some(cert), Some(key)) => Some(CertificateFiles { cert, key }),
            (None, None) => None,
            _ => {
                return Err(ConnectError::Credentials {
                    from: "MCP_CERT and MCP_KEY".to_owned(),
                    problem: "one is set without the other".to_owned(),
                });
            }
        };
        Ok(Self { token, certificate })
    }

    /// The token for the next connection.
    pub(crate) fn read_token(&self) -> Result<Option<Token>, ConnectError> {
        let (from, text) = match &self.token {
            None => return Ok(None),
            Some(TokenFrom::Text(text)) => ("the token".to_owned(), text.to_string()),
            Some(TokenFrom::File(path)) => {
                let text = secret::read(path).map_err(|problem| unusable(path, problem))?;
                (path.display().to_string(), text)
            }
        };
        match Token::try_from(text.trim()) {
            Ok(token) => Ok(Some(token)),
            Err(problem) => {
                Err(ConnectError::Credentials { from, problem: format!("it {problem}") })
            }
        }
    }
}

impl CertificateFiles {
    /// The certificates and the key for the next connection.
    pub(crate) fn read(
        &self,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), ConnectError> {
        let Self { cert, key } = self;
        let certs = CertificateDer::pem_file_iter(cert)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|problem| unusable(cert, problem))?;
        if certs.is_empty() {
            let problem = "it has no certificate (-----BEGIN CERTIFICATE-----)";
            return Err(unusable(cert, problem));
        }
        let pem = secret::read(key).map_err(|problem| unusable(key, problem))?;
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| unusable(key, "it has no private key (-----BEGIN PRIVATE KEY-----)"))?;
        Ok((certs, der))
    }
}

pub(crate) fn unusable(path: &Path, problem: impl ToString) -> ConnectError {
    ConnectError::Credentials { from: path.display().to_string(), problem: problem.to_string() }
}
