//! Where the configuration comes from: flags, environment variables, a file.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use mcp_broker::{AdminAddr, Layers, default_state_dir};

/// What flags say of the configuration.
#[derive(Debug, Default, Args)]
pub(super) struct Settings {
    /// Make a local certificate authority and certificate in the state directory, so that
    /// programs on this machine need no other setting. For development
    #[arg(verbatim_doc_comment, long)]
    dev: bool,

    /// UDP address to listen on; port 0 takes a free one, which "listening on ADDR" on stdout
    /// tells [default: 127.0.0.1:7447] [env: MCP_LISTEN]
    #[arg(verbatim_doc_comment, long, value_name = "ADDRESS:PORT", value_parser = address)]
    listen: Option<SocketAddr>,

    /// TCP address of the admin listener, HTTP: the console for a browser and its /api/v1, /livez,
    /// /readyz, /metrics. Without a host it is 127.0.0.1: 9447; port 0 takes a free one, which
    /// "admin on http://ADDR" on stdout tells [default: none] [env: MCP_ADMIN]
    #[arg(verbatim_doc_comment, long, value_name = "[ADDRESS:]PORT")]
    admin: Option<AdminAddr>,

    /// File with the token that operators give at the admin listener, readable by its owner alone
    /// (mode 0600). Needed where other machines reach it; without one, whoever is on this machine
    /// is an operator [env: MCP_CONSOLE__TOKEN_FILE]
    #[arg(verbatim_doc_comment, long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,

    /// Directory for what outlives the process: the journal of durable tasks, epoch, name,
    /// development certificate. One broker at a time [default: none; with --dev $XDG_STATE_HOME/mcp-broker, or
    /// ~/.local/state/mcp-broker] [env: MCP_STATE]
    #[arg(verbatim_doc_comment, long, value_name = "DIR")]
    state: Option<PathBuf>,

    /// Threads that serve connections [default: 1] [env: MCP_THREADS]
    #[arg(verbatim_doc_comment, long, value_name = "N")]
    threads: Option<u32>,

    /// What is logged to stderr: error, warn, info, debug, trace, or by module:
    /// "info,mcp_broker=debug" [default: info,quinn_udp=error] [env: MCP_LOG]
    #[arg(verbatim_doc_comment, long, visible_alias = "log-level", value_name = "FILTER")]
    log: Option<String>,

    /// How: text, or json, an object a line with timestamp, level, service_name, and trace_id where
    /// it is about a task [default: text] [env: MCP_LOG__FORMAT]
    #[arg(verbatim_doc_comment, long, value_name = "FORMAT", value_parser = ["text", "json"])]
    log_format: Option<String>,
}

impl Settings {
    /// No other flag than this.
    pub(super) fn admin_at(admin: Option<AdminAddr>) -> Self {
        Self { admin, ..Self::default() }
    }

    /// With a file, and this process's environment.
    pub(super) fn layers(&self, file: Option<PathBuf>) -> Layers {
        // What is no text is no key's value either.
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let mut layers = Layers::new().environment(variables).dev_state_dir(default_state_dir());
        if let Some(file) = file {
            layers = layers.file(file);
        }
        if self.dev {
            layers = layers.flag("--dev", "tls.dev", true);
        }
        if let Some(address) = self.listen {
            layers = layers.flag("--listen", "listen", address.to_string());
        }
        if let Some(address) = self.admin {
            layers = layers.flag("--admin", "admin", address.to_string());
        }
        if let Some(file) = &self.admin_token_file {
            let file = file.to_string_lossy().into_owned();
            layers = layers.flag("--admin-token-file", "console.token_file", file);
        }
        if let Some(dir) = &self.state {
            layers = layers.flag("--state", "state_dir", dir.to_string_lossy().into_owned());
        }
        if let Some(threads) = self.threads {
            layers = layers.flag("--threads", "threads", i64::from(threads));
        }
        if let Some(filter) = &self.log {
            layers = layers.flag("--log", "log.level", filter.clone());
        }
        if let Some(format) = &self.log_format {
            layers = layers.flag("--log-format", "log.format", format.clone());
        }
        layers
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "an IP address and a port are needed, 127.0.0.1:7447".to_owned())
}
