//! `mcpctl actions show`.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use mcp_client::{ActionInfo, ActionName, ActionQueue, Client, RulesFrom};
use tokio_util::sync::CancellationToken;

use super::rules;
use crate::exit::{self, Exit, Failure};
use crate::global::Output;
use crate::{connect, latency, report};

const EXAMPLES: &str = "\
Examples:
  mcpctl actions show summarize
  mcpctl actions show summarize -o json | jq .rules";

/// Show one action: its workers, tasks, queues and all its rules
///
/// The rules are as `mcpctl actions set` takes them. With `-o json`, one object with what `ls` has, and
/// {rules, service_us, queues, more_queues}, with queues an array of {required_labels, queued, workers,
/// ready, with_room}.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
pub(super) struct Show {
    /// The action
    action: ActionName,
}

impl Show {
    pub(super) async fn run(
        self,
        client: &Client,
        output: Output,
        interrupted: &CancellationToken,
    ) -> Result<Exit, Failure> {
        let asked = client.action_info(&self.action);
        let Some(info) = connect::answer(asked, interrupted).await? else {
            return Err(Failure::new(Exit::Failed, unknown(&self.action)));
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

fn unknown(action: &ActionName) -> String {
    format!(
        "nobody serves {action}, it has no tasks, and no rules of its own\n\
         to see what there is: mcpctl actions ls"
    )
}

fn text(info: &ActionInfo) -> String {
    let it = &info.summary;
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // A String can't fail.
        let _ = writeln!(text, "{name:<9} {value}");
    };
    line("action", it.action.to_string());
    line("workers", format!("{} of {} ready, {} slots", it.ready, it.workers, it.slots));
    if let Some(degraded) = &it.degraded {
        let why = if degraded.why.is_empty() { "" } else { ": " };
        line("degraded", format!("by {}{why}{}", degraded.by, degraded.why));
    }
    line("breakers", super::ls::breakers(it.breakers));
    let tasks = (it.running, it.queued, it.delayed);
    line("tasks", format!("{} running, {} queued, {} delayed", tasks.0, tasks.1, tasks.2));
    if it.shadow_workers > 0 || it.shadow_tasks > 0 {
        line("shadow", format!("{} workers, {} tasks", it.shadow_workers, it.shadow_tasks));
    }
    if let Some(us) = info.service_us {
        let time = latency::show(Duration::from_micros(us));
        line("service", format!("{time} a task at its workers, on average"));
    }
    line("rules", rules_from(it.rules_from).to_owned());
    for rule in rules::lines(&info.rules) {
        let _ = writeln!(text, "  {rule}");
    }
    // Of the one queue that each action has, all is said above.
    if info.queues.len() > 1 || info.more_queues {
        text.push_str("queues\n");
        info.queues.iter().for_each(|queue| text.push_str(&queue_line(queue)));
    }
    if info.more_queues {
        text.push_str("  … and more\n");
    }
    text.truncate(text.trim_end().len());
    text
}

fn queue_line(queue: &ActionQueue) -> String {
    let labels: Vec<_> =
        queue.required_labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let labels = if labels.is_empty() { "any worker".to_owned() } else { labels.join(" ") };
    let ActionQueue { queued, workers, ready, with_room, .. } = queue;
    format!(
        "  {labels}: {queued} queued; {ready} of {workers} workers ready, {with_room} with room\n"
    )
}

pub(super) fn rules_from(from: RulesFrom) -> &'static str {
    match from {
        RulesFrom::Common => "those of all actions that have none of their own",
        RulesFrom::File => "of the broker's configuration file",
        RulesFrom::Operator => "as an operator changed them, until the broker is started again",
        _ => "of unknown origin",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::super::ls::tests::summary;
    use super::*;

    #[test]
    fn an_action_is_told_with_the_rules_as_they_are_set() {
        let Value::Object(rules) = json!({"policy": "p2c", "breaker": {"failures": 5}}) else {
            unreachable!()
        };
        let queue = |labels: &[(&str, &str)]| ActionQueue {
            required_labels: labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            queued: 6,
            workers: 3,
            ready: 2,
            with_room: 0,
        };
        let info = ActionInfo {
            summary: summary(),
            rules,
            service_us: Some(20_100),
            queues: vec![queue(&[]), queue(&[("gpu", "a100"), ("zone", "b")])],
            more_queues: false,
        };
        let expected = "\
action    upper
workers   2 of 3 ready, 8 slots
breakers  1 open
tasks     5 running, 12 queued, 1 delayed
shadow    1 workers, 4 tasks
service   20.1 ms a task at its workers, on average
rules     of the broker's configuration file
  breaker.failures=5
  policy=\"p2c\"
queues
  any worker: 6 queued; 2 of 3 workers ready, 0 with room
  gpu=a100 zone=b: 6 queued; 2 of 3 workers ready, 0 with room";
        assert_eq!(text(&info), expected);
        let few = ActionInfo { queues: Vec::new(), service_us: None, ..info };
        assert!(!text(&few).contains("queues") && !text(&few).contains("service"));
        assert_eq!(queue(&[]).required_labels, BTreeMap::new());
    }
}
