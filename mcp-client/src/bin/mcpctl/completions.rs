//! `mcpctl completions`: what a shell needs to complete command lines.

use std::io::{self, Write};

use clap::{Args, Command};
use clap_complete::Shell;

use crate::exit::{self, Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  source <(mcpctl completions bash)       # this shell; for all, a line of ~/.bashrc
  mcpctl completions bash > ~/.local/share/bash-completion/completions/mcpctl
  mcpctl completions zsh > ~/.zfunc/_mcpctl    # with `fpath+=~/.zfunc` before compinit in ~/.zshrc
  mcpctl completions fish > ~/.config/fish/completions/mcpctl.fish
  mcpctl completions powershell | Out-String | Invoke-Expression";

/// Write a script with which a shell completes commands, options and their values
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self, command: &mut Command) -> Result<Exit, Failure> {
        let name = command.get_name().to_owned();
        // It can't fail in a vector, as it would when nobody reads stdout any more.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, command, name, &mut script);
        io::stdout().write_all(&script)?;
        Ok(Exit::Ok)
    }
}
