//! The commands of the README, and the exit codes that scripts rely on.

use std::process::{Output, Stdio};

use rustix::process::Signal;
use tokio::io::AsyncWriteExt;

use crate::support::{BrokerProcess, PATIENCE, Process, until, within};

pub(crate) async fn run(broker: &BrokerProcess, arguments: &[&str]) -> Output {
    let mut command = broker.mcpctl(arguments);
    within("mcpctl ends", command.stdin(Stdio::null()).output()).await.unwrap()
}

pub(crate) fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_call_prints_its_result_and_nothing_else() {
    let broker = BrokerProcess::start().await;
    let _worker = broker.worker("upper-1", 2, &["tr", "a-z", "A-Z"]).await;
    let output = run(&broker, &["call", "work", "--data", "hello"]).await;
    assert_eq!((code(&output), &output.stdout[..]), (Some(0), &b"HELLO"[..]), "{output:?}");

    let output = run(&broker, &["agents", "ls", "-o", "json"]).await;
    let agents: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(agents[0]["agent_id"], "upper-1");
    assert_eq!(agents[0]["presence"], "online");
    for field in ["node_id", "readiness", "health", "actions", "labels", "slots", "in_flight"] {
        assert!(agents[0].get(field).is_some(), "{field} is missing");
    }
    assert!(agents[0]["last_seen_ms"].is_u64());
}

#[tokio::test]
async fn an_agent_is_drained_and_resumed() {
    let broker = BrokerProcess::start().await;
    let _worker = broker.worker("upper-1", 2, &["tr", "a-z", "A-Z"]).await;
    let output = run(&broker, &["agents", "drain", "upper-1", "--why", "new disk"]).await;
    assert_eq!(&output.stdout[..], b"upper-1: drained, and has no tasks\n", "{output:?}");
    let output = run(&broker, &["agents", "show", "upper-1"]).await;
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("drained   by anonymous: new disk"), "{shown}");
    let overview = broker.client().await.overview().await.unwrap();
    assert_eq!((overview.agents.draining, overview.agents.drained), (1, 1));
    assert_eq!((overview.actions[0].action.as_str(), overview.actions[0].ready), ("work", 0));
    let output = run(&broker, &["agents", "resume", "upper-1", "nobody"]).await;
    assert_eq!(
        (code(&output), &output.stdout[..]),
        (Some(1), &b"upper-1: may have tasks again\n"[..])
    );
    assert!(stderr(&output).contains("no agent nobody"), "{output:?}");
    let output = run(&broker, &["call", "work", "--data", "hello"]).await;
    assert_eq!((code(&output), &output.stdout[..]), (Some(0), &b"HELLO"[..]), "{output:?}");
}

#[tokio::test]
async fn a_call_that_nobody_serves_is_rejected() {
    let broker = BrokerProcess::start().await;
    let output = run(&broker, &["call", "nothing", "--ttl", "500ms"]).await;
    assert_eq!((code(&output), output.stdout.len()), (Some(4), 0));
    assert!(stderr(&output).contains("NO_WORKER"), "{output:?}");
}

#[tokio::test]
async fn a_handlers_failure_shows_the_tail_of_its_errors() {
    let broker = BrokerProcess::start().await;
    let _worker = broker.worker("w", 1, &["sh", "-c", "echo that went wrong >&2; exit 7"]).await;
    let output = run(&broker, &["call", "work"]).await;
    assert_eq!(code(&output), Some(1));
    assert!(stderr(&output).contains("that went wrong"), "{output:?}");
}

#[tokio::test]
async fn what_came_before_a_failure_is_no_result() {
    let broker = BrokerProcess::start().await;
    let script = "echo some; echo that went wrong >&2; exit 7";
    let _worker = broker.worker("w", 1, &["sh", "-c", script]).await;
    // The second time it is asked of what the broker keeps.
    for _ in 0..2 {
        let output = run(&broker, &["call", "work", "--no-stream", "--id", "t"]).await;
        assert_eq!((code(&output), output.stdout.len()), (Some(1), 0));
        assert!(stderr(&output).contains("that went wrong"), "{output:?}");
    }
}

#[tokio::test]
async fn a_result_that_went_elsewhere_in_parts_is_told_as_missing() {
    let broker = BrokerProcess::start().await;
    let _worker = broker.worker("w", 1, &["echo", "some"]).await;
    let call = ["call", "work", "--id", "t"];
    assert_eq!(run(&broker, &call).await.stdout, b"some\n");
    let output = run(&broker, &call).await;
    assert_eq!((code(&output), output.stdout.len()), (Some(1), 0));
    assert!(stderr(&output).contains("another client"), "{output:?}");
}

#[tokio::test]
async fn a_call_tries_again_when_it_is_told_to() {
    let broker = BrokerProcess::start().await;
    let script = "test $MCP_ATTEMPT = 3 && echo done";
    let _worker = broker.worker("w", 1, &["sh", "-c", script]).await;
    let output = run(&broker, &["call", "work", "--idempotent", "--retry", "1"]).await;
    assert_eq!(code(&output), Some(1), "{output:?}");
    let output = run(&broker, &["call", "work", "--idempotent", "--retry", "2"]).await;
    assert_eq!((code(&output), &output.stdout[..]), (Some(0), &b"done\n"[..]), "{output:?}");
    let output = run(&broker, &["call", "work", "--retry", "2"]).await;
    assert_eq!(code(&output), Some(2));
    assert!(stderr(&output).contains("--idempotent"), "{output:?}");
}

/// Whether a process is there whose command line has this in it.
fn is_running(mark: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        // Not the worker, whose own arguments have it too.
        let is_worker = command.windows(6).any(|it| it == b"--exec");
        !is_worker && command.windows(mark.len()).any(|it| it == mark.as_bytes())
    })
}

#[tokio::test]
async fn at_its_deadline_a_task_expires_and_its_process_ends_with_its_children() {
    let broker = BrokerProcess::start().await;
    // A number that nothing else on this machine sleeps for.
    let mark = format!("3600.{}1", std::process::id());
    let script = format!("sleep {mark} & sleep {mark}");
    let _worker = broker.worker("w", 1, &["sh", "-c", &script]).await;
    let call = broker.mcpctl(&["call", "work", "--ttl", "1s"]).output();
    let call = tokio::spawn(call);
    until("the handler runs", || async { is_running(&mark) }).await;
    let output = within("the call ends", call).await.unwrap().unwrap();
    assert_eq!(code(&output), Some(3), "{output:?}");
    until("its processes are gone", || async { !is_running(&mark) }).await;
}

#[tokio::test]
async fn an_interrupted_call_cancels_its_task() {
    let broker = BrokerProcess::start().await;
    let mark = format!("3600.{}2", std::process::id());
    let _worker = broker.worker("w", 1, &["sleep", &mark]).await;
    let mut call = Process::start(&mut broker.mcpctl(&["call", "work", "--ttl", "60s"]));
    until("the handler runs", || async { is_running(&mark) }).await;
    call.signal(Signal::INT);
    assert_eq!(call.ended().await.code(), Some(130));
    until("its process is gone", || async { !is_running(&mark) }).await;
}

#[tokio::test]
async fn without_a_broker_a_call_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let broker = BrokerProcess::start().await;
    let ca = broker.state().join("ca.pem");
    let ca = ca.to_str().unwrap();
    let output = run(&broker, &["call", "x", "--no-such-flag"]).await;
    assert_eq!(code(&output), Some(2));
    let mut command = tokio::process::Command::new(crate::support::program("mcpctl"));
    command.args(["--broker", "127.0.0.1:9", "--ca", ca, "call", "x"]).current_dir(dir.path());
    command.env_remove("MCP_STATE");
    let output = within("mcpctl ends", command.output()).await.unwrap();
    assert_eq!(code(&output), Some(5), "{output:?}");
    assert!(stderr(&output).contains("127.0.0.1:9"), "{output:?}");
}

#[tokio::test]
async fn send_answers_each_line_and_goes_on_after_a_bad_one() {
    let broker = BrokerProcess::start().await;
    let _worker = broker.worker("w", 2, &["cat"]).await;
    let mut child = broker
        .mcpctl(&["send", "--file", "-", "--in-flight", "2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let line = |id: &str| {
        format!(
            "{{\"mcp_version\":\"1.0\",\"task_id\":\"{id}\",\"action\":\"work\",\
             \"payload\":{{\"n\":1}},\"ttl\":{}}}\n",
            PATIENCE.as_secs()
        )
    };
    let input = format!("{}not json\n{}", line("a"), line("b"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    let output = within("send ends", child.wait_with_output()).await.unwrap();
    assert!(stderr(&output).contains("line 2: "), "{output:?}");
    let mut ids: Vec<String> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| {
            let result: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!((&result["outcome"], &result["executed"]), (&"ok".into(), &"yes".into()));
            assert_eq!(result["context_trace"]["hops"][0]["event"], "completed");
            result["task_id"].as_str().unwrap().to_owned()
        })
        .collect();
    ids.sort();
    assert_eq!(ids, ["a", "b"]);
}

pub(crate) fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[tokio::test]
async fn bench_measures_in_a_closed_and_an_open_loop() {
    let broker = BrokerProcess::start().await;
    let _worker = broker.worker("w", 2, &["cat"]).await;
    let arguments = ["bench", "work", "--secs", "0.5", "--in-flight", "3", "-o", "json"];
    let output = run(&broker, &arguments).await;
    let closed = json(&output);
    assert_eq!((code(&output), closed["loop"].as_str()), (Some(0), Some("closed")), "{output:?}");
    assert!(closed["tasks"].as_u64() > Some(0));
    assert_eq!(closed["outcomes"]["ok"], closed["tasks"]);
    for quantile in ["p50", "p90", "p99", "p99_9", "max"] {
        assert!(closed["latency_us"][quantile].as_u64() > Some(0), "{quantile} in {output:?}");
    }
    assert!(closed["first_error"].is_null() && closed["rate"].is_null());

    let arguments = ["bench", "work", "--secs", "0.5", "--rate", "20", "-o", "json"];
    let output = run(&broker, &arguments).await;
    let open = json(&output);
    assert_eq!((code(&output), open["loop"].as_str()), (Some(0), Some("open")), "{output:?}");
    // Each of them has its time, and is sent or told as unsent.
    let [ok, unsent] = [&open["outcomes"]["ok"], &open["unsent"]].map(|it| it.as_u64().unwrap());
    assert_eq!(ok + unsent, 10, "{open}");
    assert_eq!(stderr(&output), "");
}

#[tokio::test]
async fn bench_tells_the_first_task_that_did_not_end_ok() {
    let broker = BrokerProcess::start().await;
    let _worker = broker.worker("w", 1, &["sh", "-c", "echo that went wrong >&2; exit 7"]).await;
    let output = run(&broker, &["bench", "work", "--secs", "0.2", "-o", "json"]).await;
    let result = json(&output);
    assert_eq!((code(&output), &result["outcomes"]["failed"]), (Some(1), &result["tasks"]));
    assert!(result["first_error"].as_str().unwrap().contains("that went wrong"), "{result}");
    assert!(result["latency_us"].is_null());
}

#[tokio::test]
async fn an_interrupted_bench_cancels_its_tasks_and_tells_what_was_done() {
    let broker = BrokerProcess::start().await;
    let mark = format!("3600.{}3", std::process::id());
    let _worker = broker.worker("w", 1, &["sleep", &mark]).await;
    let arguments = ["bench", "work", "--secs", "3600", "--ttl", "1h", "-o", "json"];
    let mut command = broker.mcpctl(&arguments);
    command.stdout(Stdio::piped());
    let mut bench = Process::start(&mut command);
    until("a handler runs", || async { is_running(&mark) }).await;
    bench.signal(Signal::INT);
    let result: serde_json::Value = serde_json::from_str(&bench.stdout().await).unwrap();
    assert_eq!(result["outcomes"]["cancelled"], 64, "{result}");
    assert_eq!(bench.ended().await.code(), Some(130));
    until("its process is gone", || async { !is_running(&mark) }).await;
}

#[tokio::test]
async fn a_terminated_worker_finishes_first() {
    let broker = BrokerProcess::start().await;
    let dir = tempfile::tempdir().unwrap();
    let started = dir.path().join("started");
    let script = format!("touch {}; sleep 0.5; echo done", started.display());
    let mut worker = broker.worker("w", 1, &["sh", "-c", &script]).await;
    let client = broker.client().await;
    let task = client.task("work").ttl(PATIENCE).send().await.unwrap();
    until("the handler runs", || async { started.exists() }).await;
    worker.signal(Signal::TERM);
    let end = within("the task ends", task).await;
    assert_eq!(end.body, "done\n", "{end:?}");
    assert_eq!(worker.ended().await.code(), Some(0));
}

#[tokio::test]
async fn an_operator_finds_a_task_sees_where_it_is_and_ends_it() {
    let broker = BrokerProcess::start().await;
    let mark = format!("3600.{}4", std::process::id());
    let _worker = broker.worker("w", 1, &["sleep", &mark]).await;
    let call = broker.mcpctl(&["call", "work", "--id", "runs", "--ttl", "60s"]).output();
    let call = tokio::spawn(call);
    until("the handler runs", || async { is_running(&mark) }).await;
    let output = run(&broker, &["call", "work", "--id", "waits", "--ttl", "1ms"]).await;
    assert_eq!(code(&output), Some(3), "{output:?}");

    let listed = json(&run(&broker, &["tasks", "ls", "-o", "json"]).await);
    let [runs, waits] = [0, 1].map(|index| &listed["tasks"][index]["task_id"]);
    assert_eq!((runs, waits), (&"runs".into(), &"waits".into()));
    assert_eq!((listed["tasks"].as_array().unwrap().len(), &listed["more"]), (2, &false.into()));
    let output = run(&broker, &["tasks", "ls", "--status", "running", "--agent", "w"]).await;
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(table.starts_with("TASK") && table.contains("\nruns"), "{table}");
    assert_eq!((code(&output), table.lines().count()), (Some(0), 2), "{table}");

    let output = run(&broker, &["tasks", "show", "runs"]).await;
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("\nagent     w, node n-"),
        "{output:?}"
    );
    let shown = json(&run(&broker, &["tasks", "show", "waits", "-o", "json"]).await);
    assert_eq!((&shown["status"], &shown["error"]["code"]), (&"expired".into(), &"EXPIRED".into()));

    let output = run(&broker, &["tasks", "cancel", "runs", "nothing", "waits"]).await;
    assert_eq!(code(&output), Some(1));
    let told = "runs: cancelled\nwaits: had ended already: expired\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), told);
    assert!(stderr(&output).contains("no task nothing: it never came"), "{output:?}");
    let output = within("the call ends", call).await.unwrap().unwrap();
    assert_eq!(code(&output), Some(130), "{output:?}");
    assert!(stderr(&output).contains("cancelled by an operator"), "{output:?}");
    until("its process is gone", || async { !is_running(&mark) }).await;
    let output = run(&broker, &["tasks", "cancel", "runs"]).await;
    assert_eq!((code(&output), &output.stdout[..7]), (Some(0), &b"runs: h"[..]), "{output:?}");
    assert_eq!(code(&run(&broker, &["tasks", "show", "nothing"]).await), Some(1));
}

#[tokio::test]
async fn an_operator_changes_the_rules_of_an_action_and_asks_who_would_get_a_task() {
    let broker = BrokerProcess::start().await;
    let _workers = [
        broker.worker("a", 1, &["tr", "a-z", "A-Z"]).await,
        broker.worker("b", 1, &["tr", "a-z", "A-Z"]).await,
    ];
    let listed = json(&run(&broker, &["actions", "ls", "-o", "json"]).await);
    assert_eq!((&listed["actions"][0]["action"], &listed["more"]), (&"work".into(), &false.into()));
    assert_eq!(listed["actions"][0]["ready"], 2);

    let output = run(&broker, &["actions", "set", "work", "policy=round_robin"]).await;
    let toml = "[actions.work]\npolicy = \"round_robin\"\n";
    assert_eq!((code(&output), &*String::from_utf8_lossy(&output.stdout)), (Some(0), toml));
    assert!(stderr(&output).contains("configuration file"), "{output:?}");
    let output = run(&broker, &["actions", "set", "work", "policy=dice"]).await;
    assert_eq!(code(&output), Some(1));
    assert!(stderr(&output).contains("round_robin"), "{output:?}");
    let shown = String::from_utf8(run(&broker, &["actions", "show", "work"]).await.stdout).unwrap();
    assert!(shown.contains("\n  policy=\"round_robin\""), "{shown}");

    let told = json(&run(&broker, &["explain", "work", "-o", "json"]).await);
    let next = told["workers"][0]["agent_id"].as_str().unwrap();
    assert_eq!(
        (&told["decision"], &told["workers"][0]["probability"]),
        (&"route".into(), &1.0.into())
    );
    let output = run(&broker, &["call", "work", "--data", "hello", "--explain"]).await;
    assert_eq!((code(&output), &output.stdout[..]), (Some(0), &b"HELLO"[..]));
    let why =
        format!("attempt 1 went to {next}: it is its turn, of 2 workers with room; completed\n");
    assert!(stderr(&output).starts_with(&why), "{output:?}");
    let output = run(&broker, &["explain", "work", "--label", "gpu=a100"]).await;
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(
        told.starts_with("it would wait (NO_WORKER): ") && told.contains("lacks gpu=a100"),
        "{told}"
    );

    let output = run(&broker, &["actions", "reset", "work"]).await;
    assert_eq!(code(&output), Some(0), "{output:?}");
    let shown = json(&run(&broker, &["actions", "show", "work", "-o", "json"]).await);
    assert_eq!(
        (&shown["policy"], &shown["rules_from"]),
        (&"least_loaded".into(), &"common".into())
    );
    assert_eq!(code(&run(&broker, &["actions", "show", "nothing"]).await), Some(1));
}
