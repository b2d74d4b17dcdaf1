//! The token that operators give.

use std::fmt;
use std::io;
use std::path::Path;

use mcp_proto::secret;
use ring::digest::{Digest, SHA256, digest};

use crate::server::error::StartError;

/// Shorter ones could be guessed.
const MIN_BYTES: usize = 16;
const MAX_BYTES: usize = 4_096;

/// What is left of a token: enough to know it again.
#[derive(Clone)]
pub(super) struct Token(Digest);

impl Token {
    /// Reads it from a file.
    pub(super) fn from_file(path: &Path) -> Result<Self, StartError> {
        Self::read(path).map_err(|source| StartError::AdminToken { path: path.to_owned(), source })
    }

    fn read(path: &Path) -> io::Result<Self> {
        let text = secret::read(path).map_err(io::Error::other)?;
        Self::parse(text.trim_ascii())
            .ok_or_else(|| {
                format!("it must hold {MIN_BYTES} to {MAX_BYTES} visible ASCII characters")
            })
            .map_err(|problem| io::Error::new(io::ErrorKind::InvalidData, problem))
    }

    fn parse(text: &str) -> Option<Self> {
        let is_token = (MIN_BYTES..=MAX_BYTES).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_token.then(|| Self(digest(&SHA256, text.as_bytes())))
    }

    /// Whether this is it. What is compared are digests, so the time that takes tells nothing.
    pub(super) fn is(&self, given: &str) -> bool {
        digest(&SHA256, given.as_bytes()).as_ref() == self.0.as_ref()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_long_and_visible() {
        assert!(Token::parse("0123456789abcdef").unwrap().is("0123456789abcdef"));
        assert!(!Token::parse("0123456789abcdef").unwrap().is("0123456789abcdeF"));
        for wrong in ["", "0123456789abcde", "0123456789 abcdef", "0123456789abcdé"] {
            assert!(Token::parse(wrong).is_none(), "{wrong}");
        }
        assert!(Token::parse(&"x".repeat(MAX_BYTES + 1)).is_none());
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "0123456789abcdef\n").unwrap();
        let mode = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            Token::from_file(&path)
        };
        let error = mode(0o604).unwrap_err().to_string();
        assert!(error.contains("mode 0604") && error.contains("chmod 600"), "{error}");
        assert!(mode(0o600).unwrap().is("0123456789abcdef"));
        std::fs::write(&path, "short").unwrap();
        assert!(mode(0o600).unwrap_err().to_string().contains("16 to 4096"));
    }
}
