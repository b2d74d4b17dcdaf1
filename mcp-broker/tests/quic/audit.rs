//! The audit log of a broker.

use std::path::Path;

use mcp_broker::{Broker, StartError};
use mcp_proto::{ActionName, ErrorCode, Message, Outcome, Task};
use serde_json::{Value, json};

use crate::support::{How, RawPeer, broker, dial, send, until};

fn records(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn audited(path: &Path) -> impl Future<Output = Broker> {
    broker(|config| config.audit.file = Some(path.to_owned()))
}

async fn degrade(client: &mut RawPeer, body: String) {
    let Message::Send(mut it) = send("act", "x") else { unreachable!() };
    let action = ActionName::try_from("mcp.admin.actions.degrade").unwrap();
    it.task = Task::new("act".try_into().unwrap(), action).encode();
    client.send(Message::Send(it), body).await;
    let (deliver, _) = client.receive_deliver().await;
    assert_eq!(deliver.outcome, Outcome::Ok);
}

#[tokio::test]
async fn who_did_what_is_written_line_by_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let broker = audited(&path).await;
    let mut client = RawPeer::client(&broker).await;
    let body = json!({"action": "upper", "why": "it is slow"});
    degrade(&mut client, body.to_string()).await;
    let _worker = RawPeer::worker(&broker, "w", "upper", 1).await;
    let mut stranger = RawPeer::connect(&broker).await;
    stranger.send(Message::Pong(1), "").await;
    stranger.expect_refusal(ErrorCode::UnexpectedFrame).await;
    dial(&broker, How { alpn: b"h3", ..How::USUAL }).await.unwrap_err();
    until("the handshake to be over", || records(&path).iter().any(|it| it["what"] == "handshake"))
        .await;
    broker.shutdown().await;

    let records = records(&path);
    let find = |kind: &str, what: &str| {
        let is_it = |it: &&Value| it["kind"] == kind && it["what"] == what;
        records.iter().find(is_it).unwrap_or_else(|| panic!("{kind} {what}: {records:#?}"))
    };
    assert_eq!(
        find("broker", "start")["details"]["epoch"].as_u64(),
        records[0]["details"]["epoch"].as_u64()
    );
    let connected = find("connect", "connection");
    assert_eq!(connected["identity"], "anonymous");
    assert_eq!(connected["details"], json!({"client": true}));
    assert!(connected["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    let degraded = find("degrade", "mcp.admin.actions.degrade");
    assert_eq!((&degraded["details"], &degraded["outcome"]), (&body, &json!("ok")));
    assert_eq!(degraded["connection"], connected["connection"]);
    assert_eq!(degraded["peer"], connected["peer"]);
    let refused = find("refuse", "connection");
    assert!(refused["reason"].as_str().unwrap().starts_with("UNEXPECTED_FRAME: "), "{refused}");
    let handshake = find("refuse", "handshake");
    assert!(handshake["peer"].is_string() && handshake["reason"].is_string(), "{handshake}");
    assert_eq!(records.last().unwrap()["what"], "stop");
    assert!(records.iter().any(|it| it["details"]["agent_id"] == "w"));
}

#[tokio::test]
async fn a_connection_that_is_one_too_many_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let broker = broker(|config| {
        config.audit.file = Some(path.clone());
        config.limits.max_connections = 1;
    })
    .await;
    let _first = RawPeer::client(&broker).await;
    dial(&broker, How::USUAL).await.unwrap_err();
    broker.shutdown().await;
    let is_it = |it: &Value| it["reason"] == "as many connections as allowed";
    assert!(records(&path).iter().any(is_it));
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_named_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = mcp_broker::Config::default();
    config.listen.set_port(0);
    config.audit.file = Some(dir.path().to_owned());
    let error = Broker::builder().config(config).start().await.unwrap_err();
    assert!(matches!(error, StartError::Audit { .. }), "{error:?}");
    assert!(error.to_string().contains(dir.path().to_str().unwrap()), "{error}");
}
