//! The broker at a glance, for operators.

use rustix::process::Signal;

use crate::command_line::{code, json, stderr};
use crate::support::{BrokerProcess, until, within};

async fn run(broker: &BrokerProcess, arguments: &[&str]) -> std::process::Output {
    within("mcpctl ends", broker.mcpctl(arguments).output()).await.unwrap()
}

#[tokio::test]
async fn a_status_says_how_the_broker_is_and_what_needs_a_look() {
    let mut broker = BrokerProcess::start().await;
    let worker = broker.worker("w", 3, &["cat"]).await;
    let output = run(&broker, &["call", "work", "--data", "x"]).await;
    assert_eq!(code(&output), Some(0), "{output:?}");
    let output = run(&broker, &["status"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let ready = format!(" at {}, up ", broker.address);
    for expected in [&*ready, "\nready    yes\n", "agents   1 ready; 0 of 3 slots", "\nwork "] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    assert!(!text.contains("needs a look"), "{text}");

    let client = broker.client().await;
    let degraded = client.degrade_action(&"work".try_into().unwrap(), None).await.unwrap();
    assert!(degraded.changed);
    worker.signal(Signal::KILL);
    let told = async || json(&run(&broker, &["status", "-o", "json"]).await);
    until("the worker is lost", || async { told().await["overview"]["agents"]["lost"] == 1 }).await;
    let told = told().await;
    assert_eq!((&told["ready"], &told["reason"]), (&true.into(), &().into()));
    let about: Vec<_> =
        told["attention"].as_array().unwrap().iter().map(|it| &it["about"]).collect();
    assert_eq!(about, ["work", "lost"]);
    assert_eq!(told["attention"][0]["run"], "mcpctl actions show work");

    client.close().await;
    broker.terminate();
    assert!(broker.ended().await.success());
    let output = run(&broker, &["status", "-o", "json"]).await;
    assert_eq!((code(&output), output.stdout.len()), (Some(5), 0), "{output:?}");
}

#[tokio::test]
async fn what_is_required_decides_whether_it_is_ready() {
    let broker = BrokerProcess::start_with("durable.enabled = false").await;
    assert_eq!(code(&run(&broker, &["status"]).await), Some(0));
    let output = run(&broker, &["status", "--require", "durable"]).await;
    assert_eq!(code(&output), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("\nready    no: "), "{output:?}");
}

#[tokio::test]
async fn without_a_terminal_top_prints_once() {
    let broker = BrokerProcess::start().await;
    let _worker = broker.worker("w", 3, &["cat"]).await;
    for arguments in [&["top"][..], &["top", "--once"]] {
        let output = run(&broker, arguments).await;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!((code(&output), &*stderr(&output)), (Some(0), ""), "{output:?}");
        assert!(text.contains("\nagents   1 ready") && text.contains("\nNODE "), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }
    let told = json(&run(&broker, &["top", "-o", "json"]).await);
    assert_eq!(told["agents"][0]["agent_id"], "w");
    assert_eq!(told["overview"]["agents"]["slots"], 3);
}
