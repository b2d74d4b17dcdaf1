//! `mcpctl agents drain` and `resume`: keeps new tasks from agents, and gives them some again.

use std::io::{self, Write};

use clap::Args;
use mcp_client::Client;
use mcp_client::agents::AgentChanged;
use tokio_util::sync::CancellationToken;

use super::unknown;
use crate::connect;
use crate::exit::{self, Exit, Failure};
use crate::global::Output;

const DRAIN_EXAMPLES: &str = "\
Examples:
  mcpctl agents drain gpu-7 --why 'new driver'
  mcpctl agents ls --label rack=4 -o json | jq -r '.[].agent_id' | xargs -r mcpctl agents drain";

const RESUME_EXAMPLES: &str = "\
Examples:
  mcpctl agents resume gpu-7";

/// Keep new tasks from agents
///
/// What they have goes on, and `agents show` says how much that is. It holds for the agent's name,
/// whichever process comes with it, until `agents resume`: also when a broker with a state directory is
/// started again. The worker itself is not told. An agent
/// that the broker does not know is an error: the exit status is then 1, after all others.
///
/// With `-o json`, a line of {agent_id, changed, drained: {by, why, since_wall_ms}, held} for each.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = DRAIN_EXAMPLES, after_long_help = format!("{DRAIN_EXAMPLES}\n\n{}", exit::HELP))]
pub(super) struct Drain {
    /// The agents, by their own names or their nodes
    #[arg(value_name = "AGENT", required = true)]
    agents: Vec<String>,

    /// Why: other operators see it
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
}

/// Let agents have tasks again
///
/// With `-o json`, a line of {agent_id, changed, drained: null, held} for each.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = RESUME_EXAMPLES, after_long_help = format!("{RESUME_EXAMPLES}\n\n{}", exit::HELP))]
pub(super) struct Resume {
    /// The agents, by their own names or their nodes
    #[arg(value_name = "AGENT", required = true)]
    agents: Vec<String>,
}

impl Drain {
    pub(super) async fn run(
        self,
        client: &Client,
        output: Output,
        interrupted: &CancellationToken,
    ) -> Result<Exit, Failure> {
        let mut exit = Exit::Ok;
        for agent in &self.agents {
            let asked = client.drain_agent(agent, self.why.as_deref());
            exit =
                print(agent, connect::answer(asked, interrupted).await?, output)?.unwrap_or(exit);
        }
        Ok(exit)
    }
}

impl Resume {
    pub(super) async fn run(
        self,
        client: &Client,
        output: Output,
        interrupted: &CancellationToken,
    ) -> Result<Exit, Failure> {
        let mut exit = Exit::Ok;
        for agent in &self.agents {
            let asked = client.resume_agent(agent);
            exit =
                print(agent, connect::answer(asked, interrupted).await?, output)?.unwrap_or(exit);
        }
        Ok(exit)
    }
}

/// How the process ends, if not as before.
fn print(agent: &str, done: Option<AgentChanged>, output: Output) -> io::Result<Option<Exit>> {
    let Some(done) = done else {
        writeln!(io::stderr(), "mcpctl: {}", unknown(agent))?;
        return Ok(Some(Exit::Failed));
    };
    let line = match output {
        Output::Json => serde_json::to_string(&done)?,
        Output::Table => line(&done),
    };
    writeln!(io::stdout(), "{line}")?;
    Ok(None)
}

fn line(done: &AgentChanged) -> String {
    let AgentChanged { agent_id, changed, drained, held } = done;
    match (drained, changed) {
        (None, true) => format!("{agent_id}: may have tasks again"),
        (None, false) => format!("{agent_id}: was not drained"),
        (Some(_), true) if *held == 0 => format!("{agent_id}: drained, and has no tasks"),
        (Some(_), true) => format!("{agent_id}: drained; {held} tasks are still to finish"),
        (Some(drained), false) => format!("{agent_id}: had been drained already, {drained}"),
    }
}

#[cfg(test)]
mod tests {
    use mcp_client::agents::Drained;

    use super::*;

    #[test]
    fn a_line_says_what_holds_now_and_what_is_still_to_finish() {
        let ann = Drained { by: "ann".into(), why: "slow".into(), since_wall_ms: 1 };
        let of = |changed, drained: Option<&Drained>, held| {
            line(&AgentChanged { agent_id: "a".into(), changed, drained: drained.cloned(), held })
        };
        assert_eq!(of(true, Some(&ann), 2), "a: drained; 2 tasks are still to finish");
        assert_eq!(of(true, Some(&ann), 0), "a: drained, and has no tasks");
        assert_eq!(of(false, Some(&ann), 0), "a: had been drained already, by ann: slow");
        assert_eq!(of(true, None, 0), "a: may have tasks again");
        assert_eq!(of(false, None, 0), "a: was not drained");
    }
}
