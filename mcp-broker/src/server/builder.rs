//! Starting a broker.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mcp_proto::NodeId;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admin::{self, AdminAddr};
use super::audit::{self, Audit};
use super::auth::{self, Auth};
use super::clock::Clock;
use super::config::{Config, ConfigError, Layers};
use super::epoch::Epoch;
use super::error::StartError;
use super::journal::{self, Gauges, MemoryJournal, Opened};
use super::listener::{Entrance, Listener};
use super::orders;
use super::outgoing::Outgoing;
use super::quic::{Crypto, QuicServer, Transport};
use super::random::random;
use super::reload::{
    self, Apply, AuditFile, Certificate, LogLevel, Part, PolicyFile, PrepareLevel, Reloader, Seen,
    State,
};
use super::reset::ResetKey;
use super::running::{Broker, Running};
use super::shared::{Outbox, Shared};
use super::state_dir::{ADDRESS_FILE, Access, StateDir};
use super::telemetry::Telemetry;
use super::tls::{self, Tls};
use super::{timer, unreachable};
use crate::broker::{Core, Journal, Record, Restored};

const BROKER_ID_FILE: &str = "broker_id";
/// In the state directory, when nothing else is configured.
const JOURNAL_DIR: &str = "journal";

/// Settings of a broker that is to be started. See [`Broker::builder`].
#[must_use = "a builder does nothing until `start`"]
pub struct Builder {
    config: Config,
    layers: Option<Layers>,
    listen: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    state_dir: Option<PathBuf>,
    tls: Option<Tls>,
    journal: Option<Box<dyn Journal>>,
    log_level: Option<PrepareLevel>,
}

impl Builder {
    pub(super) fn new() -> Self {
        let mut config = Config::default();
        config.listen.set_port(0);
        Self {
            config,
            layers: None,
            listen: None,
            admin: None,
            state_dir: None,
            tls: None,
            journal: None,
            log_level: None,
        }
    }

    /// Everything at once. What the builder's other methods say takes precedence, in any order.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Everything at once, loaded from where it comes, in place of [`config`](Self::config). When a
    /// file changes, it is loaded again, as by [`Broker::reload`].
    pub fn layers(mut self, layers: Layers) -> Self {
        self.layers = Some(layers);
        self
    }

    /// UDP address to listen on; port 0 takes a free one.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// TCP address of the admin listener, HTTP: `/livez`, `/readyz`, `/metrics`, and the console with its
    /// `/api/v1`; port 0 takes a free one. Default: none. On an address that other machines reach,
    /// [`ConsoleConfig`](super::ConsoleConfig) has to say who may use it, or [`Builder::start`] refuses it.
    pub fn admin(mut self, address: SocketAddr) -> Self {
        self.admin = Some(address);
        self
    }

    /// Directory for what outlives the process, the journal included. Made if it isn't there.
    pub fn state_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.state_dir = Some(path.into());
        self
    }

    /// Where the certificate comes from.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Where records of durable tasks are kept. Default: the directory `journal` in the state
    /// directory, or [`Config::durable`]'s; where there is no state directory, [`MemoryJournal`], and
    /// durable tasks are refused.
    pub fn journal(mut self, journal: impl Journal) -> Self {
        self.journal = Some(Box::new(journal));
        self
    }

    /// What puts another `log.level` in force when the configuration is loaded again: it is given the
    /// level and changes nothing, but returns what does, and can't fail, or what is wrong with the level.
    /// Default: nothing does.
    pub fn log_level<P, S>(mut self, prepare: P) -> Self
    where
        P: Fn(&str) -> Result<S, String> + Send + Sync + 'static,
        S: FnOnce() + Send + 'static,
    {
        let prepare = move |level: &str| prepare(level).map(|set| Box::new(set) as Apply);
        self.log_level = Some(Box::new(prepare));
        self
    }

    /// Starts the broker on the current tokio runtime, whose I/O and time must be enabled. It
    /// accepts connections when this returns, and what its journal kept goes on.
    ///
    /// # Errors
    /// See [`StartError`]. Nothing is left running.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn start(self) -> Result<Broker, StartError> {
        let Self { config, layers, listen, admin, state_dir, tls, journal, log_level } = self;
        let overrides = move |config: &mut Config| {
            config.listen = listen.unwrap_or(config.listen);
            config.admin = admin.map(AdminAddr::from).or(config.admin);
        };
        let seen = Seen::of(layers.as_ref().and_then(Layers::path).map(PathBuf::from));
        let mut config = match &layers {
            Some(layers) => layers.load()?.config,
            None => config,
        };
        overrides(&mut config);
        config.check()?;

        let state = match state_dir.as_ref().or(config.state_dir.as_ref()) {
            Some(path) => Some(Arc::new(StateDir::open(path)?)),
            None => None,
        };
        let fixed_tls = tls.clone();
        let tls = tls
            .or_else(|| config.tls.source())
            .unwrap_or_else(|| Tls::Ephemeral { names: config.tls.dev_names.clone() });
        let policy = auth::policy(&config.auth)?;
        let auth = Arc::new(Auth::start(&config.auth).await?);
        let host = host_name(config.listen.ip());
        let tls = tls::server_tls(&tls, state.as_deref(), host, auth.certificates())?;
        let crypto = Crypto::new(tls.config)?;
        let reset_key = ResetKey::open(state.as_deref())?;
        let drivers = TaskTracker::new();
        let (quic, reports) = QuicServer::bind(
            config.listen,
            &crypto,
            &Transport::of(&config),
            &reset_key,
            drivers.clone(),
        )?;
        let local_addr = quic
            .local_addr()
            .map_err(|source| StartError::Bind { address: config.listen, source })?;
        let admin = match config.admin {
            Some(address) => {
                let rules = admin::rules(address, &config.console)?;
                Some((admin::bind(address).await?, rules))
            }
            None => None,
        };
        let admin_addr = admin.as_ref().and_then(|(listener, _)| listener.local_addr().ok());

        // After the addresses are ours: a start that fails there uses up no epoch.
        let seed = u64::from_ne_bytes(random()?);
        let broker_id = broker_id(config.broker_id.as_deref(), state.as_deref(), seed)?;
        let Opened { journal, records, unwritable, bytes } =
            open_journal(journal, &config, state.as_deref()).await?;
        let Epoch { epoch, is_restart } = Epoch::next(state.as_deref())?;
        let mut core = config.core(broker_id.clone(), epoch, seed);
        core.is_durable = journal.is_durable() || unwritable.is_some();
        let gauges = core.is_durable.then(|| Arc::new(Gauges::new(unwritable.is_none(), bytes)));
        let telemetry = Telemetry::start(&config.telemetry, &broker_id)?;
        core.tracing = telemetry.rules(&config.telemetry);
        if is_restart {
            core.restart_grace_ms = config.timing.restart_grace_ms;
        }
        let (audit, audit_thread) =
            Audit::start(config.audit.open()?).map_err(StartError::System)?;
        let (to_journal, entries) = journal::entries();
        let mut shared = Shared::new(
            Core::new(core),
            Clock::start(),
            to_journal,
            gauges.clone(),
            Outgoing::new(
                config.limits.outgoing_soft_bytes,
                config.limits.outgoing_hard_bytes,
                config.limits.outgoing_bytes,
            ),
            audit,
            auth.clone(),
        );
        shared.telemetry = telemetry;
        shared.busy_poll = quic.busy_poll.clone();
        let shared = Arc::new(shared);
        shared.hold(&mut Outbox::default(), |core, now| core.set_policy(now, policy));
        let orders = state.as_deref().map(orders::read).transpose()?.unwrap_or_default();
        shared.hold(&mut Outbox::default(), |core, _| core.restore_orders(orders.clone()));
        restore(&shared, records, unwritable);
        let journal =
            journal::spawn(journal, entries, gauges, &shared).map_err(StartError::System)?;
        let certificate = Certificate::new(quic.clone(), fixed_tls, &config, auth.clone(), crypto);
        let mut parts: Vec<Box<dyn Part>> = vec![
            Box::new(certificate),
            Box::new(AuditFile(shared.audit.clone())),
            Box::new(PolicyFile(shared.clone())),
        ];
        if let Some(prepare) = log_level {
            parts.push(Box::new(LogLevel(prepare)));
        }
        let entrance = Entrance::new(&config);
        let busy_poll = Duration::from_micros(config.busy_poll_us);
        let reloader = Arc::new(Reloader {
            shared: shared.clone(),
            layers,
            overrides: Box::new(overrides),
            entrance: entrance.clone(),
            started: config.clone(),
            state: Mutex::new(State { config, parts, is_over: false }),
            seen: Mutex::new(seen),
        });
        reloader.see_more();
        let running = Running {
            shared,
            quic: Some(quic.clone()),
            drivers,
            stop_accepting: CancellationToken::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            journal: Some(journal),
            audit: Some(audit_thread),
            reloader: reloader.clone(),
            state,
        };
        spawn_tasks(&running, quic, entrance, busy_poll);
        if let Some(state) = &running.state {
            let (shared, stop) = (running.shared.clone(), running.stop.clone());
            running.tasks.spawn(orders::run(shared, state.clone(), orders, stop));
        }
        if !auth.is_on() && !local_addr.ip().is_loopback() {
            tracing::warn!(
                address = %local_addr,
                "whoever reaches this address may send, serve and cancel anything: nobody is asked who \
                 they are; set client_certificates or token_keys in [auth], or listen on 127.0.0.1"
            );
        }
        if let Some(reports) = reports {
            let (stop, shared) = (running.stop.clone(), running.shared.clone());
            let reading = async move {
                stop.run_until_cancelled(unreachable::run(shared, reports)).await;
            };
            running.tasks.spawn(reading);
        }
        if let Some((admin, rules)) = admin {
            let (shared, tasks) = (running.shared.clone(), running.tasks.clone());
            running.tasks.spawn(admin::run(admin, rules, shared, tasks, running.stop.clone()));
        }
        if let Some(state) = &running.state {
            let address = dialled(local_addr).to_string();
            state.replace(ADDRESS_FILE, &format!("{address}\n"), Access::Shared)?;
        }
        let started = audit::Event::new(audit::Kind::Broker, "start");
        let details = json!({"address": local_addr, "broker": broker_id.as_str(), "epoch": epoch});
        running.shared.audit.record(started.details(details));
        tracing::info!(address = %local_addr, broker = %broker_id, epoch, "listening");
        Ok(Broker::new(running, local_addr, admin_addr, tls.ca_pem))
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The journal that was given, or the configured one.
async fn open_journal(
    given: Option<Box<dyn Journal>>,
    config: &Config,
    state: Option<&StateDir>,
) -> Result<Opened, StartError> {
    let durable = &config.durable;
    let directory = match (state, &durable.dir) {
        _ if given.is_some() || !durable.enabled => None,
        (Some(_), Some(dir)) => Some(dir.clone()),
        (Some(state), None) => Some(state.file(JOURNAL_DIR)),
        (None, None) => None,
        (None, Some(_)) => {
            let problem = "needs a state_dir besides, where the broker's epoch is kept".to_owned();
            return Err(ConfigError::Value { key: "durable.dir".into(), problem }.into());
        }
    };
    let opened = tokio::task::spawn_blocking(move || match directory {
        Some(directory) => Opened::directory(&directory),
        None => Opened::given(given.unwrap_or_else(|| Box::new(MemoryJournal))),
    });
    opened.await.map_err(|error| StartError::System(error.into()))?
}

/// Gives the core what a journal kept, and before that, why it can't be written to.
fn restore(shared: &Shared, records: Vec<Record>, unwritable: Option<String>) {
    shared.hold(&mut Outbox::default(), |core, now| {
        if let Some(why) = unwritable {
            core.journal_failed(now, &why);
        }
        let restored = core.restore_from_journal(now, records);
        if restored != Restored::default() {
            tracing::info!(
                tasks = restored.tasks,
                outcomes = restored.outcomes,
                settled = restored.settled,
                dead_letters = restored.dead_letters,
                left_out = restored.left_out,
                "the journal was read"
            );
        }
    });
}

fn spawn_tasks(running: &Running, quic: QuicServer, entrance: Entrance, busy_poll: Duration) {
    let listener = Listener {
        quic: quic.clone(),
        shared: running.shared.clone(),
        entrance,
        tasks: running.tasks.clone(),
        stop: running.stop_accepting.clone(),
    };
    running.tasks.spawn(listener.run());

    if !busy_poll.is_zero() {
        let (stop, shared) = (running.stop.clone(), running.shared.clone());
        running.tasks.spawn(async move {
            stop.run_until_cancelled(shared.busy_poll.run(busy_poll)).await;
        });
    }

    let (stop, reloader) = (running.stop.clone(), running.reloader.clone());
    if reloader.layers.is_some() {
        running.tasks.spawn(async move { stop.run_until_cancelled(reload::watch(reloader)).await });
    }

    let (stop, shared) = (running.stop.clone(), running.shared.clone());
    running.tasks.spawn(async move { stop.run_until_cancelled(timer::run(shared)).await });

    let (stop, auth) = (running.stop.clone(), running.shared.auth.clone());
    running.tasks.spawn(async move { stop.run_until_cancelled(auth.run()).await });

    let (stop, shared) = (running.stop.clone(), running.shared.clone());
    running.tasks.spawn(async move {
        if stop.run_until_cancelled(shared.failed.cancelled()).await.is_some() {
            tracing::error!("the core failed: every connection is closed");
            let message = "a fault of the broker; connect again later";
            quic.close(mcp_proto::ErrorCode::Internal, message);
        }
    });
}

/// The name of this broker: the configured one, else the one kept, else a random one.
fn broker_id(
    configured: Option<&str>,
    state: Option<&StateDir>,
    seed: u64,
) -> Result<NodeId, StartError> {
    let kept = match state {
        Some(state) => state.read(BROKER_ID_FILE)?,
        None => None,
    };
    let name = match (configured, &kept) {
        (Some(name), _) => name.to_owned(),
        (None, Some(name)) => name.trim().to_owned(),
        (None, None) => format!("broker-{:08x}", seed as u32),
    };
    let id = NodeId::try_from(name.as_str())
        .map_err(|problem| StartError::BrokerId { name, problem: problem.to_string() })?;
    if let (Some(state), None) = (state, &kept) {
        state.replace(BROKER_ID_FILE, &format!("{id}\n"), Access::Shared)?;
    }
    Ok(id)
}

/// The name that a certificate made here has for the address listened on.
fn host_name(ip: IpAddr) -> Option<String> {
    (!ip.is_unspecified()).then(|| ip.to_string())
}

/// What a program on this machine connects to.
fn dialled(local: SocketAddr) -> SocketAddr {
    let ip = match local.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, local.port())
}
