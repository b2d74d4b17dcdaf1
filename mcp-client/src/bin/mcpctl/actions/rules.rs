//! Rules as arguments: `KEY=VALUE`, with dotted keys and TOML values.

use serde_json::{Map, Value};

/// Rules, or a part of them.
pub(super) type Rules = Map<String, Value>;

/// Reads one: `policy=p2c`, `breaker.failures=3`. A word needs no quotes, and no value at all means the
/// default.
pub(super) fn parse(text: &str) -> Result<Rules, String> {
    let (key, value) = text.split_once('=').ok_or("is not KEY=VALUE")?;
    if value.trim().is_empty() {
        let mut rules = table(key, "true")?;
        set_null(&mut rules);
        return Ok(rules);
    }
    let is_word = value.starts_with(|c: char| c.is_ascii_alphabetic());
    table(key, value).or_else(|problem| match is_word {
        true => table(key, &Value::from(value).to_string()),
        false => Err(problem),
    })
}

/// What two say together; the second takes precedence.
pub(super) fn merge(into: &mut Rules, from: Rules) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(into)), Value::Object(from)) => merge(into, from),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

/// One line for each rule, as [`parse`] reads it.
pub(super) fn lines(rules: &Rules) -> Vec<String> {
    let mut lines = Vec::new();
    add_lines("", rules, &mut lines);
    lines
}

fn add_lines(before: &str, rules: &Rules, lines: &mut Vec<String>) {
    for (key, value) in rules {
        match value {
            Value::Object(inner) => add_lines(&format!("{before}{key}."), inner, lines),
            Value::Null => lines.push(format!("{before}{key}=")),
            value => lines.push(format!("{before}{key}={value}")),
        }
    }
}

fn table(key: &str, value: &str) -> Result<Rules, String> {
    let wrong = |problem: String| format!("is not KEY=VALUE as in TOML: {problem}");
    let table: toml::Table = toml::from_str(&format!("{key} = {value}"))
        .map_err(|error| wrong(error.message().to_owned()))?;
    match serde_json::to_value(table) {
        Ok(Value::Object(rules)) => Ok(rules),
        Ok(_) => Ok(Rules::new()),
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// Makes the one value in it null.
fn set_null(rules: &mut Rules) {
    for value in rules.values_mut() {
        match value {
            Value::Object(inner) => set_null(inner),
            value => *value = Value::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(text: &str) -> Value {
        Value::Object(parse(text).unwrap())
    }

    #[test]
    fn a_value_is_one_of_toml_and_a_word_needs_no_quotes() {
        assert_eq!(parsed("policy=p2c"), json!({"policy": "p2c"}));
        assert_eq!(parsed("policy=\"p2c\""), json!({"policy": "p2c"}));
        assert_eq!(parsed("breaker.failures=3"), json!({"breaker": {"failures": 3}}));
        assert_eq!(parsed("a.b.c = 0.5"), json!({"a": {"b": {"c": 0.5}}}));
        assert_eq!(parsed("on=true"), json!({"on": true}));
        assert_eq!(parsed("list=[\"a\", \"b\"]"), json!({"list": ["a", "b"]}));
        assert_eq!(parsed("t={a=1}"), json!({"t": {"a": 1}}));
        assert_eq!(parsed("fallback=other/action"), json!({"fallback": "other/action"}));
        assert_eq!(parsed("fallback.action="), json!({"fallback": {"action": null}}));
        for wrong in ["policy", "=x", "a b=1", "n=12x", "n=[1", "n=-"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_shown_can_be_set() {
        let mut rules = Rules::new();
        for text in ["policy=\"p2c\"", "breaker.failures=3", "breaker.open_ms=30", "cap="] {
            merge(&mut rules, parse(text).unwrap());
        }
        assert_eq!(
            Value::Object(rules.clone()),
            json!({"policy": "p2c", "breaker": {"failures": 3, "open_ms": 30}, "cap": null})
        );
        let mut again = Rules::new();
        for line in lines(&rules) {
            merge(&mut again, parse(&line).unwrap());
        }
        assert_eq!(again, rules);
    }
}
