//! Certificate authorities: of development brokers, and private ones.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::clock;
use super::error::TlsError;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// An authority is for as long as its directory is likely to live.
const CA_VALIDITY: Duration = Duration::from_secs(10 * 365 * DAY.as_secs());
/// What clients accept for a server's certificate.
const CERT_VALIDITY: Duration = Duration::from_secs(365 * DAY.as_secs());

/// A certificate and its key, PEM.
pub struct Issued {
    /// The certificate.
    pub cert_pem: String,
    /// Its private key.
    pub key_pem: String,
}

/// Makes a private authority.
///
/// # Errors
/// When the system gives no random numbers.
pub fn create_private(validity: Duration) -> Result<Issued, TlsError> {
    create_for(Authority::Private, validity)
}

/// Makes a certificate by the private authority of this key. It is older than now by a day, for peers
/// whose clocks are behind.
///
/// # Errors
/// When the key is none, or a name can't be in a certificate.
pub fn issue_private(
    ca_key_pem: &str,
    purpose: Purpose,
    names: &[String],
    validity: Duration,
) -> Result<Issued, TlsError> {
    issue_for(Authority::Private, ca_key_pem, purpose, names, validity)
}

impl Issued {
    /// The certificates and the key.
    pub(super) fn parse(
        &self,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
        let certs = CertificateDer::pem_slice_iter(self.cert_pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string())?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())
            .map_err(|error| error.to_string())?;
        Ok((certs, key))
    }
}

/// Whose authority it is: each kind has a name of its own, and all of a kind have the same, so that a
/// certificate of theirs need not be read to issue another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Authority {
    /// A development broker's.
    Development,
    /// One that `mcp-broker cert ca` made.
    Private,
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Brokers: names and addresses that peers connect to.
    Server,
    /// Clients and workers: who they are. A name with `:` is a URI.
    Client,
}

/// Makes a development authority.
pub(super) fn create() -> Result<Issued, TlsError> {
    create_for(Authority::Development, CA_VALIDITY)
}

/// Makes an authority.
fn create_for(authority: Authority, validity: Duration) -> Result<Issued, TlsError> {
    let key = KeyPair::generate().map_err(failed)?;
    let cert = ca_params(authority, validity).self_signed(&key).map_err(failed)?;
    Ok(Issued { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
}

/// Makes a server's certificate for `names`, signed with the key of a development authority.
pub(super) fn issue(ca_key_pem: &str, names: &[String]) -> Result<Issued, TlsError> {
    issue_for(Authority::Development, ca_key_pem, Purpose::Server, names, CERT_VALIDITY)
}

/// Makes a certificate for `names`, signed with the key of an authority made here.
fn issue_for(
    authority: Authority,
    ca_key_pem: &str,
    purpose: Purpose,
    names: &[String],
    validity: Duration,
) -> Result<Issued, TlsError> {
    let ca_key = KeyPair::from_pem(ca_key_pem).map_err(failed)?;
    let issuer = Issuer::new(ca_params(authority, CA_VALIDITY), ca_key);
    let mut params = match purpose {
        Purpose::Server => CertificateParams::new(names).map_err(failed)?,
        Purpose::Client => {
            let mut params = CertificateParams::default();
            for name in names {
                let of = |it: rcgen::string::Ia5String| match name.contains(':') {
                    true => SanType::URI(it),
                    false => SanType::DnsName(it),
                };
                let name = name.as_str().try_into().map_err(failed)?;
                params.subject_alt_names.push(of(name));
            }
            params
        }
    };
    params.distinguished_name = match purpose {
        Purpose::Server => named("mcp-broker"),
        // Long ones are not allowed there, and nobody looks at it.
        Purpose::Client => named("MCP peer"),
    };
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match purpose {
        Purpose::Server => ExtendedKeyUsagePurpose::ServerAuth,
        Purpose::Client => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    params.use_authority_key_identifier_extension = true;
    valid_for(&mut params, validity);
    let key = KeyPair::generate().map_err(failed)?;
    let cert = params.signed_by(&key, &issuer).map_err(failed)?;
    Ok(Issued { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
}

fn ca_params(authority: Authority, validity: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(match authority {
        Authority::Development => "MCP broker development CA",
        Authority::Private => "MCP broker private CA",
    });
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut params, validity);
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut it = DistinguishedName::new();
    it.push(DnType::CommonName, name);
    it
}

/// From a day ago, for peers whose clocks are behind.
fn valid_for(params: &mut CertificateParams, validity: Duration) {
    let now = date_time_ymd(1970, 1, 1) + clock::since_1970();
    params.not_before = now - DAY;
    params.not_after = now + validity;
}

fn failed(error: rcgen::Error) -> TlsError {
    TlsError::Make(error.to_string())
}
