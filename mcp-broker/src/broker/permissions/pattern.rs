//! Names with `*`, and many of them at once.

use std::fmt;

use foldhash::fast::FixedState;
use hashbrown::HashSet;
use serde::Deserialize;

/// Longest pattern: as long as the longest identity.
const MAX_PATTERN_BYTES: usize = 256;

/// A name, in which each `*` stands for any text, the empty one included.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(String);

impl Pattern {
    fn is_name(&self) -> bool {
        !self.0.contains('*')
    }

    /// Whether it stands for this name.
    pub fn matches(&self, name: &[u8]) -> bool {
        matches(self.0.as_bytes(), name)
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.len() {
            ..=MAX_PATTERN_BYTES => Ok(Self(text)),
            len => {
                Err(format!("a pattern of {len} bytes; at most {MAX_PATTERN_BYTES} are allowed"))
            }
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Going back to the last `*` only is enough: an earlier one could take no more than it already has.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    // Where the last `*` is, and how far it reaches.
    let mut last: Option<(usize, usize)> = None;
    while from < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                last = Some((at, from));
                at += 1;
            }
            Some(byte) if *byte == name[from] => {
                at += 1;
                from += 1;
            }
            Some(_) | None => {
                let Some((star, reach)) = &mut last else { return false };
                *reach += 1;
                (at, from) = (*star + 1, *reach);
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// Patterns, made ready: names are looked up, and only the others are tried one by one.
#[derive(Debug, Clone, Default)]
pub(super) struct Patterns {
    is_all: bool,
    names: HashSet<Box<[u8]>, FixedState>,
    others: Vec<Pattern>,
}

impl Patterns {
    pub(super) fn all() -> Self {
        Self { is_all: true, ..Self::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.is_all && self.names.is_empty() && self.others.is_empty()
    }

    #[inline]
    pub(super) fn matches(&self, name: &[u8]) -> bool {
        self.is_all
            || (!self.names.is_empty() && self.names.contains(name))
            || self.others.iter().any(|pattern| pattern.matches(name))
    }
}

impl Extend<Pattern> for Patterns {
    fn extend<I: IntoIterator<Item = Pattern>>(&mut self, patterns: I) {
        for pattern in patterns {
            if pattern.0 == "*" {
                self.is_all = true;
            } else if pattern.is_name() {
                self.names.insert(pattern.0.into_bytes().into());
            } else {
                self.others.push(pattern);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As the definition says it.
    fn plainly(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => (0..=name.len()).any(|reach| plainly(rest, &name[reach..])),
            ([a, pattern @ ..], [b, name @ ..]) => a == b && plainly(pattern, name),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn a_star_is_any_text(pattern in "[ab*]{0,8}", name in "[ab]{0,10}") {
            let expected = plainly(pattern.as_bytes(), name.as_bytes());
            prop_assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected);
            let mut patterns = Patterns::default();
            patterns.extend([Pattern(pattern)]);
            prop_assert_eq!(patterns.matches(name.as_bytes()), expected);
        }
    }

    #[test]
    fn a_hostile_name_takes_no_longer_than_it_is_long_for_each_star() {
        let (pattern, name) = ("*a".repeat(128), "b".repeat(1024));
        assert!(!matches(pattern.as_bytes(), name.as_bytes()));
    }
}
