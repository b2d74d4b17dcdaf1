//! `mcpctl tasks`: what waits, what runs where, what went wrong; its end, and its result.

mod ls;
mod result;
mod show;

use std::io::{self, Write};
use std::time::Duration;

use clap::{Args, Subcommand};
use mcp_client::{Client, TaskCancelled, TaskId, TaskStatus};
use tokio_util::sync::CancellationToken;

use crate::exit::{self, Exit, Failure};
use crate::global::{Global, Output};
use crate::{connect, latency, report, signals};

pub(crate) use show::hop_line;

const SHOW_EXAMPLES: &str = "\
Examples:
  mcpctl tasks show 0198c0de-5f1a-7c3e-9d2b-4f6a8b0c2d4e
  mcpctl tasks show t-1 -o json | jq .context_trace.hops";

const CANCEL_EXAMPLES: &str = "\
Examples:
  mcpctl tasks cancel t-1 t-2
  mcpctl tasks ls --action review --status queued -o json | jq -r '.tasks[].task_id' |
    xargs -r mcpctl tasks cancel";

/// Look at tasks of all clients, end them, and ask for their results
#[derive(Debug, Args)]
pub(crate) struct Tasks {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ls(ls::Ls),
    Show(Show),
    Cancel(Cancel),
    Result(result::ResultOf),
}

/// Show one task: where it is or how it ended, why, and its way there
///
/// What is in it is not shown, and neither is its result. With `-o json`, one object with what `ls`
/// has, and {delivery, idempotent, required_labels, waiters, chunks, fallback, executed, error,
/// context_trace};
/// what does not apply is left out.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = SHOW_EXAMPLES, after_long_help = format!("{SHOW_EXAMPLES}\n\n{}", exit::HELP))]
struct Show {
    /// The task
    #[arg(value_name = "TASK_ID")]
    id: TaskId,

    #[command(flatten)]
    whose: Whose,
}

/// End tasks, for all who wait for them
///
/// Their clients get the outcome cancelled with a message that says that an operator did it, and a
/// worker that has one stops it. One that has ended already stays as it is, which is no error. One that
/// the broker does not know is: the exit status is then 1, after all others.
///
/// With `-o json`, a line of {task_id, cancelled, status} for each.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = CANCEL_EXAMPLES, after_long_help = format!("{CANCEL_EXAMPLES}\n\n{}", exit::HELP))]
struct Cancel {
    /// The tasks
    #[arg(value_name = "TASK_ID", required = true)]
    ids: Vec<TaskId>,

    #[command(flatten)]
    whose: Whose,
}

#[derive(Debug, Args)]
struct Whose {
    /// Whose task, where several identities have one of this id
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
}

impl Tasks {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let endpoint = global.endpoint()?;
        let [interrupted] = signals::tokens()?;
        let client = connect::client(endpoint, &interrupted).await?;
        let done = match self.command {
            Command::Ls(ls) => ls.run(&client, global.output, &interrupted).await,
            Command::Show(show) => show.run(&client, global.output, &interrupted).await,
            Command::Cancel(cancel) => cancel.run(&client, global.output, &interrupted).await,
            Command::Result(result) => result.run(&client, global.output, &interrupted).await,
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
        let asked = client.task_info(&self.id, self.whose.identity.as_deref());
        let Some(info) = connect::answer(asked, interrupted).await? else {
            return Err(Failure::new(Exit::Failed, unknown(&self.id)));
        };
        let text = match output {
            Output::Json => report::pretty(&info)?,
            Output::Table => show::text(&info),
        };
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{text}")?;
        stdout.flush()?;
        Ok(Exit::Ok)
    }
}

impl Cancel {
    async fn run(
        self,
        client: &Client,
        output: Output,
        interrupted: &CancellationToken,
    ) -> Result<Exit, Failure> {
        let mut exit = Exit::Ok;
        for task_id in self.ids {
            let asked = client.cancel_task(&task_id, self.whose.identity.as_deref());
            let done = connect::answer(asked, interrupted).await?;
            if done.is_none() {
                exit = Exit::Failed;
                writeln!(io::stderr(), "mcpctl: {}", unknown(&task_id))?;
            }
            match (output, done) {
                (Output::Table, None) => {}
                (Output::Table, Some(done)) => writeln!(io::stdout(), "{}", line(&done))?,
                (Output::Json, done) => {
                    let status = TaskStatus::Unknown;
                    let unknown = || TaskCancelled { task_id, cancelled: false, status };
                    let line = serde_json::to_string(&done.unwrap_or_else(unknown));
                    writeln!(io::stdout(), "{}", line.map_err(io::Error::from)?)?;
                }
            }
        }
        Ok(exit)
    }
}

fn unknown(id: &TaskId) -> String {
    format!(
        "no task {id}: it never came to this broker, or ended too long ago to be kept\n\
         to see what there is: mcpctl tasks ls"
    )
}

fn line(done: &TaskCancelled) -> String {
    match done.cancelled {
        true => format!("{}: cancelled", done.task_id),
        false => format!("{}: had ended already: {}", done.task_id, done.status),
    }
}

pub(crate) fn ms(ms: u64) -> String {
    latency::show(Duration::from_millis(ms))
}
