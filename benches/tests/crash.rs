//! Processes that are killed under load lose nothing that was accepted.

#![allow(clippy::unwrap_used)]

use std::process::Command;

#[test]
fn killed_at_random_moments_nothing_accepted_is_lost_and_no_result_comes_twice() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_mcp-bench"))
        .args(["crash", "--cycles", "25", "--in-flight", "8", "--dir"])
        .arg(dir.path())
        .output()
        .unwrap();
    let (said, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{errors}");
}
