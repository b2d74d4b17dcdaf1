//! `mcpctl dlq replay` and `drop`.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use mcp_client::{ActionName, CallError, Client, DeadLetterFilter, DeadLetterSummary, TaskId};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::exit::{self, Exit, Failure};
use crate::global::Output;
use crate::{connect, parse};

/// Of one list.
const PAGE: u32 = 1_000;

const REPLAY_EXAMPLES: &str = "\
Examples:
  mcpctl dlq replay t-1 t-2
  mcpctl dlq replay --all --action summarize --ttl 1h";

const DROP_EXAMPLES: &str = "\
Examples:
  mcpctl dlq drop t-1 t-2
  mcpctl dlq drop --all --action summarize";

/// Have the tasks of dead letters done again
///
/// Each is a new durable task with the id, the input and all else of before, and its dead letter is
/// gone. `tasks result ID --wait` waits for its result. With --all, those that are dead letters when this
/// begins; what fails again is not tried again.
///
/// One without a dead letter is told on stderr: the exit status is then 1, after all others. One that
/// the broker can't take now ends this, and stays a dead letter.
///
/// With `-o json`, a line of {task_id, replayed} for each.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = REPLAY_EXAMPLES, after_long_help = format!("{REPLAY_EXAMPLES}\n\n{}", exit::HELP))]
pub(super) struct Replay {
    #[command(flatten)]
    which: Which,

    /// Their time to live from now; what they had when not given
    #[arg(long, value_name = "TIME", value_parser = parse::ttl)]
    ttl: Option<Duration>,
}

/// Drop dead letters: their tasks are not done
///
/// One without a dead letter is told on stderr: the exit status is then 1, after all others.
///
/// With `-o json`, a line of {task_id, dropped} for each.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = DROP_EXAMPLES, after_long_help = format!("{DROP_EXAMPLES}\n\n{}", exit::HELP))]
pub(super) struct Drop {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Args)]
struct Which {
    /// The tasks
    #[arg(value_name = "TASK_ID", required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<TaskId>,

    /// Whose tasks, where several identities have one of an id
    #[arg(long, value_name = "NAME", conflicts_with = "all")]
    identity: Option<String>,

    /// All dead letters
    #[arg(long)]
    all: bool,

    /// Of --all, only those of this action
    #[arg(long, value_name = "ACTION", requires = "all", conflicts_with = "ids")]
    action: Option<ActionName>,
}

impl Replay {
    pub(super) async fn run(
        self,
        client: &Client,
        output: Output,
        interrupted: &CancellationToken,
    ) -> Result<Exit, Failure> {
        let replay = async |id: &TaskId, identity: Option<&str>| {
            client.replay_dead_letter(id, identity, self.ttl).await
        };
        self.which.each(client, "replayed", replay, output, interrupted).await
    }
}

impl Drop {
    pub(super) async fn run(
        self,
        client: &Client,
        output: Output,
        interrupted: &CancellationToken,
    ) -> Result<Exit, Failure> {
        let drop =
            async |id: &TaskId, identity: Option<&str>| client.drop_dead_letter(id, identity).await;
        self.which.each(client, "dropped", drop, output, interrupted).await
    }
}

impl Which {
    /// Does it to each.
    async fn each(
        self,
        client: &Client,
        done: &str,
        act: impl AsyncFn(&TaskId, Option<&str>) -> Result<bool, CallError>,
        output: Output,
        interrupted: &CancellationToken,
    ) -> Result<Exit, Failure> {
        let mut exit = Exit::Ok;
        for id in &self.ids {
            let is_done = connect::answer(act(id, self.identity.as_deref()), interrupted).await?;
            if !is_done {
                exit = Exit::Failed;
                writeln!(io::stderr(), "mcpctl: {}", unknown(id))?;
            }
            print(id, done, is_done, output)?;
        }
        // From the newest to the oldest: what becomes a dead letter meanwhile is newer than all of them.
        let mut is_left = self.all;
        let mut filter = DeadLetterFilter { action: self.action, before: None, limit: Some(PAGE) };
        while is_left {
            let list = connect::answer(client.dead_letters(&filter), interrupted).await?;
            let Some(last) = list.dead_letters.last() else { break };
            (is_left, filter.before) = (list.more, Some(last.number));
            for DeadLetterSummary { task_id, identity, .. } in &list.dead_letters {
                // Another operator may have been faster.
                if connect::answer(act(task_id, Some(identity)), interrupted).await? {
                    print(task_id, done, true, output)?;
                }
            }
        }
        Ok(exit)
    }
}

fn print(id: &TaskId, done: &str, is_done: bool, output: Output) -> io::Result<()> {
    match output {
        Output::Json => writeln!(io::stdout(), "{}", json!({ "task_id": id, done: is_done })),
        Output::Table if is_done => writeln!(io::stdout(), "{id}: {done}"),
        Output::Table => Ok(()),
    }
}

pub(super) fn unknown(id: &TaskId) -> String {
    format!("no dead letter {id}\nto see what there is: mcpctl dlq ls")
}
