//! What keys there are, as their types say it: the one source of the JSON Schema, of the names of
//! environment variables, and of what is told about keys.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::Config;

/// Beside a key that takes effect with the next start only.
const RESTART: &str = "x-restart";

/// A key whose value is no table.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Key {
    /// `limits.max_connections`.
    pub path: String,
    /// What it means, with units, bounds and reasons.
    pub description: String,
    /// What holds when nothing is said; null: nothing.
    pub default: Value,
    /// Whether a change takes effect with the next start only.
    pub needs_restart: bool,
    pub(super) kind: Kind,
}

/// What a key's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Integer,
    Number,
    Text,
    /// A list or a table.
    Other,
}

/// A part of the schema: of a table, a list, or a value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node<'a>(&'a Value);

impl Config {
    /// JSON Schema (2020-12) of the configuration file.
    pub fn schema() -> Value {
        let mut settings = SchemaSettings::draft2020_12();
        settings.inline_subschemas = true;
        settings.into_generator().into_root_schema_for::<Self>().to_value()
    }

    /// All keys, but for those of `actions`, which are those of `scheduling`.
    pub fn keys() -> Vec<Key> {
        let mut keys = Vec::new();
        collect("", Node(&Self::schema()), false, &mut keys);
        keys
    }
}

fn collect(path: &str, node: Node<'_>, needs_restart: bool, keys: &mut Vec<Key>) {
    for (name, value) in node.properties().into_iter().flatten() {
        let (node, path) = (Node(value), join(path, name));
        let needs_restart = needs_restart || value[RESTART] == true;
        if node.properties().is_some() {
            collect(&path, node, needs_restart, keys);
        } else if !node.has_any_names() {
            keys.push(Key {
                path,
                description: value["description"].as_str().unwrap_or_default().to_owned(),
                default: value["default"].clone(),
                needs_restart,
                kind: node.kind(),
            });
        }
    }
}

impl<'a> Node<'a> {
    pub(super) fn root(schema: &'a Value) -> Self {
        Self(schema)
    }

    /// The keys of a table that has certain ones.
    fn properties(self) -> Option<&'a Map<String, Value>> {
        let own = self.0.get("properties").and_then(Value::as_object);
        own.or_else(|| self.alternatives().find_map(Node::properties))
    }

    /// What a key is of a table; `None` when it has no such key.
    pub(super) fn key(self, name: &str) -> Option<Node<'a>> {
        match self.properties() {
            Some(properties) => properties.get(name).map(Node),
            None => self.other_names(),
        }
    }

    /// The names of the keys of a table that has certain ones.
    pub(super) fn names(self) -> impl Iterator<Item = &'a str> {
        self.properties().into_iter().flatten().map(|(name, _)| name.as_str())
    }

    /// Whether it is a table with keys of any names.
    pub(super) fn has_any_names(self) -> bool {
        self.properties().is_none() && self.other_names().is_some()
    }

    fn other_names(self) -> Option<Node<'a>> {
        let own = self.0.get("additionalProperties").filter(|it| it.is_object()).map(Node);
        own.or_else(|| self.alternatives().find_map(Node::other_names))
    }

    /// What the items of a list are.
    pub(super) fn items(self) -> Option<Node<'a>> {
        self.0.get("items").map(Node)
    }

    /// Of a key that may be absent, or is one of several.
    fn alternatives(self) -> impl Iterator<Item = Node<'a>> {
        let lists = ["anyOf", "oneOf"].into_iter().filter_map(move |key| self.0.get(key));
        lists.filter_map(Value::as_array).flatten().map(Node).filter(|it| it.0["type"] != "null")
    }

    fn kind(self) -> Kind {
        let of_name = |name: &str| match name {
            "boolean" => Kind::Bool,
            "integer" => Kind::Integer,
            "number" => Kind::Number,
            "string" => Kind::Text,
            _ => Kind::Other,
        };
        match self.0.get("type") {
            Some(Value::String(name)) => of_name(name),
            Some(Value::Array(names)) => {
                let name = names.iter().filter_map(Value::as_str).find(|it| *it != "null");
                name.map_or(Kind::Other, of_name)
            }
            _ => {
                let mut kinds = self.alternatives().map(Node::kind);
                let first = kinds.next().unwrap_or(Kind::Other);
                if kinds.all(|kind| kind == first) { first } else { Kind::Other }
            }
        }
    }
}

/// The path of a key in a table. A name that is not plain is quoted, as in TOML.
pub(super) fn join(table: &str, name: &str) -> String {
    let is_plain = |it: char| it.is_ascii_alphanumeric() || matches!(it, '_' | '-');
    let dot = if table.is_empty() { "" } else { "." };
    // Names of actions are always quoted.
    if !name.is_empty() && name.chars().all(is_plain) && table != "actions" {
        return format!("{table}{dot}{name}");
    }
    let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
    format!("{table}{dot}\"{quoted}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_known_with_its_default_and_kind() {
        let keys = Config::keys();
        let key = |path: &str| {
            let found = keys.iter().find(|key| key.path == path);
            found.unwrap_or_else(|| panic!("{path} is not among {keys:#?}"))
        };
        for (path, kind, default) in [
            ("listen", Kind::Text, "127.0.0.1:7447".into()),
            ("admin", Kind::Text, Value::Null),
            ("console.metrics_public", Kind::Bool, false.into()),
            ("limits.max_connections", Kind::Integer, 20_000.into()),
            ("durable.retention_ms", Kind::Integer, 86_400_000.into()),
            ("durable.enabled", Kind::Bool, true.into()),
            ("scheduling.policy", Kind::Text, "least_loaded".into()),
            ("scheduling.rate_limit.per_s", Kind::Number, 0.0.into()),
            ("scheduling.breaker.failures", Kind::Integer, 5.into()),
            ("scheduling.fallback", Kind::Other, Value::Array(vec![])),
            ("scheduling.hedge.min_samples", Kind::Integer, 100.into()),
            ("audit.file", Kind::Text, Value::Null),
            ("tls.dev_names", Kind::Other, Value::Array(vec![])),
        ] {
            let key = key(path);
            assert_eq!((key.kind, &key.default), (kind, &default), "{path}");
        }
        for key in &keys {
            assert!(!key.description.is_empty(), "{} says nothing of itself", key.path);
        }
        assert!(key("listen").needs_restart && key("durable.dir").needs_restart);
        assert!(!key("limits.max_connections").needs_restart);
    }

    #[test]
    fn names_that_are_not_plain_are_quoted() {
        assert_eq!(join("", "limits"), "limits");
        assert_eq!(join("limits", "max_tasks"), "limits.max_tasks");
        assert_eq!(join("actions", "upper"), "actions.\"upper\"");
        assert_eq!(join("a", "b.\"c"), "a.\"b.\\\"c\"");
    }
}
