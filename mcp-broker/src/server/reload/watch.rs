//! Notices that a file has changed, by looking at it now and then.
//!
//! A look is a call of the system for each file, and works wherever files are: on network file
//! systems, in containers, and where Kubernetes changes a mounted ConfigMap by changing a link, of
//! which a watch of the file itself would learn nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::sleep;

use super::Reloader;

/// Between two looks. A change counts when the next look finds the same, so that a file that is being
/// written, or a certificate whose key is still to come, is left alone.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How files were.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::server) struct Seen(BTreeMap<PathBuf, Option<Stamp>>);

/// What changes with a file, or with what a link leads to. None of one that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    /// Device and inode.
    place: (u64, u64),
}

impl Seen {
    pub(in crate::server) fn of(files: impl IntoIterator<Item = PathBuf>) -> Self {
        let stamped = |path: PathBuf| {
            let stamp = std::fs::metadata(&path).ok().map(|it| Stamp::of(&it));
            (path, stamp)
        };
        Self(files.into_iter().map(stamped).collect())
    }

    /// These files: as they were seen, or as they are.
    pub(super) fn limit_to(&mut self, files: Vec<PathBuf>) {
        let mut now = Self::of(files);
        for (path, stamp) in &mut now.0 {
            if let Some(seen) = self.0.get(path) {
                *stamp = *seen;
            }
        }
        *self = now;
    }
}

impl Stamp {
    fn of(it: &std::fs::Metadata) -> Self {
        #[cfg(unix)]
        let place = {
            use std::os::unix::fs::MetadataExt;
            (it.dev(), it.ino())
        };
        #[cfg(not(unix))]
        let place = (0, 0);
        Self { modified: it.modified().ok(), bytes: it.len(), place }
    }
}

/// Reloads when a file has changed. Runs until dropped.
pub(in crate::server) async fn run(reloader: Arc<Reloader>) {
    let mut last = None;
    loop {
        sleep(LOOK_EVERY).await;
        let (it, before) = (reloader.clone(), last.take());
        // A file system can be slow.
        let look = move || {
            let now = Seen::of(it.files());
            let is_as_seen = *it.seen.lock().unwrap_or_else(PoisonError::into_inner) == now;
            if !is_as_seen && before.as_ref() == Some(&now) {
                // It has told whoever it concerns how that went.
                let _ = it.reload("a file has changed");
                return None;
            }
            Some(now)
        };
        last = tokio::task::spawn_blocking(look).await.unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_written_replaced_or_linked_anew_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("it");
        let see = || Seen::of([path.clone()]);
        let mut seen = vec![see()];
        let mut changed = || {
            let now = see();
            assert!(!seen.contains(&now), "{now:?}");
            assert_eq!(now, see());
            seen.push(now);
        };
        std::fs::write(&path, "one").unwrap();
        changed();
        std::fs::write(&path, "three").unwrap();
        changed();
        std::fs::write(dir.path().join("new"), "eight").unwrap();
        std::fs::rename(dir.path().join("new"), &path).unwrap();
        changed();
        #[cfg(unix)]
        for data in ["data-1", "data-2"] {
            std::fs::create_dir(dir.path().join(data)).unwrap();
            std::fs::write(dir.path().join(data).join("it"), "eight").unwrap();
            let link = dir.path().join("link");
            std::os::unix::fs::symlink(dir.path().join(data).join("it"), &link).unwrap();
            std::fs::rename(&link, &path).unwrap();
            changed();
        }
    }
}
