//! Files that hold a secret: a private key, or a token.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Longer than any key or token.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// Reads such a file, which must be its owner's alone; one of root's may be read by its group, too. So it can
/// be given to a service that could not change it: by an administrator, or by Kubernetes, where secrets are
/// root's and the pod's group reads them. The rule is [PostgreSQL's].
///
/// # Errors
/// When it can't be read, is too long, or others can read it; for people, and with nothing of the secret
/// in it.
///
/// [PostgreSQL's]: https://www.postgresql.org/docs/17/ssl-tcp.html#SSL-SETUP
pub fn read(path: &Path) -> Result<String, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let metadata = file.metadata().map_err(|error| error.to_string())?;
        let mode = metadata.mode() & 0o777;
        // What is no file, such as a pipe of `<(...)`, has nobody else.
        if metadata.is_file() && is_for_others(mode, metadata.uid()) {
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

#[cfg(unix)]
fn is_for_others(mode: u32, owner: u32) -> bool {
    const ROOT: u32 = 0;
    let none_of = if owner == ROOT { 0o037 } else { 0o077 };
    mode & none_of != 0
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
        for (mode, is_read) in [(0o600, true), (0o400, true), (0o660, false), (0o604, false)] {
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

    #[test]
    fn a_group_reads_what_is_roots_and_nobody_else_anything() {
        for (mode, of_root, of_another) in [
            (0o400, false, false),
            (0o600, false, false),
            (0o440, false, true),
            (0o640, false, true),
            (0o660, true, true),
            (0o650, true, true),
            (0o444, true, true),
            (0o602, true, true),
        ] {
            assert_eq!(is_for_others(mode, 0), of_root, "{mode:o}");
            assert_eq!(is_for_others(mode, 1000), of_another, "{mode:o}");
        }
    }
}
