//! What can be wrong with a configuration.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Its file can't be read.
    #[error("cannot read the configuration {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not TOML, has keys that do not exist, or values of a wrong type: everything of that
    /// kind that was found, at least one.
    #[error("{}", lines(.0))]
    Wrong(Vec<Problem>),
    /// A value that is not allowed.
    #[error("{key} {problem}")]
    Value {
        /// The key, `limits.max_connections`.
        key: Cow<'static, str>,
        /// What is wrong with its value, to be read after the key.
        problem: String,
    },
}

/// Something that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The line of a file, the environment variable, or the flag.
    pub place: String,
    /// The key; empty where there is none.
    pub key: String,
    /// What is wrong, to be read after the key.
    pub problem: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, key, problem } = self;
        let space = if key.is_empty() { "" } else { " " };
        write!(f, "{place}: {key}{space}{problem}")
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}
