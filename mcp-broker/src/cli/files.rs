//! Keys and certificates in files, and what went wrong with them.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{EXIT_CANNOT_START, EXIT_USAGE};

/// Why a command does not do what it is for, and its exit code.
pub(super) struct Failure(pub(super) u8, pub(super) String);

impl Failure {
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self(EXIT_USAGE, message.into())
    }

    pub(super) fn of(path: &Path, problem: impl Display) -> Self {
        Self(EXIT_CANNOT_START, format!("{}: {problem}", path.display()))
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self(EXIT_CANNOT_START, message)
    }
}

pub(super) fn report(done: Result<(), Failure>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(code, why)) => {
            eprintln!("mcp-broker: {why}");
            ExitCode::from(code)
        }
    }
}

/// Writes a new file; a secret one (mode 0600) for its owner only. What is there is not replaced.
pub(super) fn write_new(path: &Path, text: &str, is_secret: bool) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, if is_secret { 0o600 } else { 0o644 });
    let written = options.open(path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::of(path, "is there already; move it away, or choose another directory")
        }
        _ => Failure::of(path, error),
    })
}

pub(super) fn read_secret(path: &Path) -> Result<String, Failure> {
    mcp_proto::secret::read(path).map_err(|problem| Failure::of(path, problem))
}

/// The time of day, in seconds since 1970.
#[allow(clippy::disallowed_methods, reason = "there is no broker here whose clock it could be")]
pub(super) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// `90s`, `15m`, `1h`, `7d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "a number and a unit are needed, one of s, m, h, d: 1h".to_owned();
    let number = text.trim_end_matches(|it: char| it.is_ascii_alphabetic());
    let unit_s = match &text[number.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    // Beyond the year 9999, no date can be written.
    match number.checked_mul(unit_s).filter(|it| (1..=100_000_000_000).contains(it)) {
        Some(seconds) => Ok(Duration::from_secs(seconds)),
        None => Err("is not a time that anything lives for".to_owned()),
    }
}
