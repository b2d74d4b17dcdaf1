//! `mcpctl send`: sends the tasks of a file, many at once.

mod lines;
mod progress;
mod tally;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::future::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use mcp_client::{CallError, Client, Delivery, Outcome, Retry, TaskEnd, TaskId};
use mcp_proto::json::{JsonError, JsonTask};
use tokio_util::sync::CancellationToken;

use crate::exit::{Exit, Failure};
use crate::global::Global;
use crate::{connect, parse, report, signals};
use lines::{Line, Lines};
use progress::Progress;
use tally::Tally;

const HELP: &str = "\
Examples:
  mcpctl send --file tasks.jsonl > results.jsonl
  generate-tasks | mcpctl send --file - --in-flight 1000 | jq -r .outcome
  mcpctl send --file pages.jsonl --retry 3 --attempt-timeout 10s > results.jsonl
  mcpctl send --file pages.jsonl --durable > results.jsonl

A line:
  {\"mcp_version\":\"1.0\",\"task_id\":\"t-1\",\"action\":\"upper\",\"payload\":{\"text\":\"hello\"},\"ttl\":30}

All five fields are required; ttl is in seconds. Others that may be there: delay (in seconds, less than
ttl), content_type (with \"text/plain\" the payload is a string and goes to the worker as it is), priority, tenant,
affinity_key, required_labels, headers, idempotent, delivery, shadow, parent_task_id, depth,
traceparent, tracestate, retry (such as {\"max_attempts\":5,\"initial_ms\":200}),
attempt_timeout_ms, cancel_on_disconnect, explain. Names that begin with x- are left out.";

const EXIT_HELP: &str = "\
Exit status:
    0  all lines were tasks and all ended ok
    1  a task did not end ok
    2  a line was not a task, whatever became of the others; also: wrong arguments
    5  cannot connect
  130  cancelled: Ctrl-C or SIGTERM
  141  the reader of standard output went away";

/// Send the tasks of a file, one JSON message a line
///
/// Results go to stdout as they come, one JSON object a line: {task_id, outcome, executed, body,
/// error, context_trace}, with body_base64 in place of body where the result is not text. A line
/// that is not a task is told on stderr, and the rest goes on. At the end a summary goes to stderr.
/// The file is read as it is sent: it can be of any length, and a pipe.
///
/// Ctrl-C sends no more and cancels what is in flight; a second one does not wait for that.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = HELP, after_long_help = format!("{HELP}\n\n{EXIT_HELP}"))]
pub(crate) struct Send {
    /// The file; `-` is stdin
    #[arg(long, value_name = "TASKS.jsonl")]
    file: PathBuf,

    /// Tasks without an outcome at any time
    #[arg(
        long,
        value_name = "N",
        default_value_t = 256,
        value_parser = clap::value_parser!(u32).range(1..=65_536)
    )]
    in_flight: u32,

    /// Try tasks again when their handler fails, up to N times, after 100ms, 200ms, 400ms, … at most
    /// 1s; those whose line does not say `retry`
    ///
    /// Only tasks with `"idempotent":true` or `"delivery":"durable"` are, since a handler that failed
    /// may have done a part of its work.
    #[arg(long, value_name = "N", value_parser = parse::retry)]
    retry: Option<Retry>,

    /// End an attempt that gives no sign of life for so long, of tasks whose line does not say
    /// `attempt_timeout_ms`
    ///
    /// Then another worker gets the task if it may run twice; otherwise it fails with
    /// ATTEMPT_TIMEOUT.
    #[arg(long, value_name = "TIME", value_parser = parse::attempt_timeout)]
    attempt_timeout: Option<Duration>,

    /// All tasks survive the broker, as those with `"delivery":"durable"` in their line do: each is on
    /// the broker's disk before it counts as accepted, and its result is kept until it was written here
    ///
    /// Should this program end before, send the same lines again: what was done is not done again,
    /// and its result is printed. They run at least once. Needs a broker with a state directory.
    #[arg(long)]
    durable: bool,
}

/// What became of a line.
struct Done {
    number: u64,
    bytes: u64,
    took: Duration,
    is_durable: bool,
    result: Result<TaskEnd, CallError>,
}

/// What is to be written.
#[derive(Default)]
struct Output {
    lines: Vec<u8>,
    /// The durable ones among them.
    durable: Vec<TaskId>,
}

impl Output {
    fn write(&mut self) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(&self.lines)?;
        self.lines.clear();
        stdout.flush()
    }
}

impl Send {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let mut lines = Lines::open(&self.file).map_err(|error| {
            Failure::usage(format_args!("cannot read {}: {error}", self.file.display()))
        })?;
        let endpoint = global.endpoint()?;
        let [interrupted] = signals::tokens()?;
        let client = connect::recorded_client(global, endpoint, &interrupted).await?;
        let progress = Progress::new(lines.total_bytes);
        let mut tally = Tally::new();

        let result = self.send(&client, &mut lines, &mut tally, &progress, &interrupted).await;
        progress.finish();
        // Also after an error: what was in flight is cancelled, and the broker shall know.
        client.close().await;
        result?;
        // There is nowhere left to tell it when stderr is closed.
        let _ = writeln!(io::stderr(), "{tally}");
        Ok(if interrupted.is_cancelled() { Exit::Cancelled } else { tally.exit() })
    }

    async fn send(
        &self,
        client: &Client,
        lines: &mut Lines,
        tally: &mut Tally,
        progress: &Progress,
        interrupted: &CancellationToken,
    ) -> Result<(), Failure> {
        let limit = self.in_flight as usize;
        let mut in_flight = FuturesUnordered::new();
        let mut is_open = true;
        let mut out = Output::default();
        loop {
            tokio::select! {
                biased;
                Some(done) = in_flight.next() => {
                    tally_up(done, tally, progress, &mut out)?;
                    // All that is ready goes out together.
                    while let Some(Some(done)) = in_flight.next().now_or_never() {
                        tally_up(done, tally, progress, &mut out)?;
                    }
                    progress.suspend(|| out.write())?;
                    // They are written: from here on they are not the broker's to keep.
                    out.durable.drain(..).for_each(|id| client.settle(&id));
                    progress.update(tally, in_flight.len());
                }
                () = interrupted.cancelled(), if is_open => is_open = false,
                line = lines.next(), if is_open && in_flight.len() < limit => match line {
                    None => is_open = false,
                    Some(line) => match read(&line).map(|task| self.complete(task)) {
                        Ok(task) => in_flight.push(one(client, line, task, interrupted)),
                        Err(problem) => {
                            tally.bad_lines += 1;
                            progress.line(line.number, line.bytes, &problem);
                        }
                    }
                },
                else => return Ok(()),
            }
        }
    }
}

impl Send {
    /// The task with what its line leaves to the command.
    fn complete(&self, mut json: JsonTask) -> JsonTask {
        let task = &mut json.task;
        task.retry = task.retry.or(self.retry);
        if let (0, Some(timeout)) = (task.attempt_timeout_ms, self.attempt_timeout) {
            task.attempt_timeout_ms = timeout.as_millis() as u32;
        }
        if self.durable {
            task.delivery = Delivery::Durable;
        }
        json
    }
}

fn read(line: &Line) -> Result<JsonTask, String> {
    let text = line.text.as_deref().map_err(|problem| problem.to_string())?;
    JsonTask::from_json(text).map_err(|error| match error {
        // Its own line number is always 1 here.
        JsonError::Malformed { problem, column, .. } => {
            format!("not JSON: {problem} at column {column}")
        }
        error => error.to_string(),
    })
}

/// One task, from its line to its end. When interrupted it is cancelled, and its end still told.
async fn one(client: &Client, line: Line, task: JsonTask, interrupted: &CancellationToken) -> Done {
    let start = Instant::now();
    let is_durable = task.task.delivery == Delivery::Durable;
    let result = async {
        let mut handle = client.task_from_json(&task).settle_manually().send().await?;
        Ok(tokio::select! {
            end = &mut handle => end,
            () = interrupted.cancelled() => {
                handle.cancel();
                handle.await
            }
        })
    };
    let result = result.await;
    Done { number: line.number, bytes: line.bytes, took: start.elapsed(), is_durable, result }
}

fn tally_up(
    done: Done,
    tally: &mut Tally,
    progress: &Progress,
    out: &mut Output,
) -> Result<(), Failure> {
    let result = match done.result {
        Ok(end) => Ok(end),
        Err(CallError::Invalid(invalid)) => Err(invalid),
        Err(error) => Ok(connect::end_of(error)?),
    };
    match result {
        Ok(end) => {
            tally.add(end.outcome, done.took);
            report::json_line(&end, &mut out.lines);
            if done.is_durable && !matches!(end.outcome, Outcome::Rejected | Outcome::Lost) {
                out.durable.push(end.task_id);
            }
            progress.advance(done.bytes);
        }
        Err(invalid) => {
            tally.bad_lines += 1;
            progress.line(done.number, done.bytes, &invalid);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        Line { number: 7, bytes: 0, text: Ok(text.as_bytes().to_vec()) }
    }

    #[test]
    fn a_line_that_is_not_a_task_says_why() {
        let problem = |text| read(&line(text)).unwrap_err();
        assert!(problem("{").starts_with("not JSON: "));
        assert!(!problem("{").contains("line 1"));
        let no_ttl = r#"{"mcp_version":"1.0","task_id":"t","action":"a","payload":1}"#;
        assert!(problem(no_ttl).contains("\"ttl\" is missing"));
        let unread = Line { number: 1, bytes: 0, text: Err("cannot be read".to_owned()) };
        assert_eq!(read(&unread).unwrap_err(), "cannot be read");
    }
}
