//! `mcpctl explain`: who would get a task, and why.

mod text;

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use mcp_client::explain::Question;
use mcp_client::{ActionName, TaskEnd};

use crate::call::PriorityArg;
use crate::exit::{self, Exit, Failure};
use crate::global::{Global, Output};
use crate::{connect, parse, report, signals};

const EXAMPLES: &str = "\
Examples:
  mcpctl explain summarize
  mcpctl explain summarize --label gpu=a100
  mcpctl explain chat --affinity-key session-17
  mcpctl explain summarize --tenant acme --priority high --ttl 2s
  mcpctl explain summarize -o json | jq -r '.workers[] | select(.probability > 0) | .agent_id'

Why a task went where it went: mcpctl call ACTION --explain";

/// Say who would get a task of an action now, and why, without running anything
///
/// CHANCE is how likely a worker gets the task; SCORE is what the action's policy goes by; RULED OUT is
/// why a worker could not get it at all. SLOTS are those in use, of how many, plus those that it takes
/// beyond them; SERVICE is how long it takes for a task of this action, smoothed.
///
/// With `-o json`, {decision, why, policy, error_code, queued, predicted_wait_ms, candidates, workers,
/// left_out}: decision is route, wait or refuse; workers is an array of {agent_id, node_id, probability,
/// ruled_out, score: {value, text}, missing_labels, presence, readiness, health, in_flight, slots,
/// prefetch, service_us}, at most 256; what does not apply is left out.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
pub(crate) struct Explain {
    /// What the task would ask for
    action: ActionName,

    /// Require a worker with this label; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::key_value)]
    label: Vec<(String, String)>,

    /// A shadow task, for shadow workers only
    #[arg(long)]
    shadow: bool,

    /// The task's affinity key
    #[arg(long, visible_alias = "affinity", value_name = "KEY")]
    affinity_key: Option<String>,

    /// On whose account
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,

    /// Which of the waiting tasks goes first
    #[arg(long, value_enum, default_value = "normal", value_name = "CLASS")]
    priority: PriorityArg,

    /// Time to live: a task that would not be done by then is refused
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse::ttl)]
    ttl: Duration,
}

impl Explain {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let endpoint = global.endpoint()?;
        let [interrupted] = signals::tokens()?;
        let client = connect::client(endpoint, &interrupted).await?;
        let mut question = Question::new(self.action);
        question.labels = self.label.into_iter().collect();
        question.shadow = self.shadow;
        question.affinity_key = self.affinity_key.unwrap_or_default();
        question.tenant = self.tenant.unwrap_or_default();
        question.priority = Some(self.priority.into());
        question.ttl_ms = Some(self.ttl.as_millis() as u64);
        let explanation = connect::answer(client.explain(&question), &interrupted).await?;
        client.close().await;
        let text = match global.output {
            Output::Json => report::pretty(&explanation)?,
            Output::Table => text::of_question(&explanation),
        };
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{text}")?;
        stdout.flush()?;
        Ok(Exit::Ok)
    }
}

/// Tells on stderr why each attempt at a task went where it went.
pub(crate) fn print(end: &TaskEnd) {
    let trace = end.trace.decode();
    // Nothing can be told when nobody listens.
    let _ = io::stderr().lock().write_all(text::of_attempts(&trace.hops).as_bytes());
}
