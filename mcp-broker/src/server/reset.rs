//! Stateless resets: how a broker that was killed and started again tells the peers of its former
//! self, at their next packet, that their connections are gone (RFC 9000, section 10.3).
//!
//! A peer believes a reset only if its token is the one that it was given with the connection.
//! Tokens are made from connection ids by a key, so the key outlives the process.

use std::sync::Arc;
use std::time::Duration;

use mcp_proto::transport::endpoint_config;
use quinn::EndpointConfig;
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;

use super::error::StartError;
use super::random::random;
use super::state_dir::{Access, StateDir};

const FILE: &str = "reset_key";

/// Resets are sent no more often than this: a restart under a fleet of thousands is told to all
/// within seconds, and floods of stray packets are not answered one by one. A reset is smaller
/// than the packet it answers.
const MIN_INTERVAL: Duration = Duration::from_millis(1);

/// The secret that resets are made from.
pub(super) struct ResetKey(u128);

impl ResetKey {
    /// The one kept in the state directory; without a directory, or in a new one, a random one.
    pub(super) fn open(state: Option<&StateDir>) -> Result<Self, StartError> {
        let Some(state) = state else { return Self::random() };
        match state.read(FILE)? {
            Some(text) => match u128::from_str_radix(text.trim(), 16) {
                Ok(key) => Ok(Self(key)),
                Err(_) => Err(StartError::ResetKey { path: state.file(FILE) }),
            },
            None => {
                let key = Self::random()?;
                state.replace(FILE, &format!("{:032x}\n", key.0), Access::Private)?;
                Ok(key)
            }
        }
    }

    fn random() -> Result<Self, StartError> {
        Ok(Self(u128::from_ne_bytes(random()?)))
    }

    /// Settings of an endpoint with this key.
    pub(super) fn endpoint_config(&self, max_udp_payload_bytes: u16) -> EndpointConfig {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0.to_be_bytes());
        // Packets with connection ids that this broker never gave away are not answered. Ids say so
        // by a hash with a key that needs no more than to be hard to guess.
        let derived = hmac::sign(&key, b"connection ids");
        let mut ids = [0; 8];
        ids.copy_from_slice(&derived.as_ref()[..8]);
        let ids = u64::from_be_bytes(ids);
        let mut config = endpoint_config(max_udp_payload_bytes);
        config
            .reset_key(Arc::new(key))
            .min_reset_interval(MIN_INTERVAL)
            .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_the_same_over_starts() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let first = ResetKey::open(Some(&state)).unwrap();
        assert_eq!(ResetKey::open(Some(&state)).unwrap().0, first.0);
        assert_ne!(ResetKey::open(None).unwrap().0, first.0);
        state.replace(FILE, "not a key", Access::Private).unwrap();
        let error = ResetKey::open(Some(&state)).err().unwrap().to_string();
        assert!(error.contains("reset_key"), "{error}");
    }
}
