//! Where the audit log is written.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// A file, or stderr.
#[derive(Debug)]
pub(in crate::server) enum Target {
    File(File),
    Stderr,
    #[cfg(test)]
    Gated(Box<Target>, Gate),
}

impl Target {
    /// Appends to a file. It is made with mode 0600; one that is there keeps the mode that it has.
    pub(in crate::server) fn file(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(path).map(Self::File)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Target::File(file) => file.write_all(bytes),
            Target::Stderr => io::stderr().write_all(bytes),
            #[cfg(test)]
            Target::Gated(target, gate) => {
                gate.pass();
                target.write(bytes)
            }
        }
    }
}

/// A target that holds its first writer up until the gate is opened.
#[cfg(test)]
pub(super) fn gated(target: Target) -> (Gate, Target) {
    let gate = Gate::default();
    (gate.clone(), Target::Gated(Box::new(target), gate))
}

#[cfg(test)]
#[derive(Debug, Clone, Default)]
pub(in crate::server) struct Gate(
    std::sync::Arc<(std::sync::Mutex<[bool; 2]>, std::sync::Condvar)>,
);

#[cfg(test)]
impl Gate {
    const REACHED: usize = 0;
    const OPEN: usize = 1;

    pub(super) fn wait_until_reached(&self) {
        self.wait_for(Self::REACHED);
    }

    pub(super) fn open(&self) {
        self.set(Self::OPEN);
    }

    fn pass(&self) {
        self.set(Self::REACHED);
        self.wait_for(Self::OPEN);
    }

    fn set(&self, what: usize) {
        self.0.0.lock().unwrap()[what] = true;
        self.0.1.notify_all();
    }

    fn wait_for(&self, what: usize) {
        let mut state = self.0.0.lock().unwrap();
        while !state[what] {
            state = self.0.1.wait(state).unwrap();
        }
    }
}
