//! `mcpctl actions ls`.

use std::io::{self, Write};

use clap::Args;
use mcp_client::actions::ActionFilter;
use mcp_client::{ActionList, ActionSummary, Breakers, Client};
use tokio_util::sync::CancellationToken;

use crate::exit::{self, Exit, Failure};
use crate::global::Output;
use crate::{connect, report, table};

const EXAMPLES: &str = "\
Examples:
  mcpctl actions ls
  mcpctl actions ls --prefix team-a/
  mcpctl actions ls -o json | jq -r '.actions[] | select(.queued > 0 and .ready == 0) | .action'";

/// List the actions that have workers, tasks, or rules of their own
///
/// WORKERS are those that take tasks, of those registered. BREAKERS are those of workers that failed too
/// often: an open one gets no tasks for a while, a half-open one gets one task to try. SLOTS are of those online; a worker's other
/// actions use them, too. RULES says where an action's rules come from: common to all that have none of
/// their own, the broker's configuration file, or an operator, since the broker started.
///
/// With `-o json`, {actions, more}, with actions an array of {action, workers, ready, slots, running,
/// queued, delayed, policy, rules_from, breakers: {closed, half_open,
/// open}, shadow_workers, shadow_tasks, degraded:
/// {by, why, since_wall_ms}}.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
pub(super) struct Ls {
    /// Only actions whose name begins so
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    prefix: String,

    /// List at most so many, 1 to 1000; about 400 fit into an answer
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

impl Ls {
    pub(super) async fn run(
        self,
        client: &Client,
        output: Output,
        interrupted: &CancellationToken,
    ) -> Result<Exit, Failure> {
        let filter = ActionFilter { prefix: self.prefix, limit: Some(self.limit) };
        let list = connect::answer(client.actions(&filter), interrupted).await?;
        let mut stdout = io::stdout().lock();
        match output {
            Output::Json => writeln!(stdout, "{}", report::pretty(&list)?)?,
            Output::Table if list.actions.is_empty() => {}
            Output::Table => writeln!(stdout, "{}", table(&list.actions))?,
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
fn note(list: &ActionList) -> Option<&'static str> {
    match (list.more, list.actions.is_empty()) {
        (true, _) => Some("there may be more; narrow it by --prefix, or raise --limit"),
        (false, true) => {
            Some("no actions; start a worker with `mcpctl worker --action NAME --exec CMD`")
        }
        (false, false) => None,
    }
}

fn table(actions: &[ActionSummary]) -> String {
    let header = [
        "ACTION", "WORKERS", "BREAKERS", "SLOTS", "RUNNING", "QUEUED", "DELAYED", "POLICY", "RULES",
    ];
    let row = |it: &ActionSummary| {
        [
            it.action.to_string(),
            workers(it),
            breakers(it.breakers),
            it.slots.to_string(),
            it.running.to_string(),
            it.queued.to_string(),
            it.delayed.to_string(),
            it.policy.clone(),
            it.rules_from.to_string(),
        ]
    };
    table::draw(header, actions.iter().map(row))
}

/// Those that take tasks, unless an operator keeps them from it.
fn workers(it: &ActionSummary) -> String {
    let degraded = if it.degraded.is_some() { ", degraded" } else { "" };
    format!("{}/{}{degraded}", it.ready, it.workers)
}

/// Those that are not closed.
pub(super) fn breakers(it: Breakers) -> String {
    match (it.open, it.half_open) {
        (0, 0) => "ok".to_owned(),
        (open, 0) => format!("{open} open"),
        (0, half_open) => format!("{half_open} half-open"),
        (open, half_open) => format!("{open} open, {half_open} half-open"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use mcp_client::{ActionName, RulesFrom};

    use super::*;

    pub(in super::super) fn summary() -> ActionSummary {
        ActionSummary {
            action: ActionName::try_from("upper").unwrap(),
            workers: 3,
            ready: 2,
            slots: 8,
            running: 5,
            queued: 12,
            delayed: 1,
            policy: "least_loaded".to_owned(),
            rules_from: RulesFrom::File,
            breakers: Breakers { closed: 1, half_open: 0, open: 1 },
            shadow_workers: 1,
            shadow_tasks: 4,
            degraded: None,
        }
    }

    #[test]
    fn an_action_is_one_row() {
        let table = table(&[summary()]);
        let expected = ["upper", "2/3", "1 open", "8", "5", "12", "1", "least_loaded", "file"];
        assert_eq!(crate::table::cells(&table)[1], expected);
    }

    #[test]
    fn a_list_that_is_cut_or_empty_says_what_to_do() {
        let list = |actions: &[ActionSummary], more| ActionList { actions: actions.to_vec(), more };
        assert_eq!(note(&list(&[summary()], false)), None);
        assert!(note(&list(&[summary()], true)).unwrap().contains("--prefix"));
        assert!(note(&list(&[], false)).unwrap().contains("mcpctl worker"));
    }
}
