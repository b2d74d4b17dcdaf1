//! Connecting: what goes wrong says what to do.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use mcp_client::{Client, ConnectError, Endpoint, ErrorCode, ErrorInfo, TlsCause};
use mcp_proto::{ALPN, Message};
use support::{Authority, FakeBroker, ack, close_code, soon};

async fn connect_error(endpoint: Endpoint) -> ConnectError {
    let connecting = Client::builder(endpoint).connect_timeout(Duration::from_secs(5)).connect();
    soon(connecting).await.unwrap_err()
}

/// With a broker that shakes hands.
async fn handshake_error(broker: &FakeBroker, endpoint: Endpoint) -> ConnectError {
    let shake_hands = async {
        while let Some(incoming) = broker.incoming().await {
            drop(incoming.await);
        }
        unreachable!("the broker is there")
    };
    tokio::select! {
        error = connect_error(endpoint) => error,
        () = shake_hands => unreachable!(),
    }
}

fn tls_cause(error: &ConnectError) -> TlsCause {
    match error {
        ConnectError::Tls { cause, .. } => *cause,
        error => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn without_an_authority_no_broker_is_trusted() {
    let error = connect_error(Endpoint::new("127.0.0.1:1")).await;
    assert!(matches!(error, ConnectError::NoTrust), "{error:?}");
    assert!(error.to_string().contains("ca_file"), "{error}");
}

#[tokio::test]
async fn an_authority_must_be_a_certificate() {
    let error = connect_error(Endpoint::new("127.0.0.1:1").ca_pem("no certificate")).await;
    assert!(matches!(error, ConnectError::Ca { .. }), "{error:?}");
    let error = Endpoint::new("127.0.0.1:1").ca_file("/nowhere/ca.pem").unwrap_err();
    assert!(error.to_string().contains("/nowhere/ca.pem"), "{error}");
}

#[tokio::test]
async fn an_unknown_host_is_named() {
    let authority = Authority::new("localhost");
    let error = connect_error(Endpoint::new("host.invalid:7447").ca_pem(&authority.ca_pem)).await;
    assert!(matches!(error, ConnectError::UnknownHost { .. }), "{error:?}");
    assert!(error.to_string().contains("host.invalid"), "{error}");
    assert!(error.is_transient());
}

#[tokio::test]
async fn a_broker_that_does_not_answer_is_unreachable() {
    // Bound, so that nobody else is; never read.
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let authority = Authority::new("localhost");
    let endpoint = Endpoint::new(address.to_string()).ca_pem(&authority.ca_pem);
    let timeout = Duration::from_millis(300);
    let error = soon(Client::builder(endpoint).connect_timeout(timeout).connect()).await;
    let error = error.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("UDP"), "{error}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn where_nothing_listens_is_told_long_before_the_time_is_over() {
    let address = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let authority = Authority::new("localhost");
    let endpoint = Endpoint::new(address.to_string()).ca_pem(&authority.ca_pem);
    let patient = Client::builder(endpoint).connect_timeout(Duration::from_secs(3600));
    let error = soon(patient.connect()).await.unwrap_err();
    assert!(matches!(error, ConnectError::NotListening { .. }), "{error:?}");
    assert!(error.is_transient());
}

#[tokio::test]
async fn a_name_with_a_dead_address_first_is_still_reached() {
    // localhost is often ::1 first, where this broker does not listen.
    let broker = FakeBroker::start();
    let endpoint =
        Endpoint::new(format!("localhost:{}", broker.address.port())).ca_pem(&broker.ca_pem);
    let (client, _peer) =
        tokio::join!(soon(Client::builder(endpoint).connect()), broker.accept_open());
    assert!(client.unwrap().is_connected());
}

#[tokio::test]
async fn a_foreign_authority_is_refused() {
    let broker = FakeBroker::start();
    let endpoint = Endpoint::new(broker.address.to_string())
        .server_name("localhost")
        .ca_pem(&Authority::new("localhost").ca_pem);
    let error = handshake_error(&broker, endpoint).await;
    assert_eq!(tls_cause(&error), TlsCause::UnknownAuthority);
    assert!(error.to_string().contains("ca.pem"), "{error}");
    assert!(!error.is_transient());
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let broker = FakeBroker::start();
    let endpoint = broker.endpoint().server_name("elsewhere.example");
    let error = handshake_error(&broker, endpoint).await;
    assert_eq!(tls_cause(&error), TlsCause::WrongName);
    assert!(error.to_string().contains("server_name"), "{error}");
}

#[tokio::test]
async fn a_certificate_that_is_not_valid_now_is_refused_with_which_of_both_it_is() {
    for (years, cause, said) in [
        ([1975, 1976], TlsCause::Expired, "has expired"),
        ([4000, 4001], TlsCause::NotYetValid, "not valid yet"),
    ] {
        let broker = FakeBroker::start_with(&Authority::valid("localhost", years), ALPN, 0);
        let error = handshake_error(&broker, broker.endpoint()).await;
        assert_eq!(tls_cause(&error), cause);
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[tokio::test]
async fn another_protocol_is_not_spoken_to() {
    let broker = FakeBroker::start_with(&Authority::new("localhost"), b"h3", 0);
    let error = handshake_error(&broker, broker.endpoint()).await;
    assert!(matches!(error, ConnectError::Protocol { .. }), "{error:?}");
    assert!(error.to_string().contains("mcp-comm/1"), "{error}");
}

#[tokio::test]
async fn what_the_broker_refuses_with_is_told() {
    let broker = FakeBroker::start();
    for (code, is_version, is_transient) in [
        (ErrorCode::UnsupportedVersion, true, false),
        (ErrorCode::LimitExceeded, false, true),
        (ErrorCode::IdentityMismatch, false, false),
    ] {
        let refuse = async {
            let mut peer = broker.accept().await;
            let info = ErrorInfo::new(code, "speak 2.x");
            peer.send(Message::Error(Box::new(info)), "").await;
            // The client is the one to go.
            peer.until_closed().await
        };
        let (error, _) = tokio::join!(connect_error(broker.endpoint()), refuse);
        assert_eq!(matches!(error, ConnectError::Version(_)), is_version, "{error:?}");
        assert_eq!(error.code(), Some(code));
        assert_eq!(error.is_transient(), is_transient);
        assert!(error.to_string().contains("speak 2.x"), "{error}");
    }
}

#[tokio::test]
async fn a_close_code_alone_is_understood() {
    let broker = FakeBroker::start();
    let refuse = async {
        let peer = broker.accept().await;
        peer.close(ErrorCode::ShuttingDown as u32);
        peer.until_closed().await
    };
    let (error, _) = tokio::join!(connect_error(broker.endpoint()), refuse);
    assert_eq!(error.code(), Some(ErrorCode::ShuttingDown));
    assert!(error.is_transient());
}

#[tokio::test]
async fn a_broker_of_another_major_version_is_refused() {
    let broker = FakeBroker::start();
    let answer = async {
        let mut peer = broker.accept().await;
        let mut ack = ack();
        ack.mcp_version = "2.0".into();
        peer.ack(ack).await;
        peer.until_closed().await
    };
    let (error, (end, _)) = tokio::join!(connect_error(broker.endpoint()), answer);
    assert!(matches!(error, ConnectError::Version(_)), "{error:?}");
    assert_eq!(close_code(&end), Some(ErrorCode::UnsupportedVersion as u64));
}

#[tokio::test]
async fn a_broker_that_does_not_answer_hello_is_given_up() {
    let broker = FakeBroker::start();
    let timeout = Duration::from_millis(300);
    let connecting = Client::builder(broker.endpoint()).connect_timeout(timeout).connect();
    let give_up = async { broker.accept().await.until_closed().await };
    let (error, (end, _)) = tokio::join!(soon(connecting), give_up);
    let error = error.unwrap_err();
    assert!(error.to_string().contains("HELLO"), "{error}");
    // Not an orderly end: a registration that the broker resumed shall live on.
    assert_eq!(close_code(&end), Some(ErrorCode::LeaseExpired as u64));
}

#[tokio::test]
async fn hello_says_who_calls() {
    let broker = FakeBroker::start();
    let (client, peer) = broker.client().await;
    let hello = peer.hello();
    assert!(hello.client && hello.worker.is_none());
    assert_eq!(hello.mcp_version, "1.0");
    assert!(hello.sdk.starts_with("mcp-client-rust/"));
    assert_eq!(hello.session_id, None);
    assert_eq!(client.session_id().unwrap().as_str(), "session-1");
    assert_eq!(client.broker_id().unwrap().as_str(), "broker-1");
}
