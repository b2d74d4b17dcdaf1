//! `mcpctl agents`: the workers that the broker knows.

use std::io::{self, Write};
use std::time::Duration;

use clap::{Args, Subcommand};
use mcp_client::AgentInfo;

use crate::exit::{self, Exit, Failure};
use crate::global::{Global, Output};
use crate::{connect, latency, report, signals, table};

const EXAMPLES: &str = "\
Examples:
  mcpctl agents ls
  mcpctl agents ls -o json | jq -r '.[] | select(.in_flight == .slots) | .agent_id'";

/// Look at the worker agents
#[derive(Debug, Args)]
pub(crate) struct Agents {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ls(Ls),
}

/// List the agents that are online
///
/// With `-o json`, an array of {node_id, agent_id, presence, readiness, health, actions, labels,
/// slots, in_flight, parked, last_seen_ms}.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
struct Ls {
    /// Also those that were lost and may come back
    #[arg(long)]
    all: bool,
}

impl Agents {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let Command::Ls(Ls { all }) = self.command;
        let endpoint = global.endpoint()?;
        let [interrupted] = signals::tokens()?;
        let client = connect::client(endpoint, &interrupted).await?;
        let agents = connect::answer(client.agents(all), &interrupted).await?;
        client.close().await;
        print(&agents, global.output)?;
        Ok(Exit::Ok)
    }
}

fn print(agents: &[AgentInfo], output: Output) -> io::Result<()> {
    let text = match output {
        Output::Json => report::pretty(&agents)?,
        Output::Table if agents.is_empty() => {
            return writeln!(
                io::stderr(),
                "no agents; start one with `mcpctl worker --action NAME --exec CMD`"
            );
        }
        Output::Table => table(agents),
    };
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
}

fn table(agents: &[AgentInfo]) -> String {
    let header =
        ["NODE", "AGENT", "PRESENCE", "READINESS", "HEALTH", "SLOTS", "SEEN", "ACTIONS", "LABELS"];
    let row = |agent: &AgentInfo| {
        let labels: Vec<_> =
            agent.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        [
            agent.node_id.clone(),
            agent.agent_id.clone(),
            agent.presence.clone(),
            agent.readiness.clone(),
            agent.health.clone(),
            slots(agent),
            format!("{} ago", latency::show(Duration::from_millis(agent.last_seen_ms))),
            agent.actions.join(","),
            labels.join(","),
        ]
    };
    table::draw(header, agents.iter().map(row))
}

fn slots(agent: &AgentInfo) -> String {
    let slots = format!("{}/{}", agent.in_flight, agent.slots);
    if agent.parked > 0 { format!("{slots}, {} parked", agent.parked) } else { slots }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_one_row_with_its_used_slots() {
        let agent = AgentInfo {
            node_id: "n-1".to_owned(),
            agent_id: "upper-1".to_owned(),
            presence: "online".to_owned(),
            readiness: "ready".to_owned(),
            health: "ok".to_owned(),
            unwell: Vec::new(),
            actions: vec!["upper".to_owned(), "lower".to_owned()],
            labels: [("gpu".to_owned(), "a100".to_owned())].into(),
            slots: 4,
            in_flight: 1,
            parked: 2,
            last_seen_ms: 250,
        };
        let table = table(&[agent]);
        let rows = crate::table::cells(&table);
        assert_eq!(rows[0][0], "NODE");
        assert_eq!(
            rows[1],
            [
                "n-1",
                "upper-1",
                "online",
                "ready",
                "ok",
                "1/4, 2 parked",
                "250 ms ago",
                "upper,lower",
                "gpu=a100"
            ]
        );
    }
}
