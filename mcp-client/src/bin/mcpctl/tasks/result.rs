//! `mcpctl tasks result`: the outcome of a task that another process sent.

use std::io::{self, Write};

use clap::Args;
use mcp_client::{Client, Fetched, Outcome, TaskEnd, TaskId};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::exit::{self, Exit, Failure};
use crate::global::Output;
use crate::{connect, report};

const EXAMPLES: &str = "\
Examples:
  id=$(mcpctl call review --file report.txt --durable --detach --ttl 1h)
  mcpctl tasks result $id
  mcpctl tasks result $id --wait --settle > review.txt";

/// Print the result of a task by its id, whoever sent it
///
/// As `call` prints it, and with its exit status. The result of a durable task is kept until it was
/// settled (`call` and `send` do that once they have written it), or for a day (default); that of another
/// one perhaps for a while. Without a result, the exit status says whether there is such a task.
///
/// With `-o json`, the object of `call`; or {task_id, status}, with status \"queued\", \"running\" or
/// \"unknown\".
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
pub(super) struct ResultOf {
    /// The task
    #[arg(value_name = "TASK_ID")]
    id: TaskId,

    /// Wait until it has ended. Ctrl-C ends the waiting, not the task
    #[arg(long)]
    wait: bool,

    /// The broker need not keep it any longer, once it is printed
    #[arg(long)]
    settle: bool,
}

#[derive(Serialize)]
struct Unended<'a> {
    task_id: &'a TaskId,
    status: &'a str,
}

impl ResultOf {
    pub(super) async fn run(
        self,
        client: &Client,
        output: Output,
        interrupted: &CancellationToken,
    ) -> Result<Exit, Failure> {
        let asked = async {
            match self.wait {
                false => client.try_result(&self.id).await,
                true => client.result(&self.id).await.map(|end| match end {
                    Some(end) => Fetched::Ended(Box::new(end)),
                    None => Fetched::Unknown,
                }),
            }
        };
        match connect::answer(asked, interrupted).await? {
            Fetched::Ended(end) => self.ended(client, &end, output),
            Fetched::Queued => self.not_ended("queued", output),
            Fetched::Running => self.not_ended("running", output),
            // Whatever a later SDK adds is not known here.
            _ => {
                self.print_status("unknown", output)?;
                let why = format!(
                    "no task {}: it never came to this broker, or its result is no longer kept",
                    self.id
                );
                Err(Failure::new(Exit::UnknownTask, why))
            }
        }
    }

    fn ended(self, client: &Client, end: &TaskEnd, output: Output) -> Result<Exit, Failure> {
        report::print(end, output)?;
        if self.settle {
            client.settle(&self.id);
        }
        let exit = Exit::of(end.outcome);
        if end.outcome != Outcome::Ok && output == Output::Table {
            return Err(Failure::new(exit, report::explain(end, "--action ACTION")));
        }
        Ok(exit)
    }

    fn not_ended(&self, status: &str, output: Output) -> Result<Exit, Failure> {
        self.print_status(status, output)?;
        let why = format!("task {} has no result yet: {status}; --wait waits for it", self.id);
        Err(Failure::new(Exit::NotEnded, why))
    }

    fn print_status(&self, status: &str, output: Output) -> io::Result<()> {
        if output == Output::Json {
            let line = serde_json::to_string(&Unended { task_id: &self.id, status })?;
            writeln!(io::stdout(), "{line}")?;
        }
        Ok(())
    }
}
