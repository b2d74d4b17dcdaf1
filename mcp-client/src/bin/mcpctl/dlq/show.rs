//! `mcpctl dlq show`.

use std::fmt::Write as _;
use std::io::{self, Write};

use clap::Args;
use mcp_client::{Client, DeadLetterInfo, TaskId};
use tokio_util::sync::CancellationToken;

use super::act::unknown;
use crate::exit::{self, Exit, Failure};
use crate::global::Output;
use crate::tasks::{hop_line, ms};
use crate::{connect, report};

const EXAMPLES: &str = "\
Examples:
  mcpctl dlq show t-1
  mcpctl dlq show t-1 -o json | jq -r .body";

/// Show one dead letter: why the task ended so, its way there, and its input
///
/// With `-o json`, one object with what `ls` has, and {died_wall_ms, ttl_ms, priority, required_labels,
/// content_type, headers, executed, error, context_trace, body, body_cut}, with body_base64 in place of body
/// where the input is not text. Where an answer has no room for all of the input, body_cut is true.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
pub(super) struct Show {
    /// The task
    #[arg(value_name = "TASK_ID")]
    id: TaskId,

    /// Whose task, where several identities have one of this id
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
}

impl Show {
    pub(super) async fn run(
        self,
        client: &Client,
        output: Output,
        interrupted: &CancellationToken,
    ) -> Result<Exit, Failure> {
        let asked = client.dead_letter(&self.id, self.identity.as_deref());
        let Some(info) = connect::answer(asked, interrupted).await? else {
            return Err(Failure::new(Exit::Failed, unknown(&self.id)));
        };
        let text = match output {
            Output::Json => report::pretty(&info)?,
            Output::Table => text(&info),
        };
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{text}")?;
        stdout.flush()?;
        Ok(Exit::Ok)
    }
}

/// A line for each thing to say, one for each hop, and the input.
fn text(info: &DeadLetterInfo) -> String {
    let it = &info.summary;
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // A String can't fail.
        let _ = writeln!(text, "{name:<9} {value}");
    };
    line("task", format!("{}, of {}", it.task_id, it.identity));
    line("action", format!("{}, priority {}", it.action, info.priority));
    line("outcome", format!("{} {} ago, executed: {}", it.outcome, ms(it.age_ms), info.executed));
    if let Some(error) = &info.error {
        line("error", error.to_string());
    }
    line("ttl", ms(info.ttl_ms));
    for (name, map) in [("labels", &info.required_labels), ("headers", &info.headers)] {
        if !map.is_empty() {
            let pairs: Vec<_> = map.iter().map(|(key, value)| format!("{key}={value}")).collect();
            line(name, pairs.join(", "));
        }
    }
    line("attempts", it.attempts.to_string());
    info.context_trace.hops.iter().for_each(|hop| text.push_str(&hop_line(hop)));
    let content_type = if info.content_type.is_empty() { "" } else { ", " };
    let cut = if info.body_cut { ", cut" } else { "" };
    let input = format!("{} bytes{content_type}{}{cut}", it.body_bytes, info.content_type);
    let _ = writeln!(text, "{:<9} {input}", "input");
    match &info.body {
        // The text is a peer's: nothing of it shall steer the terminal.
        Some(body) => text.extend(body.chars().map(|it| match it {
            '\n' | '\t' => it,
            it if it.is_control() => char::REPLACEMENT_CHARACTER,
            it => it,
        })),
        None => text.push_str("it is not text; -o json has it in base64"),
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use mcp_client::{ContextTrace, ErrorCode, ErrorInfo, Executed, Priority};

    use super::super::ls::tests::summary;
    use super::*;

    fn info() -> DeadLetterInfo {
        DeadLetterInfo {
            summary: summary(),
            died_wall_ms: 1,
            ttl_ms: 30_000,
            priority: Priority::Normal,
            required_labels: [("gpu".to_owned(), "a100".to_owned())].into(),
            content_type: "text/plain".to_owned(),
            headers: Default::default(),
            executed: Executed::Maybe,
            error: Some(ErrorInfo::new(ErrorCode::Poisoned, "3 workers were lost with it")),
            context_trace: ContextTrace::default(),
            body: Some("hello\x1b[2J".to_owned()),
            body_base64: None,
            body_cut: true,
        }
    }

    #[test]
    fn all_is_told_and_nothing_steers_the_terminal() {
        let expected = "\
task      t-1, of anonymous
action    upper, priority normal
outcome   failed 250 ms ago, executed: maybe
error     POISONED: 3 workers were lost with it
ttl       30.0 s
labels    gpu=a100
attempts  3
input     5 bytes, text/plain, cut
hello\u{fffd}[2J";
        assert_eq!(text(&info()), expected);
        let binary = DeadLetterInfo { body: None, body_base64: Some("/w==".into()), ..info() };
        assert!(text(&binary).ends_with("-o json has it in base64"));
    }
}
