//! Holds the layering: the core knows no I/O, no clock and nothing of the server around it.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// What `src/broker` must not name, and why.
const FORBIDDEN: &[(&str, &str)] = &[
    ("tokio", "it does no I/O and waits for nothing"),
    ("quinn", "it does no I/O"),
    ("dashmap", "whoever holds it serialises its inputs"),
    ("async ", "it waits for nothing"),
    (".await", "it waits for nothing"),
    ("Instant::now", "time is told with every input"),
    ("SystemTime", "time is told with every input"),
    ("RandomState", "randomness comes from the seed"),
    ("rand::", "randomness comes from the seed"),
    ("crate::server", "the server is built on the core, not the other way round"),
    ("std::thread", "whoever holds it serialises its inputs"),
    ("std::fs", "it does no I/O"),
    ("std::net", "it does no I/O"),
];

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn offences(name: &str, text: &str) -> Vec<String> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .flat_map(|(number, line)| {
            FORBIDDEN
                .iter()
                .filter(|(word, _)| line.contains(word))
                .map(move |(word, why)| format!("{name}:{}: names {word:?}, but {why}", number + 1))
        })
        .collect()
}

#[test]
fn the_core_is_sans_io() {
    let core = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/broker");
    let files = rust_files(&core);
    assert!(files.len() > 15, "the core has moved: {}", core.display());
    let offences: Vec<_> = files
        .iter()
        .flat_map(|path| offences(&path.display().to_string(), &fs::read_to_string(path).unwrap()))
        .collect();
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

#[test]
fn the_check_finds_what_it_looks_for() {
    assert_eq!(offences("x.rs", "use tokio::net;\n// tokio in a comment\nlet a = 1;").len(), 1);
}
