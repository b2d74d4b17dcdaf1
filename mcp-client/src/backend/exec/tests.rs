use std::path::Path;

use bytes::Bytes;
use futures_util::FutureExt;
use mcp_proto::InputLength;

use super::*;
use crate::backend::testing::{call, job, job_of, until_emitted};
use crate::worker::{Line, complete};

fn sh(script: &str) -> Exec {
    Exec::new("sh", ["-c", script])
}

async fn run(exec: Exec, body: impl Into<Bytes>) -> Result<HandlerReply, String> {
    call(&exec, job_of(body, "text/plain")).await.map_err(|error| error.info().message.clone())
}

/// Waits until no process with this id runs.
async fn until_gone(pid: &str) {
    let is_running = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // One that nobody has waited for is gone, too.
        stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
    };
    let gone = async {
        while is_running() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("it still runs");
}

async fn read_soon(path: &Path) -> String {
    let written = async {
        loop {
            match std::fs::read_to_string(path) {
                Ok(text) if text.ends_with('\n') => return text.trim().to_owned(),
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), written).await.expect("it says nothing")
}

#[tokio::test]
async fn the_body_goes_in_and_the_result_comes_out() {
    let exec = Exec::new("tr", ["a-z", "A-Z"]).content_type("text/plain");
    let reply = run(exec, "hello").await.unwrap();
    assert_eq!((&reply.body[..], &*reply.content_type), (&b"HELLO"[..], "text/plain"));
    let script = "echo $MCP_TASK_ID $MCP_ACTION $MCP_ATTEMPT $MCP_CONTENT_TYPE ${TRACESTATE-none}";
    assert_eq!(run(sh(script), "").await.unwrap().body, "t-1 upper 2 text/plain none\n");
}

#[tokio::test]
async fn input_that_is_not_read_does_not_matter() {
    let reply = run(sh("echo done"), vec![7; 1 << 20]).await.unwrap();
    assert_eq!(reply.body, "done\n");
    let reply = run(sh("exec <&-; echo done"), vec![7; 1 << 20]).await.unwrap();
    assert_eq!(reply.body, "done\n");
}

#[tokio::test]
async fn a_failure_says_how_and_shows_the_end_of_the_errors() {
    let error = run(sh("yes | head -c 1000000 >&2; echo the end >&2; exit 7"), "").await;
    let error = error.unwrap_err();
    assert!(error.starts_with("sh exited with status 7: "), "{error}");
    assert!(error.ends_with("the end") && error.len() < 3 * 1024, "{} bytes", error.len());
    let error = run(sh("kill -9 $$"), "").await.unwrap_err();
    assert_eq!(error, "sh was killed by signal 9");
    let error = run(Exec::new("/no/such/program", [""; 0]), "").await.unwrap_err();
    assert!(error.starts_with("can't start /no/such/program: "), "{error}");
}

#[tokio::test]
async fn endless_output_is_cut_off() {
    let exec = sh("echo $$; exec yes").max_output_bytes(1000);
    let error = run(exec, "").await.unwrap_err();
    assert!(error.contains("more than 1000 bytes"), "{error}");
    let reply = run(sh("printf 1234").max_output_bytes(4), "").await.unwrap();
    assert_eq!(reply.body, "1234");
    let reply = run(sh("printf 1234").max_output_bytes(usize::MAX), "").await.unwrap();
    assert_eq!(reply.body, "1234");
}

#[tokio::test]
async fn dropped_it_ends_with_its_children() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pids");
    let script = format!("sleep 3600 & echo $$ $! > {}; wait", path.display());
    let running = tokio::spawn(sh(&script).call(job("")));
    let pids = read_soon(&path).await;
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    for pid in pids.split(' ') {
        until_gone(pid).await;
    }
}

#[tokio::test]
async fn what_it_leaves_behind_is_ended_and_not_waited_for() {
    let reply = run(sh("sleep 3600 & echo $!"), "").await.unwrap();
    until_gone(str::from_utf8(&reply.body).unwrap().trim()).await;
    // Without a hold on its pipes, too.
    let reply = run(sh("sleep 3600 >/dev/null 2>&1 </dev/null & echo $!"), "").await.unwrap();
    until_gone(str::from_utf8(&reply.body).unwrap().trim()).await;
}

#[tokio::test]
async fn output_is_emitted_while_the_program_runs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("go");
    let script =
        format!("printf one; until [ -e {} ]; do sleep 0.01; done; printf two", path.display());
    let job = job("");
    let line = job.line.clone();
    let mut running = tokio::spawn(sh(&script).call(job));
    until_emitted(&line, "one").await;
    assert!((&mut running).now_or_never().is_none());
    std::fs::write(&path, "").unwrap();
    let reply = running.await.unwrap().unwrap();
    assert_eq!(complete(&line, reply).body, "two");
}

#[tokio::test]
async fn a_long_input_goes_in_as_it_comes() {
    let job = Job { line: Line::dead_with_input(InputLength::Unknown), ..job("one\n") };
    let line = job.line.clone();
    let script = "while read -r word; do echo got $word; done";
    let running = tokio::spawn(sh(script).call(job));
    until_emitted(&line, "got one\n").await;
    line.chunk(0, false, "two\n");
    until_emitted(&line, "got two\n").await;
    line.chunk(1, true, "three\n");
    running.await.unwrap().unwrap();
    assert_eq!(complete(&line, HandlerReply::default()).body, "got three\n");
}
