//! A configuration as TOML, each value with where it came from.

use std::fmt::Write as _;

use serde_json::Value;

use super::Config;
use super::layers::Loaded;

/// Where comments begin, unless a line is longer.
const COMMENT_COLUMN: usize = 48;

impl Loaded {
    /// All that holds, as a configuration file, with where each value comes from. Of `actions` what
    /// they say themselves. There are no secrets in it: the configuration only names their files.
    pub fn to_toml(&self) -> String {
        let whole = serde_json::to_value(&self.config).unwrap_or_default();
        let keys = Config::keys();
        let own = self.origins.paths().filter(|path| path.starts_with("actions."));
        // A table's own keys before the tables in it.
        let mut paths: Vec<_> = keys.iter().map(|key| key.path.as_str()).chain(own).collect();
        paths.sort_unstable_by_key(|path| split(path));
        let (mut text, mut last) = (String::new(), "");
        for path in paths {
            let (table, name) = split(path);
            // Of a table that is not there, such as `hedge`, there is nothing to show.
            let Some(values) = value_at(&whole, table).filter(|it| !it.is_null()) else { continue };
            if table != last {
                let _ = write!(text, "\n[{table}]\n");
                last = table;
            }
            let value = values.get(unquoted(name)).filter(|it| !it.is_null());
            let line = match value {
                Some(value) => format!("{name} = {}", toml_of(value)),
                None => format!("# {name} ="),
            };
            let origin = match (self.origins.of(path), value) {
                (Some(origin), _) => origin.to_string(),
                (None, Some(_)) => "default".to_owned(),
                (None, None) => "not set".to_owned(),
            };
            let _ = writeln!(text, "{line:COMMENT_COLUMN$}  # {origin}");
        }
        text
    }
}

/// The table and the name of a key. Names that are quoted can have dots.
fn split(path: &str) -> (&str, &str) {
    let mut is_quoted = false;
    let mut last = None;
    for (index, it) in path.char_indices() {
        match it {
            '"' => is_quoted = !is_quoted,
            '.' if !is_quoted => last = Some(index),
            _ => {}
        }
    }
    last.map_or(("", path), |at| (&path[..at], &path[at + 1..]))
}

fn value_at<'a>(whole: &'a Value, path: &str) -> Option<&'a Value> {
    if path.is_empty() {
        return Some(whole);
    }
    let (table, name) = split(path);
    value_at(whole, table)?.get(unquoted(name))
}

/// Names of actions have neither quotes nor backslashes in them.
fn unquoted(name: &str) -> &str {
    name.trim_matches('"')
}

fn toml_of(value: &Value) -> String {
    toml::Value::try_from(value).map_or_else(|_| value.to_string(), |it| it.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::Layers;

    #[test]
    fn what_is_shown_is_a_file_that_says_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("broker.toml");
        let text = "broker_id = 'b \"1\"'\n[tls]\ndev_names = ['a']\n[limits]\nmax_tasks = 7\n\
                    [scheduling]\nhedge = {}\nsplit = [{ name = 'x', labels = { k = 'v' }, weight = 1 }]\n\
                    [actions.'a.b/c']\npolicy = 'p2c'\nfallback = [{ action = 'd' }]\n\
                    breaker.failures = 3\n";
        std::fs::write(&path, text).unwrap();
        let loaded = Layers::new().file(&path).load().unwrap();
        let shown = loaded.to_toml();
        let again = dir.path().join("shown.toml");
        std::fs::write(&again, &shown).unwrap();
        let same = Layers::new().file(again).load().unwrap_or_else(|it| panic!("{it}\n{shown}"));
        assert_eq!(format!("{:?}", same.config), format!("{:?}", loaded.config), "{shown}");
        for line in [
            "max_tasks = 7 ",
            "max_sessions = 100000 ",
            "[actions.\"a.b/c\".breaker]\nfailures = 3 ",
            "# admin = ",
        ] {
            assert!(shown.contains(line), "{line} is not in {shown}");
        }
        let of = |start: &str| shown.lines().find(|line| line.starts_with(start)).unwrap();
        assert!(of("max_tasks").ends_with("broker.toml:5"), "{shown}");
        assert!(of("max_sessions").ends_with("# default"), "{shown}");
        assert!(of("# admin").ends_with("# not set"), "{shown}");
    }
}
