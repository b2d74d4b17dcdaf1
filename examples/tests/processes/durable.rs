//! Durable tasks, whoever is killed: none is lost that was accepted, and each result is had once.

use std::collections::HashMap;
use std::process::Stdio;
use std::time::Duration;

use mcp_client::{Client, Delivery, ErrorCode, Fetched, Outcome, TaskBuilder, TaskId};
use rustix::process::Signal;

use crate::command_line::{code, json, run, stderr};
use crate::support::{
    BrokerProcess, Ledger, PATIENCE, Process, counting_worker, until, until_listed, within,
};

const SOON: Duration = Duration::from_millis(20);

fn durable(client: &Client, id: &str) -> TaskBuilder {
    client.task("work").id(id).body("input").ttl(PATIENCE).delivery(Delivery::Durable)
}

fn id(name: &str) -> TaskId {
    TaskId::try_from(name).unwrap()
}

async fn until_known(broker: &BrokerProcess, id: &str) {
    until("the broker knows the task", || async {
        code(&run(broker, &["tasks", "result", id]).await) == Some(7)
    })
    .await;
}

#[tokio::test]
async fn a_client_that_was_killed_is_survived_by_its_task_and_another_has_the_result_once() {
    let broker = BrokerProcess::start().await;
    let call = ["call", "work", "--durable", "--id", "t", "--data", "hello", "--ttl", "60s"];
    let mut call = Process::start(&mut broker.mcpctl(&call));
    until_known(&broker, "t").await;
    call.signal(Signal::KILL);
    call.ended().await;

    let output = run(&broker, &["tasks", "result", "t", "-o", "json"]).await;
    assert_eq!(json(&output)["status"], "queued");
    let _worker = broker.worker("w", 1, &["tr", "a-z", "A-Z"]).await;
    let output = run(&broker, &["tasks", "result", "t", "--wait", "--settle"]).await;
    assert_eq!((code(&output), &output.stdout[..]), (Some(0), &b"HELLO"[..]), "{output:?}");

    // Only its id is known now, and after the next start of the broker.
    let broker = killed_and_started_again(broker).await;
    let output = run(&broker, &["tasks", "result", "t"]).await;
    assert_eq!((code(&output), output.stdout.len()), (Some(4), 0), "{output:?}");
    assert!(stderr(&output).contains("SETTLED"), "{output:?}");
    let output = run(&broker, &["tasks", "result", "u", "-o", "json"]).await;
    assert_eq!((code(&output), &json(&output)["status"]), (Some(6), &"unknown".into()));
    assert!(stderr(&output).contains("no task u"), "{output:?}");
}

async fn killed_and_started_again(mut broker: BrokerProcess) -> BrokerProcess {
    broker.kill();
    broker.ended().await;
    broker.start_again().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_before_the_broker_was_killed_is_done_after_it() {
    let broker = BrokerProcess::start().await;
    let client = broker.client().await;
    let mut handles = Vec::new();
    for number in 0..50 {
        let mut handle = durable(&client, &format!("t-{number}")).send().await.unwrap();
        within("it is accepted", handle.accepted()).await.unwrap();
        handles.push(handle);
    }
    // One of them with nobody who waits for it, and one that was not sent before.
    let forgotten = handles.pop().map(|handle| handle.id().clone()).unwrap();
    let mut broker = broker;
    broker.kill();
    broker.ended().await;
    handles.push(durable(&client, "late").send().await.unwrap());

    let broker = broker.start_again().await;
    let ledger = Ledger::default();
    let _worker = counting_worker(broker.endpoint(), "w", 8, SOON, &ledger).await;
    for handle in handles {
        let end = within("every task ends", handle).await;
        assert_eq!((end.outcome, &end.body[..]), (Outcome::Ok, &b"input"[..]), "{end:?}");
    }
    let end = within("the result is there", client.result(&forgotten)).await.unwrap().unwrap();
    assert_eq!(end.outcome, Outcome::Ok);
    assert_eq!((ledger.runs(), ledger.most_runs_of_a_task()), (51, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_handlers_run_it_has_them_run_again() {
    let broker = BrokerProcess::start().await;
    let client = broker.client().await;
    let ledger = Ledger::default();
    let _worker = counting_worker(broker.endpoint(), "w", 4, 10 * SOON, &ledger).await;
    let mut handles = Vec::new();
    for number in 0..100 {
        handles.push(durable(&client, &format!("t-{number}")).send().await.unwrap());
    }
    until("a part of the tasks is done", || async { client.pending() < 80 }).await;
    let broker = killed_and_started_again(broker).await;
    until_listed(&client, &["w"]).await;
    for handle in handles {
        let end = within("every task ends", handle).await;
        assert_eq!(end.outcome, Outcome::Ok, "{end:?}");
    }
    assert_eq!(ledger.runs(), 100);
    drop(broker);
}

#[tokio::test]
async fn a_call_goes_on_over_a_restart_of_the_broker() {
    let broker = BrokerProcess::start().await;
    let call = ["call", "work", "--durable", "--id", "t", "--data", "hello", "--ttl", "60s"];
    let mut command = broker.mcpctl(&call);
    let mut call = Process::start(command.stdout(Stdio::piped()));
    until_known(&broker, "t").await;
    let broker = killed_and_started_again(broker).await;
    let _worker = broker.worker("w", 1, &["tr", "a-z", "A-Z"]).await;
    assert_eq!(call.stdout().await, "HELLO");
    assert_eq!(call.ended().await.code(), Some(0));
    // It was printed, so nobody needs it any more.
    let stats = broker.client().await.task("mcp.admin.stats").call().await.unwrap();
    let stats: serde_json::Value = serde_json::from_slice(&stats.body).unwrap();
    assert_eq!((&stats["durable"]["ended"], &stats["durable"]["settled"]), (&0.into(), &1.into()));
}

#[tokio::test]
async fn detached_it_is_only_accepted() {
    let broker = BrokerProcess::start().await;
    let call = ["call", "work", "--durable", "--detach", "--data", "hello", "--ttl", "60s"];
    let output = run(&broker, &call).await;
    assert_eq!(code(&output), Some(0), "{output:?}");
    let told = String::from_utf8(output.stdout).unwrap();
    let id = told.trim_end();
    let broker = killed_and_started_again(broker).await;
    let _worker = broker.worker("w", 1, &["tr", "a-z", "A-Z"]).await;
    let output = run(&broker, &["tasks", "result", id, "--wait"]).await;
    assert_eq!((code(&output), &output.stdout[..]), (Some(0), &b"HELLO"[..]), "{output:?}");
    // Nothing comes of it being asked twice.
    assert_eq!(run(&broker, &["tasks", "result", id]).await.stdout, b"HELLO");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delayed_task_waits_for_its_time_over_a_restart() {
    let broker = BrokerProcess::start().await;
    let later = ["call", "work", "--durable", "--detach", "--id", "later", "--delay", "1h"];
    assert_eq!(code(&run(&broker, &later).await), Some(0));
    let broker = killed_and_started_again(broker).await;
    let client = broker.client().await;
    let ledger = Ledger::default();
    let _worker = counting_worker(broker.endpoint(), "w", 4, SOON, &ledger).await;
    let soon = durable(&client, "soon").delay(Duration::from_millis(300)).call();
    let reply = within("its time comes", soon).await.unwrap();
    assert!(reply.trace.decode().total_us >= 300_000, "{:?}", reply.trace);
    // It came before, and a worker was free all the time.
    assert_eq!(client.try_result(&id("later")).await.unwrap(), Fetched::Queued);
    assert_eq!(ledger.runs(), 1);
    let listed = json(&run(&broker, &["tasks", "ls", "--status", "delayed", "-o", "json"]).await);
    let left_ms = listed["tasks"][0]["ttl_left_ms"].as_u64().unwrap();
    assert!((3_590_000..=3_630_000).contains(&left_ms), "{listed}");
    let output = run(&broker, &["call", "work", "--delay", "1h", "--ttl", "1h"]).await;
    assert_eq!(code(&output), Some(2));
    assert!(stderr(&output).contains("its time to live 3600s"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sent_again_under_its_id_it_is_not_done_again() {
    let broker = BrokerProcess::start().await;
    let ledger = Ledger::default();
    let worker = counting_worker(broker.endpoint(), "w", 1, SOON, &ledger).await;
    let client = broker.client().await;
    let reply = durable(&client, "t").settle_manually().call().await.unwrap();
    assert_eq!(reply.body, "input");
    // So that no result is at hand but that of the journal.
    let broker = killed_and_started_again(broker).await;
    let client = broker.client().await;
    let reply = within("it is answered", durable(&client, "t").settle_manually().call()).await;
    assert_eq!(reply.unwrap().body, "input");
    let error = durable(&client, "t").body("other").call().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::DuplicateMismatch));

    client.settle(&id("t"));
    let broker = killed_and_started_again_after(broker, &client).await;
    let client = broker.client().await;
    let error = within("it is answered", durable(&client, "t").call()).await.unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), (Some(ErrorCode::Settled), false));
    assert_eq!((ledger.runs(), ledger.most_runs_of_a_task()), (1, 1));
    drop(worker);
}

/// Once what was sent has arrived, and is on disk.
async fn killed_and_started_again_after(broker: BrokerProcess, client: &Client) -> BrokerProcess {
    let mut marker = durable(client, "marker").delay(Duration::from_secs(30)).send().await.unwrap();
    within("the marker is accepted", marker.accepted()).await.unwrap();
    killed_and_started_again(broker).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_a_thousand_lines_has_one_result_though_the_broker_is_killed() {
    const LINES: usize = 1_000;
    let broker = BrokerProcess::start().await;
    let ledger = Ledger::default();
    let _worker = counting_worker(broker.endpoint(), "w", 32, SOON / 10, &ledger).await;
    let file = broker.state().join("tasks.jsonl");
    let line = |number: usize| {
        format!(
            "{{\"mcp_version\":\"1.0\",\"task_id\":\"t-{number}\",\"action\":\"work\",\
             \"payload\":{number},\"ttl\":{}}}\n",
            PATIENCE.as_secs()
        )
    };
    std::fs::write(&file, (0..LINES).map(line).collect::<String>()).unwrap();
    let mut command = broker.mcpctl(&["send", "--durable", "--file", file.to_str().unwrap()]);
    let mut send = Process::start(command.stdout(Stdio::piped()).stderr(Stdio::null()));
    let (output, broker) = tokio::join!(send.stdout(), async {
        let mut broker = broker;
        for part in [LINES / 4, LINES / 2] {
            until("a part of the lines is done", || async { ledger.runs() > part }).await;
            broker = killed_and_started_again(broker).await;
        }
        broker
    });
    assert_eq!(send.ended().await.code(), Some(0), "{output}");
    let mut outcomes = HashMap::new();
    for line in output.lines() {
        let result: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(result["outcome"], "ok", "{result}");
        let number = result["task_id"].as_str().unwrap().trim_start_matches("t-").to_owned();
        assert_eq!(result["body"], number);
        *outcomes.entry(number).or_insert(0) += 1;
    }
    assert_eq!((outcomes.len(), outcomes.values().max()), (LINES, Some(&1)));
    drop(broker);
}

#[tokio::test]
async fn an_operator_has_a_dead_letter_done_again_and_drops_another() {
    let broker = BrokerProcess::start().await;
    let worker = broker.worker("w", 1, &["sh", "-c", "echo that went wrong >&2; exit 7"]).await;
    for id in ["a", "b", "c"] {
        let call = ["call", "work", "--durable", "--id", id, "--data", "hello", "--ttl", "60s"];
        assert_eq!(code(&run(&broker, &call).await), Some(1));
    }
    drop(worker);
    let broker = killed_and_started_again(broker).await;
    let listed = json(&run(&broker, &["dlq", "ls", "-o", "json"]).await);
    let ids = listed["dead_letters"].as_array().unwrap().iter().map(|it| &it["task_id"]);
    assert_eq!(ids.collect::<Vec<_>>(), ["c", "b", "a"]);
    let output = run(&broker, &["dlq", "ls"]).await;
    assert!(output.stdout.starts_with(b"TASK"), "{output:?}");
    let shown = String::from_utf8(run(&broker, &["dlq", "show", "a"]).await.stdout).unwrap();
    for part in ["HANDLER_FAILED", "that went wrong", "5 bytes", "\nhello\n"] {
        assert!(shown.contains(part), "{part} is missing:\n{shown}");
    }

    let output = run(&broker, &["dlq", "drop", "b", "nothing"]).await;
    assert_eq!((code(&output), &output.stdout[..]), (Some(1), &b"b: dropped\n"[..]));
    assert!(stderr(&output).contains("no dead letter nothing"), "{output:?}");
    let replay = ["dlq", "replay", "--all", "--action", "work", "--ttl", "60s"];
    let output = run(&broker, &replay).await;
    assert_eq!(output.stdout, b"c: replayed\na: replayed\n", "{output:?}");
    let broker = killed_and_started_again(broker).await;
    let _worker = broker.worker("w", 1, &["tr", "a-z", "A-Z"]).await;
    for id in ["a", "c"] {
        let output = run(&broker, &["tasks", "result", id, "--wait", "--settle"]).await;
        assert_eq!((code(&output), &output.stdout[..]), (Some(0), &b"HELLO"[..]), "{output:?}");
    }
    let listed = json(&run(&broker, &["dlq", "ls", "-o", "json"]).await);
    assert_eq!(listed["dead_letters"], serde_json::json!([]));
}
