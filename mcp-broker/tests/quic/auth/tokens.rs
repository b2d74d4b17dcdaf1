//! Tokens: only what an issuer signed, for this broker, now.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use mcp_broker::auth::{Audience, Claims, SigningKey};
use mcp_proto::{ErrorCode, Message};

use super::{Issuer, now_s, refused, who};
use crate::support::{RawPeer, hello, result, send, worker_hello};

#[tokio::test]
async fn a_token_says_who_a_peer_is() {
    let issuer = Issuer::new();
    let broker = issuer.broker(|_| {}).await;
    let token = issuer.token_with("shop", &["operator"]);
    let mut client = RawPeer::client_with(&broker, &token).await;
    assert_eq!(who(&mut client).await, "shop");
    assert!(client.ask("stats", "").await.is_ok());
    let mut worker = RawPeer::worker_with(&broker, &issuer.token("gpu"), "gpu-1", "upper").await;
    client.send(send("t", "upper"), "a").await;
    let (route, _) = worker.receive_route().await;
    worker.send(result(&route), "A").await;
    // The one that asked who it is may come before.
    loop {
        let (deliver, body) = client.receive_deliver().await;
        if deliver.task_id.as_str() == "t" {
            assert_eq!(body, "A");
            break;
        }
    }
}

#[tokio::test]
async fn only_a_token_that_holds_is_let_in() {
    let issuer = Issuer::new();
    let broker = issuer.broker(|config| config.auth.token_max_life_ms = 7_200_000).await;
    let other = SigningKey::generate().unwrap();
    let claims = |change: &dyn Fn(&mut Claims)| {
        let mut claims = issuer.claims("shop");
        change(&mut claims);
        issuer.key.sign(&claims)
    };
    let base64 = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let good = issuer.token("shop");
    let (head, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = head.split_once('.').unwrap();
    let admin = base64(&serde_json::to_string(&issuer.claims("admin")).unwrap());
    let now = now_s();
    for (token, expected) in [
        ("garbage".to_owned(), "not a JSON Web Token"),
        ("e30.e30.e30".to_owned(), "not a JSON Web Token"),
        // Another's signature, another's claims under a good one, none at all.
        (other.sign(&issuer.claims("shop")), "does not know"),
        (format!("{header}.{admin}.{signature}"), "forged"),
        (format!("{}.{admin}.", base64(r#"{"alg":"none"}"#)), "alg is not EdDSA"),
        (format!("{}.{admin}.{signature}", base64(r#"{"alg":"HS256"}"#)), "alg is not EdDSA"),
        (format!("{head}."), "forged"),
        (claims(&|it| it.exp = now - 10), "exp is not after iat"),
        (claims(&|it| (it.iat, it.exp) = (now - 100, now - 10)), "has expired 1"),
        (claims(&|it| (it.iat, it.exp) = (now + 100, now + 200)), "does not hold for another"),
        (claims(&|it| it.nbf = Some(now + 100)), "does not hold for another"),
        (claims(&|it| it.exp = it.iat + 7_201), "7200 s at most"),
        (claims(&|it| it.aud = None), "aud has to be"),
        (claims(&|it| it.aud = Some(Audience::One("elsewhere".to_owned()))), "aud has to be"),
        (claims(&|it| it.sub = "anonymous".to_owned()), "sub is"),
        (claims(&|it| it.sub = "broker".to_owned()), "sub is"),
    ] {
        let message = refused(&broker, &token).await;
        assert!(message.contains(expected), "{expected} is not in {message}");
    }
    let mut peer = RawPeer::connect(&broker).await;
    peer.send(Message::Hello(Box::new(hello())), "").await;
    let message = peer.expect_refusal(ErrorCode::Unauthenticated).await;
    assert!(message.contains("a token (--token-file"), "{message}");
    // Neither is a worker.
    let mut peer = RawPeer::connect(&broker).await;
    peer.send(Message::Hello(Box::new(worker_hello("w", "a", 1))), "").await;
    peer.expect_refusal(ErrorCode::Unauthenticated).await;
    assert!(broker.agents(true).is_empty());
    RawPeer::client_with(&broker, &good).await.expect_alive().await;
}

#[tokio::test]
async fn a_connection_ends_with_its_token_and_the_session_goes_on_with_the_next() {
    let issuer = Issuer::new();
    let broker = issuer.broker(|_| {}).await;
    let brief = || {
        let iat = now_s();
        issuer.key.sign(&Claims { iat, exp: iat + 2, ..issuer.claims("shop") })
    };
    let mut client = RawPeer::client_with(&broker, &brief()).await;
    client.send(send("t", "upper"), "").await;
    let message = client.expect_refusal(ErrorCode::Unauthenticated).await;
    assert!(message.contains("the token of shop has expired"), "{message}");
    let mut client = RawPeer::client_with(&broker, &issuer.token("shop")).await;
    let shown = client.ask("tasks.show", r#"{"task_id":"t"}"#).await.unwrap();
    assert_eq!(shown["identity"], "shop");
}

#[tokio::test]
async fn a_revoked_token_is_refused_and_ends_its_connection() {
    let issuer = Issuer::new();
    let list = issuer.write("revoked", "# none yet\n");
    let broker = issuer.broker(|config| config.auth.revoked_file = Some(list)).await;
    let claims = issuer.claims("shop");
    let token = issuer.key.sign(&claims);
    let mut revoked = RawPeer::client_with(&broker, &token).await;
    let mut stays = RawPeer::client_with(&broker, &issuer.token("shop")).await;
    issuer.write("revoked", &format!("jti {} # stolen\n", claims.jti.unwrap()));
    let message = revoked.expect_refusal(ErrorCode::Unauthenticated).await;
    assert!(message.contains("was revoked"), "{message}");
    assert!(refused(&broker, &token).await.contains("was revoked"));
    stays.expect_alive().await;
    issuer.write("revoked", &format!("sub shop {}\n", now_s() + 1));
    let message = stays.expect_refusal(ErrorCode::Unauthenticated).await;
    assert!(message.contains("was revoked"), "{message}");
    RawPeer::client_with(&broker, &issuer.token("other")).await.expect_alive().await;
}

#[tokio::test]
async fn a_key_that_is_taken_out_of_the_set_ends_what_it_signed() {
    let issuer = Issuer::new();
    let broker = issuer.broker(|_| {}).await;
    let mut client = RawPeer::client_with(&broker, &issuer.token("shop")).await;
    let next = SigningKey::generate().unwrap();
    issuer.write("keys.json", &next.public_pem());
    let message = client.expect_refusal(ErrorCode::Unauthenticated).await;
    // A key from PEM has no id, so it is tried.
    assert!(message.contains("forged"), "{message}");
    let token = next.sign(&issuer.claims("shop"));
    RawPeer::client_with(&broker, &token).await.expect_alive().await;
}

#[tokio::test]
async fn without_authentication_a_token_is_not_looked_at() {
    let broker = crate::support::broker(|_| {}).await;
    let mut client = RawPeer::client_with(&broker, "whatever").await;
    assert_eq!(who(&mut client).await, "anonymous");
}
