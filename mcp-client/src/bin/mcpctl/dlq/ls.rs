//! `mcpctl dlq ls`.

use std::io::{self, Write};

use clap::Args;
use mcp_client::{ActionName, Client, DeadLetterFilter, DeadLetterList, DeadLetterSummary};
use tokio_util::sync::CancellationToken;

use crate::exit::{self, Exit, Failure};
use crate::global::Output;
use crate::tasks::ms;
use crate::{connect, report, table};

const EXAMPLES: &str = "\
Examples:
  mcpctl dlq ls
  mcpctl dlq ls --action summarize --limit 20
  mcpctl dlq ls -o json | jq -r '.dead_letters[] | select(.error_code == \"POISONED\") | .task_id'";

/// List dead letters, the newest first
///
/// AGE counts from when the task ended, INPUT is the length of its input in bytes.
///
/// With `-o json`, {dead_letters, more}, with dead_letters an array of {number, task_id, identity, action,
/// outcome, error_code, attempts, age_ms, body_bytes}.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
pub(super) struct Ls {
    /// Only those of this action
    #[arg(long, value_name = "ACTION")]
    action: Option<ActionName>,

    /// Only those older than the one with this number
    #[arg(long, value_name = "NUMBER")]
    before: Option<u64>,

    /// List at most so many, 1 to 1000; about 300 fit into an answer
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

impl Ls {
    pub(super) async fn run(
        self,
        client: &Client,
        output: Output,
        interrupted: &CancellationToken,
    ) -> Result<Exit, Failure> {
        let filter =
            DeadLetterFilter { action: self.action, before: self.before, limit: Some(self.limit) };
        let list = connect::answer(client.dead_letters(&filter), interrupted).await?;
        let mut stdout = io::stdout().lock();
        match output {
            Output::Json => writeln!(stdout, "{}", report::pretty(&list)?)?,
            Output::Table if list.dead_letters.is_empty() => {}
            Output::Table => writeln!(stdout, "{}", table(&list.dead_letters))?,
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
fn note(list: &DeadLetterList) -> Option<String> {
    match (list.more, list.dead_letters.last()) {
        (false, Some(_)) => None,
        (false, None) => Some("no dead letters".to_owned()),
        (true, Some(last)) => {
            Some(format!("there may be older ones: mcpctl dlq ls --before {}", last.number))
        }
        (true, None) => Some("none among the newest 10,000; not all were looked at".to_owned()),
    }
}

fn table(letters: &[DeadLetterSummary]) -> String {
    let header = ["TASK", "ACTION", "OUTCOME", "AGE", "ATTEMPTS", "INPUT", "ERROR"];
    let row = |it: &DeadLetterSummary| {
        [
            it.task_id.to_string(),
            it.action.to_string(),
            it.outcome.to_string(),
            ms(it.age_ms),
            it.attempts.to_string(),
            it.body_bytes.to_string(),
            it.error_code.map(|code| code.to_string()).unwrap_or_default(),
        ]
    };
    table::draw(header, letters.iter().map(row))
}

#[cfg(test)]
pub(super) mod tests {
    use mcp_client::{ErrorCode, Outcome};

    use super::*;

    pub(in super::super) fn summary() -> DeadLetterSummary {
        DeadLetterSummary {
            number: 7,
            task_id: "t-1".try_into().unwrap(),
            identity: "anonymous".to_owned(),
            action: "upper".try_into().unwrap(),
            outcome: Outcome::Failed,
            error_code: Some(ErrorCode::Poisoned),
            attempts: 3,
            age_ms: 250,
            body_bytes: 5,
        }
    }

    #[test]
    fn a_dead_letter_is_one_row() {
        let table = table(&[summary()]);
        let rows = crate::table::cells(&table);
        assert_eq!(rows[1], ["t-1", "upper", "failed", "250 ms", "3", "5", "POISONED"]);
    }

    #[test]
    fn a_list_that_is_cut_says_how_to_go_on() {
        let list = |letters: &[_], more| DeadLetterList { dead_letters: letters.to_vec(), more };
        assert_eq!(note(&list(&[summary()], false)), None);
        assert!(note(&list(&[summary()], true)).unwrap().contains("--before 7"));
        assert_eq!(note(&list(&[], false)).unwrap(), "no dead letters");
        assert!(note(&list(&[], true)).unwrap().contains("10,000"));
    }
}
