//! JSON Web Tokens, signed with EdDSA (RFC 7519, RFC 8037), and nothing else of JOSE.
//!
//! The verifier is written here, over ring, base64 and serde: what makes such libraries dangerous is
//! the choice of algorithms that they leave to the token, and there is none to choose from here.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::identity::check_identity;
use super::keys::KeySet;

/// Longest `jti`, as of an id.
const MAX_JTI_BYTES: usize = 128;
/// Roles of one token.
const MAX_ROLES: usize = 32;
const MAX_ROLE_BYTES: usize = 128;

/// What a token says. Other claims are passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Whom it is for: the identity.
    pub sub: String,
    /// When it expires, in seconds since 1970.
    pub exp: u64,
    /// When it was issued.
    pub iat: u64,
    /// From when it holds; from `iat` when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// Its own name, to revoke it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// What it is to be shown to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aud: Option<Audience>,
    /// Roles of the policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
}

/// One name, or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Audience {
    fn has(&self, name: &str) -> bool {
        match self {
            Audience::One(it) => it == name,
            Audience::Many(all) => all.iter().any(|it| it == name),
        }
    }
}

/// What is asked of a token besides its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rules {
    /// Clocks may differ by so much.
    pub(super) leeway_s: u64,
    /// Longest time from `iat` to `exp`.
    pub(super) max_life_s: u64,
    /// Which `aud` it has to have.
    pub(super) audience: Option<String>,
}

/// Why a token does not hold. Has nothing of the token in it that it did not prove.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is no token of the kind that is taken.
    #[error("the token is not a JSON Web Token signed with EdDSA: {0}")]
    Malformed(&'static str),
    /// No key of the set may have signed it.
    #[error("the token is signed with a key that this broker does not know")]
    UnknownKey,
    /// Its signature is not of its key.
    #[error("the token's signature is wrong: it was forged, or changed")]
    Forged,
    /// A claim is missing, or is not allowed.
    #[error("the token's claims are wrong: {0}")]
    Claims(String),
    /// It is over.
    #[error("the token of {sub} has expired {ago_s} s ago: get a new one")]
    Expired {
        /// Whose.
        sub: String,
        /// Since when.
        ago_s: u64,
    },
    /// It does not hold yet.
    #[error(
        "the token of {sub} does not hold for another {for_s} s: check the clocks here and there"
    )]
    NotYet {
        /// Whose.
        sub: String,
        /// For how long.
        for_s: u64,
    },
    /// It was revoked.
    #[error("the token of {sub} was revoked: get a new one")]
    Revoked {
        /// Whose.
        sub: String,
    },
    /// Keys could not be read, and this identity was not seen since they were.
    #[error("{0}")]
    Outage(String),
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crit: Option<serde::de::IgnoredAny>,
}

/// The claims of a token that one of the keys has signed. Whether it holds now is not looked at.
pub(super) fn signed(token: &str, keys: &KeySet, rules: &Rules) -> Result<Claims, TokenError> {
    let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed("no dots"))?;
    let (header, claims) = message.split_once('.').ok_or(TokenError::Malformed("one dot"))?;
    let decode = |part: &str, wrong| {
        BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed(wrong))
    };
    let header: Header = serde_json::from_slice(&decode(header, "its header is not base64url")?)
        .map_err(|_| TokenError::Malformed("its header is not what it should be"))?;
    if header.alg != "EdDSA" {
        return Err(TokenError::Malformed("alg is not EdDSA"));
    }
    if header.crit.is_some() {
        return Err(TokenError::Malformed("it has extensions that are critical (crit)"));
    }
    let signature = decode(signature, "its signature is not base64url")?;
    match keys.has_signed(header.kid.as_deref(), message.as_bytes(), &signature) {
        Some(true) => {}
        Some(false) => return Err(TokenError::Forged),
        None => return Err(TokenError::UnknownKey),
    }
    // From here on it is the issuer's word.
    let claims: Claims = serde_json::from_slice(&decode(claims, "its claims are not base64url")?)
        .map_err(|error| TokenError::Claims(error.to_string()))?;
    claims.check(rules)?;
    Ok(claims)
}

/// What a token says, whether that is true or not.
///
/// # Errors
/// When it is no token.
pub fn inspect(token: &str) -> Result<Claims, TokenError> {
    let claims = token.split('.').nth(1).ok_or(TokenError::Malformed("no dots"))?;
    let claims = BASE64_URL_SAFE_NO_PAD.decode(claims);
    let claims = claims.map_err(|_| TokenError::Malformed("its claims are not base64url"))?;
    serde_json::from_slice(&claims).map_err(|error| TokenError::Claims(error.to_string()))
}

impl Claims {
    /// Whether a broker takes it that has these keys and the default rules but for the longest life, at
    /// this time, in seconds since 1970.
    ///
    /// # Errors
    /// Why not.
    pub fn verify(token: &str, keys: &KeySet, now_s: u64) -> Result<Self, TokenError> {
        let rules = Rules { leeway_s: 0, max_life_s: u64::MAX, audience: None };
        let claims = signed(token, keys, &rules)?;
        claims.check_time(&rules, now_s)?;
        Ok(claims)
    }

    fn check(&self, rules: &Rules) -> Result<(), TokenError> {
        let wrong = |problem: String| Err(TokenError::Claims(problem));
        if let Err(problem) = check_identity(&self.sub) {
            return wrong(format!("sub {problem}"));
        }
        let jti = self.jti.as_deref().unwrap_or_default();
        if jti.len() > MAX_JTI_BYTES {
            return wrong(format!("jti has {} bytes; at most {MAX_JTI_BYTES}", jti.len()));
        }
        let is_long = |role: &String| role.is_empty() || role.len() > MAX_ROLE_BYTES;
        if self.roles.len() > MAX_ROLES || self.roles.iter().any(is_long) {
            return wrong(format!("at most {MAX_ROLES} roles of 1 to {MAX_ROLE_BYTES} bytes"));
        }
        let life_s = self.exp.saturating_sub(self.iat);
        if life_s == 0 {
            return wrong("exp is not after iat".to_owned());
        }
        if life_s > rules.max_life_s {
            let max = rules.max_life_s;
            return wrong(format!("it lives for {life_s} s; this broker takes {max} s at most"));
        }
        if let Some(name) = &rules.audience
            && !self.aud.as_ref().is_some_and(|aud| aud.has(name))
        {
            return wrong(format!("it is not for this broker: aud has to be {name:?}"));
        }
        Ok(())
    }

    /// When it no longer holds, the leeway included.
    pub(super) fn over_at_s(&self, rules: &Rules) -> u64 {
        self.exp.saturating_add(rules.leeway_s)
    }

    /// Whether it holds at a time.
    pub(super) fn check_time(&self, rules: &Rules, now_s: u64) -> Result<(), TokenError> {
        let sub = self.sub.clone();
        let from_s = self.nbf.unwrap_or(self.iat).max(self.iat);
        if now_s.saturating_add(rules.leeway_s) < from_s {
            return Err(TokenError::NotYet { sub, for_s: from_s - now_s });
        }
        if self.over_at_s(rules) <= now_s {
            return Err(TokenError::Expired { sub, ago_s: now_s - self.exp });
        }
        Ok(())
    }
}

impl fmt::Display for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sub)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::signing::SigningKey;
    use super::*;

    const RULES: Rules = Rules { leeway_s: 30, max_life_s: 3_600, audience: None };

    fn claims() -> Claims {
        Claims {
            sub: "shop".to_owned(),
            exp: 2_000,
            iat: 1_000,
            nbf: None,
            jti: Some("1".to_owned()),
            aud: None,
            roles: vec!["a".to_owned()],
        }
    }

    fn signer() -> (SigningKey, KeySet) {
        let key = SigningKey::generate().unwrap();
        let set = KeySet::parse(&key.public_json()).unwrap();
        (key, set)
    }

    fn with_header(key: &SigningKey, header: &str, claims: &Claims) -> String {
        let header = BASE64_URL_SAFE_NO_PAD.encode(header);
        let claims = BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(claims).unwrap());
        key.sign_text(&format!("{header}.{claims}"))
    }

    #[test]
    fn a_token_says_what_was_signed() {
        let (key, set) = signer();
        let token = key.sign(&claims());
        assert_eq!(signed(&token, &set, &RULES).unwrap(), claims());
        assert_eq!(
            signed(&token, &KeySet::parse(&key.public_pem()).unwrap(), &RULES).unwrap(),
            claims()
        );
    }

    #[test]
    fn only_a_known_key_and_eddsa_count() {
        let (key, set) = signer();
        let (other, _) = signer();
        assert_eq!(signed(&other.sign(&claims()), &set, &RULES), Err(TokenError::UnknownKey));
        let kid = key.id();
        let own_id = |alg: &str| format!(r#"{{"alg":"{alg}","kid":"{kid}"}}"#);
        let forged = with_header(&other, &own_id("EdDSA"), &claims());
        assert_eq!(signed(&forged, &set, &RULES), Err(TokenError::Forged));
        for alg in ["none", "HS256", "ES256", "RS256", "eddsa", ""] {
            let token = with_header(&key, &own_id(alg), &claims());
            assert!(matches!(signed(&token, &set, &RULES), Err(TokenError::Malformed(_))), "{alg}");
        }
        let critical = r#"{"alg":"EdDSA","crit":["b64"],"b64":false}"#;
        let token = with_header(&key, critical, &claims());
        assert!(matches!(signed(&token, &set, &RULES), Err(TokenError::Malformed(_))));
        // Signed with nothing, as some libraries once took it.
        let (message, _) = token.rsplit_once('.').unwrap();
        assert!(signed(&format!("{message}."), &set, &RULES).is_err());
        for wrong in ["", ".", "..", "a.b", "a.b.c", "....", "e30.e30.e30"] {
            assert!(signed(wrong, &set, &RULES).is_err(), "{wrong}");
        }
    }

    #[test]
    fn claims_are_bounded_and_for_this_broker() {
        let (key, set) = signer();
        let rules = Rules { audience: Some("mcp".to_owned()), ..RULES };
        let refused = |change: &dyn Fn(&mut Claims)| {
            let mut it = Claims { aud: Some(Audience::One("mcp".to_owned())), ..claims() };
            change(&mut it);
            match signed(&key.sign(&it), &set, &rules) {
                Err(TokenError::Claims(problem)) => problem,
                other => panic!("{other:?}"),
            }
        };
        for sub in ["", "a b", "anonymous", "broker", "a\n", &"x".repeat(257)] {
            assert!(refused(&|it| it.sub = sub.to_owned()).starts_with("sub"), "{sub}");
        }
        assert!(refused(&|it| it.exp = it.iat).contains("exp is not after iat"));
        assert!(refused(&|it| it.exp = it.iat + 3_601).contains("3600 s at most"));
        assert!(refused(&|it| it.exp = u64::MAX).contains("at most"));
        assert!(refused(&|it| it.roles = vec!["r".to_owned(); 33]).contains("roles"));
        assert!(refused(&|it| it.jti = Some("j".repeat(129))).contains("jti"));
        assert!(refused(&|it| it.aud = None).contains("aud has to be"));
        assert!(refused(&|it| it.aud = Some(Audience::One("other".to_owned()))).contains("aud"));
        let many = Audience::Many(vec!["x".to_owned(), "mcp".to_owned()]);
        signed(&key.sign(&Claims { aud: Some(many), ..claims() }), &set, &rules).unwrap();
    }

    #[test]
    fn it_holds_from_its_beginning_to_its_end_give_or_take_the_leeway() {
        let it = Claims { nbf: Some(1_100), ..claims() };
        assert!(matches!(it.check_time(&RULES, 1_069), Err(TokenError::NotYet { for_s: 31, .. })));
        it.check_time(&RULES, 1_070).unwrap();
        it.check_time(&RULES, 2_029).unwrap();
        assert!(matches!(it.check_time(&RULES, 2_030), Err(TokenError::Expired { ago_s: 30, .. })));
        assert!(claims().check_time(&RULES, 0).is_err());
        claims().check_time(&RULES, 1_000).unwrap();
    }

    proptest! {
        #[test]
        fn any_text_is_refused(text in "[ -~]{0,200}") {
            let (_, set) = signer();
            prop_assert!(signed(&text, &set, &RULES).is_err());
        }

        #[test]
        fn a_token_that_was_changed_anywhere_is_refused(at in any::<prop::sample::Index>(), by in 1u8..64) {
            let (key, set) = signer();
            let mut token = key.sign(&claims()).into_bytes();
            let at = at.index(token.len());
            let before = token[at];
            token[at] = b'A' + by % 26;
            if token[at] != before {
                prop_assert!(signed(&String::from_utf8(token).unwrap(), &set, &RULES).is_err());
            }
        }
    }
}
