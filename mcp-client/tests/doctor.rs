//! `mcpctl doctor`: each reason for which there is no connection is found where it is.

#![allow(clippy::unwrap_used)]

mod support;

use std::net::UdpSocket;
use std::path::Path;

use mcp_client::{Bytes, ErrorCode, ErrorInfo, Executed, Outcome};
use mcp_proto::{ALPN, Deliver, Message};
use serde_json::Value;
use support::{Authority, FakeBroker, Peer, ack, soon};
use tokio::process::Command;

/// What the doctor says of a broker at this address, and the exit status.
async fn examined(address: &str, ca_pem: &str, more: &[&str]) -> (Value, i32) {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, ca_pem).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcpctl"));
    command.args(["doctor", "-o", "json", "--broker", address, "--ca"]).arg(ca).args(more);
    run(command, dir.path()).await
}

async fn run(mut command: Command, dir: &Path) -> (Value, i32) {
    for name in ["MCP_STATE", "MCP_BROKER", "MCP_CA", "MCP_TOKEN", "MCP_TOKEN_FILE", "MCP_CERT"] {
        command.env_remove(name);
    }
    command.env_remove("MCP_KEY").env_remove("MCPCTL_CONTEXT");
    command.env("MCPCTL_CONFIG", dir.join("none.toml")).kill_on_drop(true);
    let output = soon(command.output()).await.unwrap();
    let told: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let code = output.status.code().unwrap();
    assert_eq!(told["ok"], code == 0, "{told}");
    (told, code)
}

/// Meanwhile the broker shakes hands.
async fn examined_by(broker: &FakeBroker, ca_pem: &str, more: &[&str]) -> (Value, i32) {
    let address = broker.address.to_string();
    let shake_hands = async {
        while let Some(incoming) = broker.incoming().await {
            drop(incoming.await);
        }
        unreachable!("the broker is there")
    };
    tokio::select! {
        told = examined(&address, ca_pem, more) => told,
        () = shake_hands => unreachable!(),
    }
}

/// That one step failed, all before it are ok, and those after it were skipped.
#[track_caller]
fn assert_failed((told, code): &(Value, i32), step: &str, seen: &str) {
    let checks = told["checks"].as_array().unwrap();
    assert_eq!(checks.len(), 9, "{told}");
    let at = checks.iter().position(|it| it["name"] == step).unwrap();
    for (index, check) in checks.iter().enumerate() {
        let expected = match index {
            _ if index < at => "ok",
            _ if index == at => "failed",
            _ => "skipped",
        };
        assert_eq!(check["result"], expected, "{told}");
        assert_eq!(check["advice"].is_string(), index == at, "{told}");
    }
    assert!(checks[at]["seen"].as_str().unwrap().contains(seen), "{told}");
    assert_ne!(*code, 0);
}

#[tokio::test]
async fn what_is_said_of_the_broker_is_wrong() {
    let ca_pem = Authority::new("localhost").ca_pem;
    let told = examined("127.0.0.1:x", &ca_pem, &[]).await;
    assert_failed(&told, "settings", "the port is not a number");
    assert_eq!(told.1, 2);
    assert_failed(&examined("127.0.0.1:1", "no PEM", &[]).await, "files", "has no certificate");
    let told = examined("127.0.0.1:1", &ca_pem, &["--token-file", "/nowhere/token"]).await;
    assert_failed(&told, "files", "/nowhere/token");
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcpctl"));
    command.args(["doctor", "-o", "json", "--state"]).arg(dir.path());
    let told = run(command, dir.path()).await;
    assert_failed(&told, "files", "address");
    assert_eq!(told.1, 5);
}

#[tokio::test]
async fn the_host_has_no_address() {
    let ca_pem = Authority::new("localhost").ca_pem;
    let told = examined("host.invalid:7447", &ca_pem, &[]).await;
    assert_failed(&told, "name", "host.invalid");
    assert_eq!(told.1, 5);
}

#[tokio::test]
async fn nothing_answers() {
    // Bound, so that nobody else is; never read.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let ca_pem = Authority::new("localhost").ca_pem;
    let told = examined(&address, &ca_pem, &["--timeout", "300ms"]).await;
    assert_failed(&told, "udp", "no answer");
    drop(socket);
    if cfg!(target_os = "linux") {
        let told = examined(&address, &ca_pem, &["--timeout", "1h"]).await;
        assert_failed(&told, "udp", "nothing listens");
    }
}

#[tokio::test]
async fn something_else_listens_there() {
    let broker = FakeBroker::start_with(&Authority::new("localhost"), b"h3", 0);
    let told = examined_by(&broker, &broker.ca_pem, &["--server-name", "localhost"]).await;
    assert_failed(&told, "protocol", "not of the protocol");
}

#[tokio::test]
async fn its_certificate_does_not_hold() {
    let broker = FakeBroker::start();
    let other = Authority::new("localhost").ca_pem;
    let told = examined_by(&broker, &other, &["--server-name", "localhost"]).await;
    assert_failed(&told, "tls", "invalid peer certificate");
    let told = examined_by(&broker, &broker.ca_pem, &["--server-name", "elsewhere.example"]).await;
    assert_failed(&told, "tls", "only valid for");

    for (years, seen) in [([1975, 1976], "expired"), ([4000, 4001], "not valid yet")] {
        let broker = FakeBroker::start_with(&Authority::valid("localhost", years), ALPN, 0);
        let told = examined_by(&broker, &broker.ca_pem, &["--server-name", "localhost"]).await;
        assert_failed(&told, "tls", seen);
        let clock = &told.0["checks"][8]["seen"];
        assert!(clock.as_str().unwrap().contains("here it is"), "{clock}");
    }
}

#[tokio::test]
async fn it_refuses_this_side() {
    for (code, step) in [
        (ErrorCode::Unauthenticated, "authentication"),
        (ErrorCode::Forbidden, "authentication"),
        (ErrorCode::UnsupportedVersion, "version"),
        (ErrorCode::ShuttingDown, "protocol"),
    ] {
        let broker = FakeBroker::start();
        let address = broker.address.to_string();
        let refuse = async {
            let mut peer = broker.accept().await;
            let info = ErrorInfo::new(code, "because\nof this");
            peer.send(Message::Error(Box::new(info)), Bytes::new()).await;
            peer
        };
        let more = ["--server-name", "localhost"];
        let (told, _peer) = tokio::join!(examined(&address, &broker.ca_pem, &more), refuse);
        assert_failed(&told, step, "because; of this");
    }
}

/// Answers what is asked of the broker.
async fn answer(peer: &mut Peer, with: impl Fn(&mut Deliver) -> Bytes) {
    peer.ack(ack()).await;
    let (task, ..) = peer.recv_task().await;
    assert_eq!(task.action.as_str(), "mcp.admin.overview");
    let mut deliver = Deliver::new(task.id, Outcome::Ok, Executed::Yes);
    let body = with(&mut deliver);
    peer.send(Message::Deliver(Box::new(deliver)), body).await;
}

#[tokio::test]
async fn its_clock_is_another() {
    let overview = |wall_ms: u64| {
        serde_json::json!({
            "broker_id": "b", "epoch": 1, "uptime_ms": 1, "wall_ms": wall_ms,
            "is_shutting_down": false, "is_shedding": false, "why_not_durable": null, "agents": {},
            "tasks": {}, "rates": {}, "durable": {}, "dead_letters": 0, "sessions": 1,
            "connections": 1, "actions": [], "more_actions": false
        })
        .to_string()
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now_ms = now.as_millis() as u64;
    let more = ["--server-name", "localhost"];
    for (wall_ms, is_ok) in [(now_ms, true), (now_ms - 3_600_000, false), (now_ms * 2, false)] {
        let broker = FakeBroker::start();
        let address = broker.address.to_string();
        let serve = async {
            let mut peer = broker.accept().await;
            answer(&mut peer, |_| overview(wall_ms).into()).await;
            peer
        };
        let (told, _peer) = tokio::join!(examined(&address, &broker.ca_pem, &more), serve);
        match is_ok {
            true => assert_eq!(told.1, 0, "{}", told.0),
            false => {
                assert_failed(&told, "clock", "the broker's");
                assert_eq!(told.1, 1);
            }
        }
    }
}

#[tokio::test]
async fn its_clock_is_not_everybodys_to_know() {
    let broker = FakeBroker::start();
    let address = broker.address.to_string();
    let serve = async {
        let mut peer = broker.accept().await;
        answer(&mut peer, |deliver| {
            deliver.outcome = Outcome::Failed;
            let info = ErrorInfo::new(ErrorCode::Forbidden, "not you");
            deliver.error = Some(Box::new(info));
            Bytes::new()
        })
        .await;
        peer
    };
    let more = ["--server-name", "localhost"];
    let ((told, code), _peer) = tokio::join!(examined(&address, &broker.ca_pem, &more), serve);
    assert_eq!(code, 0, "{told}");
    let clock = told["checks"][8]["seen"].as_str().unwrap();
    assert!(clock.contains("validity") && clock.contains("not allowed"), "{clock}");
}
