//! The list of revoked tokens: a line for each.
//!
//! ```text
//! # a comment
//! jti 01998c5e-0d7f-7c3a-8a55-2f0e7d3a9b11
//! sub shop 1763770000
//! ```
//!
//! `sub` revokes all that were issued for that identity before that second.

use std::collections::{HashMap, HashSet};

use super::token::Claims;

/// More tokens than live at a time where they live for an hour.
const MAX_ENTRIES: usize = 100_000;

/// Tokens that hold no longer, although they say so.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Revoked {
    jtis: HashSet<Box<str>>,
    /// Since when tokens of an identity hold again.
    subs: HashMap<Box<str>, u64>,
}

impl Revoked {
    /// Reads a list.
    ///
    /// # Errors
    /// The first line that is none, and what it should be.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut revoked = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            let parts: Vec<_> = line.split_whitespace().collect();
            match parts[..] {
                [] => continue,
                ["jti", id] => {
                    revoked.jtis.insert(id.into());
                }
                ["sub", name, before] if before.parse::<u64>().is_ok() => {
                    let before_s: u64 = before.parse().unwrap_or_default();
                    let since_s = revoked.subs.entry(name.into()).or_default();
                    *since_s = before_s.max(*since_s);
                }
                _ => {
                    let number = number + 1;
                    return Err(format!(
                        "line {number} is neither `jti ID` nor `sub NAME SECONDS-SINCE-1970`"
                    ));
                }
            }
            if revoked.jtis.len() + revoked.subs.len() > MAX_ENTRIES {
                return Err(format!(
                    "it has more than {MAX_ENTRIES} entries: drop what has expired"
                ));
            }
        }
        Ok(revoked)
    }

    pub(super) fn has(&self, claims: &Claims) -> bool {
        claims.jti.as_deref().is_some_and(|jti| self.jtis.contains(jti))
            || self.subs.get(&*claims.sub).is_some_and(|since_s| claims.iat < *since_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_revoked_by_name_and_by_whom_they_are_for() {
        let list = "# old\njti 1 # lost laptop\n\nsub shop 100\nsub shop 50\n";
        let revoked = Revoked::parse(list).unwrap();
        let claims = |sub: &str, iat, jti: Option<&str>| Claims {
            sub: sub.to_owned(),
            exp: 1_000,
            iat,
            nbf: None,
            jti: jti.map(str::to_owned),
            aud: None,
            roles: vec![],
        };
        assert!(revoked.has(&claims("any", 500, Some("1"))));
        assert!(revoked.has(&claims("shop", 99, None)));
        assert!(!revoked.has(&claims("shop", 100, Some("2"))));
        assert!(!revoked.has(&claims("other", 1, None)));
        for wrong in ["jti", "jti a b", "sub shop", "sub shop soon", "shop"] {
            assert!(Revoked::parse(wrong).unwrap_err().contains("line 1"), "{wrong}");
        }
    }
}
