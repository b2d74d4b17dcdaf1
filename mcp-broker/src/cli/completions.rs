//! `mcp-broker completions`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;

use super::EXIT_CANNOT_START;

const EXAMPLES: &str = "\
Examples:
  source <(mcp-broker completions bash)       # this shell; for all, a line of ~/.bashrc
  mcp-broker completions bash > ~/.local/share/bash-completion/completions/mcp-broker
  mcp-broker completions zsh > ~/.zfunc/_mcp-broker    # with `fpath+=~/.zfunc` before compinit
  mcp-broker completions fish > ~/.config/fish/completions/mcp-broker.fish";

/// Write a script with which a shell completes commands, options and their values
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Completions {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

impl Completions {
    pub(super) fn main(self, command: &mut clap::Command) -> ExitCode {
        let name = command.get_name().to_owned();
        // It can't fail in a vector, as it would when nobody reads stdout any more.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, command, name, &mut script);
        // clap_complete's script for bash names the states of a program with a hyphen in two ways, so
        // that nothing after a subcommand is completed (clap-rs/clap#6421).
        let script = String::from_utf8_lossy(&script).replace("mcp__subcmd__broker", "mcp__broker");
        match io::stdout().write_all(script.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::from(EXIT_CANNOT_START),
        }
    }
}
