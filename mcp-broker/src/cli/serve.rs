//! `mcp-broker serve`.

use std::error::Error;
use std::future::ready;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use mcp_broker::{Broker, Config, Layers, StartError};
use mcp_telemetry::Level;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::log;
use super::notify;
use super::settings::Settings;
use super::{EXIT_CANNOT_START, EXIT_USAGE};

/// What "at once" may take.
const LAST_PACKETS: Duration = Duration::from_millis(100);

const EXAMPLES: &str = "\
To try it, in three terminals:
  mcp-broker serve --dev
  mcpctl worker --action upper --exec tr a-z A-Z
  mcpctl call upper --data hello

In earnest, with a certificate that clients and workers trust, in broker.toml:
  listen = \"0.0.0.0:7447\"
  admin = \"127.0.0.1:9447\"
  state_dir = \"/var/lib/mcp-broker\"
  [tls]
  cert_file = \"/etc/mcp/cert.pem\"
  key_file = \"/etc/mcp/key.pem\"
and then:
  mcp-broker serve --config broker.toml
To let in only who may: [auth] and a policy, docs/security.md; mcp-broker cert, mcp-broker token

Signals:
  HUP         read the configuration and the certificate again, as when their files change, and open
              the audit log again; on any error nothing changes
  TERM, INT   stop in order: running tasks may finish within timing.drain_ms (10 s), every peer is
              told, then exit 0. A second one stops at once.

Under systemd, as Type=notify, it says when it is ready, reloads and stops, and, with WatchdogSec,
that its core lives: contrib/systemd, docs/operations.md.

Exit codes:
  0    stopped as told
  1    cannot start, or failed; the reason is on stderr
  2    wrong usage or configuration; the key or flag is named on stderr
  130  stopped at once by a second signal, INT
  143  stopped at once by a second signal, TERM";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, next_line_help = true)]
pub(super) struct Serve {
    #[command(flatten)]
    settings: Settings,

    /// Configuration, TOML. Flags and environment variables (MCP_LIMITS__MAX_TASKS for
    /// limits.max_tasks) take precedence over it; see "mcp-broker config --help"
    #[arg(verbatim_doc_comment, long, value_name = "FILE", env = "MCP_CONFIG")]
    config: Option<PathBuf>,
}

/// Why it does not run, and the exit code of that.
struct Failure(u8, Box<dyn Error>);

impl Serve {
    pub(super) fn main(self) -> ExitCode {
        match self.run() {
            Ok(code) => code,
            Err(Failure(code, error)) => {
                eprintln!("mcp-broker: {error}");
                ExitCode::from(code)
            }
        }
    }

    fn run(self) -> Result<ExitCode, Failure> {
        let (layers, config) = self.config()?;
        let level = log::start(&config.log).map_err(|problem| {
            Failure(EXIT_USAGE, format!("log.level (--log) {problem}").into())
        })?;
        let mut runtime = match config.threads {
            1 => tokio::runtime::Builder::new_current_thread(),
            threads => {
                let mut builder = tokio::runtime::Builder::new_multi_thread();
                builder.worker_threads(threads);
                builder
            }
        };
        let runtime = runtime
            .thread_name("mcp-broker")
            .enable_all()
            .build()
            .map_err(|error| Failure(EXIT_CANNOT_START, error.into()))?;
        let exit = runtime.block_on(serve(layers, level));
        // Nothing is left but what a second signal gave up on.
        runtime.shutdown_background();
        exit
    }

    /// What flags, variables and the file say.
    fn config(&self) -> Result<(Layers, Config), Failure> {
        let usage = |error: Box<dyn Error>| Failure(EXIT_USAGE, error);
        let layers = self.settings.layers(self.config.clone());
        let config = layers.load().map_err(|error| usage(error.into()))?.config;
        if config.tls.dev && config.state_dir.is_none() {
            return Err(usage("--dev needs a directory: give --state DIR".into()));
        }
        if !config.tls.dev && config.tls.cert_file.is_none() {
            return Err(usage(
                "no certificate: give --dev to try it out on this machine, or tls.cert_file and \
                 tls.key_file in --config FILE"
                    .into(),
            ));
        }
        Ok((layers, config))
    }
}

async fn serve(layers: Layers, level: Arc<Level>) -> Result<ExitCode, Failure> {
    let failed = |error: std::io::Error| Failure(EXIT_CANNOT_START, error.into());
    // Before the start, so that a signal is never missed.
    let mut signals = Signals::new().map_err(failed)?;
    let mut reload = signal(SignalKind::hangup()).map_err(failed)?;
    let builder = Broker::builder().layers(layers).log_level(move |directives| {
        let (level, filter) = (level.clone(), log::filter(directives)?);
        Ok(move || level.set(filter))
    });
    let broker = builder.start().await.map_err(|error| {
        let code = match error {
            StartError::Config(_) | StartError::BrokerId { .. } => EXIT_USAGE,
            _ => EXIT_CANNOT_START,
        };
        Failure(code, error.into())
    })?;
    let mut places = format!("listening on {}", broker.local_addr());
    announce(&places);
    if let Some(address) = broker.admin_addr() {
        let admin = format!("admin on http://{address}");
        announce(&admin);
        places = format!("{places}, {admin}");
    }
    notify::ready(&places).await;

    tokio::select! {
        stopped = until_told_to_stop(&broker, &places, &mut signals, &mut reload) => stopped?,
        never = notify::watchdog(|| broker.alive()) => match never {},
    }
    notify::stopping(broker.shutdown_limit()).await;
    let second = tokio::select! {
        biased;
        () = broker.shutdown() => None,
        number = signals.next() => Some(number),
        // What is left has limits of its own.
        never = notify::watchdog(|| ready(())) => match never {},
    };
    let Some(number) = second else {
        tracing::info!("stopped");
        return Ok(ExitCode::SUCCESS);
    };
    tracing::warn!("stopped at once by a second signal");
    // Connections were closed; their last packets are on their way out.
    tokio::time::sleep(LAST_PACKETS).await;
    Ok(ExitCode::from(128 + number))
}

/// Reloads whenever it is told to. Returns with the first signal to stop.
async fn until_told_to_stop(
    broker: &Broker,
    places: &str,
    signals: &mut Signals,
    reload: &mut Signal,
) -> Result<(), Failure> {
    loop {
        tokio::select! {
            _ = signals.next() => {
                tracing::info!("stopping in order; a second signal stops at once");
                return Ok(());
            }
            _ = reload.recv() => {
                notify::reloading().await;
                // The log has said how that went.
                let _ = broker.reload().await;
                notify::ready(places).await;
            }
            () = broker.failed() => {
                return Err(Failure(EXIT_CANNOT_START, "the broker's core has failed".into()));
            }
        }
    }
}

/// Tells whoever waits for it that the broker is ready. Nobody has to listen.
fn announce(line: &str) {
    let mut stdout = std::io::stdout().lock();
    if let Err(error) = writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        tracing::debug!(%error, "nobody reads stdout");
    }
}

/// The signals that stop the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The number of the next one. Cancel-safe.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.terminate.recv() => 15,
            _ = self.interrupt.recv() => 2,
        }
    }
}
