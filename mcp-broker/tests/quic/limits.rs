//! How many connections, and which.

use mcp_broker::{Broker, StartError};
use mcp_proto::{Message, Outcome, Ping};
use quinn::ConnectionError;

use crate::support::{How, RawPeer, broker, dial, result, send, until};

#[tokio::test]
async fn connections_over_the_limit_are_refused_until_one_ends() {
    let broker = broker(|config| config.limits.max_connections = 2).await;
    let mut first = RawPeer::client(&broker).await;
    let second = RawPeer::client(&broker).await;
    let third = dial(&broker, How::USUAL).await;
    assert!(matches!(third, Err(ConnectionError::ConnectionClosed(_))), "{third:?}");
    first.expect_alive().await;
    second.close();
    until("it to be gone", || broker.stats().connections == 1).await;
    // Its place is given back a moment after.
    let mut third = None;
    while third.is_none() {
        third = dial(&broker, How::USUAL).await.ok();
    }
}

#[tokio::test]
async fn with_many_handshakes_open_peers_prove_their_address_first() {
    let broker = broker(|config| config.limits.retry_handshakes = 0).await;
    let mut worker = RawPeer::worker(&broker, "w", "echo", 1).await;
    let mut client = RawPeer::client(&broker).await;
    client.send(send("t-1", "echo"), "through").await;
    let (route, body) = worker.receive_route().await;
    worker.send(result(&route), body).await;
    let (deliver, body) = client.receive_deliver().await;
    assert_eq!((deliver.outcome, &body[..]), (Outcome::Ok, &b"through"[..]));
}

#[tokio::test]
async fn another_protocol_is_refused_in_the_handshake() {
    let broker = broker(|_| {}).await;
    let error = dial(&broker, How { alpn: b"h3", ..How::USUAL }).await.unwrap_err();
    let ConnectionError::ConnectionClosed(close) = &error else { panic!("{error:?}") };
    // TLS alert no_application_protocol, as a QUIC error.
    assert_eq!(u64::from(close.error_code), 0x100 + 120, "{close}");
}

#[tokio::test]
async fn a_connection_has_one_stream() {
    let broker = broker(|_| {}).await;
    let mut peer = RawPeer::client(&broker).await;
    for opened in [
        tokio::time::timeout(std::time::Duration::ZERO, peer.quic.open_bi()).await.is_ok(),
        tokio::time::timeout(std::time::Duration::ZERO, peer.quic.open_uni()).await.is_ok(),
    ] {
        assert!(!opened, "a second stream");
    }
    peer.expect_alive().await;
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let broker = broker(|_| {}).await;
    let error = Broker::builder().listen(broker.local_addr()).start().await.unwrap_err();
    assert!(matches!(error, StartError::AddressInUse { .. }), "{error:?}");
    assert!(error.to_string().contains(&broker.local_addr().to_string()), "{error}");
}

#[tokio::test]
async fn many_pings_are_each_answered_in_order() {
    let broker = broker(|_| {}).await;
    let mut peer = RawPeer::client(&broker).await;
    for seq in 0..500 {
        peer.send(Message::Ping(Ping::probe(seq)), "").await;
    }
    for seq in 0..500 {
        assert_eq!(peer.receive().await.message, Message::Pong(seq));
    }
}
