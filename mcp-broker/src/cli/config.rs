//! `mcp-broker config`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use mcp_broker::{Config as Configuration, Loaded};

use super::log;
use super::settings::Settings;
use super::{EXIT_CANNOT_START, EXIT_USAGE};

const EXAMPLES: &str = "\
Flags go before environment variables, these before the file, and that before the defaults.
  mcp-broker config check broker.toml
  mcp-broker config show broker.toml          what holds, and where each value comes from
  mcp-broker config schema > broker.schema.json

A key's variable has its name with MCP_ before it, and __ for each dot:
  MCP_LIMITS__MAX_CONNECTIONS=5000 mcp-broker config show

Exit codes:
  0  fine
  1  the output can't be written
  2  wrong usage or configuration; each key and its place are named on stderr";

/// Look at the configuration without running a broker
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Config {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say whether a broker would take the configuration, and if not, all that is wrong
    Check(Which),
    /// Print the configuration that holds, as TOML, with where each value comes from
    Show(Which),
    /// Print the JSON Schema of the configuration file
    Schema,
}

#[derive(Debug, Args)]
struct Which {
    /// Configuration, TOML
    #[arg(value_name = "FILE", env = "MCP_CONFIG")]
    file: Option<PathBuf>,

    #[command(flatten)]
    settings: Settings,
}

impl Config {
    pub(super) fn main(self) -> ExitCode {
        let text = match self.command {
            Command::Schema => Ok(format!("{:#}\n", Configuration::schema())),
            Command::Show(which) => which.load().map(|loaded| loaded.to_toml()),
            Command::Check(which) => which.load().map(|_| "the configuration is fine\n".to_owned()),
        };
        match text {
            Ok(text) => match std::io::stdout().lock().write_all(text.as_bytes()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("mcp-broker: {error}");
                    ExitCode::from(EXIT_CANNOT_START)
                }
            },
            Err(error) => {
                eprintln!("{error}");
                ExitCode::from(EXIT_USAGE)
            }
        }
    }
}

impl Which {
    fn load(&self) -> Result<Loaded, String> {
        let loaded = self.settings.layers(self.file.clone()).load();
        let loaded = loaded.map_err(|error| error.to_string())?;
        let level = log::filter(&loaded.config.log.level);
        level.map_err(|problem| format!("log.level {problem}"))?;
        Ok(loaded)
    }
}
