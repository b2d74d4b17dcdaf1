//! Why a broker does not start.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::config::ConfigError;
use crate::journal::{Damage, OpenError};

/// Why a broker does not start. Each says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address is taken.
    #[error("{address} is in use: another program listens there; choose another address or port")]
    AddressInUse {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The socket can't be had.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The token of operators can't be read, or is none.
    #[error("cannot use {path} of console.token_file: {source}", path = path.display())]
    AdminToken {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The state directory, or a file in it, can't be read or written.
    #[error("cannot use {path} of the state directory: {source}", path = path.display())]
    StateDir {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another broker runs in the state directory.
    #[error("another broker uses the state directory {path}; stop it, or choose another directory",
        path = path.display())]
    StateDirInUse {
        /// The directory.
        path: PathBuf,
    },
    /// The file that keeps the key of stateless resets holds something else.
    #[error("{path} does not hold a key of 32 hexadecimal digits; delete it, and the next start \
             makes a new one", path = path.display())]
    ResetKey {
        /// The file.
        path: PathBuf,
    },
    /// The file that keeps the epoch holds something else.
    #[error("{path} should hold the broker's epoch, a number, but holds {text:?}; write one into \
        it that is larger than any before, such as the time in ms since 1970",
        path = path.display())]
    Epoch {
        /// The file.
        path: PathBuf,
        /// What it holds.
        text: String,
    },
    /// The journal can't be read, or is not what was written.
    #[error("cannot use the journal in {path}: {source}. Nothing was changed. {advice}",
        path = path.display(), advice = advice(source, path))]
    Journal {
        /// Its directory.
        path: PathBuf,
        /// Why.
        source: OpenError,
    },
    /// Another process writes to the journal.
    #[error("another process writes to the journal in {path}; stop it, or choose another directory: \
             durable.dir", path = path.display())]
    JournalInUse {
        /// Its directory.
        path: PathBuf,
    },
    /// The journal's directory can't be made, or is none.
    #[error("cannot use {path} as the journal's directory: {source}", path = path.display())]
    JournalDir {
        /// Its directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The journal that the builder was given does not load.
    #[error("cannot load the journal: {0}")]
    LoadJournal(io::Error),
    /// The broker's name is no valid node id.
    #[error("the broker's name {name:?} {problem}")]
    BrokerId {
        /// The name.
        name: String,
        /// What is wrong with it, to be read after it.
        problem: String,
    },
    /// No certificate can be had, or it can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The audit log can't be written.
    #[error("cannot write the audit log {path}: {source}; give another file: audit.file",
        path = path.display())]
    Audit {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Keys of tokens, or who may sign them, can't be had.
    #[error("cannot verify tokens: {0}")]
    Auth(String),
    /// The system gives no random numbers, or no thread.
    #[error("the system refuses what every broker needs: {0}")]
    System(io::Error),
}

/// What to do about a journal that can't be opened.
fn advice(error: &OpenError, path: &Path) -> String {
    match error {
        OpenError::Damaged { damage: Damage::Schema { .. }, .. } => {
            "Start that version again, or give this one another directory: durable.dir".to_owned()
        }
        OpenError::Damaged { .. } | OpenError::Missing { .. } | OpenError::Entry { .. } => format!(
            "`mcp-broker journal export {path} > tasks.jsonl` writes all that can still be read; then \
             move the directory away, and start again",
            path = path.display()
        ),
        _ => "When it can be read again, start again".to_owned(),
    }
}

/// Why there is no usable certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A PEM file can't be read, or holds no such thing.
    #[error("cannot read a {what} from {path}: {problem}", path = path.display())]
    File {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// A certificate can't be made for a name.
    #[error("cannot make a certificate: {0}")]
    Make(String),
    /// Certificate and key don't work together, or not with TLS 1.3.
    #[error("cannot use the certificate and key: {0}")]
    Unusable(String),
    /// A local authority is kept in the state directory, and there is none.
    #[error("a local certificate authority needs a state directory to be kept in")]
    NoStateDir,
}
