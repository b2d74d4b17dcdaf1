//! The token in HELLO: a secret, so it is never printed.

use std::fmt;

use bytes::Bytes;

use crate::id::InvalidId;
use crate::limits::MAX_TOKEN_BYTES;

/// What a dialling side proves with who it is: 1 to 4,096 bytes of printable ASCII, which only the
/// broker's authentication looks into.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Bytes);

impl Token {
    /// A token of these bytes.
    ///
    /// # Errors
    /// When it is empty, too long, or not printable ASCII. The error has nothing of the token in it but
    /// the byte that is wrong.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, InvalidId> {
        crate::id::check_printable(&bytes, MAX_TOKEN_BYTES)?;
        Ok(Self(bytes))
    }

    /// Its text: to be verified, or sent, and nothing else.
    pub fn expose(&self) -> &str {
        // Checked when it was made.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    pub(crate) fn to_bytes(&self) -> Bytes {
        self.0.clone()
    }
}

impl TryFrom<&str> for Token {
    type Error = InvalidId;
    fn try_from(text: &str) -> Result<Self, InvalidId> {
        Self::from_bytes(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_never_printed() {
        let token = Token::try_from("e30.secret.x").unwrap();
        assert_eq!(format!("{token:?}"), "Token(12 bytes)");
        assert_eq!(token.expose(), "e30.secret.x");
        let long = "x".repeat(MAX_TOKEN_BYTES + 1);
        for wrong in ["", "a b", "a\n", "\u{e9}", &long] {
            assert!(Token::try_from(wrong).is_err(), "{wrong}");
        }
        Token::try_from(&long[1..]).unwrap();
    }
}
