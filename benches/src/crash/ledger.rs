//! What a process notes in a file of its own, a line each, in one write: what was noted is there even
//! when the process is killed at once.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// What was noted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Note {
    /// A client is about to send a task.
    Sent(String),
    /// The broker has said that a task is on disk.
    Accepted(String),
    /// The broker knows nothing of a task that it had accepted.
    Lost(String),
    /// A task's outcome, and its result.
    Ended(String, String, String),
    /// The outcome of a task that has one, asked for again.
    Again(String, String, String),
    /// A worker has begun a task, and this will be its result.
    Run(String, String),
}

/// A process' notes.
#[derive(Debug)]
pub(super) struct Ledger {
    file: File,
}

impl Ledger {
    /// Opens a file, or makes it, and reads what is there.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<Note>)> {
        let notes = if path.exists() { read(path)? } else { Vec::new() };
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        Ok((Self { file }, notes))
    }

    pub(super) fn note(&self, note: &Note) -> Result<()> {
        let mut line = serde_json::to_vec(note)?;
        line.push(b'\n');
        (&self.file).write_all(&line).context("the notes")
    }
}

/// All notes of a file.
pub(super) fn read(path: &Path) -> Result<Vec<Note>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// A client's notes.
pub(super) fn of_client(dir: &Path, index: u32) -> PathBuf {
    dir.join(format!("client-{index}.notes"))
}

/// A worker's notes.
pub(super) fn of_worker(dir: &Path, index: u32) -> PathBuf {
    dir.join(format!("worker-{index}.notes"))
}

/// Clients that see it send nothing new.
pub(super) fn stop_file(dir: &Path) -> PathBuf {
    dir.join("stop")
}

/// Of a task that may not run twice.
pub(super) const FAST: &str = "fast-";
