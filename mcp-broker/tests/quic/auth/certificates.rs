//! Mutual TLS: the identity is the certificate's, by its alternative names.

use mcp_broker::{Broker, ClientCertificates};
use mcp_proto::{ErrorCode, Message};
use quinn::ConnectionError;
use rcgen::ExtendedKeyUsagePurpose;

use super::{Issuer, who};
use crate::support::{Authority, How, RawPeer, broker, dial, dns, hello, uri, with_token, within};

async fn asking(authority: &Authority, how: ClientCertificates) -> (Broker, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let file = authority.file(dir.path());
    let broker = broker(|config| {
        config.auth.client_ca_file = Some(file);
        config.auth.client_certificates = how;
    });
    (broker.await, dir)
}

/// The TLS alert that the broker ends a handshake with.
async fn alert(broker: &Broker, how: How) -> u64 {
    let closed = match dial(broker, how).await {
        Ok((_endpoint, quic)) => within("the alert", quic.closed()).await,
        Err(error) => error,
    };
    match closed {
        ConnectionError::ConnectionClosed(close) => u64::from(close.error_code) - 0x100,
        other => panic!("not an alert: {other}"),
    }
}

#[tokio::test]
async fn an_identity_is_the_first_uri_or_else_the_first_dns_name() {
    let authority = Authority::new();
    let (broker, _dir) = asking(&authority, ClientCertificates::Required).await;
    let spiffe = "spiffe://example.org/shop";
    for (names, expected) in [
        (vec![dns("one.example"), uri(spiffe), uri("spiffe://example.org/other")], spiffe),
        (vec![dns("Two.example"), dns("one.example")], "two.example"),
    ] {
        let mut client = RawPeer::connect_as(&broker, How::with(authority.issue(&names))).await;
        client.open(hello()).await;
        assert_eq!(who(&mut client).await, expected);
    }
}

#[tokio::test]
async fn a_certificate_that_names_nobody_or_a_reserved_name_is_nobodys() {
    let authority = Authority::new();
    let (broker, _dir) = asking(&authority, ClientCertificates::Required).await;
    for (names, expected) in [
        (vec![], "neither a URI nor a DNS name"),
        (vec![dns("*.example.org")], "not one name"),
        (vec![uri("anonymous")], "nobody's name"),
        (vec![uri("broker")], "nobody's name"),
        (vec![uri("spiffe://a b")], "printable"),
    ] {
        let mut peer = RawPeer::connect_as(&broker, How::with(authority.issue(&names))).await;
        peer.send(Message::Hello(Box::new(hello())), "").await;
        let message = peer.expect_refusal(ErrorCode::Unauthenticated).await;
        assert!(message.contains(expected), "{message}");
    }
}

#[tokio::test]
async fn a_handshake_needs_a_certificate_that_holds_where_one_is_required() {
    const CERTIFICATE_REQUIRED: u64 = 116;
    const EXPIRED: u64 = 45;
    const UNKNOWN_CA: u64 = 48;
    let (authority, foreign) = (Authority::new(), Authority::new());
    let names = [dns("shop.example")];
    let client = ExtendedKeyUsagePurpose::ClientAuth;
    let server = ExtendedKeyUsagePurpose::ServerAuth;
    for how in [ClientCertificates::Required, ClientCertificates::Optional] {
        let (broker, _dir) = asking(&authority, how).await;
        let expired = authority.issue_until(&names, 2020, client.clone());
        assert_eq!(alert(&broker, How::with(expired)).await, EXPIRED);
        // Its name is the same as that of the authority asked for, its key is not.
        let code = alert(&broker, How::with(foreign.issue(&names))).await;
        assert!([UNKNOWN_CA, 51, 42].contains(&code), "{code}");
        let of_server = authority.issue_until(&names, 4000, server.clone());
        assert_ne!(alert(&broker, How::with(of_server)).await, EXPIRED);
        if how == ClientCertificates::Required {
            assert_eq!(alert(&broker, How::USUAL).await, CERTIFICATE_REQUIRED);
        } else {
            let mut peer = RawPeer::connect(&broker).await;
            peer.send(Message::Hello(Box::new(hello())), "").await;
            let message = peer.expect_refusal(ErrorCode::Unauthenticated).await;
            assert!(message.contains("--cert"), "{message}");
        }
    }
}

#[tokio::test]
async fn where_certificates_are_optional_a_token_does_as_well_and_counts() {
    let (authority, issuer) = (Authority::new(), Issuer::new());
    let file = authority.file(issuer.dir.path());
    let broker = issuer.broker(|config| {
        config.auth.client_ca_file = Some(file);
        config.auth.client_certificates = ClientCertificates::Optional;
    });
    let broker = broker.await;
    let mut client = RawPeer::client_with(&broker, &issuer.token("by-token")).await;
    assert_eq!(who(&mut client).await, "by-token");
    let how = How::with(authority.issue(&[dns("by.certificate")]));
    let mut client = RawPeer::connect_as(&broker, how).await;
    client.open(with_token(hello(), &issuer.token("by-token"))).await;
    assert_eq!(who(&mut client).await, "by-token");
    // A token that does not hold is not passed over for a certificate that does.
    let mut client = RawPeer::connect_as(&broker, how).await;
    client.send(Message::Hello(Box::new(with_token(hello(), "a.b.c"))), "").await;
    client.expect_refusal(ErrorCode::Unauthenticated).await;
}

#[tokio::test]
async fn a_token_is_refused_where_none_is_taken_and_a_certificate_is() {
    let authority = Authority::new();
    let (broker, _dir) = asking(&authority, ClientCertificates::Optional).await;
    let how = How::with(authority.issue(&[dns("shop.example")]));
    let mut client = RawPeer::connect_as(&broker, how).await;
    client.send(Message::Hello(Box::new(with_token(hello(), "a.b.c"))), "").await;
    let message = client.expect_refusal(ErrorCode::Unauthenticated).await;
    assert!(message.contains("takes no tokens"), "{message}");
}

#[tokio::test]
async fn peers_without_a_proof_are_anonymous_where_that_is_allowed() {
    let issuer = Issuer::new();
    let broker = issuer.broker(|config| config.auth.allow_anonymous = true).await;
    let mut client = RawPeer::client(&broker).await;
    assert_eq!(who(&mut client).await, "anonymous");
    // Not an operator.
    assert_eq!(client.ask("stats", "").await.unwrap_err().code, ErrorCode::Forbidden);
}
