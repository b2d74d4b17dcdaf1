//! Where values come from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Where the value of a key comes from, if it is not the default.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// A configuration file.
    File {
        /// Which.
        path: PathBuf,
        /// The line in it, counted from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(&'static str),
    /// It follows from another key.
    Follows(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Environment(name) => f.write_str(name),
            Origin::Flag(name) => f.write_str(name),
            Origin::Follows(key) => write!(f, "follows from {key}"),
        }
    }
}

/// Where the values of keys come from that are not defaults, by their paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(BTreeMap<String, Origin>);

impl Origins {
    /// Of the key of this path; of a table: of the first of its keys that is not a default.
    pub fn of(&self, path: &str) -> Option<&Origin> {
        let is_within = |whole: &str, part: &str| {
            part.strip_prefix(whole).is_some_and(|rest| rest.starts_with('.'))
        };
        self.0.get(path).or_else(|| {
            let mut near = self.0.iter();
            near.find(|(other, _)| is_within(path, other) || is_within(other, path)).map(|it| it.1)
        })
    }

    pub(super) fn insert(&mut self, path: String, origin: Origin) {
        self.0.insert(path, origin);
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}
