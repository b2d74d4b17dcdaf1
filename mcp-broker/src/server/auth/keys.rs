//! The public keys that tokens are signed with.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, UnparsedPublicKey};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

/// Keys of one set: the present one, the next, and some that are on their way out.
const MAX_KEYS: usize = 100;
const KEY_BYTES: usize = 32;

/// What the DER of an Ed25519 public key begins with; the rest is the key (RFC 8410, 4).
const SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Ed25519 public keys, of a JSON Web Key set (RFC 8037) or of PEM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeySet(Vec<Key>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    /// None of a key from PEM.
    id: Option<String>,
    public: [u8; KEY_BYTES],
}

#[derive(Serialize, Deserialize)]
struct Jwks {
    keys: Vec<Jwk>,
}

#[derive(Serialize, Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default)]
    crv: String,
    #[serde(default)]
    x: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    used_for: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alg: Option<String>,
}

impl KeySet {
    /// Reads a key set, JSON or PEM. Keys of other kinds in a JSON set are passed over.
    ///
    /// # Errors
    /// When it is neither, has no Ed25519 key, or too many keys; for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let keys = match text.trim_start().starts_with('{') {
            true => Self::from_json(text)?,
            false => Self::from_pem(text)?,
        };
        match keys.len() {
            0 => Err("it has no Ed25519 public key".to_owned()),
            1..=MAX_KEYS => Ok(Self(keys)),
            count => Err(format!("it has {count} keys; at most {MAX_KEYS} are allowed")),
        }
    }

    fn from_json(text: &str) -> Result<Vec<Key>, String> {
        let set: Jwks = serde_json::from_str(text)
            .map_err(|error| format!("it is no JSON Web Key set: {error}"))?;
        let is_ours = |key: &Jwk| {
            key.kty == "OKP" && key.crv == "Ed25519" && key.used_for.as_deref() != Some("enc")
        };
        let read = |key: Jwk| {
            let bytes = BASE64_URL_SAFE_NO_PAD.decode(&key.x).ok();
            let public = bytes.and_then(|bytes| bytes.try_into().ok());
            let public = public.ok_or("an Ed25519 key whose x is not 32 bytes in base64url")?;
            Ok(Key { id: key.kid, public })
        };
        set.keys.into_iter().filter(is_ours).map(read).collect()
    }

    fn from_pem(text: &str) -> Result<Vec<Key>, String> {
        let read = |it: Result<SubjectPublicKeyInfoDer<'_>, _>| {
            let der = it.map_err(|error: rustls::pki_types::pem::Error| error.to_string())?;
            let key = der.strip_prefix(&SPKI_PREFIX).and_then(|key| key.try_into().ok());
            let public = key.ok_or("a public key in it is not an Ed25519 key")?;
            Ok(Key { id: None, public })
        };
        SubjectPublicKeyInfoDer::pem_slice_iter(text.as_bytes()).map(read).collect()
    }

    /// Whether one of the keys made this signature; one with an id only if the token names that, or
    /// none. `None` when there is no key to try.
    pub(super) fn has_signed(
        &self,
        id: Option<&str>,
        message: &[u8],
        signature: &[u8],
    ) -> Option<bool> {
        let is_named = |key: &&Key| match (&key.id, id) {
            (Some(own), Some(named)) => own == named,
            (None, _) | (_, None) => true,
        };
        let mut named = self.0.iter().filter(is_named).peekable();
        named.peek()?;
        Some(named.any(|key| {
            UnparsedPublicKey::new(&ED25519, &key.public).verify(message, signature).is_ok()
        }))
    }
}

/// The key set of one public key, as JSON, with the key's id.
pub(super) fn to_json(public: &[u8]) -> (String, String) {
    let x = BASE64_URL_SAFE_NO_PAD.encode(public);
    // RFC 7638 and RFC 8037, 2: the members in this order, and nothing else.
    let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    let id = BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, members.as_bytes()));
    let key = Jwk {
        kty: "OKP".to_owned(),
        crv: "Ed25519".to_owned(),
        x,
        kid: Some(id.clone()),
        used_for: Some("sig".to_owned()),
        alg: Some("EdDSA".to_owned()),
    };
    // Strings always serialize.
    (serde_json::to_string_pretty(&Jwks { keys: vec![key] }).unwrap_or_default(), id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_the_thumbprint_of_the_rfc() {
        // RFC 8037, appendix A.3.
        let x =
            BASE64_URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
        assert_eq!(to_json(&x).1, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        let set = KeySet::parse(&to_json(&x).0).unwrap();
        assert_eq!(set.0[0].public[..], x);
    }

    #[test]
    fn a_set_is_read_from_json_and_pem_and_is_never_empty() {
        let other = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"","y":""}]}"#;
        for wrong in [
            "",
            "nonsense",
            "{}",
            r#"{"keys":[]}"#,
            other,
            r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA"}]}"#,
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        ] {
            assert!(KeySet::parse(wrong).is_err(), "{wrong}");
        }
        // RFC 8410, 10.1.
        let pem = "-----BEGIN PUBLIC KEY-----\n\
                   MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
                   -----END PUBLIC KEY-----\n";
        assert_eq!(KeySet::parse(pem).unwrap().0.len(), 1);
        let many = to_json(&[1; 32]).0.replacen('[', &format!("[{}", "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"},".repeat(100)), 1);
        assert!(KeySet::parse(&many).unwrap_err().contains("101 keys"));
    }
}
