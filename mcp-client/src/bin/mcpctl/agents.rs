//! `mcpctl agents`: the workers that the broker knows, and how new tasks are kept from one.

mod drain;
mod ls;
mod show;

use std::io::{self, Write};

use clap::{Args, Subcommand};
use mcp_client::Client;
use tokio_util::sync::CancellationToken;

use crate::exit::{self, Exit, Failure};
use crate::global::{Global, Output};
use crate::{connect, report, signals};

const SHOW_EXAMPLES: &str = "\
Examples:
  mcpctl agents show upper-1
  mcpctl agents show n-1f3a5c7e9b0d -o json | jq .holds";

pub(crate) use ls::table;
#[cfg(test)]
pub(crate) use ls::tests;

/// Look at the worker agents, and keep new tasks from one
#[derive(Debug, Args)]
pub(crate) struct Agents {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ls(ls::Ls),
    Show(Show),
    Drain(drain::Drain),
    Resume(drain::Resume),
}

/// Show one agent: how it is and why, what it holds, and how its last tasks ended
///
/// With `-o json`, one object with what `ls` has, and {identity, service_type, sdk, generation,
/// prefetch, registered_ms, connected_ms, serves, holds, recent, outcomes}; what does not apply is left
/// out.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = SHOW_EXAMPLES, after_long_help = format!("{SHOW_EXAMPLES}\n\n{}", exit::HELP))]
struct Show {
    /// The agent, by its own name or its node
    #[arg(value_name = "AGENT")]
    agent: String,
}

impl Agents {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let endpoint = global.endpoint()?;
        let [interrupted] = signals::tokens()?;
        let client = connect::client(endpoint, &interrupted).await?;
        let output = global.output;
        let done = match self.command {
            Command::Ls(ls) => ls.run(&client, output, &interrupted).await,
            Command::Show(show) => show.run(&client, output, &interrupted).await,
            Command::Drain(drain) => drain.run(&client, output, &interrupted).await,
            Command::Resume(resume) => resume.run(&client, output, &interrupted).await,
        };
        client.close().await;
        done
    }
}

impl Show {
    async fn run(
        self,
        client: &Client,
        output: Output,
        interrupted: &CancellationToken,
    ) -> Result<Exit, Failure> {
        let asked = client.agent_info(&self.agent);
        let Some(agent) = connect::answer(asked, interrupted).await? else {
            return Err(Failure::new(Exit::Failed, unknown(&self.agent)));
        };
        let text = match output {
            Output::Json => report::pretty(&agent)?,
            Output::Table => show::text(&agent),
        };
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{text}")?;
        stdout.flush()?;
        Ok(Exit::Ok)
    }
}

fn unknown(agent: &str) -> String {
    format!("no agent {agent}\nto see which there are: mcpctl agents ls --all")
}
