//! `mcp-bench compare`: this broker and what people would pick instead, side by side.
//! `mcp-bench fleet`: what many idle agents and connections cost.
//! `mcp-bench streams`: what small tasks notice of results in parts beside them.
//! `mcp-bench sched`: what the broker's policies make of a load, simulated.
//! `mcp-bench overload`: what a broker does with more than its workers can do, with real processes.
//! `mcp-bench crash`: whether anything is lost when processes are killed, over and over.
//! `mcp-bench attack`: what hostile peers cost a broker, and honest ones beside them.
//!
//! The program runs itself again for each process that takes part, see [`role`].

mod attack;
mod compare;
mod crash;
mod fleet;
mod load;
mod median;
mod overload;
mod peers;
mod plot;
mod processes;
mod procfs;
mod role;
mod sched;
mod streams;
mod text;

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
    /// Register many agents, hold many connections, and print what they cost while idle
    Fleet(fleet::Options),
    /// Measure small tasks beside results in parts: a large one, and readers that stop
    Streams(streams::Options),
    /// Simulate the broker's policies under several loads, beside pushing to a random worker
    Sched(sched::Options),
    /// Send more than workers can do, and print what was done, what was refused, and how fast
    Overload(overload::Options),
    /// Kill brokers, workers and clients under load, and compare what was noted: nothing may be lost
    Crash(crash::Options),
    /// Let hostile peers at a broker, and print what they cost it, and honest tasks beside them
    Attack(attack::Options),
    /// A process of a measurement
    #[command(hide = true)]
    Role {
        /// JSON
        role: String,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Compare(options) => compare::run(&options),
        Command::Fleet(options) => fleet::run(&options),
        Command::Streams(options) => streams::run(&options),
        Command::Sched(options) => sched::run(&options),
        Command::Overload(options) => overload::run(&options),
        Command::Crash(options) => crash::run(&options),
        Command::Attack(options) => attack::run(&options),
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
