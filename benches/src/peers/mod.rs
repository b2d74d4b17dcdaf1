//! What is compared: a broker, its worker and its client, each spoken to by its real client library.

pub(crate) mod grpc;
mod item;
mod jetstream;
pub(crate) mod mcp;
mod nats;
mod rabbitmq;
mod redis;
mod redis_streams;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::load::{self, Load, Measured};

/// What tasks are called, wherever a name is needed.
pub(crate) const ECHO: &str = "echo";

/// One row of the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Peer {
    /// This broker, as `mcp-broker serve` runs it
    Mcp,
    /// The same, with UDP payloads of at most 1452 bytes as on most networks
    #[value(name = "mcp-1452")]
    #[serde(rename = "mcp-1452")]
    Mcp1452,
    /// This broker, with a worker that takes 60 tasks more than its slots; NATS's takes all that come
    McpPrefetch,
    /// This broker, whose thread sleeps whenever nothing is to be done
    McpNoBusyPoll,
    /// NATS over plain TCP, with a queue group
    Nats,
    /// NATS over TLS
    NatsTls,
    /// Redis lists
    Redis,
    /// gRPC straight to the worker: no broker at all
    Grpc,
    /// This broker, durable tasks
    McpDurable,
    /// NATS JetStream, each write synced
    NatsJsSync,
    /// NATS JetStream as it comes
    NatsJs,
    /// Redis streams, each write synced
    RedisStreamsSync,
    /// Redis streams, synced once a second
    RedisStreams,
    /// RabbitMQ, quorum queues, persistent messages and publisher confirms
    Rabbitmq,
}

impl Peer {
    /// Whether it is what the others are compared with.
    pub(crate) fn is_ours(self) -> bool {
        use Peer::{Mcp, Mcp1452, McpDurable, McpNoBusyPoll, McpPrefetch};
        matches!(self, Mcp | Mcp1452 | McpPrefetch | McpNoBusyPoll | McpDurable)
    }

    pub(crate) fn is_tls(self) -> bool {
        self.is_ours() || self == Peer::NatsTls
    }

    /// Largest UDP payload, where it has one.
    pub(crate) fn mtu(self) -> Option<u16> {
        match self {
            Peer::Mcp1452 => Some(mcp::NETWORK_UDP_PAYLOAD_BYTES),
            _ => self.is_ours().then_some(mcp_proto::transport::MAX_UDP_PAYLOAD_BYTES),
        }
    }

    /// What it has done once it acknowledges a task or a result; none where it promises nothing.
    pub(crate) fn guarantee(self) -> Option<&'static str> {
        match self {
            Peer::McpDurable | Peer::NatsJsSync | Peer::RedisStreamsSync | Peer::Rabbitmq => {
                Some("synced to disk")
            }
            Peer::NatsJs => Some("written, synced every 2 minutes"),
            Peer::RedisStreams => Some("written, synced every second"),
            Peer::Mcp | Peer::Mcp1452 | Peer::McpPrefetch | Peer::McpNoBusyPoll => None,
            Peer::Nats | Peer::NatsTls | Peer::Redis | Peer::Grpc => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_possible_value() {
            Some(value) => f.write_str(value.get_name()),
            None => Ok(()),
        }
    }
}

/// Where a running server is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Target {
    /// And where it tells its metrics.
    Mcp {
        address: SocketAddr,
        ca_pem: String,
        admin: SocketAddr,
        is_durable: bool,
    },
    Nats {
        address: SocketAddr,
        ca_file: Option<PathBuf>,
    },
    /// And whether each write of it is synced.
    JetStream {
        address: SocketAddr,
        is_synced: bool,
    },
    Redis {
        address: SocketAddr,
    },
    RedisStreams {
        address: SocketAddr,
    },
    Rabbitmq {
        address: SocketAddr,
    },
    Grpc {
        address: SocketAddr,
    },
}

/// Serves tasks of the server at `target` until the process ends; calls `ready` when it is known
/// there. Of this broker's, takes `prefetch` more than it has slots.
pub(crate) async fn work(
    target: Target,
    slots: u32,
    prefetch: u32,
    ready: impl FnOnce(),
) -> Result<()> {
    match target {
        Target::Mcp { address, ca_pem, .. } => {
            mcp::work(address, &ca_pem, slots, prefetch, ready).await
        }
        Target::Nats { address, ca_file } => nats::work(address, ca_file, slots, ready).await,
        Target::JetStream { address, is_synced } => {
            jetstream::work(address, is_synced, slots, ready).await
        }
        Target::Redis { address } => redis::work(address, slots, ready).await,
        Target::RedisStreams { address } => redis_streams::work(address, slots, ready).await,
        Target::Rabbitmq { address } => rabbitmq::work(address, slots, ready).await,
        Target::Grpc { .. } => anyhow::bail!("a gRPC server is its own worker"),
    }
}

/// Puts `load` on the server at `target`.
pub(crate) async fn measure(target: Target, load: Load) -> Result<Measured> {
    match target {
        Target::Mcp { address, ca_pem, is_durable, .. } => {
            load::run(mcp::Caller::connect(address, &ca_pem, is_durable).await?, load).await
        }
        Target::Nats { address, ca_file } => {
            load::run(nats::Caller::connect(address, ca_file).await?, load).await
        }
        Target::JetStream { address, is_synced } => {
            load::run(jetstream::Caller::connect(address, is_synced).await?, load).await
        }
        Target::Redis { address } => load::run(redis::Caller::connect(address).await?, load).await,
        Target::RedisStreams { address } => {
            load::run(redis_streams::Caller::connect(address).await?, load).await
        }
        Target::Rabbitmq { address } => {
            load::run(rabbitmq::Caller::connect(address).await?, load).await
        }
        Target::Grpc { address } => load::run(grpc::Caller::connect(address).await?, load).await,
    }
}
