//! `mcpctl tasks ls`.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use mcp_client::{ActionName, AgentId, Client, TaskFilter, TaskList, TaskStatus, TaskSummary};
use tokio_util::sync::CancellationToken;

use super::ms;
use crate::exit::{self, Exit, Failure};
use crate::global::Output;
use crate::{connect, report, table};

const EXAMPLES: &str = "\
Examples:
  mcpctl tasks ls
  mcpctl tasks ls --status failed
  mcpctl tasks ls --action summarize --status queued --limit 20
  mcpctl tasks ls -o json | jq -r '.tasks[] | select(.age_ms > 60000) | .task_id'";

/// List tasks: first those in flight, then the last that ended, in both the newest first
///
/// AGE counts from when the task was sent, SINCE from when it got its STATUS. AGENT is the one
/// that holds the task, or had it last. The broker keeps the last 10,000 that ended (default), and of
/// these always the last 5,000 that did not end ok. What it refused at once (a full queue) was no
/// task; `mcp_sends_refused_total` in its metrics counts those.
///
/// With `-o json`, {tasks, more}, with tasks an array of {task_id, identity, action, status, priority,
/// age_ms, status_ms, ttl_left_ms, attempts, agent_id, node_id, error_code}; what does not apply is
/// left out.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
pub(super) struct Ls {
    /// Only tasks of this action
    #[arg(long, value_name = "ACTION")]
    action: Option<ActionName>,

    /// Only tasks that wait or run so, or with this outcome
    #[arg(long, value_enum, value_name = "STATUS")]
    status: Option<StatusArg>,

    /// Only tasks at this agent, or last at it: its name, or its node's
    #[arg(long, value_name = "AGENT")]
    agent: Option<AgentId>,

    /// List at most so many, 1 to 1000; about 300 fit into an answer
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StatusArg {
    /// Waits for a worker with room
    Queued,
    /// Waits for its next attempt
    Delayed,
    /// A worker holds it
    Running,
    /// Ended with a result
    Ok,
    /// Ended: its handler failed, or its worker was lost
    Failed,
    /// Ended: its time to live ran out
    Expired,
    /// Ended: its client or an operator cancelled it
    Cancelled,
    /// Ended: no worker could take it
    Rejected,
}

impl From<StatusArg> for TaskStatus {
    fn from(status: StatusArg) -> Self {
        match status {
            StatusArg::Queued => TaskStatus::Queued,
            StatusArg::Delayed => TaskStatus::Delayed,
            StatusArg::Running => TaskStatus::Running,
            StatusArg::Ok => TaskStatus::Ok,
            StatusArg::Failed => TaskStatus::Failed,
            StatusArg::Expired => TaskStatus::Expired,
            StatusArg::Cancelled => TaskStatus::Cancelled,
            StatusArg::Rejected => TaskStatus::Rejected,
        }
    }
}

impl Ls {
    pub(super) async fn run(
        self,
        client: &Client,
        output: Output,
        interrupted: &CancellationToken,
    ) -> Result<Exit, Failure> {
        let filter = TaskFilter {
            action: self.action,
            status: self.status.map(TaskStatus::from),
            agent: self.agent,
            limit: Some(self.limit),
        };
        let list = connect::answer(client.tasks(&filter), interrupted).await?;
        let mut stdout = io::stdout().lock();
        match output {
            Output::Json => writeln!(stdout, "{}", report::pretty(&list)?)?,
            Output::Table if list.tasks.is_empty() => {}
            Output::Table => writeln!(stdout, "{}", table(&list.tasks))?,
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
fn note(list: &TaskList) -> Option<&'static str> {
    match (list.more, list.tasks.is_empty()) {
        (false, false) => None,
        (false, true) => Some("no tasks; send one with `mcpctl call ACTION --data TEXT`"),
        (true, false) => {
            Some("there may be more; narrow it by --status, --agent or --action, or raise --limit")
        }
        (true, true) => Some(
            "none among the newest 10,000, and not all were looked at; narrow it by --status or \
             --agent",
        ),
    }
}

fn table(tasks: &[TaskSummary]) -> String {
    let header = [
        "TASK", "ACTION", "STATUS", "SINCE", "AGE", "TTL LEFT", "PRIORITY", "ATTEMPTS", "AGENT",
        "ERROR",
    ];
    let row = |task: &TaskSummary| {
        let node = || task.node_id.as_ref().map(ToString::to_string);
        let agent = task.agent_id.as_ref().map(ToString::to_string).or_else(node);
        [
            task.task_id.to_string(),
            task.action.to_string(),
            task.status.to_string(),
            ms(task.status_ms),
            ms(task.age_ms),
            task.ttl_left_ms.map(ms).unwrap_or_default(),
            task.priority.to_string(),
            task.attempts.to_string(),
            agent.unwrap_or_default(),
            task.error_code.map(|code| code.to_string()).unwrap_or_default(),
        ]
    };
    table::draw(header, tasks.iter().map(row))
}

#[cfg(test)]
pub(super) mod tests {
    use mcp_client::{ErrorCode, Priority, TaskId};

    use super::*;

    pub(in super::super) fn summary(status: TaskStatus) -> TaskSummary {
        TaskSummary {
            task_id: TaskId::try_from("t-1").unwrap(),
            identity: "anonymous".to_owned(),
            action: ActionName::try_from("upper").unwrap(),
            status,
            priority: Priority::High,
            age_ms: 3_000,
            status_ms: 250,
            ttl_left_ms: Some(27_000),
            attempts: 2,
            agent_id: Some(AgentId::try_from("upper-1").unwrap()),
            node_id: Some("n-1".try_into().unwrap()),
            error_code: None,
        }
    }

    #[test]
    fn a_task_is_one_row_with_its_agent_or_else_the_node_that_is_gone() {
        let failed = TaskSummary {
            ttl_left_ms: None,
            agent_id: None,
            error_code: Some(ErrorCode::WorkerLost),
            ..summary(TaskStatus::Failed)
        };
        let table = table(&[summary(TaskStatus::Running), failed]);
        let rows = crate::table::cells(&table);
        assert_eq!(rows[0].len(), 10);
        let running =
            ["t-1", "upper", "running", "250 ms", "3.00 s", "27.0 s", "high", "2", "upper-1"];
        assert_eq!(rows[1], running);
        let failed = ["t-1", "upper", "failed", "250 ms", "3.00 s", "high", "2", "n-1"];
        assert_eq!(rows[2][..8], failed);
        assert_eq!(rows[2][8], "WORKER_LOST");
    }

    #[test]
    fn a_list_that_is_cut_or_empty_says_what_to_do() {
        let list = |tasks: &[TaskSummary], more| TaskList { tasks: tasks.to_vec(), more };
        let one = [summary(TaskStatus::Ok)];
        assert_eq!(note(&list(&one, false)), None);
        assert!(note(&list(&one, true)).unwrap().contains("--limit"));
        assert!(note(&list(&[], true)).unwrap().contains("--status"));
        assert!(note(&list(&[], false)).unwrap().contains("mcpctl call"));
    }
}
