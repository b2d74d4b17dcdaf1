//! `mcpctl actions set` and `reset`.

use std::io::{self, Write};

use clap::Args;
use mcp_client::{ActionName, ActionRules, Client};
use tokio_util::sync::CancellationToken;

use super::rules::{self, Rules};
use super::show::rules_from;
use crate::exit::{self, Exit, Failure};
use crate::global::Output;
use crate::{connect, report};

const SET_EXAMPLES: &str = "\
Examples:
  mcpctl actions set summarize policy=round_robin
  mcpctl actions set summarize policy=                # the default again
  mcpctl actions set summarize policy=round_robin >> broker.toml

Which rules there are, and what they are now: mcpctl actions show ACTION";

const RESET_EXAMPLES: &str = "\
Examples:
  mcpctl actions reset summarize";

/// Change rules of an action, while its tasks wait and run
///
/// Only what is named changes; all of it is checked first. Keys are those of the broker's configuration
/// file, [actions.\"ACTION\"], with dots for its tables; values are as there, but a word needs no quotes.
///
/// The rules hold until the broker is started again. What its configuration file has to say for them to
/// stay goes to stdout. With `-o json`, {action, rules, rules_from, toml}.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = SET_EXAMPLES, after_long_help = format!("{SET_EXAMPLES}\n\n{}", exit::HELP))]
pub(super) struct Set {
    /// The action; it need not have workers yet
    action: ActionName,

    /// What to change
    #[arg(value_name = "KEY=VALUE", required = true, value_parser = rules::parse)]
    rules: Vec<Rules>,
}

/// Give an action the rules back that the broker's configuration file has for it
///
/// With `-o json`, {action, rules, rules_from}.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = RESET_EXAMPLES, after_long_help = format!("{RESET_EXAMPLES}\n\n{}", exit::HELP))]
pub(super) struct Reset {
    /// The action
    action: ActionName,
}

impl Set {
    pub(super) async fn run(
        self,
        client: &Client,
        output: Output,
        interrupted: &CancellationToken,
    ) -> Result<Exit, Failure> {
        let mut rules = Rules::new();
        for part in self.rules {
            rules::merge(&mut rules, part);
        }
        let asked = client.set_action_rules(&self.action, &rules);
        let changed = connect::answer(asked, interrupted).await?;
        if output == Output::Table {
            let toml = changed.toml.as_deref().unwrap_or_default();
            let mut stdout = io::stdout().lock();
            write!(stdout, "{toml}")?;
            stdout.flush()?;
            writeln!(
                io::stderr(),
                "in force now, until the broker is started again; to keep it, put these lines into \
                 its configuration file"
            )?;
            return Ok(Exit::Ok);
        }
        print_json(&changed)
    }
}

impl Reset {
    pub(super) async fn run(
        self,
        client: &Client,
        output: Output,
        interrupted: &CancellationToken,
    ) -> Result<Exit, Failure> {
        let asked = client.reset_action_rules(&self.action);
        let changed = connect::answer(asked, interrupted).await?;
        if output == Output::Table {
            let ActionRules { action, rules_from: from, .. } = &changed;
            writeln!(io::stdout(), "{action}: its rules are {}", rules_from(*from))?;
            return Ok(Exit::Ok);
        }
        print_json(&changed)
    }
}

fn print_json(changed: &ActionRules) -> Result<Exit, Failure> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{}", report::pretty(changed)?)?;
    stdout.flush()?;
    Ok(Exit::Ok)
}
