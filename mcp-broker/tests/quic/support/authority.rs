//! A certificate authority that issues what it is told, right or wrong.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType, date_time_ymd,
};

/// A certificate and its key, PEM.
#[derive(Debug, Clone)]
pub(crate) struct Pem {
    pub(crate) cert: String,
    pub(crate) key: String,
}

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

pub(crate) fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().unwrap())
}

pub(crate) fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Its certificate, in a file.
    pub(crate) fn file(&self, dir: &Path) -> PathBuf {
        let path = dir.join("client-ca.pem");
        std::fs::write(&path, &self.pem).unwrap();
        path
    }

    /// A client's certificate.
    pub(crate) fn issue(&self, names: &[SanType]) -> Pem {
        self.issue_until(names, 4000, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// One that was over at the beginning of a year.
    pub(crate) fn issue_until(
        &self,
        names: &[SanType],
        year: i32,
        purpose: ExtendedKeyUsagePurpose,
    ) -> Pem {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "common-name");
        params.subject_alt_names = names.into();
        params.extended_key_usages = vec![purpose];
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Pem { cert: cert.pem(), key: key.serialize_pem() }
    }
}
