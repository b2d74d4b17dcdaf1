//! `mcp-broker config`, and its documentation: docs/configuration.md has every key, as the code has
//! it. With MCP_WRITE_DOCS=1 the tables there are written anew.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use mcp_broker::{Config, Key};
use serde_json::Value;

const BEGIN: &str = "<!-- keys: written by mcp-broker/tests/configuration.rs -->\n";
const END: &str = "<!-- end of keys -->\n";

/// Units, by the ends of names.
const UNITS: [(&str, &str); 5] =
    [("_ms", "ms"), ("_us", "µs"), ("_bytes", "bytes"), ("_percent", "%"), ("per_s", "1/s")];

fn row(key: &Key, name: &str) -> String {
    let unit = UNITS.iter().find(|(end, _)| name.ends_with(end)).map_or("", |it| it.1);
    let default = match &key.default {
        Value::Null => String::new(),
        Value::Number(number) => format!("`{}`", grouped(&number.to_string())),
        other => format!("`{other}`"),
    };
    let restart = if key.needs_restart { "restart" } else { "" };
    let text = key.description.replace('\n', " ").replace('|', "\\|");
    // Links of the code's documentation lead nowhere here.
    let text = text.replace("[`", "`").replace("`]", "`");
    format!("| `{name}` | {default} | {unit} | {restart} | {text} |\n")
}

fn grouped(number: &str) -> String {
    let Ok(number) = number.parse::<u64>() else { return number.to_owned() };
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            grouped.push('_');
        }
        grouped.push(digit);
    }
    grouped
}

fn tables() -> String {
    const HEAD: &str = "| key | default | unit | takes effect | |\n|---|---|---|---|---|\n";
    let keys = Config::keys();
    let section = |key: &Key| key.path.split_once('.').map(|it| it.0.to_owned());
    let mut text = String::new();
    let (top, rest): (Vec<_>, Vec<_>) = keys.iter().partition(|key| section(key).is_none());
    text.push_str("\n## Outside of sections\n\n");
    text.push_str(HEAD);
    for key in top {
        text.push_str(&row(key, &key.path));
    }
    let mut last = None;
    for key in rest {
        let own = section(key);
        let Some((table, name)) = key.path.split_once('.') else { unreachable!() };
        if own != last {
            let more = if table == "scheduling" { " and `[actions.\"NAME\"]`" } else { "" };
            let _ = write!(text, "\n## `[{table}]`{more}\n\n{HEAD}");
            last = own;
        }
        text.push_str(&row(key, name));
    }
    text.push('\n');
    text
}

#[test]
fn the_documentation_has_every_key_as_it_is() {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md"));
    let whole = std::fs::read_to_string(path).unwrap();
    let (before, rest) = whole.split_once(BEGIN).unwrap();
    let (written, after) = rest.split_once(END).unwrap();
    let tables = tables();
    if std::env::var_os("MCP_WRITE_DOCS").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}{tables}{END}{after}")).unwrap();
        return;
    }
    for (line, (ours, theirs)) in tables.lines().zip(written.lines()).enumerate() {
        assert_eq!(ours, theirs, "line {line} of the tables; write them with MCP_WRITE_DOCS=1");
    }
    assert_eq!(tables, written);
}

fn config(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-broker"));
    command.env_clear().envs(variables.iter().copied()).arg("config").args(arguments);
    command.output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_check_says_yes_or_all_that_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broker.toml");
    let file = path.to_str().unwrap();
    std::fs::write(&path, "[limits]\nmax_tasks = 7\n").unwrap();
    let fine = config(&["check", file], &[]);
    assert_eq!(fine.status.code(), Some(0), "{fine:?}");
    let fine = config(&["check"], &[("MCP_CONFIG", file)]);
    assert_eq!(fine.status.code(), Some(0), "{fine:?}");

    std::fs::write(&path, "thread = 7\n[limits]\nmax_task = 7\n").unwrap();
    let wrong = config(&["check", file], &[("MCP_LIMITS__MAX_TASKS", "many")]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    let said = stderr(&wrong);
    for expected in [
        format!("{file}:1: thread is not a key of the configuration; threads is\n"),
        format!(
            "{file}:3: limits.max_task is not a key of the configuration; limits.max_tasks is\n"
        ),
        "MCP_LIMITS__MAX_TASKS: limits.max_tasks is \"many\": a number is needed\n".to_owned(),
    ] {
        assert!(said.contains(&expected), "{expected} is not in {said}");
    }
    std::fs::write(&path, "[limits]\n\nmax_tasks = 0\n").unwrap();
    let wrong = config(&["check", file], &[]);
    let expected = format!("{file}:3: limits.max_tasks is 0; it must be at least 1\n");
    assert_eq!((wrong.status.code(), stderr(&wrong)), (Some(2), expected));
}

#[test]
fn what_is_shown_says_where_it_came_from() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broker.toml");
    std::fs::write(&path, "listen = '127.0.0.1:1'\nthreads = 2\n").unwrap();
    let variables = [("MCP_LISTEN", "127.0.0.1:2"), ("MCP_LIMITS__MAX_TASKS", "7")];
    let shown = config(&["show", path.to_str().unwrap(), "--listen", "127.0.0.1:3"], &variables);
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    let text = String::from_utf8(shown.stdout).unwrap();
    for (start, end) in [
        ("listen = \"127.0.0.1:3\" ", "# --listen".to_owned()),
        ("threads = 2 ", format!("# {}:2", path.display())),
        ("max_tasks = 7 ", "# MCP_LIMITS__MAX_TASKS".to_owned()),
        ("max_agents = 100000 ", "# default".to_owned()),
    ] {
        let line = text.lines().find(|line| line.starts_with(start));
        assert!(line.is_some_and(|line| line.ends_with(&end)), "{start} {line:?}");
    }
}

#[test]
fn the_schema_is_json_and_knows_the_keys() {
    let printed = config(&["schema"], &[]);
    let schema: Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    let key = &schema["properties"]["limits"]["properties"]["max_tasks"];
    assert_eq!((&key["type"], &key["default"]), (&"integer".into(), &4_000_000.into()));
    assert_eq!(schema["properties"]["listen"]["x-restart"], true);
}
