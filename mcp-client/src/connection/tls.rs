//! TLS: whom to trust, and what to do when it fails.

use std::net::SocketAddr;
use std::sync::Arc;

use mcp_proto::{ALPN, transport};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::connect::{Ca, Endpoint};
use crate::credentials;
use crate::error::{ConnectError, TlsCause};

/// TLS alert 120: the server speaks none of the offered protocols.
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// TLS alerts about certificates (RFC 8446, 6).
const BAD_CERTIFICATE: u8 = 42;
const CERTIFICATE_EXPIRED: u8 = 45;
const CERTIFICATE_UNKNOWN: u8 = 46;
const UNKNOWN_CA: u8 = 48;
const DECRYPT_ERROR: u8 = 51;
const CERTIFICATE_REQUIRED: u8 = 116;

/// QUIC with what `endpoint` trusts and proves.
pub(super) fn quic_config(endpoint: &Endpoint) -> Result<quinn::ClientConfig, ConnectError> {
    let ca = endpoint.ca().ok_or(ConnectError::NoTrust)?;
    let roots = roots(ca)?;
    let unusable = |problem: String| ConnectError::Ca { from: ca.from.to_string(), problem };
    let tls = rustls::ClientConfig::builder_with_provider(transport::crypto_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| unusable(error.to_string()))?
        .with_root_certificates(roots);
    let mut tls = match &endpoint.credentials().certificate {
        Some(files) => {
            let (certs, key) = files.read()?;
            tls.with_client_auth_cert(certs, key)
                .map_err(|error| credentials::unusable(&files.cert, error))?
        }
        None => tls.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let tls = QuicClientConfig::try_from(tls).map_err(|error| unusable(error.to_string()))?;
    Ok(quinn::ClientConfig::new(Arc::new(tls)))
}

fn roots(ca: &Ca) -> Result<RootCertStore, ConnectError> {
    let unusable = |problem: String| ConnectError::Ca { from: ca.from.to_string(), problem };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.pem.as_bytes()) {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unusable("it has no certificate (-----BEGIN CERTIFICATE-----)".to_owned()));
    }
    Ok(roots)
}

/// What a failed handshake means. `code` is the QUIC transport error's.
pub(super) fn handshake_error(
    address: SocketAddr,
    server_name: &str,
    code: u64,
    reason: &str,
) -> Option<ConnectError> {
    // Transport errors 0x100 to 0x1ff are TLS alerts.
    let alert = u8::try_from(code.checked_sub(0x100)?).ok()?;
    if alert == NO_APPLICATION_PROTOCOL {
        return refusal(address, code);
    }
    let (cause, what_to_do) = match alert {
        UNKNOWN_CA | DECRYPT_ERROR => (
            TlsCause::UnknownAuthority,
            "its certificate is not signed by the authority that was given: use this broker's own \
             ca.pem"
                .to_owned(),
        ),
        // rustls says in words only which of the two it is.
        CERTIFICATE_EXPIRED if reason.contains("not valid yet") => (
            TlsCause::NotYetValid,
            "its certificate is not valid yet: check the clock here, and the broker's".to_owned(),
        ),
        CERTIFICATE_EXPIRED => (
            TlsCause::Expired,
            "its certificate has expired: have it renewed, or check the clock here".to_owned(),
        ),
        BAD_CERTIFICATE if reason.contains("not valid for name") => (
            TlsCause::WrongName,
            format!(
                "its certificate is not for {server_name:?}: connect by a name that it is for, or \
                 set Endpoint::server_name"
            ),
        ),
        _ => (
            TlsCause::Other,
            format!(
                "check the broker's certificate and the authority that was given (alert {alert})"
            ),
        ),
    };
    let problem = format!("{what_to_do} [{reason}]");
    Some(ConnectError::Tls { address, cause, problem })
}

/// What it means that the broker ended a handshake, by the QUIC error that it closed with.
pub(super) fn refusal(address: SocketAddr, code: u64) -> Option<ConnectError> {
    let alert = u8::try_from(code.checked_sub(0x100)?).ok()?;
    let problem = match alert {
        NO_APPLICATION_PROTOCOL => {
            let alpn = String::from_utf8_lossy(ALPN);
            let problem = format!("it is a QUIC server, but not of the protocol {alpn}");
            return Some(ConnectError::Protocol { address, problem });
        }
        CERTIFICATE_REQUIRED => "the broker asks for a certificate, and none was given: set \
                                 Endpoint::certificate_files (--cert and --key)"
            .to_owned(),
        UNKNOWN_CA | DECRYPT_ERROR => {
            "the broker does not know the authority of the certificate that was given: have \
                       one issued by an authority of its client_ca_file"
                .to_owned()
        }
        CERTIFICATE_EXPIRED => {
            "the certificate that was given has expired, or is not valid yet: renew it".to_owned()
        }
        BAD_CERTIFICATE..=CERTIFICATE_UNKNOWN => {
            format!("the broker refuses the certificate that was given (alert {alert})")
        }
        _ => format!("the broker ended the handshake (alert {alert}); its log says why"),
    };
    let cause = match alert {
        BAD_CERTIFICATE..=CERTIFICATE_UNKNOWN
        | UNKNOWN_CA
        | DECRYPT_ERROR
        | CERTIFICATE_REQUIRED => TlsCause::Credentials,
        _ => TlsCause::Other,
    };
    Some(ConnectError::Tls { address, cause, problem })
}
