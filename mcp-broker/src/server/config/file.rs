//! The text of a configuration file: which keys it has, on which lines, and which of them don't exist.

use std::ops::Range;
use std::path::Path;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Problem;
use super::origin::{Origin, Origins};
use super::schema::{Key, Node, join};

/// A key that is so many letters off may be meant.
const MAX_TYPOS: usize = 4;

/// What was found in a text.
pub(super) struct Found {
    pub(super) origins: Origins,
    pub(super) problems: Vec<Problem>,
}

/// A text, and what is known of keys.
pub(super) struct File<'a> {
    path: &'a Path,
    text: &'a str,
    keys: &'a [Key],
    found: Found,
}

impl<'a> File<'a> {
    /// Looks at all keys.
    pub(super) fn scan(
        path: &'a Path,
        text: &'a str,
        schema: &'a Value,
        keys: &'a [Key],
    ) -> Result<Found, Problem> {
        let found = Found { origins: Origins::default(), problems: Vec::new() };
        let mut file = File { path, text, keys, found };
        let table = DeTable::parse(text).map_err(|error| file.problem_of(&error))?;
        file.table("", table.get_ref(), Node::root(schema));
        Ok(file.found)
    }

    /// The place of an error, and what it says.
    pub(super) fn of_error(path: &Path, text: &str, error: &toml::de::Error) -> Problem {
        let found = Found { origins: Origins::default(), problems: Vec::new() };
        File { path, text, keys: &[], found }.problem_of(error)
    }

    fn table(&mut self, path: &str, table: &DeTable<'_>, node: Node<'_>) {
        for (name, value) in table {
            let key = join(path, name.get_ref());
            match node.key(name.get_ref()) {
                Some(node) => self.value(&key, name.span(), value, node),
                None => {
                    let place = self.place(name.span());
                    let problem = unknown(&key, name.get_ref(), path, node, self.keys);
                    self.found.problems.push(Problem { place, key, problem });
                }
            }
        }
    }

    fn value(&mut self, key: &str, at: Range<usize>, value: &Spanned<DeValue<'_>>, node: Node<'_>) {
        match value.get_ref() {
            DeValue::Table(table) if !table.is_empty() => return self.table(key, table, node),
            DeValue::Array(items) => {
                let node = node.items();
                for (item, node) in items.iter().zip(std::iter::repeat(node)) {
                    if let (DeValue::Table(table), Some(node)) = (item.get_ref(), node) {
                        // Its keys have no paths of their own.
                        let origins = self.found.origins.clone();
                        self.table(key, table, node);
                        self.found.origins = origins;
                    }
                }
            }
            _ => {}
        }
        let (path, line) = (self.path.to_owned(), self.line(at));
        self.found.origins.insert(key.to_owned(), Origin::File { path, line });
    }

    fn problem_of(&self, error: &toml::de::Error) -> Problem {
        let place =
            error.span().map_or_else(|| self.path.display().to_string(), |at| self.place(at));
        Problem { place, key: String::new(), problem: error.message().trim().to_owned() }
    }

    fn place(&self, at: Range<usize>) -> String {
        format!("{}:{}", self.path.display(), self.line(at))
    }

    fn line(&self, at: Range<usize>) -> usize {
        let before = self.text.get(..at.start).unwrap_or(self.text);
        1 + before.bytes().filter(|it| *it == b'\n').count()
    }
}

/// What is told about a key that does not exist, to be read after it.
pub(super) fn unknown(key: &str, name: &str, table: &str, node: Node<'_>, keys: &[Key]) -> String {
    let elsewhere = keys.iter().find(|it| it.path.rsplit('.').next() == Some(name));
    let distance = |other: &str| strsim::damerau_levenshtein(name, other);
    let nearest = node.names().min_by_key(|other| distance(other));
    let nearest = nearest.filter(|other| distance(other) <= MAX_TYPOS.min(name.len() / 2));
    match (nearest, elsewhere) {
        (Some(nearest), _) => {
            format!("is not a key of the configuration; {} is", join(table, nearest))
        }
        (None, Some(other)) if other.path != key => {
            format!("is not a key of the configuration; {} is", other.path)
        }
        (None, _) => {
            let names: Vec<_> = node.names().collect();
            let whose = if table.is_empty() { "the configuration" } else { table };
            format!("is not a key of the configuration; {whose} has {}", names.join(", "))
        }
    }
}
