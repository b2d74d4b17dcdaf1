//! The command line.

mod cert;
mod completions;
mod config;
mod files;
mod health;
mod journal;
mod log;
mod notify;
mod serve;
mod settings;
mod token;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Exit codes. 2 is also clap's for wrong usage.
const EXIT_CANNOT_START: u8 = 1;
const EXIT_USAGE: u8 = 2;

#[derive(Debug, Parser)]
#[command(
    name = "mcp-broker",
    version,
    about = "The message broker of MCP, the Model Communication Protocol: \
             dispatches tasks from clients to worker agents, over QUIC"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker until it is told to stop
    Serve(serve::Serve),
    Config(config::Config),
    Health(health::Health),
    Journal(journal::Journal),
    Cert(cert::Cert),
    Token(token::Token),
    Completions(completions::Completions),
}

pub(crate) fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(serve) => serve.main(),
        Command::Config(config) => config.main(),
        Command::Health(health) => files::report(health.run()),
        Command::Journal(journal) => journal.main(),
        Command::Cert(cert) => files::report(cert.run()),
        Command::Token(token) => files::report(token.run()),
        Command::Completions(completions) => completions.main(&mut Cli::command()),
    }
}
