//! docs/guarantees.md names the tests that hold each promise: they exist.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The names of all functions in the tests below a directory.
fn functions(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            functions(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&entry).unwrap();
            let after = text.split("fn ").skip(1);
            found.extend(after.filter_map(|it| Some(it.split_once('(')?.0.to_owned())));
        }
    }
}

#[test]
fn every_promise_names_tests_that_exist() {
    let mut tests = BTreeSet::new();
    for dir in ["mcp-broker/src/journal", "mcp-broker/tests", "mcp-client/tests", "examples/tests"]
    {
        functions(&Path::new(ROOT).join(dir), &mut tests);
    }
    let text = fs::read_to_string(Path::new(ROOT).join("docs/guarantees.md")).unwrap();
    let names = text.split('`').skip(1).step_by(2).filter(|it| it.matches('_').count() > 2);
    let names: Vec<_> = names.collect();
    assert!(names.len() > 30, "{}", names.len());
    let missing: Vec<_> = names.iter().filter(|name| !tests.contains(**name)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
}
