//! When the keys of tokens can't be read: who was verified before goes on for a while, nobody else
//! comes in, and all is verified again afterwards.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use mcp_broker::Broker;
use mcp_broker::auth::Claims;
use mcp_proto::ErrorCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{Issuer, now_s, refused, who};
use crate::admin;
use crate::support::{RawPeer, broker, within};

/// What a broker tells of it.
async fn waits_until_offline(broker: &Broker, expected: bool) -> String {
    let address = broker.admin_addr().unwrap();
    within("the broker to notice", async {
        loop {
            let ready = admin::get(address, "/readyz").await;
            assert_eq!(ready.status, 200, "{}", ready.body);
            let metrics = admin::get(address, "/metrics").await.body;
            let gauge = format!("\nmcp_auth_offline {}\n", u8::from(expected));
            if ready.body.contains("\"offline\":true") == expected && metrics.contains(&gauge) {
                return format!("{}{metrics}", ready.body);
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await
}

async fn with_admin(issuer: &Issuer) -> Broker {
    issuer.broker(|config| config.admin = Some("127.0.0.1:0".parse().unwrap())).await
}

#[tokio::test]
async fn who_was_verified_before_goes_on_and_is_verified_again() {
    let issuer = Issuer::new();
    let broker = with_admin(&issuer).await;
    waits_until_offline(&broker, false).await;
    let iat = now_s();
    // Ends while the keys are away.
    let brief = issuer.key.sign(&Claims { iat, exp: iat + 3, ..issuer.claims("brief") });
    let mut before = RawPeer::client_with(&broker, &brief).await;
    let known = issuer.token("known");
    RawPeer::client_with(&broker, &known).await.close();

    std::fs::remove_file(issuer.keys()).unwrap();
    let told = waits_until_offline(&broker, true).await;
    assert!(told.contains("keys.json"), "{told}");
    // Who was there stays, who was verified before comes back, nobody else comes in.
    before.expect_alive().await;
    let mut again = RawPeer::client_with(&broker, &issuer.token("known")).await;
    assert_eq!(who(&mut again).await, "known");
    let message = refused(&broker, &issuer.token("stranger")).await;
    assert!(message.contains("was not verified lately"), "{message}");
    // The token that has expired since is as good as it was, and one that was over before is not.
    within("the token to expire", async {
        while now_s() < iat + 4 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    before.expect_alive().await;
    let mut back = RawPeer::client_with(&broker, &brief).await;
    let old = issuer.key.sign(&Claims { iat: iat - 100, exp: iat - 50, ..issuer.claims("known") });
    assert!(refused(&broker, &old).await.contains("has expired"));
    // A forged one is forged all the same.
    let forged = mcp_broker::auth::SigningKey::generate().unwrap().sign(&issuer.claims("known"));
    assert!(refused(&broker, &forged).await.contains("does not know"));
    let told = waits_until_offline(&broker, true).await;
    let line = told.lines().find(|it| it.starts_with("mcp_auth_offline_admissions_total")).unwrap();
    assert!(line.rsplit(' ').next().unwrap().parse::<u64>().unwrap() >= 3, "{line}");

    issuer.publish();
    waits_until_offline(&broker, false).await;
    for peer in [&mut before, &mut back] {
        let message = peer.expect_refusal(ErrorCode::Unauthenticated).await;
        assert!(message.contains("has expired"), "{message}");
    }
    again.send(mcp_proto::Message::Ping(mcp_proto::Ping::probe(1)), "").await;
    RawPeer::client_with(&broker, &issuer.token("stranger")).await.expect_alive().await;
    RawPeer::client_with(&broker, &known).await.expect_alive().await;
}

#[tokio::test]
async fn nobody_is_let_in_offline_where_that_is_switched_off() {
    let issuer = Issuer::new();
    let broker = issuer.broker(|config| {
        config.admin = Some("127.0.0.1:0".parse().unwrap());
        config.auth.offline_max_age_ms = 0;
    });
    let broker = broker.await;
    let mut client = RawPeer::client_with(&broker, &issuer.token("shop")).await;
    std::fs::remove_file(issuer.keys()).unwrap();
    client.expect_refusal(ErrorCode::Unauthenticated).await;
    refused(&broker, &issuer.token("shop")).await;
}

/// Serves a key set over HTTP, while its status is 200.
async fn serve(keys: String, status: Arc<AtomicU16>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let status = status.load(Ordering::SeqCst);
            let body = if status == 200 { keys.as_str() } else { "down" };
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
            );
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
    });
    address
}

#[tokio::test]
async fn keys_come_from_a_url_as_well_and_are_waited_for() {
    let issuer = Issuer::new();
    let status = Arc::new(AtomicU16::new(503));
    let address = serve(issuer.key.public_json(), status.clone()).await;
    let broker = broker(|config| {
        config.admin = Some("127.0.0.1:0".parse().unwrap());
        config.auth.token_keys_url = Some(format!("http://{address}/keys"));
        config.auth.token_keys_refresh_ms = 100;
    });
    let broker = broker.await;
    let told = waits_until_offline(&broker, true).await;
    assert!(told.contains("it answers 503"), "{told}");
    let message = refused(&broker, &issuer.token("shop")).await;
    assert!(message.contains("could not be read yet"), "{message}");
    status.store(200, Ordering::SeqCst);
    waits_until_offline(&broker, false).await;
    let mut client = RawPeer::client_with(&broker, &issuer.token("shop")).await;
    status.store(500, Ordering::SeqCst);
    waits_until_offline(&broker, true).await;
    client.expect_alive().await;
    refused(&broker, &issuer.token("other")).await;
}

#[tokio::test]
async fn an_answer_that_is_too_long_or_no_key_set_is_no_answer() {
    for body in ["x".repeat(300 * 1024), "{\"keys\":[]}".to_owned()] {
        let address = serve(body, Arc::new(AtomicU16::new(200))).await;
        let broker = broker(|config| {
            config.admin = Some("127.0.0.1:0".parse().unwrap());
            config.auth.token_keys_url = Some(format!("http://{address}/keys"));
        });
        waits_until_offline(&broker.await, true).await;
    }
}
