//! `mcp-bench compare`: this broker and what people would pick instead, side by side.
//!
//! The program runs itself again for each process that takes part, see [`role`].

mod compare;
mod load;
mod peers;
mod plot;
mod role;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "mcp-bench", version, about = "Measures the MCP broker beside its alternatives")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Put the same load on each peer in turn, and print throughput, latency, CPU and ratios
    Compare(compare::Options),
    /// A process of a comparison
    #[command(hide = true)]
    Role {
        /// JSON
        role: String,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Compare(options) => compare::run(&options),
        Command::Role { role } => role::play(&role),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mcp-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
