//! `mcpctl bench`: how many tasks a second, and how long they take.

mod load;
mod progress;
mod schedule;
mod summary;

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use mcp_client::ActionName;
use mcp_proto::limits::MAX_BODY_BYTES;

use crate::exit::{Exit, Failure};
use crate::global::{Global, Output};
use crate::{connect, parse, signals};
use load::Load;
use summary::Summary;

const HELP: &str = "\
Examples:
  mcpctl bench upper
  mcpctl bench upper --in-flight 1024 --payload 1024 --secs 10
  mcpctl bench upper --rate 2000 -o json | jq .latency_us.p99
  mcpctl worker --action upper --label shadow=true --exec tr a-z A-Z
  mcpctl bench upper --shadow";

const EXIT_HELP: &str = "\
Exit status:
    0  all tasks ended ok
    1  a task did not end ok, or there was none
    2  wrong arguments
    5  cannot connect
  130  stopped early: Ctrl-C or SIGTERM; the summary is of what was done
  141  the reader of standard output went away";

/// Tasks in flight when neither --in-flight nor --rate is given.
const DEFAULT_IN_FLIGHT: u32 = 64;

/// As many as a broker takes of a session by default.
const MAX_IN_FLIGHT: u32 = 65_536;

/// Send tasks for a while, and measure how many end and how long they take
///
/// In a closed loop: as soon as a task ends, the next is sent, so that always as many are in flight.
/// With --rate in an open loop: tasks are sent at their times, whatever becomes of those before,
/// and latency counts from when a task should have been sent; so a broker that falls behind shows.
///
/// tasks/s are those that ended ok within the time; latencies are of all that ended ok. With
/// `-o json`, one object: {action, shadow, loop, in_flight, rate, payload_bytes, secs, tasks, tasks_per_s,
/// outcomes, latency_us: {p50, p90, p99, p99_9, max}, unsent, first_error}.
///
/// The tasks are real, unless --shadow is given: their workers run them. Ctrl-C stops early, cancels what is in flight, and
/// still prints the summary; a second one does not wait for that.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = HELP, after_long_help = format!("{HELP}\n\n{EXIT_HELP}"))]
pub(crate) struct Bench {
    /// What to ask for: an action that a worker serves
    action: ActionName,

    /// Tasks without an outcome at any time; with --rate at most [default: 64; with --rate 65536]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_IN_FLIGHT)))]
    in_flight: Option<u32>,

    /// Bytes of each task's input
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 128,
        value_parser = clap::value_parser!(u32).range(0..=MAX_BODY_BYTES as i64)
    )]
    payload: u32,

    /// Seconds to send for; then those in flight may end
    #[arg(long, value_name = "SECS", default_value = "5", value_parser = parse::seconds)]
    secs: Duration,

    /// Tasks to send a second
    #[arg(long, value_name = "PER_SEC", value_parser = parse::rate)]
    rate: Option<f64>,

    /// Send shadow tasks: a load test beside real tasks, for workers with the label shadow=true only
    #[arg(long)]
    shadow: bool,

    /// Time to live of each task
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse::ttl)]
    ttl: Duration,
}

impl Bench {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let endpoint = global.endpoint()?;
        let [interrupted] = signals::tokens()?;
        let client = connect::recorded_client(global, endpoint, &interrupted).await?;
        let load = Load::new(&client, &self);
        load.run(&interrupted).await;
        let tally = load.tally();
        client.close().await;

        let summary = Summary::new(&self, &tally);
        print(&summary, global.output)?;
        match tally.failure {
            Some(failure) => Err(failure),
            None if interrupted.is_cancelled() => Ok(Exit::Cancelled),
            None => Ok(summary.exit()),
        }
    }

    fn in_flight(&self) -> u32 {
        let default = if self.rate.is_some() { MAX_IN_FLIGHT } else { DEFAULT_IN_FLIGHT };
        self.in_flight.unwrap_or(default)
    }
}

fn print(summary: &Summary<'_>, output: Output) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match output {
        Output::Json => writeln!(stdout, "{}", serde_json::to_string(summary)?)?,
        Output::Table => writeln!(stdout, "{summary}")?,
    }
    stdout.flush()
}
