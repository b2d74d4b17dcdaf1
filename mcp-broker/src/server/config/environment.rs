//! Environment variables: `MCP_LIMITS__MAX_TASKS` is the key `limits.max_tasks`.

use toml::Value;

use super::error::Problem;
use super::schema::{Key, Kind};

const PREFIX: &str = "MCP_";

/// Between the names of a section and a key.
const SEPARATOR: &str = "__";

/// A variable by another name, as it was called first.
const ALIASES: [(&str, &str); 2] = [("MCP_STATE", "state_dir"), ("MCP_LOG", "log.level")];

/// Values by the paths of their keys, with the variables that have them, and what is wrong. Variables
/// that are no key's are not ours: MCP is also the name of other things.
pub(super) fn read(
    environment: &[(String, String)],
    keys: &[Key],
) -> (Vec<(String, Value, String)>, Vec<Problem>) {
    let (mut values, mut problems) = (Vec::new(), Vec::new());
    for (name, text) in environment.iter().filter(|(_, text)| !text.is_empty()) {
        let alias = ALIASES.iter().find(|(alias, _)| alias == name).map(|it| it.1);
        let key = keys.iter().find(|key| alias == Some(&*key.path) || variable(&key.path) == *name);
        let place = name.clone();
        match key {
            Some(key) => match value(text, key.kind) {
                Ok(value) => values.push((key.path.clone(), value, place)),
                Err(problem) => problems.push(Problem { place, key: key.path.clone(), problem }),
            },
            None => problems.extend(unknown(name, keys)),
        }
    }
    (values, problems)
}

/// The variable of a key.
pub(super) fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', SEPARATOR).to_ascii_uppercase())
}

/// A variable of one of our sections that is no key's.
fn unknown(name: &str, keys: &[Key]) -> Option<Problem> {
    let (section, _) = name.strip_prefix(PREFIX)?.split_once(SEPARATOR)?;
    let section = format!("{}.", section.to_ascii_lowercase());
    if !keys.iter().any(|key| key.path.starts_with(&section)) {
        return None;
    }
    let nearest = keys.iter().map(|key| variable(&key.path));
    let nearest = nearest.min_by_key(|other| strsim::damerau_levenshtein(name, other));
    let problem = format!("is no key's variable; {} is", nearest.unwrap_or_default());
    Some(Problem { place: "the environment".to_owned(), key: name.to_owned(), problem })
}

fn value(text: &str, kind: Kind) -> Result<Value, String> {
    match kind {
        Kind::Text => Ok(Value::String(text.to_owned())),
        Kind::Bool => text
            .parse()
            .map(Value::Boolean)
            .map_err(|_| format!("is {text:?}: true or false is needed")),
        Kind::Integer | Kind::Number | Kind::Other => text.trim().parse().map_err(|_| match kind {
            Kind::Integer | Kind::Number => format!("is {text:?}: a number is needed"),
            _ => format!("is {text:?}: a list or table of TOML is needed, such as [\"a\", \"b\"]"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn read_one(name: &str, text: &str) -> Result<(String, Value), String> {
        let (mut values, problems) = read(&[(name.to_owned(), text.to_owned())], &Config::keys());
        match (values.pop(), &problems[..]) {
            (Some((path, value, _)), []) => Ok((path, value)),
            (None, [problem]) => Err(problem.to_string()),
            (None, []) => Err("nothing".to_owned()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_variable_is_the_key_of_its_name() {
        for (name, text, path, value) in [
            ("MCP_LISTEN", "[::1]:7", "listen", Value::from("[::1]:7")),
            ("MCP_STATE", "/s", "state_dir", "/s".into()),
            ("MCP_STATE_DIR", "/s", "state_dir", "/s".into()),
            ("MCP_TLS__DEV", "true", "tls.dev", true.into()),
            ("MCP_LIMITS__MAX_TASKS", "1_000", "limits.max_tasks", 1000.into()),
            ("MCP_SCHEDULING__POLICY", "p2c", "scheduling.policy", "p2c".into()),
            ("MCP_SCHEDULING__RATE_LIMIT__PER_S", "2.5", "scheduling.rate_limit.per_s", 2.5.into()),
            ("MCP_TLS__DEV_NAMES", "['a', 'b']", "tls.dev_names", vec!["a", "b"].into()),
        ] {
            assert_eq!(read_one(name, text), Ok((path.to_owned(), value)), "{name}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_and_what_is_not_ours_is_not() {
        for (name, text, expected) in [
            (
                "MCP_LIMITS__MAX_TASK",
                "1",
                "MCP_LIMITS__MAX_TASK is no key's variable; MCP_LIMITS__MAX_TASKS is",
            ),
            ("MCP_LIMITS__MAX_TASKS", "many", "limits.max_tasks is \"many\": a number is needed"),
            ("MCP_TLS__DEV", "yes", "tls.dev is \"yes\": true or false is needed"),
            ("MCP_TLS__DEV_NAMES", "a", "tls.dev_names is \"a\": a list"),
            ("MCP_LIMITS__MAX_TASKS", "1\nlisten = 2", "a number is needed"),
            ("MCP_SERVER__NAME", "x", "nothing"),
            ("MCP_BROKER", "x", "nothing"),
            ("LISTEN", "x", "nothing"),
            ("MCP_LISTEN", "", "nothing"),
        ] {
            let found = read_one(name, text).unwrap_err();
            assert!(found.contains(expected), "{expected} is not in {found}");
        }
    }
}
