//! A running broker is scanned: whoever has no business there is refused, which is logged once with the
//! reason, and nobody else notices.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use mcp_broker::auth::{Claims, SigningKey};
use mcp_proto::{ErrorCode, Message};
use rcgen::ExtendedKeyUsagePurpose;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UdpSocket;
use tokio::process::{Child, Command};

use super::{Issuer, now_s, refused};
use crate::support::{
    Authority, Dialled, How, Lie, RawPeer, dial, dns, hello, result, send, until, within,
};

/// `mcp-broker serve`, with what it logs in a file.
struct Scanned {
    child: Child,
    address: SocketAddr,
    authority: String,
    log: PathBuf,
}

impl Dialled for Scanned {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn authority(&self) -> String {
        self.authority.clone()
    }
}

impl Scanned {
    async fn start(issuer: &Issuer, authority: &Authority) -> Self {
        let dir = issuer.dir.path();
        let path = |path: PathBuf| format!("{:?}", path.to_str().unwrap());
        let config = format!(
            "listen = '127.0.0.1:0'\nstate_dir = {}\ntls.dev = true\n[auth]\ntoken_keys = {}\n\
             client_ca_file = {}\nclient_certificates = 'optional'\ntoken_leeway_ms = 0\n",
            path(dir.join("state")),
            path(issuer.keys()),
            path(authority.file(dir)),
        );
        let file = issuer.write("broker.toml", &config);
        let log = dir.join("log");
        let mut child = Command::new(env!("CARGO_BIN_EXE_mcp-broker"))
            .args(["serve", "--config", file.to_str().unwrap()])
            .env_clear()
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = within("the first line", stdout.next_line()).await.unwrap().unwrap();
        let address = line.strip_prefix("listening on ").unwrap().parse().unwrap();
        let authority = std::fs::read_to_string(dir.join("state/ca.pem")).unwrap();
        Self { child, address, authority, log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// How many lines tell that somebody was refused.
    fn refusals(&self) -> usize {
        self.log().lines().filter(|line| line.contains("WARN")).count()
    }

    /// Exactly one more line tells of a refusal, with this reason and from whom, and without this secret.
    async fn logs_once(&self, before: usize, reason: &str, secret: Option<&str>) {
        until("the refusal to be logged", || self.refusals() > before).await;
        // Another one would come before what comes after.
        let log = self.log();
        let new: Vec<_> = log.lines().filter(|line| line.contains("WARN")).skip(before).collect();
        assert_eq!(new.len(), 1, "{new:#?}");
        assert!(new[0].contains(reason), "{reason} is not in {}", new[0]);
        assert!(new[0].contains("peer=127.0.0.1:"), "{}", new[0]);
        if let Some(secret) = secret {
            assert!(!log.contains(secret));
        }
    }
}

/// A handshake that comes to nothing.
async fn fails(broker: &Scanned, how: How) {
    if let Ok((_endpoint, quic)) = dial(broker, how).await {
        within("the end", quic.closed()).await;
    }
}

#[tokio::test]
async fn whoever_has_no_business_there_is_refused_and_logged_once() {
    let (issuer, authority, foreign) = (Issuer::new(), Authority::new(), Authority::new());
    let broker = Scanned::start(&issuer, &authority).await;
    let names = [dns("shop.example")];
    // Who has some, all the while.
    let token = |sub: &str| issuer.key.sign(&Claims { aud: None, ..issuer.claims(sub) });
    let mut worker = RawPeer::worker_with(&broker, &token("gpu"), "gpu-1", "upper").await;
    let mut client = RawPeer::client_with(&broker, &token("shop")).await;

    // What is no QUIC is nobody's: it is not answered, and not worth a line.
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut byte = 1u8;
    for length in 1..1_200 {
        let mut datagram: Vec<u8> = (0..length)
            .map(|at| {
                byte = byte.wrapping_mul(167).wrapping_add(at as u8 | 1);
                byte
            })
            .collect();
        if length % 3 == 0 {
            // A long header of version 1, and nothing after it that is right.
            datagram[0] |= 0xc0;
            datagram.splice(1..5.min(datagram.len()), [0, 0, 0, 1]);
        }
        let _ = socket.send_to(&datagram, broker.address).await;
    }
    let _ = socket.send_to(b"GET / HTTP/1.1\r\n\r\n", broker.address).await;
    client.expect_alive().await;
    assert_eq!(broker.refusals(), 0, "{}", broker.log());

    let before = broker.refusals();
    fails(&broker, How { lie: Some(Lie::Version), ..How::USUAL }).await;
    broker.logs_once(before, "peer is incompatible: Tls12NotOffered", None).await;

    let before = broker.refusals();
    fails(&broker, How { alpn: b"h3", ..How::USUAL }).await;
    broker.logs_once(before, "support any known protocol", None).await;

    let before = broker.refusals();
    let expired = authority.issue_until(&names, 2020, ExtendedKeyUsagePurpose::ClientAuth);
    fails(&broker, How::with(expired)).await;
    broker.logs_once(before, "expired", None).await;

    let before = broker.refusals();
    fails(&broker, How::with(foreign.issue(&names))).await;
    broker.logs_once(before, "invalid peer certificate", None).await;

    let before = broker.refusals();
    let forged = SigningKey::generate().unwrap().sign(&issuer.claims("shop"));
    refused(&broker, &forged).await;
    broker
        .logs_once(before, "UNAUTHENTICATED: the token is signed with a key", Some(&forged))
        .await;

    let before = broker.refusals();
    let now = now_s();
    let old = Claims { iat: now - 100, exp: now - 50, ..issuer.claims("shop") };
    let old = issuer.key.sign(&old);
    refused(&broker, &old).await;
    broker.logs_once(before, "UNAUTHENTICATED: the token of shop has expired", Some(&old)).await;

    let before = broker.refusals();
    let mut nobody = RawPeer::connect(&broker).await;
    nobody.send(Message::Hello(Box::new(hello())), "").await;
    nobody.expect_refusal(ErrorCode::Unauthenticated).await;
    broker.logs_once(before, "asks who you are", None).await;

    let before = broker.refusals();
    let mut nobody = RawPeer::connect(&broker).await;
    nobody.send_bytes(&[0xff; 100]).await;
    nobody.expect_refusal(ErrorCode::FrameTooLarge).await;
    broker.logs_once(before, "FRAME_TOO_LARGE", None).await;

    client.send(send("t", "upper"), "a").await;
    let (route, _) = worker.receive_route().await;
    worker.send(result(&route), "A").await;
    assert_eq!(client.receive_deliver().await.1, "A");
    let log = broker.log();
    assert!(!log.contains("panicked") && !log.contains("ERROR"), "{log}");
    stop(broker).await;
}

async fn stop(mut broker: Scanned) {
    let id = broker.child.id().unwrap().to_string();
    Command::new("kill").args(["-TERM", &id]).status().await.unwrap();
    assert_eq!(within("the end", broker.child.wait()).await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn one_that_asks_nobody_and_listens_to_all_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let state = dir.path().join("state");
    for (listen, is_warned) in [("0.0.0.0:0", true), ("127.0.0.1:0", false)] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mcp-broker"))
            .args(["serve", "--dev", "--listen", listen, "--state", state.to_str().unwrap()])
            .env_clear()
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        within("the first line", stdout.next_line()).await.unwrap().unwrap();
        let text = std::fs::read_to_string(&log).unwrap();
        assert_eq!(text.contains("nobody is asked who they are"), is_warned, "{text}");
        child.kill().await.unwrap();
    }
}
