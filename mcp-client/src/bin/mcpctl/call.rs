//! `mcpctl call`: sends one task and prints its result.

mod detach;
mod input;
mod result;

use std::io::{self, Write};
use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};
use mcp_client::{
    ActionName, Client, Delivery, Outcome, Priority, Retry, TaskBuilder, TaskEnd, TaskId,
};
use tokio_util::sync::CancellationToken;

use input::{Input, InputArgs};
use result::Parts;

use crate::connect;
use crate::exit::{self, Exit, Failure};
use crate::global::{Global, Output};
use crate::worker::SHADOW_WORKER;
use crate::{explain, parse, report, signals, trace};

const EXAMPLES: &str = "\
Examples:
  mcpctl call upper --data hello
  mcpctl call summarize --file report.txt --ttl 2m > summary.txt
  git diff | mcpctl call review - --idempotent --label gpu=a100
  mcpctl call transcribe --file talk.wav --ttl 1h > talk.txt
  mcpctl call embed --file page.txt --idempotent --retry 3 --attempt-timeout 10s
  mcpctl call review --file report.txt --durable --ttl 1h > review.txt
  mcpctl call review --file report.txt --durable --detach --delay 8h   # then: mcpctl tasks result ID
  mcpctl call review --file report.txt --trace
  mcpctl call review --file report.txt --shadow
  mcpctl call review --file report.txt --explain
  mcpctl call upper --data hello -o json | jq .context_trace";

/// Send one task and print its result
///
/// The result goes to stdout as it comes, and nothing else does. With `-o json`, one object goes
/// there instead: {task_id, outcome, executed, body, headers, fallback, error, context_trace}.
/// Where no worker of the action gave it, but a step of the action's fallback chain, `fallback`, or a
/// line on stderr, says which.
///
/// Ctrl-C cancels the task, at the worker too; a second one does not wait for that.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
#[command(group = ArgGroup::new("may_run_twice").args(["idempotent", "durable"]).multiple(true))]
pub(crate) struct Call {
    /// What to ask for: an action that a worker serves
    action: ActionName,

    #[command(flatten)]
    input: InputArgs,

    /// Time to live: the task ends when it has no result by then; 30s when not given, and the
    /// --delay besides
    #[arg(long, value_name = "TIME", value_parser = parse::ttl)]
    ttl: Option<Duration>,

    /// Wait so long before a worker may have it
    #[arg(long, value_name = "TIME", value_parser = parse::ttl)]
    delay: Option<Duration>,

    /// Survive the broker: it is on the broker's disk before it counts as accepted, runs at least once,
    /// and its result is kept until it was printed here
    ///
    /// Should this program end before, or --ttl be over while the broker is away, `mcpctl tasks result
    /// ID` asks for the result; so does the same call with the same --id. Input and result have at most
    /// 64 KiB each. Needs a broker with a state directory.
    #[arg(long)]
    durable: bool,

    /// Don't wait for the result: print the task's id once the broker has the task on disk. `mcpctl
    /// tasks result ID` asks for the result
    #[arg(long, requires = "durable", conflicts_with_all = ["trace", "explain", "no_stream"])]
    detach: bool,

    /// Running it twice does no harm: then it is sent again when its worker or the broker is lost
    #[arg(long)]
    idempotent: bool,

    /// Try it again when its handler fails, up to N times, after 100ms, 200ms, 400ms, … at most 1s
    ///
    /// Needs --idempotent or --durable, since a handler that failed may have done a part of its work. All
    /// attempts are within --ttl. A failure that the handler calls permanent stands, and so does one while
    /// retries are more than a fifth of what the broker does; `-o json` tells in context_trace why
    /// there was another attempt, or none.
    #[arg(long, value_name = "N", value_parser = parse::retry, requires = "may_run_twice")]
    retry: Option<Retry>,

    /// End an attempt that gives no sign of life for so long: its worker hangs
    ///
    /// Then another worker gets the task if it is --idempotent or --durable; otherwise it fails with
    /// ATTEMPT_TIMEOUT. A handler gives signs by beginning and by reporting progress; one that does
    /// not report has this long in all.
    #[arg(long, value_name = "TIME", value_parser = parse::attempt_timeout)]
    attempt_timeout: Option<Duration>,

    /// Require a worker with this label; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::key_value)]
    label: Vec<(String, String)>,

    /// Load test: only workers with the label shadow=true get it, which get no other tasks
    #[arg(long)]
    shadow: bool,

    /// Prefer the worker that had the last tasks with this key
    #[arg(long, visible_alias = "affinity", value_name = "KEY")]
    affinity_key: Option<String>,

    /// Which of the waiting tasks goes first
    #[arg(long, value_enum, default_value = "normal", value_name = "CLASS")]
    priority: PriorityArg,

    /// A header for the handler; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::key_value)]
    header: Vec<(String, String)>,

    /// What the input is, such as application/json
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,

    /// The task's id, 1 to 64 printable characters; a new UUID when not given
    #[arg(long, value_name = "ID")]
    id: Option<TaskId>,

    /// On whose account
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,

    /// Write the result when all of it is there, not part by part
    #[arg(long)]
    no_stream: bool,

    /// Say why each worker was chosen for it, on stderr
    #[arg(long)]
    explain: bool,

    /// Draw what happened on its way, and on that of the tasks it sent, on stderr
    #[arg(long)]
    trace: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PriorityArg {
    Low,
    Normal,
    High,
    Urgent,
}

impl From<PriorityArg> for Priority {
    fn from(priority: PriorityArg) -> Self {
        match priority {
            PriorityArg::Low => Priority::Low,
            PriorityArg::Normal => Priority::Normal,
            PriorityArg::High => Priority::High,
            PriorityArg::Urgent => Priority::Urgent,
        }
    }
}

impl Call {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let endpoint = global.endpoint()?;
        let input = self.input.open().await?;
        let [interrupted] = signals::tokens()?;
        let client = connect::recorded_client(global, endpoint, &interrupted).await?;
        let (worker, traced) = (self.worker(), self.trace.then(|| self.action.clone()));
        let (is_explained, is_durable) = (self.explain, self.durable);
        if self.detach {
            let task = self.task(&client, input);
            let done = detach::send(task, global.output, &worker, &interrupted).await;
            client.close().await;
            return done;
        }
        let parts = match global.output {
            Output::Table if !self.no_stream => Parts::Written,
            Output::Table | Output::Json => Parts::Collected,
        };
        let end = self.send(&client, input, parts, &interrupted).await;
        let Ok(end) = end else {
            // So that a cancel arrives.
            client.close().await;
            return end.map(|_| Exit::Ok);
        };
        let exit = if interrupted.is_cancelled() { Exit::Cancelled } else { Exit::of(end.outcome) };
        if parts == Parts::Collected {
            report::print(&end, global.output)?;
        }
        // It is written: from here on it is not the broker's to keep.
        if is_durable && !matches!(end.outcome, Outcome::Rejected | Outcome::Lost) {
            client.settle(&end.task_id);
        }
        if global.output == Output::Table
            && let Some(step) = &end.fallback
        {
            writeln!(io::stderr(), "mcpctl: {}", report::fallback(step))?;
        }
        if let Some(action) = traced {
            trace::print(&action, &end);
        }
        if is_explained {
            explain::print(&end);
        }
        client.close().await;
        if end.outcome != Outcome::Ok && global.output == Output::Table {
            let hint = match end.outcome {
                Outcome::Lost if is_durable => {
                    format!("\nwhen the broker is back: mcpctl tasks result {} --wait", end.task_id)
                }
                _ => String::new(),
            };
            return Err(Failure::new(exit, report::explain(&end, &worker) + &hint));
        }
        Ok(exit)
    }

    /// The options of a worker that would serve the task.
    fn worker(&self) -> String {
        let labels = self.label.iter().map(|(key, value)| format!(" --label {key}={value}"));
        let shadow = if self.shadow { SHADOW_WORKER } else { "" };
        format!("--action {}{}{shadow}", self.action, labels.collect::<String>())
    }

    async fn send(
        self,
        client: &Client,
        input: Input,
        parts: Parts,
        interrupted: &CancellationToken,
    ) -> Result<TaskEnd, Failure> {
        let sent = tokio::select! {
            sent = self.task(client, input).stream() => sent,
            () = interrupted.cancelled() => return Err(Failure::cancelled()),
        };
        match sent {
            Ok(stream) => result::read(stream, parts, interrupted).await,
            Err(error) => connect::end_of(error),
        }
    }

    fn task(self, client: &Client, input: Input) -> TaskBuilder {
        let mut task = input
            .of(client.task(self.action))
            .idempotent(self.idempotent)
            .shadow(self.shadow)
            .explain(self.explain)
            .priority(self.priority.into());
        if let Some(ttl) = self.ttl {
            task = task.ttl(ttl);
        }
        if let Some(delay) = self.delay {
            task = task.delay(delay);
        }
        if self.durable {
            task = task.delivery(Delivery::Durable).settle_manually();
        }
        for (key, value) in self.label {
            task = task.label(key, value);
        }
        for (key, value) in self.header {
            task = task.header(key, value);
        }
        if let Some(retry) = self.retry {
            task = task.retry(retry);
        }
        if let Some(timeout) = self.attempt_timeout {
            task = task.attempt_timeout(timeout);
        }
        if let Some(id) = self.id {
            task = task.id(id);
        }
        if let Some(content_type) = self.content_type {
            task = task.content_type(content_type);
        }
        if let Some(key) = self.affinity_key {
            task = task.affinity_key(key);
        }
        if let Some(tenant) = self.tenant {
            task = task.tenant(tenant);
        }
        task
    }
}
