//! Configuration: one TOML file, whose every key has a default.

mod check;
mod defaults;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mcp_proto::{ActionName, Limits, NodeId};
use serde::Deserialize;
use serde::de::Error as _;

use super::admin::AdminAddr;
use super::tls::Tls;
use crate::broker::{ActionRules, CoreConfig, DurableRules};

/// Configuration of a broker, as its file says it. Unknown keys are errors.
///
/// ```toml
/// listen = "0.0.0.0:7447"
/// admin = "127.0.0.1:9447"
/// state_dir = "/var/lib/mcp-broker"
///
/// [tls]
/// cert_file = "/etc/mcp/cert.pem"
/// key_file = "/etc/mcp/key.pem"
///
/// [limits]
/// max_connections = 5000
///
/// [timing]
/// drain_ms = 30000
/// ```
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Config {
    /// UDP address to listen on. Default: `127.0.0.1:7447`, loopback only.
    pub listen: SocketAddr,
    /// TCP address of the admin listener, HTTP: `/livez`, `/readyz`, `/metrics`. Without a host,
    /// `":9447"`, it is 127.0.0.1. Default: none.
    pub admin: Option<AdminAddr>,
    /// Whether `admin` may be an address that other machines reach. It asks nobody who they are:
    /// whoever reaches it sees the names of actions and how much is done. Default: no.
    pub admin_allow_remote: bool,
    /// Directory for what outlives the process: the epoch, the broker's name, the journal, a
    /// development certificate. Default: none, nothing is kept.
    pub state_dir: Option<PathBuf>,
    /// The broker's name, in ACK and in traces; 1 to 128 printable bytes. Default: a random one,
    /// kept in the state directory.
    pub broker_id: Option<String>,
    /// Threads that serve connections, of the process `mcp-broker`; an embedded broker runs on its
    /// program's runtime. Default: 1, which is fastest while the network, not the broker, is the
    /// limit.
    pub threads: usize,
    /// The certificate.
    pub tls: TlsConfig,
    /// What is refused or closed beyond which size or number.
    pub limits: LimitsConfig,
    /// Intervals and time-outs.
    pub timing: TimingConfig,
    /// What is kept of durable tasks, and where.
    pub durable: DurableConfig,
    /// How workers are chosen.
    pub scheduling: ActionRules,
    /// The rules of these actions. In a file, what one of them does not say is as in `scheduling`.
    pub actions: BTreeMap<ActionName, ActionRules>,
}

/// The key `[tls]`: where the broker's certificate comes from.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct TlsConfig {
    /// PEM file: the broker's certificate, then those between it and the authority.
    pub cert_file: Option<PathBuf>,
    /// PEM file: its private key.
    pub key_file: Option<PathBuf>,
    /// Make a local authority and certificate in the state directory, for development.
    pub dev: bool,
    /// Names and addresses that the development certificate has besides localhost and the address
    /// listened on.
    pub dev_names: Vec<String>,
}

/// The key `[durable]`: the journal, and what is kept of durable tasks.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct DurableConfig {
    /// Whether there is a journal: without one, durable tasks are refused. Default: yes, where there is
    /// a state directory.
    pub enabled: bool,
    /// Directory of the journal, such as one on a disk of its own. There has to be a state directory
    /// besides. Default: `journal` in the state directory.
    pub dir: Option<PathBuf>,
    /// What is kept, in memory and in the journal.
    #[serde(flatten)]
    pub rules: DurableRules,
}

/// The key `[limits]`. Sizes are in bytes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct LimitsConfig {
    /// Open connections; further ones are refused. Each costs about 40 KiB when idle. 20,000.
    pub max_connections: usize,
    /// Connections being opened, from the handshake until HELLO; further ones are refused, and those of
    /// one address (of IPv6: its first 64 bits) from eight ninths of them on. Each costs CPU and memory
    /// before anything is known of its peer. 1,024.
    pub max_handshakes: usize,
    /// With so many connections being opened, a further peer must first prove that its address is its
    /// own (QUIC Retry, one round trip more), so that forged addresses cost little. 0: always. 128.
    pub retry_handshakes: usize,
    /// Bytes waiting to be sent to a client beyond which nothing is read from it, until it has read
    /// half of them. Workers are always read. 4 MiB.
    pub outgoing_soft_bytes: usize,
    /// Bytes waiting to be sent to a peer beyond which it is closed with SLOW_CONSUMER. 32 MiB.
    pub outgoing_hard_bytes: usize,
    /// Bytes waiting to be sent to peers that do not take them as fast as they come, of all together.
    /// No peer may have more than eight times what is free of it: when many stop reading, each has less
    /// than the above, but 256 KiB always. 1 GiB.
    pub outgoing_bytes: usize,

    /// Largest UDP payload, in both directions, that path MTU discovery tries: 1,200 to 5,232. Less
    /// than the default where a network drops large packets now and then. 5,232.
    pub max_udp_payload_bytes: u16,

    /// Largest frame header, at most the protocol's 65,535: the default.
    pub max_header_bytes: u32,
    /// Largest frame body, at most the protocol's 65,536: the default.
    pub max_body_bytes: u32,
    /// Tasks without an outcome that one client session may have. 65,536.
    pub max_session_tasks: u32,
    /// Largest slots + prefetch of one worker, at most 4,096: the default.
    pub max_agent_attempts: u32,
    /// Longest input that comes in chunks: of tasks whose input does not fit a frame. 0: such tasks
    /// are rejected. 1 GiB.
    pub max_input_bytes: u64,

    /// Tasks without an outcome, of all actions together.
    pub max_tasks: usize,
    /// Tasks waiting in one action's queue; further ones are rejected with QUEUE_FULL.
    pub max_queue_tasks: usize,
    /// Bytes of the tasks waiting in one action's queue; beyond them, QUEUE_FULL.
    pub max_queue_bytes: usize,
    /// Bytes of the tasks waiting in all queues together; beyond them, QUEUE_FULL. 2 GiB.
    pub max_waiting_bytes: usize,
    /// Registered workers, lost ones included.
    pub max_agents: usize,
    /// Client sessions, detached ones included.
    pub max_sessions: usize,
    /// Sessions that may wait for one task.
    pub max_waiters: usize,
    /// Results held for a client that lost its connection.
    pub max_detached_results: usize,
    /// Bytes of the results held for a client that lost its connection.
    pub max_detached_bytes: usize,
    /// Bytes of the results held for all of those together; none of them may have more than eight times
    /// what is free of it. 256 MiB.
    pub detached_bytes: usize,
    /// Results kept after delivery, which answer duplicates and FETCH.
    pub kept_results: usize,
    /// Bytes of the results kept after delivery.
    pub kept_result_bytes: usize,
    /// Bytes set aside for inputs on their way in chunks, of all tasks together: 64 KiB for each that
    /// waits for a worker or runs, and 256 KiB while less than half is taken. Beyond them, QUEUE_FULL.
    /// 64 MiB.
    pub max_upload_bytes: usize,
    /// Last good answers kept for actions whose rules have a cached fallback, of all together; the
    /// oldest go. 10,000.
    pub cached_answers: usize,
    /// Bytes of those. 32 MiB.
    pub cached_answer_bytes: usize,
    /// How often workers may hand a task back before it fails.
    pub max_nacks: u32,
    /// The retry budget: attempts after a failure or a time-out, in percent of the tasks taken
    /// lately, 0 to 10,000. When everything fails, retries are no more than this much load on top.
    /// Besides them there are 10, and one a second, so that a quiet broker always retries. 20.
    pub retry_budget_percent: u32,
}

/// The key `[timing]`. All in milliseconds.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct TimingConfig {
    /// A connection may take this long for each of: the handshake, opening its lane, HELLO. 3,000.
    pub hello_timeout_ms: u64,
    /// A peer that has begun a frame must send 64 KiB of it, or all, in each such time, or is closed
    /// with FRAME_TIMEOUT; one for which something waits must take as much, or is closed with
    /// SLOW_CONSUMER after this time or up to twice as long. Longer than a network is silent and comes
    /// back. 15,000.
    pub slow_peer_ms: u64,
    /// A connection without any packet for this long is dead to QUIC. 30,000.
    pub idle_timeout_ms: u64,
    /// A worker silent for this long is lost, even when it holds nothing. 30,000.
    pub lease_ms: u64,
    /// How often workers send PING: a third of the lease, so that one may come late. 10,000.
    pub ping_interval_ms: u64,
    /// A worker that holds tasks is probed after this much silence. 500.
    pub probe_after_ms: u64,
    /// A worker that holds tasks is lost after this much silence, probes included. 2,000.
    pub lost_after_ms: u64,
    /// A lost worker can come back for this long and go on with what it held. 10,000.
    pub resume_grace_ms: u64,
    /// A client's session outlives its connection for this long. 30,000.
    pub detach_ms: u64,
    /// A task that no ready worker serves is rejected after this long, or at its deadline. 5,000.
    pub no_worker_wait_ms: u64,
    /// For this long after a restart no task is rejected for want of a worker: those of before are
    /// coming back. The last of them knows after a PING interval and some seconds. 15,000.
    pub restart_grace_ms: u64,
    /// A worker may take this long to confirm a CANCEL before that counts as its fault. 5,000.
    pub cancel_grace_ms: u64,
    /// At shutdown, running tasks may take this long to finish. 10,000.
    pub drain_ms: u64,
    /// A connection that is being closed may take this long to read its last frames. 1,000.
    pub close_flush_ms: u64,
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Its file can't be read.
    #[error("cannot read the configuration {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not TOML, has a key that does not exist, or a value of the wrong type.
    #[error("{path}: {problem}", path = path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The place, the key, and what is wrong there.
        problem: String,
    },
    /// A value that is not allowed.
    #[error("{key} {problem}")]
    Value {
        /// The key, `limits.max_connections`.
        key: Cow<'static, str>,
        /// What is wrong with its value, to be read after the key.
        problem: String,
    },
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// When it can't be read, is not TOML, or a key or value is wrong; the error names it.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let config = Self::parse(&text).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            problem: error.to_string(),
        })?;
        config.check()?;
        Ok(config)
    }

    /// Reads a text. Each of its actions has what `scheduling` says where it says nothing itself.
    fn parse(text: &str) -> Result<Self, toml::de::Error> {
        #[derive(Deserialize)]
        struct Parts {
            #[serde(default)]
            actions: BTreeMap<ActionName, toml::Table>,
        }
        // As it is first: errors of that name the line.
        let mut config: Self = toml::from_str(text)?;
        for (name, part) in toml::from_str::<Parts>(text)?.actions {
            let rules = serde_json::to_value(part).and_then(|part| config.scheduling.merged(part));
            config.actions.insert(name, rules.map_err(toml::de::Error::custom)?);
        }
        Ok(config)
    }

    /// Where the certificate comes from; `None` when the configuration doesn't say.
    pub(crate) fn tls(&self) -> Option<Tls> {
        match (&self.tls.cert_file, &self.tls.key_file) {
            (Some(cert), Some(key)) => Some(Tls::Files { cert: cert.clone(), key: key.clone() }),
            _ if self.tls.dev => Some(Tls::Dev { names: self.tls.dev_names.clone() }),
            _ => None,
        }
    }

    /// What a connection may send.
    pub(crate) fn frame_limits(&self) -> Limits {
        Limits {
            max_header_bytes: self.limits.max_header_bytes,
            max_body_bytes: self.limits.max_body_bytes,
            max_session_tasks: self.limits.max_session_tasks,
            max_agent_attempts: self.limits.max_agent_attempts,
            max_input_bytes: self.limits.max_input_bytes,
        }
    }

    /// What the core needs of it.
    pub(crate) fn core(&self, broker_id: NodeId, epoch: u64, seed: u64) -> CoreConfig {
        let Self { limits, timing, .. } = self;
        CoreConfig {
            durable: self.durable.rules.clone(),
            rules: self.scheduling.clone(),
            actions: self.actions.clone(),
            limits: self.frame_limits(),
            hello_timeout_ms: timing.hello_timeout_ms,
            lease_ms: timing.lease_ms,
            ping_interval_ms: timing.ping_interval_ms,
            probe_after_ms: timing.probe_after_ms,
            lost_after_ms: timing.lost_after_ms,
            resume_grace_ms: timing.resume_grace_ms,
            detach_ms: timing.detach_ms,
            no_worker_wait_ms: timing.no_worker_wait_ms,
            cancel_grace_ms: timing.cancel_grace_ms,
            max_tasks: limits.max_tasks,
            max_queue_tasks: limits.max_queue_tasks,
            max_queue_bytes: limits.max_queue_bytes,
            max_waiting_bytes: limits.max_waiting_bytes,
            max_agents: limits.max_agents,
            max_sessions: limits.max_sessions,
            max_waiters: limits.max_waiters,
            max_detached_results: limits.max_detached_results,
            max_detached_bytes: limits.max_detached_bytes,
            detached_bytes: limits.detached_bytes,
            kept_results: limits.kept_results,
            kept_result_bytes: limits.kept_result_bytes,
            max_upload_bytes: limits.max_upload_bytes,
            cached_answers: limits.cached_answers,
            cached_answer_bytes: limits.cached_answer_bytes,
            max_nacks: limits.max_nacks,
            retry_budget_percent: limits.retry_budget_percent,
            ..CoreConfig::new(broker_id, epoch, seed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Policy;

    fn parse(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("broker.toml");
        std::fs::write(&path, text).unwrap();
        Config::from_file(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_is_all_defaults_which_are_the_cores() {
        let config = parse("").unwrap();
        let id = NodeId::try_from("b").unwrap();
        let ours = format!("{:?}", config.core(id.clone(), 1, 2));
        assert_eq!(ours, format!("{:?}", CoreConfig::new(id, 1, 2)));
        assert_eq!(config.listen.to_string(), "127.0.0.1:7447");
    }

    #[test]
    fn keys_are_read() {
        let config = parse(
            "listen = '[::1]:9'\nadmin = ':8'\n[limits]\nmax_connections = 7\n[timing]\ndrain_ms = 1\n\
             [scheduling]\npolicy = 'round_robin'\n[actions.a]\n[actions.b]\npolicy = 'least_loaded'\n[tls]\ndev = true",
        )
        .unwrap();
        assert_eq!(config.listen.port(), 9);
        assert_eq!(config.admin.map(|it| it.to_string()).as_deref(), Some("127.0.0.1:8"));
        assert_eq!(config.limits.max_connections, 7);
        assert_eq!(config.timing.drain_ms, 1);
        assert_eq!(config.scheduling.policy, Policy::RoundRobin);
        assert_eq!(config.actions["a"].policy, Policy::RoundRobin);
        assert_eq!(config.actions["b"].policy, Policy::LeastLoaded);
        assert_eq!(config.tls(), Some(Tls::Dev { names: vec![] }));
        let config = parse("[durable]\nenabled = false\ndir = '/disk'\nretention_ms = 7").unwrap();
        assert!(!config.durable.enabled);
        assert_eq!(config.durable.dir.as_deref(), Some(Path::new("/disk")));
        assert_eq!(config.durable.rules.retention_ms, 7);
    }

    #[test]
    fn an_error_names_the_file_the_line_and_the_key() {
        let error = parse("[limits]\nmax_conections = 7").unwrap_err();
        for part in ["broker.toml", "line 2", "max_conections", "max_connections"] {
            assert!(error.contains(part), "{part} is not in {error}");
        }
        let error = parse("\n[durable]\nretention = 7").unwrap_err();
        for part in ["broker.toml", "line 2", "[durable]", "retention"] {
            assert!(error.contains(part), "{part} is not in {error}");
        }
        let error = parse("[limits]\nmax_connections = 'many'").unwrap_err();
        assert!(error.contains("line 2"), "{error}");
    }
}
