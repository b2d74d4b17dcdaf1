//! The other side of tokens: a private key, and what it signs.

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;

use super::keys;
use super::token::Claims;

/// What the DER of an Ed25519 public key begins with (RFC 8410, 4).
const SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const PEM_LINE: usize = 64;

/// An Ed25519 key that signs tokens.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    pkcs8: Vec<u8>,
}

impl SigningKey {
    /// A new one.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn generate() -> Result<Self, String> {
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
        let pkcs8 = made.map_err(|_| "the system gives no random numbers".to_owned())?;
        Self::from_der(pkcs8.as_ref())
    }

    /// Reads one, PKCS #8 in PEM: of [`to_pem`](Self::to_pem), or of `openssl genpkey -algorithm ed25519`.
    ///
    /// # Errors
    /// When it is none; has nothing of the key in it.
    pub fn from_pem(text: &str) -> Result<Self, String> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes())
            .map_err(|_| "it has no private key (-----BEGIN PRIVATE KEY-----)".to_owned())?;
        Self::from_der(der.secret_pkcs8_der())
    }

    fn from_der(pkcs8: &[u8]) -> Result<Self, String> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8)
            .map_err(|error| format!("it is no Ed25519 key ({error})"))?;
        Ok(Self { pair, pkcs8: pkcs8.to_vec() })
    }

    /// The private key, PKCS #8 in PEM.
    pub fn to_pem(&self) -> String {
        pem("PRIVATE KEY", &self.pkcs8)
    }

    /// The public key, PEM.
    pub fn public_pem(&self) -> String {
        pem("PUBLIC KEY", &[&SPKI_PREFIX, self.pair.public_key().as_ref()].concat())
    }

    /// The public key, as a JSON Web Key set.
    pub fn public_json(&self) -> String {
        keys::to_json(self.pair.public_key().as_ref()).0
    }

    /// The public key's id: its thumbprint (RFC 7638).
    pub fn id(&self) -> String {
        keys::to_json(self.pair.public_key().as_ref()).1
    }

    /// A token that says this. Nothing of it is checked.
    pub fn sign(&self, claims: &Claims) -> String {
        let header = format!(r#"{{"alg":"EdDSA","typ":"JWT","kid":"{}"}}"#, self.id());
        let header = BASE64_URL_SAFE_NO_PAD.encode(header);
        // Strings and numbers always serialize.
        let claims = serde_json::to_vec(claims).unwrap_or_default();
        self.sign_text(&format!("{header}.{}", BASE64_URL_SAFE_NO_PAD.encode(claims)))
    }

    pub(super) fn sign_text(&self, message: &str) -> String {
        let signature = self.pair.sign(message.as_bytes());
        format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.id()).finish_non_exhaustive()
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = &text[..];
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(PEM_LINE));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written() {
        let key = SigningKey::generate().unwrap();
        let again = SigningKey::from_pem(&key.to_pem()).unwrap();
        assert_eq!(key.id(), again.id());
        assert!(!format!("{key:?}").contains(&key.to_pem()[30..40]));
        assert!(SigningKey::from_pem(&key.public_pem()).is_err());
        // RFC 8410, 10.3: without the public key, as OpenSSL writes it.
        let openssl = "-----BEGIN PRIVATE KEY-----\n\
                       MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                       -----END PRIVATE KEY-----\n";
        SigningKey::from_pem(openssl).unwrap();
    }
}
