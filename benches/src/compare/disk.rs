//! The disk that what is durable lies on.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::median::median;

/// Writes that are synced one after the other.
const SYNCS: usize = 100;

/// Bytes of each: a page, which every file system writes as a whole.
const BYTES: usize = 4096;

/// What a file system is called whose statfs(2) has this type, as in linux/magic.h.
const FILE_SYSTEMS: [(u64, &str); 7] = [
    (0xef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0x2fc1_2fc1, "zfs"),
    (0xf2f5_2010, "f2fs"),
    (0x794c_7630, "overlayfs"),
    (0x0102_1994, "tmpfs"),
];

/// A place for files, and how long a sync takes there.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Disk {
    pub(crate) file_system: String,
    /// The median of appending 4 KiB and fdatasync(2), with nothing else to do.
    pub(crate) fdatasync_us: f64,
}

impl Disk {
    /// Measures it.
    pub(crate) fn at(dir: &Path) -> Result<Self> {
        let measure = || -> Result<Self> {
            Ok(Self { file_system: file_system(dir)?, fdatasync_us: fdatasync_us(dir)? })
        };
        measure().with_context(|| dir.display().to_string())
    }

    /// Whether what is synced is in memory all the same.
    pub(crate) fn is_memory(&self) -> bool {
        self.file_system == "tmpfs"
    }
}

fn file_system(dir: &Path) -> Result<String> {
    let magic = rustix::fs::statfs(dir)?.f_type as u64;
    let known = FILE_SYSTEMS.iter().find(|(known, _)| *known == magic);
    Ok(known.map_or_else(|| format!("{magic:#x}"), |(_, name)| (*name).to_owned()))
}

fn fdatasync_us(dir: &Path) -> Result<f64> {
    let mut file: File = tempfile::tempfile_in(dir)?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        file.write_all(&[b'm'; BYTES])?;
        let start = Instant::now();
        file.sync_data()?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    median(times).context("no time")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_a_file_system_and_takes_time() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::at(dir.path()).unwrap();
        assert!(disk.fdatasync_us > 0.0 && !disk.file_system.is_empty(), "{disk:?}");
        assert!(Disk::at(&dir.path().join("none")).is_err());
    }
}
