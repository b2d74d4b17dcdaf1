//! Files that hold a secret: a private key, or a token.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Longer than any key or token.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// Reads such a file, which must be its owner's alone.
///
/// # Errors
/// When it can't be read, is too long, or others can read it; for people, and with nothing of the secret
/// in it.
pub fn read(path: &Path) -> Result<String, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let metadata = file.metadata().map_err(|error| error.to_string())?;
        let mode = metadata.permissions().mode() & 0o777;
        // What is no file, such as a pipe of `<(...)`, has nobody else.
        if metadata.is_file() && mode & 0o077 != 0 {
            let path = path.display();
            return Err(format!("others can read it (mode {mode:04o}): run `chmod 600 {path}`"));
        }
    }
    let mut text = String::new();
    let mut file = file.take(MAX_SECRET_BYTES + 1);
    file.read_to_string(&mut text).map_err(|error| error.to_string())?;
    match text.len() as u64 > MAX_SECRET_BYTES {
        true => Err(format!("it is longer than {MAX_SECRET_BYTES} bytes")),
        false => Ok(text),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_others_can_read_is_refused_with_what_to_do() {
        let path = std::env::temp_dir().join(format!("mcp-secret-{}", std::process::id()));
        fs::write(&path, "s3cret").unwrap();
        for (mode, is_read) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            match read(&path) {
                Ok(text) => assert!(is_read && text == "s3cret"),
                Err(error) => {
                    assert!(!is_read);
                    assert!(error.contains(&format!("chmod 600 {}", path.display())), "{error}");
                    assert!(!error.contains("s3cret"));
                }
            }
        }
        fs::remove_file(&path).unwrap();
    }
}
