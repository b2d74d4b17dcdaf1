//! Options that all commands share: which broker, and how to print.

use std::env;
use std::sync::OnceLock;

use clap::ValueEnum;
use mcp_client::telemetry::{Exporter, Format, OtlpEndpoint};
use mcp_client::{ConnectError, Endpoint};
use tracing_subscriber::EnvFilter;

use crate::contexts::{self, ContextName, Contexts};
use crate::exit::{Exit, Failure};
use crate::settings::{self, Chosen, Level, Origin, Settings};

const CONTEXT_VARIABLE: &str = "MCPCTL_CONTEXT";

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Global {
    /// Use this broker of those that `mcpctl context` keeps [env: MCPCTL_CONTEXT; else the current]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Broker")]
    pub(crate) context: Option<ContextName>,

    #[command(flatten)]
    pub(crate) settings: Settings,

    /// How to print results: for people, or for scripts
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value = "table",
        value_name = "FORMAT",
        display_order = 100
    )]
    pub(crate) output: Output,

    /// Also write a log to stderr: error, warn, info, debug, trace, or by module [env: MCP_LOG]
    #[arg(long, global = true, value_name = "FILTER", help_heading = "Telemetry")]
    log: Option<String>,

    /// How: text, or json, an object a line with timestamp, level, service_name, and trace_id where
    /// it is about a task
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        value_parser = ["text", "json"],
        help_heading = "Telemetry"
    )]
    log_format: Option<String>,

    /// Collector that takes spans of tasks, OTLP over HTTP, such as http://127.0.0.1:4318
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        hide_env_values = true,
        help_heading = "Telemetry"
    )]
    otlp_endpoint: Option<OtlpEndpoint>,

    /// With --otlp-endpoint, the share of the tasks sent of which spans are made, 0 to 1
    #[arg(
        long,
        global = true,
        value_name = "SHARE",
        default_value_t = 1.0,
        value_parser = share,
        help_heading = "Telemetry"
    )]
    pub(crate) sample_ratio: f64,

    #[arg(skip)]
    exporter: OnceLock<Exporter>,
}

fn share(text: &str) -> Result<f64, &'static str> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or("is not a number from 0 to 1")
}

/// Which context was chosen, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selected {
    pub(crate) name: ContextName,
    pub(crate) by: SelectedBy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SelectedBy {
    Flag,
    Variable,
    /// It is the current one.
    File,
}

impl Global {
    /// Writes the log of this program, if that is wanted. Whether it does.
    pub(crate) fn start_log(&self, service_name: &'static str) -> Result<(), Failure> {
        let variable = || env::var("MCP_LOG").ok().filter(|it| !it.is_empty());
        let Some(filter) = self.log.clone().or_else(variable).or_else(|| {
            let is_json = self.log_format.is_some();
            is_json.then(|| "info,quinn_udp=error".to_owned())
        }) else {
            return Ok(());
        };
        let filter = EnvFilter::try_new(&filter)
            .map_err(|error| Failure::usage(format_args!("--log {filter:?}: {error}")))?;
        let format = if self.logs_json() { Format::Json } else { Format::Text };
        format.start(service_name, filter);
        Ok(())
    }

    /// Whether all that is told on the way is to be a line of JSON.
    pub(crate) fn logs_json(&self) -> bool {
        self.log_format.as_deref() == Some("json")
    }

    /// Where spans go, if they are wanted.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn exporter(&self, service_name: &'static str) -> Option<Exporter> {
        let endpoint = self.otlp_endpoint.as_ref()?;
        let resource = || {
            let version = env!("CARGO_PKG_VERSION").into();
            vec![("service.name", service_name.into()), ("service.version", version)]
        };
        let start = || Exporter::start(endpoint.clone(), resource());
        Some(self.exporter.get_or_init(start).clone())
    }

    /// Waits until the spans are sent.
    pub(crate) async fn flush(&self) {
        if let Some(exporter) = self.exporter.get() {
            exporter.flush().await;
        }
    }

    /// The broker that the options, or else the environment, or else a context, or else the default
    /// state directory name.
    pub(crate) fn endpoint(&self) -> Result<Endpoint, Failure> {
        self.chosen()?.endpoint().map_err(|error| cannot_connect(None, &error))
    }

    /// What names it, and where each part of that comes from.
    pub(crate) fn chosen(&self) -> Result<Chosen, Failure> {
        let token = env::var("MCP_TOKEN").ok().filter(|it| !it.is_empty());
        settings::choose(&self.levels()?, token).map_err(Failure::usage)
    }

    /// The places that settings come from, what counts most first. A context that is asked for on the
    /// command line counts like the rest of that. Any other is left out when a broker is named
    /// otherwise: its credentials are not for that.
    fn levels(&self) -> Result<Vec<Level>, Failure> {
        let flags = Level { origin: Origin::Flag, settings: self.settings.clone() };
        let environment =
            Level { origin: Origin::Variable, settings: Settings::from_env(|it| env::var_os(it)) };
        if environment.settings.has_half_a_certificate() {
            return Err(Failure::usage("MCP_CERT and MCP_KEY: one is set without the other"));
        }
        let names_broker = flags.settings.names_broker() || environment.settings.names_broker();
        let context = match &self.context {
            None if names_broker => None,
            _ => self.context()?,
        };
        let mut levels = vec![flags, environment];
        if let Some((Selected { name, by }, settings)) = context {
            let at = if by == SelectedBy::Flag { 1 } else { 2 };
            levels.insert(at, Level { origin: Origin::Context(name), settings });
        }
        let state = settings::default_state_dir();
        let settings = Settings { state, ..Settings::default() };
        levels.push(Level { origin: Origin::Default, settings });
        Ok(levels)
    }

    /// The context that is chosen, if one is, and what it says.
    pub(crate) fn context(&self) -> Result<Option<(Selected, Settings)>, Failure> {
        let variable = env::var(CONTEXT_VARIABLE).ok().filter(|it| !it.is_empty());
        let (name, by) = match (&self.context, variable) {
            (Some(name), _) => (Some(name.clone()), SelectedBy::Flag),
            (None, Some(text)) => {
                let wrong = |problem| {
                    Failure::usage(format_args!("{CONTEXT_VARIABLE}: {text:?} {problem}"))
                };
                (Some(text.parse().map_err(wrong)?), SelectedBy::Variable)
            }
            (None, None) if contexts::file().is_none() => return Ok(None),
            (None, None) => (None, SelectedBy::File),
        };
        let contexts = Contexts::load()?;
        let Some(name) = name.or_else(|| contexts.current().cloned()) else { return Ok(None) };
        let settings = contexts.get(&name)?.clone();
        Ok(Some((Selected { name, by }, settings)))
    }
}

/// Says why there is no connection, and what to do about it.
pub(crate) fn cannot_connect(to: Option<&Endpoint>, error: &ConnectError) -> Failure {
    let start = "start one with `mcp-broker serve --dev --state DIR`";
    let exit = match error {
        ConnectError::Address { .. }
        | ConnectError::NoTrust
        | ConnectError::Ca { .. }
        | ConnectError::Credentials { .. }
        | ConnectError::Config { .. } => Exit::Usage,
        _ => Exit::Unreachable,
    };
    let message = match (error, to) {
        (ConnectError::Unreachable { after, .. }, Some(to)) => format!(
            "cannot connect to {to}: no answer within {after:?}; is the broker running?\n\
             {start}, or check that UDP reaches it (firewalls often pass only TCP)"
        ),
        (ConnectError::NotListening { .. }, Some(to)) => {
            format!(
                "cannot connect to {to}: nothing listens there; is the broker running?\n{start}"
            )
        }
        (ConnectError::StateDir { path, problem }, _) => format!(
            "no broker is running here: cannot read {}: {}\n\
             {start}, or say where the broker is: --state DIR, or --broker HOST:PORT",
            path.display(),
            problem.split(" (os error").next().unwrap_or(problem)
        ),
        (error, Some(to)) if exit == Exit::Unreachable => {
            format!("cannot connect to {to}: {error}")
        }
        (error, _) => error.to_string(),
    };
    Failure::new(exit, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_state_directory_says_how_to_start_a_broker() {
        let error = ConnectError::StateDir { path: "d/address".into(), problem: "none".to_owned() };
        let failure = cannot_connect(None, &error);
        assert_eq!(failure.exit, Exit::Unreachable);
        assert!(failure.message.contains("mcp-broker serve --dev --state DIR"));
        assert_eq!(failure.message.lines().count(), 2);
    }
}
