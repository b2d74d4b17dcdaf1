//! Options that all commands share: which broker, and how to print.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use clap::ValueEnum;
use mcp_client::telemetry::{Exporter, Format, OtlpEndpoint};
use mcp_client::{ConnectError, Endpoint};
use tracing_subscriber::EnvFilter;

use crate::exit::{Exit, Failure};

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Global {
    /// State directory of a local broker: tells its address and certificate [env: MCP_STATE]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Broker")]
    state: Option<PathBuf>,

    /// Address of the broker [env: MCP_BROKER]
    #[arg(long, global = true, value_name = "HOST:PORT", help_heading = "Broker")]
    broker: Option<String>,

    /// PEM file with the certificate authority to trust [env: MCP_CA]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Broker")]
    ca: Option<PathBuf>,

    /// Name in the broker's certificate, if that is not its address
    #[arg(long, global = true, value_name = "NAME", help_heading = "Broker")]
    server_name: Option<String>,

    /// File with the token that proves who you are, mode 0600 [env: MCP_TOKEN_FILE; or the token
    /// itself: MCP_TOKEN]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Broker")]
    token_file: Option<PathBuf>,

    /// PEM file with the certificate that proves who you are [env: MCP_CERT]
    #[arg(long, global = true, value_name = "FILE", requires = "key", help_heading = "Broker")]
    cert: Option<PathBuf>,

    /// PEM file with its private key, mode 0600 [env: MCP_KEY]
    #[arg(long, global = true, value_name = "FILE", requires = "cert", help_heading = "Broker")]
    key: Option<PathBuf>,

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

/// What names a broker, in one place: the command line, or the environment.
#[derive(Debug, Clone, Default)]
struct Source {
    state: Option<PathBuf>,
    broker: Option<String>,
    ca: Option<PathBuf>,
}

/// Where each part of an endpoint comes from.
#[derive(Debug, PartialEq, Eq)]
enum Choice<'a> {
    /// Everything from a state directory.
    State(&'a Path),
    /// An address, with the authority of a state directory. Its certificate is for "localhost".
    AddressAndState(&'a str, &'a Path),
    /// An address, with an authority from a file.
    AddressAndCa(&'a str, &'a Path),
    /// The address of a state directory, with another authority.
    StateAndCa(&'a Path, &'a Path),
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

    /// The broker that the options, or else the environment, or else the default state directory
    /// name.
    pub(crate) fn endpoint(&self) -> Result<Endpoint, Failure> {
        let flags =
            Source { state: self.state.clone(), broker: self.broker.clone(), ca: self.ca.clone() };
        let path = |name| env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
        let environment = Source {
            state: path("MCP_STATE"),
            broker: env::var("MCP_BROKER").ok().filter(|it| !it.is_empty()),
            ca: path("MCP_CA"),
        };
        let default = default_state_dir();
        let choice = choose(&flags, &environment, default.as_deref()).map_err(Failure::usage)?;
        let endpoint = match choice {
            Choice::State(dir) => Endpoint::from_state_dir(dir),
            Choice::AddressAndState(address, dir) => {
                Endpoint::new(address).server_name("localhost").ca_file(dir.join("ca.pem"))
            }
            Choice::AddressAndCa(address, ca) => Endpoint::new(address).ca_file(ca),
            Choice::StateAndCa(dir, ca) => {
                Endpoint::from_state_dir(dir).and_then(|endpoint| endpoint.ca_file(ca))
            }
        };
        let endpoint = endpoint.and_then(Endpoint::credentials_from_env);
        let mut endpoint = endpoint.map_err(|error| cannot_connect(None, &error))?;
        if let Some(path) = &self.token_file {
            endpoint = endpoint.token_file(path);
        }
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            endpoint = endpoint.certificate_files(cert, key);
        }
        Ok(match &self.server_name {
            Some(name) => endpoint.server_name(name),
            None => endpoint,
        })
    }
}

/// The command line wins over the environment, and at each of them an address or authority of its
/// own over a state directory's.
fn choose<'a>(
    flags: &'a Source,
    environment: &'a Source,
    default: Option<&'a Path>,
) -> Result<Choice<'a>, &'static str> {
    let levels = [flags, environment];
    let ca = levels.iter().find_map(|level| match (&level.ca, &level.state) {
        (Some(ca), _) => Some((ca.as_path(), true)),
        (None, Some(dir)) => Some((dir.as_path(), false)),
        (None, None) => None,
    });
    let Some(level) = levels.iter().find(|level| level.broker.is_some() || level.state.is_some())
    else {
        return match (default, ca) {
            (Some(dir), Some((ca, true))) => Ok(Choice::StateAndCa(dir, ca)),
            (Some(dir), _) => Ok(Choice::State(dir)),
            (None, _) => Err("which broker? say --state DIR, or --broker HOST:PORT and --ca FILE"),
        };
    };
    match (&level.broker, &level.state, ca) {
        (Some(address), _, Some((ca, true))) => Ok(Choice::AddressAndCa(address, ca)),
        (Some(address), _, Some((dir, false))) => Ok(Choice::AddressAndState(address, dir)),
        (Some(_), _, None) => Err("which certificate authority does the broker have? say --ca \
                                   FILE, or --state DIR if it was started with --dev"),
        (None, Some(dir), Some((ca, true))) => Ok(Choice::StateAndCa(dir, ca)),
        (None, Some(dir), _) => Ok(Choice::State(dir)),
        (None, None, _) => unreachable!("a level with neither is not chosen"),
    }
}

/// Where `mcp-broker serve --dev` keeps its state when it isn't told.
fn default_state_dir() -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state =
        absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("mcp-broker"))
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

    fn source(state: &str, broker: &str, ca: &str) -> Source {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Source {
            state: some(state).map(Into::into),
            broker: some(broker),
            ca: some(ca).map(Into::into),
        }
    }

    #[test]
    fn the_command_line_wins_over_the_environment_and_both_over_the_default() {
        let none = source("", "", "");
        let environment = source("e", "e:1", "e.pem");
        let default = Some(Path::new("d"));
        let chosen = |flags: &Source, environment: &Source| {
            choose(flags, environment, default).map(|choice| format!("{choice:?}")).unwrap()
        };
        assert_eq!(chosen(&none, &none), r#"State("d")"#);
        assert_eq!(chosen(&none, &source("e", "", "")), r#"State("e")"#);
        assert_eq!(chosen(&none, &environment), r#"AddressAndCa("e:1", "e.pem")"#);
        assert_eq!(chosen(&source("f", "", ""), &environment), r#"State("f")"#);
        assert_eq!(chosen(&source("f", "", "f.pem"), &environment), r#"StateAndCa("f", "f.pem")"#);
        assert_eq!(chosen(&source("", "f:1", ""), &environment), r#"AddressAndCa("f:1", "e.pem")"#);
        // A proxy in front of a broker whose state directory is known.
        assert_eq!(
            chosen(&source("", "f:1", ""), &source("e", "", "")),
            r#"AddressAndState("f:1", "e")"#
        );
    }

    #[test]
    fn an_address_without_an_authority_is_asked_for_one() {
        let (none, address) = (source("", "", ""), source("", "f:1", ""));
        let error = choose(&address, &none, Some(Path::new("d"))).unwrap_err();
        assert!(error.contains("--ca FILE"));
        let error = choose(&none, &none, None).unwrap_err();
        assert!(error.contains("--state DIR"));
    }

    #[test]
    fn a_missing_state_directory_says_how_to_start_a_broker() {
        let error = ConnectError::StateDir { path: "d/address".into(), problem: "none".to_owned() };
        let failure = cannot_connect(None, &error);
        assert_eq!(failure.exit, Exit::Unreachable);
        assert!(failure.message.contains("mcp-broker serve --dev --state DIR"));
        assert_eq!(failure.message.lines().count(), 2);
    }
}
