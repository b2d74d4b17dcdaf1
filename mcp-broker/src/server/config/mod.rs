//! Configuration: one TOML file, whose every key has a default. A section is a file here, with its
//! defaults, whose reasons are told with the keys, and its checks.

mod audit;
mod auth;
mod check;
mod console;
mod durable;
mod environment;
mod error;
mod file;
mod layers;
mod limits;
mod log;
mod origin;
mod schema;
mod show;
mod telemetry;
mod timing;
mod tls;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use mcp_proto::{ActionName, DEFAULT_PORT, Limits, NodeId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use audit::AuditConfig;
pub use auth::{AuthConfig, ClientCertificates};
pub use console::ConsoleConfig;
pub use durable::DurableConfig;
pub use error::{ConfigError, Problem};
pub use layers::{Layers, Loaded};
pub use limits::LimitsConfig;
pub use log::{LogConfig, LogFormat};
pub use origin::{Origin, Origins};
pub use schema::Key;
pub use telemetry::TelemetryConfig;
pub use timing::TimingConfig;
pub use tls::TlsConfig;

use super::admin::AdminAddr;
use crate::broker::{ActionRules, CoreConfig};

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
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Config {
    /// UDP address to listen on. Default: `127.0.0.1:7447`, loopback only.
    #[schemars(extend("x-restart" = true))]
    pub listen: SocketAddr,
    /// TCP address of the admin listener, HTTP: `/livez`, `/readyz`, `/metrics`, and the console with its
    /// `/api/v1`. Without a host, `":9447"`, it is 127.0.0.1. On an address that other machines reach,
    /// `console` has to say who may use it. Default: none.
    #[schemars(extend("x-restart" = true))]
    pub admin: Option<AdminAddr>,
    /// Who may use the admin listener.
    #[schemars(extend("x-restart" = true))]
    pub console: ConsoleConfig,
    /// Directory for what outlives the process: the epoch, the broker's name, the journal, a
    /// development certificate. Default: none, nothing is kept.
    #[schemars(extend("x-restart" = true))]
    pub state_dir: Option<PathBuf>,
    /// The broker's name, in ACK and in traces; 1 to 128 printable bytes. Default: a random one,
    /// kept in the state directory.
    #[schemars(extend("x-restart" = true))]
    pub broker_id: Option<String>,
    /// Threads that serve connections, of the process `mcp-broker`; an embedded broker runs on its
    /// program's runtime. Default: 1, which is fastest while the network, not the broker, is the
    /// limit.
    #[schemars(extend("x-restart" = true))]
    pub threads: usize,
    /// How long the broker waits awake for the next packets, in microseconds, before its thread sleeps; 0
    /// for never, 1,000 at most. It does so only while that mostly pays: tasks that follow one another
    /// closely are faster, and the broker's thread is busier meanwhile. Default: 100, as waking a thread
    /// takes some tens of them. On Linux, and a runtime of one thread, only.
    #[schemars(extend("x-restart" = true))]
    pub busy_poll_us: u64,
    /// The certificate.
    pub tls: TlsConfig,
    /// Who peers are, and what they may do.
    pub auth: AuthConfig,
    /// What is refused or closed beyond which size or number.
    pub limits: LimitsConfig,
    /// Intervals and time-outs.
    pub timing: TimingConfig,
    /// What is kept of durable tasks, and where.
    pub durable: DurableConfig,
    /// The audit log.
    pub audit: AuditConfig,
    /// The log of the process `mcp-broker`.
    pub log: LogConfig,
    /// Spans of tasks, for OpenTelemetry.
    pub telemetry: TelemetryConfig,
    /// How workers are chosen.
    pub scheduling: ActionRules,
    /// The rules of these actions. In a file, what one of them does not say is as in `scheduling`.
    #[schemars(with = "BTreeMap<String, ActionRules>")]
    pub actions: BTreeMap<ActionName, ActionRules>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)),
            admin: None,
            console: ConsoleConfig::default(),
            state_dir: None,
            broker_id: None,
            threads: 1,
            busy_poll_us: 100,
            tls: TlsConfig::default(),
            auth: AuthConfig::default(),
            limits: LimitsConfig::default(),
            timing: TimingConfig::default(),
            durable: DurableConfig::default(),
            audit: AuditConfig::default(),
            log: LogConfig::default(),
            telemetry: TelemetryConfig::default(),
            scheduling: ActionRules::default(),
            actions: BTreeMap::new(),
        }
    }
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// When it can't be read, is not TOML, or a key or value is wrong; the error names it.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        Layers::new().file(path).load().map(|loaded| loaded.config)
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
            max_identity_tasks: limits.max_identity_tasks,
            max_identity_bytes: limits.max_identity_bytes,
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
    use super::super::tls::Tls;
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
        assert_eq!(config.tls.source(), Some(Tls::Dev { names: vec![] }));
        let config = parse("[durable]\nenabled = false\ndir = '/disk'\nretention_ms = 7").unwrap();
        assert!(!config.durable.enabled);
        assert_eq!(config.durable.dir.as_deref(), Some(Path::new("/disk")));
        assert_eq!(config.durable.rules.retention_ms, 7);
    }

    #[test]
    fn an_error_names_the_file_the_line_and_the_key() {
        let error = parse("[limits]\nmax_conections = 7").unwrap_err();
        for part in ["broker.toml:2", "max_conections", "max_connections"] {
            assert!(error.contains(part), "{part} is not in {error}");
        }
        let error = parse("\n[durable]\nretention = 7").unwrap_err();
        for part in ["broker.toml:3", "durable.retention "] {
            assert!(error.contains(part), "{part} is not in {error}");
        }
        let error = parse("[limits]\nmax_connections = 'many'").unwrap_err();
        assert!(error.contains("broker.toml:2: limits.max_connections"), "{error}");
    }
}
