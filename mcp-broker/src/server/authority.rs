//! The local certificate authority of development brokers.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
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
pub(super) struct Issued {
    pub(super) cert_pem: String,
    pub(super) key_pem: String,
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

/// Makes an authority.
pub(super) fn create() -> Result<Issued, TlsError> {
    let key = KeyPair::generate().map_err(failed)?;
    let cert = ca_params().self_signed(&key).map_err(failed)?;
    Ok(Issued { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
}

/// Makes a server's certificate for `names`, signed with the key of an authority made here.
pub(super) fn issue(ca_key_pem: &str, names: &[String]) -> Result<Issued, TlsError> {
    // Every authority made here has the same name, so its certificate need not be read.
    let ca_key = KeyPair::from_pem(ca_key_pem).map_err(failed)?;
    let issuer = Issuer::new(ca_params(), ca_key);
    let mut params = CertificateParams::new(names).map_err(failed)?;
    params.distinguished_name = named("mcp-broker");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    valid_for(&mut params, CERT_VALIDITY);
    let key = KeyPair::generate().map_err(failed)?;
    let cert = params.signed_by(&key, &issuer).map_err(failed)?;
    Ok(Issued { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("MCP broker development CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut params, CA_VALIDITY);
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
