//! Where the admin listener listens.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Address of the admin listener. As text `127.0.0.1:9447`, or just `:9447` or `9447`: without a
/// host it is 127.0.0.1. Port 0 takes a free one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct AdminAddr(pub SocketAddr);

impl AdminAddr {
    /// Whether other machines can reach it.
    pub(in crate::server) fn is_remote(self) -> bool {
        !self.0.ip().to_canonical().is_loopback()
    }
}

impl From<SocketAddr> for AdminAddr {
    fn from(address: SocketAddr) -> Self {
        Self(address)
    }
}

impl FromStr for AdminAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = match text.split_once(':') {
            None => Some(text),
            Some(("" | "localhost", port)) => Some(port),
            Some(_) => None,
        };
        let address = match port {
            Some(port) => port.parse().ok().map(|port| (Ipv4Addr::LOCALHOST, port).into()),
            None => text.parse().ok(),
        };
        address.map(Self).ok_or_else(|| {
            "an IP address and a port are needed, 127.0.0.1:9447, or just a port".to_owned()
        })
    }
}

impl TryFrom<String> for AdminAddr {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<AdminAddr> for String {
    fn from(address: AdminAddr) -> Self {
        address.to_string()
    }
}

impl fmt::Display for AdminAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_host_it_is_loopback() {
        let parsed = |text: &str| text.parse::<AdminAddr>().map(|it| it.to_string());
        for text in ["9447", ":9447", "localhost:9447", "127.0.0.1:9447"] {
            assert_eq!(parsed(text).as_deref(), Ok("127.0.0.1:9447"), "{text}");
        }
        assert_eq!(parsed("[::1]:0").as_deref(), Ok("[::1]:0"));
        for text in ["", ":", "65536", "here:1", "127.0.0.1", "::1", "http://127.0.0.1:1"] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_other_machines_reach_is_remote() {
        let is_remote = |text: &str| text.parse::<AdminAddr>().unwrap().is_remote();
        for text in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(!is_remote(text), "{text}");
        }
        for text in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
            assert!(is_remote(text), "{text}");
        }
    }
}
