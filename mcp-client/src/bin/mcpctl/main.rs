//! `mcpctl`: the command line of MCP, the Model Communication Protocol. Sends tasks, serves
//! actions with programs and servers, and looks at the broker's agents, actions, tasks and dead letters.
//! One file a command.

mod actions;
mod agents;
mod attention;
mod bench;
mod call;
mod completions;
mod connect;
mod context;
mod contexts;
mod dlq;
mod doctor;
mod exit;
mod explain;
mod figures;
mod global;
mod latency;
mod outcomes;
mod parse;
mod report;
mod send;
mod settings;
mod signals;
mod status;
mod table;
mod tasks;
mod top;
mod trace;
#[cfg(unix)]
mod worker;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use exit::{Exit, Failure};
use global::Global;

const EXAMPLES: &str = "\
Try it, in three terminals:
  mcp-broker serve --dev --state D
  mcpctl --state D worker --action upper --exec tr a-z A-Z
  mcpctl --state D call upper --data hello

Which broker: --state, or --broker with --ca, or --context; else MCP_STATE, MCP_BROKER and MCP_CA; else
MCPCTL_CONTEXT, or the current one of `mcpctl context`; else the one that `mcp-broker serve --dev` runs
on this machine. Who you are, where the broker asks: --token-file, or --cert and --key; else
MCP_TOKEN_FILE, MCP_TOKEN, MCP_CERT and MCP_KEY; else the context's. `mcpctl context show` says what
counts.";

/// Send tasks to worker agents through an MCP (Model Communication Protocol) broker, or be one
#[derive(Debug, Parser)]
#[command(
    name = "mcpctl",
    version,
    after_help = EXAMPLES,
    after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP)
)]
struct Cli {
    #[command(flatten)]
    global: Global,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Call(Box<call::Call>),
    Send(send::Send),
    #[cfg(unix)]
    Worker(worker::WorkerArgs),
    Actions(actions::Actions),
    Agents(agents::Agents),
    Tasks(tasks::Tasks),
    Dlq(dlq::Dlq),
    Explain(explain::Explain),
    Bench(bench::Bench),
    Status(status::Status),
    Top(top::Top),
    Doctor(doctor::Doctor),
    Context(context::ContextArgs),
    Completions(completions::Completions),
}

impl Cli {
    async fn run(self) -> Result<Exit, Failure> {
        self.global.start_log(self.command.service_name())?;
        let ended = match self.command {
            Command::Call(command) => command.run(&self.global).await,
            Command::Send(command) => command.run(&self.global).await,
            #[cfg(unix)]
            Command::Worker(command) => command.run(&self.global).await,
            Command::Actions(command) => command.run(&self.global).await,
            Command::Agents(command) => command.run(&self.global).await,
            Command::Tasks(command) => command.run(&self.global).await,
            Command::Dlq(command) => command.run(&self.global).await,
            Command::Explain(command) => command.run(&self.global).await,
            Command::Bench(command) => command.run(&self.global).await,
            Command::Status(command) => command.run(&self.global).await,
            Command::Top(command) => command.run(&self.global).await,
            Command::Doctor(command) => command.run(&self.global).await,
            Command::Context(command) => command.run(&self.global),
            Command::Completions(command) => command.run(&mut Cli::command()),
        };
        self.global.flush().await;
        ended
    }
}

impl Command {
    /// By which name it is known in logs and traces.
    fn service_name(&self) -> &'static str {
        match self {
            #[cfg(unix)]
            Command::Worker(_) => worker::SERVICE_NAME,
            _ => connect::SERVICE_NAME,
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let exit = run(cli).unwrap_or_else(|failure| {
        if !failure.message.is_empty() {
            // There is nowhere left to tell it when stderr is closed.
            let _ = writeln!(io::stderr(), "mcpctl: {}", failure.message);
        }
        failure.exit
    });
    ExitCode::from(exit as u8)
}

fn run(cli: Cli) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(cli.run());
    // A name look-up may still be running.
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn broker_options_go_before_and_after_the_command() {
        for line in [
            "mcpctl --state D -o json agents ls",
            "mcpctl agents ls -o json --state D",
            "mcpctl tasks ls -o json --status ok --state D",
        ] {
            let cli = parse(line).unwrap();
            assert_eq!(cli.global.output, global::Output::Json, "{line}");
        }
    }

    #[test]
    fn all_that_follows_exec_is_the_command() {
        let line = "mcpctl worker --action a --action b --exec git --state log -- --action";
        let Command::Worker(worker) = parse(line).unwrap().command else { panic!() };
        assert_eq!(worker.exec(), ["git", "--state", "log", "--", "--action"]);
    }

    #[test]
    fn input_comes_from_one_place() {
        for line in ["call up", "call up -", "call up --data x", "call up --file -"] {
            assert!(parse(&format!("mcpctl {line}")).is_ok(), "{line}");
        }
        for line in ["call up - --data x", "call up --data x --file y", "call up hello"] {
            assert!(parse(&format!("mcpctl {line}")).is_err(), "{line}");
        }
    }

    #[test]
    fn wrong_arguments_exit_with_2_and_name_the_argument() {
        for (line, named) in [
            ("call no*", "no*"),
            ("call up --ttl 30", "30s"),
            ("call up --label gpu", "gpu"),
            ("call up --priority max", "low, normal, high, urgent"),
            ("worker --action a --slots 0 --exec cat", "--slots"),
            ("worker --action a", "--exec"),
            ("worker --action a", "--openai"),
            ("worker --action a --echo --http http://h", "--http"),
            ("worker --action a --openai http://h --kserve http://h --model m", "--kserve"),
            ("worker --action a --kserve http://h", "--model"),
            ("worker --action a --echo --model m", "--model"),
            ("worker --action a --echo --api-key-file f", "--api-key-file"),
            ("send", "--file"),
            ("tasks ls --status lost", "queued, delayed, running, ok"),
            ("tasks ls --limit 1001", "1..=1000"),
            ("tasks show", "<TASK_ID>"),
            ("tasks cancel", "<TASK_ID>..."),
            ("tasks result", "<TASK_ID>"),
            ("call up --retry 3", "--durable"),
            ("call up --detach", "--durable"),
            ("call up --durable --detach --trace", "--trace"),
            ("call up --delay 8d", "8d"),
            ("dlq ls --limit 0", "1..=1000"),
            ("dlq show", "<TASK_ID>"),
            ("dlq replay", "TASK_ID"),
            ("dlq replay t --all", "--all"),
            ("dlq drop t --action up", "--action"),
            ("dlq drop --action up", "--all"),
            ("actions degrade", "<ACTION>..."),
            ("actions restore no*", "no*"),
            ("agents ls --only tired", "ready, standby, draining"),
            ("agents ls --limit 0", "0"),
            ("agents ls --all --only lost", "--only"),
            ("agents show", "<AGENT>"),
            ("agents drain", "<AGENT>..."),
            ("agents resume", "<AGENT>..."),
            ("actions ls --limit 0", "1..=1000"),
            ("actions set up", "<KEY=VALUE>..."),
            ("actions set up policy", "KEY=VALUE"),
            ("actions reset", "<ACTION>"),
            ("explain", "<ACTION>"),
            ("explain up --label gpu", "gpu"),
            ("context use", "NAME"),
            ("context use a --none", "--none"),
            ("context set", "<NAME>"),
            ("context set a/b --state D", "A-Za-z0-9"),
            ("--context a/b agents ls", "--context"),
            ("status --require journal", "durable"),
            ("top --interval 1ms", "200ms to 1h"),
            ("completions", "<SHELL>"),
            ("completions tcsh", "bash, elvish, fish"),
            ("bench up --rate 0", "0"),
            ("bench up --secs 0", "0"),
            ("bench up --payload 65537", "65537"),
        ] {
            let error = parse(&format!("mcpctl {line}")).unwrap_err();
            assert_eq!(error.exit_code(), Exit::Usage as i32, "{line}");
            assert!(error.to_string().contains(named), "{line}: {error}");
        }
    }

    #[test]
    fn help_tells_the_exit_statuses() {
        let tasks = ["tasks ls ", "tasks show ", "tasks cancel ", "tasks result "];
        let dlq = ["dlq ls ", "dlq show ", "dlq replay ", "dlq drop "];
        let actions = ["actions ls ", "actions show ", "actions set ", "actions reset "];
        let degrade = ["actions degrade ", "actions restore "];
        let agents = ["agents ls ", "agents show ", "agents drain ", "agents resume "];
        let context =
            ["context ls ", "context show ", "context set ", "context use ", "context rm "];
        let others = [
            "",
            "call ",
            "send ",
            "worker ",
            "explain ",
            "bench ",
            "status ",
            "doctor ",
            "completions ",
        ];
        let all = [&tasks[..], &dlq, &actions, &degrade, &agents, &context, &others].concat();
        for command in all {
            let help = parse(&format!("mcpctl {command}--help")).unwrap_err().to_string();
            assert!(help.contains("Exit status:\n    0  "), "{command}");
        }
    }
}
