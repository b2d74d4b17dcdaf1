//! The state directory: what a broker keeps between its starts. One broker at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::error::StartError;

/// File with the address that the broker listens on, one line. There while it runs.
pub(crate) const ADDRESS_FILE: &str = "address";
/// Locked by the broker that uses the directory.
const LOCK_FILE: &str = "lock";

/// Who may read a file of the state directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Whoever may enter the directory.
    Shared,
    /// The owner: keys.
    Private,
}

/// A state directory in use by this process.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    /// Held for as long as the broker lives; the system releases it with the process.
    _lock: File,
}

impl StateDir {
    /// Opens the directory, makes it (mode 0700) if it isn't there, and locks it.
    pub(crate) fn open(path: &Path) -> Result<Self, StartError> {
        let failed = |source| StartError::StateDir { path: path.to_owned(), source };
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path).map_err(failed)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(LOCK_FILE))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                Err(StartError::StateDirInUse { path: path.to_owned() })
            }
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// The path of a file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The text of a file; `None` when it isn't there.
    pub(crate) fn read(&self, name: &str) -> Result<Option<String>, StartError> {
        match fs::read_to_string(self.file(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.failed(name, source)),
        }
    }

    /// Replaces a file, or makes it: whoever reads it sees the old or the new text whole, also
    /// after a crash.
    pub(crate) fn replace(&self, name: &str, text: &str, access: Access) -> Result<(), StartError> {
        self.try_replace(name, text, access).map_err(|source| self.failed(name, source))
    }

    /// Removes a file. Not being able to is not worth an error.
    pub(crate) fn remove(&self, name: &str) {
        if let Err(error) = fs::remove_file(self.file(name)) {
            tracing::debug!(%error, file = name, "cannot remove a file of the state directory");
        }
    }

    /// Gives a file that can't be used another name, which is returned, so that somebody can look at it.
    pub(crate) fn set_aside(&self, name: &str) -> PathBuf {
        let path = self.file(&format!("{name}.unreadable"));
        if let Err(error) = fs::rename(self.file(name), &path) {
            tracing::debug!(%error, file = name, "cannot move a file of the state directory");
        }
        path
    }

    fn try_replace(&self, name: &str, text: &str, access: Access) -> io::Result<()> {
        let new = self.file(&format!("{name}.new"));
        // A left-over of a crash may have the wrong mode.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(
            &mut options,
            match access {
                Access::Shared => 0o644,
                Access::Private => 0o600,
            },
        );
        let mut file = options.open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, self.file(name))?;
        // The rename itself is on disk once the directory is.
        File::open(&self.path)?.sync_all()
    }

    fn failed(&self, name: &str, source: io::Error) -> StartError {
        StartError::StateDir { path: self.file(name), source }
    }
}

/// Where a development broker keeps its state when it isn't told: `$XDG_STATE_HOME/mcp-broker`, or
/// `~/.local/state/mcp-broker`. `None` when neither variable is set.
pub fn default_state_dir() -> Option<PathBuf> {
    let absolute = |name| {
        std::env::var_os(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute())
    };
    let state =
        absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("mcp-broker"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_serves_one_broker_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let first = StateDir::open(&path).unwrap();
        assert!(matches!(StateDir::open(&path), Err(StartError::StateDirInUse { .. })));
        drop(first);
        StateDir::open(&path).unwrap();
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        assert_eq!(state.read("x").unwrap(), None);
        state.replace("x", "one", Access::Shared).unwrap();
        fs::write(state.file("x.new"), "left by a crash").unwrap();
        state.replace("x", "two", Access::Private).unwrap();
        assert_eq!(state.read("x").unwrap().as_deref(), Some("two"));
        assert!(!state.file("x.new").exists());
    }

    #[cfg(unix)]
    #[test]
    fn keys_are_for_their_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("state")).unwrap();
        state.replace("key", "k", Access::Private).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&state.file("key")), 0o600);
        assert_eq!(mode(&dir.path().join("state")), 0o700);
    }
}
