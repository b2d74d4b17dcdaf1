//! `mcp-broker journal ls`.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use clap::Args;
use mcp_broker::broker::Record;
use mcp_broker::journal::Found;
use mcp_proto::{Deliver, ErrorCode, Executed, Outcome, Payload, TaskId};
use serde::Serialize;

use super::check::problems;
use super::text::{duration, table};
use super::{Dir, EXIT_UNSOUND, Failure, Looked, State, now_wall_ms, of};

const HELP: &str = "\
Examples:
  mcp-broker journal ls /var/lib/mcp-broker
  mcp-broker journal ls state --only pending
  mcp-broker journal ls state --json | jq -r 'select(.age_ms > 60000) | .task_id'

Exit status:
    0  listed
    1  listed what can be read of a damaged journal; or it can't be read
    2  there is no journal there; also: wrong arguments";

/// List the tasks in a journal, oldest record first
///
/// AGE counts from when the task was accepted, ended or settled, or became a dead letter. DEADLINE is that of its
/// time to live, START when a delayed task may begin. ATTEMPTS are known of what has ended.
///
/// With --json, one object a line: {state, task_id, identity, action, bytes, age_ms, start_in_ms,
/// deadline_in_ms, attempts, outcome, executed, error_code}; what does not apply is left out.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = HELP)]
pub(super) struct Ls {
    #[command(flatten)]
    dir: Dir,

    /// Only these; may be given more than once
    #[arg(long, value_enum, value_name = "STATE")]
    only: Vec<State>,

    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// What there is to say of a task.
#[derive(Debug, Serialize)]
struct Row<'a> {
    state: State,
    task_id: &'a TaskId,
    identity: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<String>,
    bytes: u64,
    age_ms: u64,
    /// Negative when it may go already.
    #[serde(skip_serializing_if = "Option::is_none")]
    start_in_ms: Option<i64>,
    /// Negative when it is past.
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline_in_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    executed: Option<Executed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<ErrorCode>,
}

impl Ls {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let Looked { inspection, .. } = self.dir.look()?;
        let now = now_wall_ms();
        let rows = inspection.records.iter().filter_map(|found| Row::new(found, now));
        let rows = rows.filter(|row| self.only.is_empty() || self.only.contains(&row.state));
        let mut to = BufWriter::new(io::stdout().lock());
        if self.json {
            for row in rows {
                serde_json::to_writer(&mut to, &row).map_err(io::Error::from)?;
                to.write_all(b"\n")?;
            }
        } else {
            let header = [
                "TASK", "STATE", "ACTION", "AGE", "START", "DEADLINE", "ATTEMPTS", "OUTCOME",
                "BYTES", "IDENTITY",
            ];
            writeln!(to, "{}", table(header, &["BYTES", "ATTEMPTS"], rows.map(|row| row.cells())))?;
        }
        to.flush()?;
        let problems = problems(&inspection);
        for problem in &problems {
            eprintln!("DAMAGED: {problem}");
        }
        Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_UNSOUND) })
    }
}

impl<'a> Row<'a> {
    fn new(found: &'a Found, now: u64) -> Option<Self> {
        let record = found.record.as_ref().ok()?;
        let (state, name) = of(record)?;
        let mut row = Self {
            state,
            task_id: &name.task_id,
            identity: name.identity.as_str(),
            action: None,
            bytes: found.bytes,
            age_ms: 0,
            start_in_ms: None,
            deadline_in_ms: None,
            attempts: None,
            outcome: None,
            executed: None,
            error_code: None,
        };
        let since = match record {
            Record::Accepted(_, it) => {
                row.action = action(&it.payload);
                let is_delayed = it.start_wall_ms > it.received_wall_ms;
                row.start_in_ms = is_delayed.then(|| until(it.start_wall_ms, now));
                row.deadline_in_ms = Some(until(it.deadline_wall_ms, now));
                it.received_wall_ms
            }
            Record::Ended(_, it) => {
                row.end(&it.deliver);
                row.attempts = Some(it.deliver.attempt);
                it.ended_wall_ms
            }
            Record::Settled(_, it) => {
                row.executed = Some(it.executed);
                it.settled_wall_ms
            }
            Record::Dead(_, it) => {
                row.action = action(&it.payload);
                row.end(&it.deliver);
                row.attempts = Some(it.attempts);
                it.died_wall_ms
            }
            Record::Forgotten(_) | Record::DeadForgotten(_) => return None,
        };
        row.age_ms = now.saturating_sub(since);
        Some(row)
    }

    fn end(&mut self, deliver: &Deliver) {
        self.outcome = Some(deliver.outcome);
        self.executed = Some(deliver.executed);
        self.error_code = deliver.error.as_ref().map(|error| error.code);
    }

    fn cells(&self) -> [String; 10] {
        let outcome = match (self.outcome, self.error_code) {
            (Some(outcome), Some(code)) => format!("{outcome}: {code}"),
            (Some(outcome), None) => outcome.to_string(),
            (None, _) => String::new(),
        };
        [
            self.task_id.to_string(),
            format!("{:?}", self.state).to_lowercase(),
            self.action.clone().unwrap_or_default(),
            duration(self.age_ms),
            self.start_in_ms.map(relative).unwrap_or_default(),
            self.deadline_in_ms.map(relative).unwrap_or_default(),
            self.attempts.map(|it| it.to_string()).unwrap_or_default(),
            outcome,
            self.bytes.to_string(),
            self.identity.to_owned(),
        ]
    }
}

fn action(payload: &Payload) -> Option<String> {
    Some(payload.head().ok()?.action.to_string())
}

fn until(wall_ms: u64, now: u64) -> i64 {
    i128::from(wall_ms).saturating_sub(now.into()).clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

fn relative(in_ms: i64) -> String {
    match in_ms {
        0.. => format!("in {}", duration(in_ms as u64)),
        _ => format!("{} ago", duration(in_ms.unsigned_abs())),
    }
}
