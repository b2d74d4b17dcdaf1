//! Who peers are, and what they may do, over real connections.

mod certificates;
mod outage;
mod permissions;
mod scan;
mod tokens;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use mcp_broker::auth::{Audience, Claims, SigningKey};
use mcp_broker::{Broker, Config};
use mcp_proto::ErrorCode;

use crate::support::{Dialled, RawPeer, broker, hello, send, unique, with_token};

#[allow(clippy::disallowed_methods, reason = "tokens are for the time of day")]
pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// What signs tokens, and where the broker finds the public key.
pub(crate) struct Issuer {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) key: SigningKey,
}

impl Issuer {
    pub(crate) fn new() -> Self {
        let it = Self { dir: tempfile::tempdir().unwrap(), key: SigningKey::generate().unwrap() };
        it.publish();
        it
    }

    pub(crate) fn publish(&self) {
        self.write("keys.json", &self.key.public_json());
    }

    pub(crate) fn keys(&self) -> PathBuf {
        self.dir.path().join("keys.json")
    }

    /// Replaces a file beside the keys, whole.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        let new = self.dir.path().join(format!("{name}.new"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &path).unwrap();
        path
    }

    pub(crate) fn claims(&self, sub: &str) -> Claims {
        let iat = now_s();
        let aud = Some(Audience::One("mcp".to_owned()));
        let jti = Some(unique("jti"));
        Claims { sub: sub.to_owned(), exp: iat + 3600, iat, nbf: None, jti, aud, roles: vec![] }
    }

    pub(crate) fn token(&self, sub: &str) -> String {
        self.key.sign(&self.claims(sub))
    }

    pub(crate) fn token_with(&self, sub: &str, roles: &[&str]) -> String {
        let roles = roles.iter().map(|role| (*role).to_owned()).collect();
        self.key.sign(&Claims { roles, ..self.claims(sub) })
    }

    /// A broker that takes its tokens.
    pub(crate) async fn broker(&self, configure: impl FnOnce(&mut Config)) -> Broker {
        broker(|config| {
            config.auth.token_keys = Some(self.keys());
            config.auth.token_audience = Some("mcp".to_owned());
            config.auth.token_keys_refresh_ms = 100;
            config.auth.token_leeway_ms = 0;
            configure(config);
        })
        .await
    }
}

/// Who the broker says that a client is.
async fn who(client: &mut RawPeer) -> String {
    let id = unique("who");
    client.send(send(&id, "nobody/serves/it"), "").await;
    let shown = client.ask("tasks.show", &format!(r#"{{"task_id":"{id}"}}"#)).await.unwrap();
    shown["identity"].as_str().unwrap().to_owned()
}

/// Why a token is refused. That is told, and nothing of the token.
async fn refused(broker: &impl Dialled, token: &str) -> String {
    let mut peer = RawPeer::connect(broker).await;
    let hello = with_token(hello(), token);
    peer.send(mcp_proto::Message::Hello(Box::new(hello)), "").await;
    let message = peer.expect_refusal(ErrorCode::Unauthenticated).await;
    let signature = token.rsplit('.').next().unwrap();
    assert!(signature.len() < 8 || !message.contains(signature), "{message}");
    message
}

fn policy_file(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("policy.toml");
    std::fs::write(&path, text).unwrap();
    path
}
