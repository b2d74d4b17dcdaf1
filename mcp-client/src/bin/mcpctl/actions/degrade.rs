//! `mcpctl actions degrade` and `restore`: keeps actions from their workers, and gives them back.

use std::io::{self, Write};

use clap::Args;
use mcp_client::{ActionDegraded, ActionName, Client};
use tokio_util::sync::CancellationToken;

use crate::connect;
use crate::exit::{self, Exit, Failure};
use crate::global::Output;

const DEGRADE_EXAMPLES: &str = "\
Examples:
  mcpctl actions degrade generate --why 'the model makes things up'
  mcpctl actions restore generate";

const RESTORE_EXAMPLES: &str = "\
Examples:
  mcpctl actions restore generate summarize";

/// Keep the tasks of actions from their workers
///
/// Those that come, and those that wait, take the action's fallback chain: an earlier answer, another
/// action, or a default, as its rules say. Where nothing in it answers, they are rejected with
/// DEGRADED. What runs goes on. It holds until `actions restore`: also when a broker
/// with a state directory is started again.
///
/// With `-o json`, a line of {action, changed, degraded: {by, why, since_wall_ms}} for each.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = DEGRADE_EXAMPLES, after_long_help = format!("{DEGRADE_EXAMPLES}\n\n{}", exit::HELP))]
pub(super) struct Degrade {
    /// The actions
    #[arg(value_name = "ACTION", required = true)]
    actions: Vec<ActionName>,

    /// Why: operators see it, and clients whose tasks are refused
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
}

/// Give the tasks of actions to their workers again
///
/// With `-o json`, a line of {action, changed, degraded: null} for each.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = RESTORE_EXAMPLES, after_long_help = format!("{RESTORE_EXAMPLES}\n\n{}", exit::HELP))]
pub(super) struct Restore {
    /// The actions
    #[arg(value_name = "ACTION", required = true)]
    actions: Vec<ActionName>,
}

impl Degrade {
    pub(super) async fn run(
        self,
        client: &Client,
        output: Output,
        interrupted: &CancellationToken,
    ) -> Result<Exit, Failure> {
        for action in &self.actions {
            let asked = client.degrade_action(action, self.why.as_deref());
            print(&connect::answer(asked, interrupted).await?, output)?;
        }
        Ok(Exit::Ok)
    }
}

impl Restore {
    pub(super) async fn run(
        self,
        client: &Client,
        output: Output,
        interrupted: &CancellationToken,
    ) -> Result<Exit, Failure> {
        for action in &self.actions {
            let asked = client.restore_action(action);
            print(&connect::answer(asked, interrupted).await?, output)?;
        }
        Ok(Exit::Ok)
    }
}

fn print(done: &ActionDegraded, output: Output) -> io::Result<()> {
    let line = match output {
        Output::Json => serde_json::to_string(done)?,
        Output::Table => line(done),
    };
    writeln!(io::stdout(), "{line}")
}

fn line(done: &ActionDegraded) -> String {
    let state = match &done.degraded {
        None => "takes tasks",
        Some(_) if done.changed => "degraded",
        Some(degraded) => {
            let why = if degraded.why.is_empty() { "" } else { ": " };
            return format!(
                "{}: had been degraded already, by {}{why}{}",
                done.action, degraded.by, degraded.why
            );
        }
    };
    let already = if done.changed { "" } else { " already" };
    format!("{}: {state}{already}", done.action)
}

#[cfg(test)]
mod tests {
    use mcp_client::Degraded;

    use super::*;

    #[test]
    fn a_line_says_what_holds_now_and_who_did_it_before() {
        let degraded = Degraded { by: "ann".into(), why: "slow".into(), since_wall_ms: 1 };
        let of = |changed, degraded: Option<&Degraded>| {
            let (action, degraded) = ("a".try_into().unwrap(), degraded.cloned());
            line(&ActionDegraded { action, changed, degraded })
        };
        assert_eq!(of(true, Some(&degraded)), "a: degraded");
        assert_eq!(of(false, Some(&degraded)), "a: had been degraded already, by ann: slow");
        assert_eq!(of(true, None), "a: takes tasks");
        assert_eq!(of(false, None), "a: takes tasks already");
    }
}
