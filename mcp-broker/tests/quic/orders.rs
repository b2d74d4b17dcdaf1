//! What operators have said holds over restarts of the broker.

use std::path::Path;

use mcp_broker::Broker;
use serde_json::{Value, json};

use crate::admin::get;
use crate::console::{look, post};
use crate::support::{RawPeer, result, send, until};

async fn start(state: &Path) -> Broker {
    let admin = "127.0.0.1:0".parse().unwrap();
    Broker::builder().state_dir(state).admin(admin).start().await.unwrap()
}

#[tokio::test]
async fn what_is_drained_and_degraded_stays_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("orders.json");
    let is_kept = |what: &str| {
        let (file, what) = (file.clone(), format!("\"{what}\""));
        move || std::fs::read_to_string(&file).is_ok_and(|text| text.contains(&what))
    };

    let first = start(dir.path()).await;
    let admin = first.admin_addr().unwrap();
    let worker = RawPeer::worker(&first, "w", "work", 1).await;
    let drained = post(admin, "agents/drain", &json!({"agent": "w", "why": "new disk"})).await;
    assert_eq!(drained.status, 200, "{}", drained.body);
    until("the drain is kept", is_kept("w")).await;
    // What is said last is kept by an orderly end.
    let degraded = post(admin, "actions/degrade", &json!({"action": "pay"})).await;
    assert_eq!(degraded.status, 200, "{}", degraded.body);
    drop(worker);
    first.shutdown().await;
    assert!(is_kept("pay")());

    let second = start(dir.path()).await;
    let admin = second.admin_addr().unwrap();
    let mut worker = RawPeer::worker(&second, "w", "work", 1).await;
    let shown = look(admin, "agents/show?agent=w").await;
    let who = json!({"by": "console", "why": "new disk"});
    for key in ["by", "why"] {
        assert_eq!(shown["drained"][key], who[key], "{shown}");
    }
    let mut client = RawPeer::client(&second).await;
    client.send(send("t", "work"), "").await;
    client.expect_alive().await;
    assert_eq!(look(admin, "tasks/show?task_id=t").await["status"], "queued");
    assert!(look(admin, "actions/show?action=pay").await["degraded"].is_object());
    assert_eq!(post(admin, "agents/resume", &json!({"agent": "w"})).await.status, 200);
    let (route, _) = worker.receive_route().await;
    worker.send(result(&route), "").await;
    client.receive_deliver().await;
    assert_eq!(post(admin, "actions/restore", &json!({"action": "pay"})).await.status, 200);
    second.shutdown().await;

    let third = start(dir.path()).await;
    let answer = get(third.admin_addr().unwrap(), "/api/v1/agents/show?agent=w").await;
    assert_eq!((answer.status, answer.body.as_str()), (404, "null"));
    third.shutdown().await;
}

#[tokio::test]
async fn a_file_that_is_not_understood_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("orders.json");
    for text in ["", "{", "{\"drained\": 1}", "{\"drained\": {\"\": {}}}"] {
        std::fs::write(&file, text).unwrap();
        let broker = start(dir.path()).await;
        let overview: Value = look(broker.admin_addr().unwrap(), "overview").await;
        assert_eq!(overview["agents"]["drained"], 0, "{overview}");
        assert!(!file.exists());
        let aside = std::fs::read_to_string(dir.path().join("orders.json.unreadable")).unwrap();
        assert_eq!(aside, text);
        broker.shutdown().await;
    }
}

#[tokio::test]
async fn what_can_not_be_written_is_tried_again_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("orders.json");
    let broker = start(dir.path()).await;
    let admin = broker.admin_addr().unwrap();
    // Nothing can be put in its place.
    std::fs::create_dir_all(file.join("in-the-way")).unwrap();
    for action in ["pay", "ship"] {
        let degraded = post(admin, "actions/degrade", &json!({"action": action})).await;
        assert_eq!(degraded.status, 200, "{}", degraded.body);
    }
    // What is to be renamed is left beside it.
    let new = dir.path().join("orders.json.new");
    let is_tried = || std::fs::read_to_string(&new).is_ok_and(|text| text.contains("ship"));
    until("it is tried", is_tried).await;
    assert!(file.is_dir());
    std::fs::remove_dir_all(&file).unwrap();
    broker.shutdown().await;
    let kept = std::fs::read_to_string(&file).unwrap();
    assert!(kept.contains("pay") && kept.contains("ship"), "{kept}");
}

#[tokio::test]
async fn nothing_is_written_where_nothing_was_said() {
    let dir = tempfile::tempdir().unwrap();
    start(dir.path()).await.shutdown().await;
    assert!(!dir.path().join("orders.json").exists());
}
