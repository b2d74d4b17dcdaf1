//! `mcpctl agents ls`.

use std::io::{self, Write};
use std::num::NonZeroU32;

use clap::{Args, ValueEnum};
use mcp_client::{ActionName, AgentFilter, AgentInfo, AgentList, Client};
use tokio_util::sync::CancellationToken;

use crate::exit::{self, Exit, Failure};
use crate::global::Output;
use crate::tasks::ms;
use crate::{connect, parse, report, table};

const EXAMPLES: &str = "\
Examples:
  mcpctl agents ls
  mcpctl agents ls --only ejected
  mcpctl agents ls --action review --label gpu=a100
  mcpctl agents ls -o json | jq -r '.[] | select(.in_flight == .slots) | .agent_id'";

/// List the agents that are online, by name
///
/// With `-o json`, an array of {node_id, agent_id, state, presence, readiness, health, unwell, actions,
/// labels, slots, in_flight, parked, last_seen_ms, drained}.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
pub(super) struct Ls {
    /// Also those that were lost and may come back, and those that are drained and not there
    #[arg(long, conflicts_with = "only")]
    all: bool,

    /// Only those in this state
    #[arg(long, value_enum, value_name = "STATE")]
    only: Option<State>,

    /// Only those that serve this action
    #[arg(long, value_name = "ACTION")]
    action: Option<ActionName>,

    /// Only those with this label; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::key_value)]
    label: Vec<(String, String)>,

    /// Only those whose name or node has this in it
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,

    /// At most so many [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroU32>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum State {
    /// It takes tasks
    Ready,
    /// It takes none for now, by itself
    Standby,
    /// It takes no more, by itself or because an operator says so
    Draining,
    /// It does not answer
    Suspect,
    /// It is left out of an action for its failures or for being slow
    Ejected,
    /// It has gone, and may come back
    Lost,
    /// It is not there, and drained when it comes
    Offline,
}

impl Ls {
    pub(super) async fn run(
        self,
        client: &Client,
        output: Output,
        interrupted: &CancellationToken,
    ) -> Result<Exit, Failure> {
        let state = self.only.and_then(|it| Some(it.to_possible_value()?.get_name().to_owned()));
        let filter = AgentFilter {
            action: self.action,
            state: state.or_else(|| (!self.all).then(|| "online".to_owned())),
            labels: self.label.into_iter().collect(),
            text: self.text.unwrap_or_default(),
            after: None,
            limit: self.limit.map(NonZeroU32::get),
        };
        let list = connect::answer(client.all_agents(&filter), interrupted).await?;
        let mut stdout = io::stdout().lock();
        match output {
            Output::Json => writeln!(stdout, "{}", report::pretty(&list.agents)?)?,
            Output::Table if list.agents.is_empty() => {}
            Output::Table => writeln!(stdout, "{}", table(&list.agents))?,
        }
        stdout.flush()?;
        if output == Output::Table
            && let Some(note) = note(&list)
        {
            writeln!(io::stderr(), "{note}")?;
        }
        Ok(Exit::Ok)
    }
}

/// What is to be said beside the table.
fn note(list: &AgentList) -> Option<String> {
    match (list.agents.len(), list.total) {
        (0, 0) => {
            Some("no agents; start one with `mcpctl worker --action NAME --exec CMD`".to_owned())
        }
        (0, total) => Some(format!("none of {total} agents is so; `--all` lists lost ones, too")),
        (listed, _) if list.next.is_some() => {
            Some(format!("{listed} of {}; raise --limit for the others", list.matching))
        }
        _ => None,
    }
}

pub(crate) fn table(agents: &[AgentInfo]) -> String {
    let header = ["NODE", "AGENT", "STATE", "HEALTH", "SLOTS", "SEEN", "ACTIONS", "LABELS"];
    let row = |agent: &AgentInfo| {
        let labels: Vec<_> =
            agent.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        [
            agent.node_id.clone(),
            agent.agent_id.clone(),
            state(agent),
            agent.health.clone(),
            slots(agent),
            agent.last_seen_ms.map_or("-".to_owned(), |it| format!("{} ago", ms(it))),
            agent.actions.join(","),
            labels.join(","),
        ]
    };
    table::draw(header, agents.iter().map(row))
}

/// In which state it is, and whose doing that is.
pub(super) fn state(agent: &AgentInfo) -> String {
    match &agent.drained {
        Some(drained) => format!("{}, drained by {}", agent.state, drained.by),
        None => agent.state.clone(),
    }
}

pub(super) fn slots(agent: &AgentInfo) -> String {
    let slots = format!("{}/{}", agent.in_flight, agent.slots);
    if agent.parked > 0 { format!("{slots}, {} parked", agent.parked) } else { slots }
}

#[cfg(test)]
pub(crate) mod tests {
    use mcp_client::agents::Drained;

    use super::*;

    pub(crate) fn agent() -> AgentInfo {
        AgentInfo {
            node_id: "n-1".to_owned(),
            agent_id: "upper-1".to_owned(),
            state: "ready".to_owned(),
            presence: "online".to_owned(),
            readiness: "ready".to_owned(),
            health: "ok".to_owned(),
            unwell: Vec::new(),
            actions: vec!["upper".to_owned(), "lower".to_owned()],
            labels: [("gpu".to_owned(), "a100".to_owned())].into(),
            slots: 4,
            in_flight: 1,
            parked: 2,
            last_seen_ms: Some(250),
            drained: None,
        }
    }

    #[test]
    fn an_agent_is_one_row_with_its_used_slots() {
        let drained = Drained { by: "ann".into(), why: String::new(), since_wall_ms: 1 };
        let mut gone = AgentInfo { state: "offline".into(), last_seen_ms: None, ..agent() };
        gone.drained = Some(drained);
        let table = table(&[agent(), gone]);
        let rows = crate::table::cells(&table);
        assert_eq!(rows[0][..3], ["NODE", "AGENT", "STATE"]);
        let slots = "1/4, 2 parked";
        let row = ["n-1", "upper-1", "ready", "ok", slots, "250 ms ago", "upper,lower", "gpu=a100"];
        assert_eq!(rows[1], row);
        assert_eq!((rows[2][2], rows[2][5]), ("offline, drained by ann", "-"));
    }

    #[test]
    fn beside_the_table_is_told_what_it_has_not() {
        let of = |agents: Vec<AgentInfo>, total, next: Option<&str>| {
            let next = next.map(|it| it.try_into().unwrap());
            note(&AgentList { agents, next, matching: 7, total })
        };
        assert!(of(vec![], 0, None).unwrap().contains("mcpctl worker"));
        assert!(of(vec![], 3, None).unwrap().contains("none of 3"));
        assert_eq!(of(vec![agent()], 9, None), None);
        assert!(of(vec![agent()], 9, Some("a")).unwrap().starts_with("1 of 7"));
    }
}
