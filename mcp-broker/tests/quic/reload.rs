//! Another configuration while a steady flow of tasks goes on: taken whole, or not at all.

use std::path::{Path, PathBuf};

use mcp_broker::{Broker, Config, StartError, Tls};
use mcp_proto::ErrorCode;
use serde_json::Value;

use crate::admin::{ask, get, metrics};
use crate::support::{Dialled, Flow, How, RawPeer, broker, dial, send, unique};

fn config(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    config.listen.set_port(0);
    change(&mut config);
    config
}

/// A certificate, its key and its authority.
struct Issued(tempfile::TempDir);

impl Issued {
    /// By an authority of its own.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let builder = Broker::builder().state_dir(dir.path()).tls(Tls::Dev { names: vec![] });
        builder.start().await.unwrap().shutdown().await;
        Self(dir)
    }

    fn copy_to(&self, dir: &Path) -> [PathBuf; 2] {
        ["cert.pem", "key.pem"].map(|name| {
            std::fs::copy(self.0.path().join(name), dir.join(name)).unwrap();
            dir.join(name)
        })
    }

    /// A broker, dialled by who trusts this authority only.
    fn trusted<'a>(&self, broker: &'a Broker) -> Trusted<'a> {
        let authority = std::fs::read_to_string(self.0.path().join("ca.pem")).unwrap();
        Trusted(broker, authority)
    }
}

struct Trusted<'a>(&'a Broker, String);

impl Dialled for Trusted<'_> {
    fn address(&self) -> std::net::SocketAddr {
        self.0.local_addr()
    }

    fn authority(&self) -> String {
        self.1.clone()
    }
}

#[tokio::test]
async fn new_limits_hold_for_who_comes_and_nobody_else_notices() {
    let broker = broker(|_| {}).await;
    let flow = Flow::start(&broker).await;
    let mut kept = RawPeer::client(&broker).await;
    let reloaded = broker.reload_with(config(|it| it.limits.max_connections = 3)).await.unwrap();
    assert_eq!(reloaded.changed, ["limits.max_connections"]);
    dial(&broker, How::USUAL).await.unwrap_err();
    kept.expect_alive().await;
    let more = config(|it| {
        it.limits.max_connections = 9;
        it.limits.max_body_bytes = 1_000;
    });
    broker.reload_with(more).await.unwrap();
    let mut late = RawPeer::connect(&broker).await;
    let ack = late.open(crate::support::hello()).await;
    assert_eq!(ack.limits.max_body_bytes, 1_000);
    flow.finish().await;
}

#[tokio::test]
async fn what_is_wrong_changes_nothing_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let audit = dir.path().join("audit.log");
    let start = |it: &mut Config| {
        it.admin = Some("0".parse().unwrap());
        it.audit.file = Some(audit.clone());
    };
    let broker = broker(start).await;
    let admin = broker.admin_addr().unwrap();
    let flow = Flow::start(&broker).await;
    let wrong = config(|it| {
        start(it);
        it.limits.max_connections = 1;
        it.limits.max_tasks = 0;
    });
    let Err(StartError::Config(error)) = broker.reload_with(wrong).await else { panic!("taken") };
    assert_eq!(error.to_string(), "limits.max_tasks is 0; it must be at least 1");
    // What is found out last, when other parts could be taken.
    let unwritable = config(|it| {
        start(it);
        it.limits.max_connections = 1;
        it.audit.file = Some(dir.path().to_owned());
    });
    let refused = broker.reload_with(unwritable).await;
    assert!(matches!(refused, Err(StartError::Audit { .. })), "{refused:?}");
    RawPeer::client(&broker).await.expect_alive().await;

    let ready: Value = serde_json::from_str(&get(admin, "/readyz").await.body).unwrap();
    assert_eq!(ready["ready"], true);
    let told = ready["config_refused"].as_str().unwrap();
    assert!(told.starts_with("cannot write the audit log "), "{told}");
    // It has a path in it, and the probe answers everybody.
    let elsewhere = ask(admin, b"GET /readyz HTTP/1.0\r\nHost: broker.example\r\n\r\n").await;
    let expected = r#"{"config_refused":"the broker's log says why","ready":true}"#;
    assert_eq!((elsewhere.status, elsewhere.body.trim_end()), (200, expected));
    let seen = metrics(admin).await;
    assert_eq!(seen["mcp_config_reloads_total{outcome=\"refused\"}"], 2.0);
    assert_eq!(seen["mcp_config_last_reload_successful"], 0.0);

    broker.reload_with(config(start)).await.unwrap();
    assert_eq!(get(admin, "/readyz").await.body, "{\"ready\":true}\n");
    assert_eq!(metrics(admin).await["mcp_config_last_reload_successful"], 1.0);
    flow.finish().await;
    broker.shutdown().await;
    let text = std::fs::read_to_string(&audit).unwrap();
    let records = text.lines().map(|it| serde_json::from_str::<Value>(it).unwrap());
    let outcomes: Vec<_> = records
        .filter(|it| it["kind"] == "reload")
        .map(|it| it["outcome"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(outcomes, ["refused", "refused", "ok"]);
}

#[tokio::test]
async fn what_needs_a_restart_is_told_and_waits_for_it() {
    let broker = broker(|it| it.admin = Some("0".parse().unwrap())).await;
    let admin = broker.admin_addr().unwrap();
    let other = config(|it| {
        it.admin = Some("0".parse().unwrap());
        it.listen.set_port(1);
        it.limits.max_udp_payload_bytes = 1_200;
        it.timing.drain_ms = 7;
    });
    let reloaded = broker.reload_with(other.clone()).await.unwrap();
    assert_eq!(reloaded.changed, ["timing.drain_ms"]);
    assert_eq!(reloaded.needs_restart, ["limits.max_udp_payload_bytes", "listen"]);
    assert_eq!(broker.reload_with(other).await.unwrap().changed, [""; 0]);
    let ready: Value = serde_json::from_str(&get(admin, "/readyz").await.body).unwrap();
    assert_eq!(
        ready["needs_restart"],
        serde_json::json!(["limits.max_udp_payload_bytes", "listen"])
    );
    assert_eq!(metrics(admin).await["mcp_config_restart_required"], 1.0);
    RawPeer::client(&broker).await.expect_alive().await;
}

#[tokio::test]
async fn a_new_certificate_is_for_who_comes_and_connections_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (Issued::new().await, Issued::new().await);
    let [cert, key] = old.copy_to(dir.path());
    let files = |it: &mut Config| {
        it.tls.cert_file = Some(cert.clone());
        it.tls.key_file = Some(key.clone());
    };
    let broker = broker(files).await;
    let mut kept = RawPeer::client(&old.trusted(&broker)).await;
    dial(&new.trusted(&broker), How::USUAL).await.unwrap_err();

    // Half of it is none.
    std::fs::copy(new.0.path().join("cert.pem"), &cert).unwrap();
    let refused = broker.reload().await;
    assert!(matches!(refused, Err(StartError::Tls(_))), "{refused:?}");
    RawPeer::client(&old.trusted(&broker)).await.expect_alive().await;

    new.copy_to(dir.path());
    broker.reload().await.unwrap();
    RawPeer::client(&new.trusted(&broker)).await.expect_alive().await;
    dial(&old.trusted(&broker), How::USUAL).await.unwrap_err();
    kept.expect_alive().await;

    let away = broker.reload_with(config(|_| {})).await.unwrap_err();
    assert!(away.to_string().contains("tls.cert_file was taken away"), "{away}");
    RawPeer::client(&new.trusted(&broker)).await.expect_alive().await;
}

#[tokio::test]
async fn a_certificate_of_files_takes_the_place_of_one_that_was_made() {
    let dir = tempfile::tempdir().unwrap();
    let given = Issued::new().await;
    let [cert, key] = given.copy_to(dir.path());
    let broker = broker(|_| {}).await;
    let mut kept = RawPeer::client(&broker).await;
    let files = config(|it| {
        it.tls.cert_file = Some(cert);
        it.tls.key_file = Some(key);
    });
    let reloaded = broker.reload_with(files).await.unwrap();
    assert_eq!(reloaded.changed, ["tls.cert_file", "tls.key_file"]);
    RawPeer::client(&given.trusted(&broker)).await.expect_alive().await;
    dial(&broker, How::USUAL).await.unwrap_err();
    kept.expect_alive().await;
}

#[tokio::test]
async fn another_policy_holds_for_connections_that_are_there_and_a_broken_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.toml");
    let allow = |action: &str| {
        let role = format!("[roles.all]\nmembers = ['anonymous']\nallow.send = ['{action}']\n");
        std::fs::write(&path, role).unwrap();
    };
    allow("one");
    let broker = broker(|config| {
        config.auth.policy_file = Some(path.clone());
        config.timing.no_worker_wait_ms = 0;
    })
    .await;
    let mut client = RawPeer::client(&broker).await;
    let mut answer = async |action: &str| {
        client.send(send(&unique("t"), action), "").await;
        client.receive_failure().await.1
    };
    assert_eq!(answer("one").await, ErrorCode::NoWorker);
    assert_eq!(answer("two").await, ErrorCode::Forbidden);
    allow("two");
    broker.reload().await.unwrap();
    assert_eq!(answer("one").await, ErrorCode::Forbidden);
    assert_eq!(answer("two").await, ErrorCode::NoWorker);
    std::fs::write(&path, "[roles.all]\nallow.sned = ['*']\n").unwrap();
    let refused = broker.reload().await;
    assert!(matches!(refused, Err(StartError::Config(_))), "{refused:?}");
    assert_eq!(answer("two").await, ErrorCode::NoWorker);
}

#[tokio::test]
async fn an_address_opens_no_more_connections_than_it_may() {
    let broker = broker(|config| {
        config.admin = Some("0".parse().unwrap());
        config.limits.max_address_connections = 2;
    })
    .await;
    let admin = broker.admin_addr().unwrap();
    let mut first = RawPeer::client(&broker).await;
    let second = RawPeer::client(&broker).await;
    dial(&broker, How::USUAL).await.unwrap_err();
    let other = How { from: "127.0.0.2".parse().unwrap(), ..How::USUAL };
    dial(&broker, other).await.unwrap();
    first.expect_alive().await;
    second.close();
    let mut third = None;
    while third.is_none() {
        third = dial(&broker, How::USUAL).await.ok();
    }
    let series = "mcp_connections_refused_total{limit=\"max_address_connections\"}";
    assert!(metrics(admin).await[series] >= 1.0);
}

#[tokio::test]
async fn an_address_that_comes_too_often_is_refused_and_others_are_not() {
    let broker = broker(|config| {
        config.admin = Some("0".parse().unwrap());
        // One in an hour would be less than one a second can say.
        config.limits.address_connections_per_s = 1;
        config.limits.address_connections_burst = 4;
    })
    .await;
    let admin = broker.admin_addr().unwrap();
    let mut opened = Vec::new();
    while let Ok(it) = dial(&broker, How::USUAL).await {
        opened.push(it);
    }
    // Those after the first half had to prove their address, and did.
    assert!(opened.len() >= 4, "{}", opened.len());
    let other = How { from: "127.0.0.2".parse().unwrap(), ..How::USUAL };
    dial(&broker, other).await.unwrap();
    let series = "mcp_connections_refused_total{limit=\"address_connections_per_s\"}";
    assert!(metrics(admin).await[series] >= 1.0);
    let more = config(|it| {
        it.admin = Some("0".parse().unwrap());
        it.limits.address_connections_per_s = 0;
    });
    broker.reload_with(more).await.unwrap();
    dial(&broker, How::USUAL).await.unwrap();
}
