//! `mcpctl doctor`: why there is no connection.

mod checks;

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::exit::{self, Exit, Failure};
use crate::global::{Global, Output};
use crate::{parse, report, signals};
use checks::Checks;

const EXAMPLES: &str = "\
Examples:
  mcpctl doctor
  mcpctl --context prod doctor
  mcpctl doctor --timeout 30s             # over a slow network
  mcpctl doctor -o json | jq -r '.checks[] | select(.result == \"failed\") | .advice'";

/// Find out why there is no connection to the broker, step by step
///
/// A line for each step: ok, failed or skipped, what was seen, and below it what to do. The steps are:
/// settings (which broker, from where), files (authority, credentials), name (its addresses), udp (whether
/// something answers), protocol (ALPN), tls (the broker's certificate), authentication, version, and clock
/// (against the broker's, where it tells: that takes the permission for mcp.admin.overview; or else by what
/// its certificate's validity says). What comes after a failure is skipped.
///
/// The exit status is 0 when all is well; otherwise that of a command that fails for the same reason, and 1
/// for a clock that is wrong. With `-o json`, {ok, checks}, with checks an array of {name, result, seen,
/// advice}.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
pub(crate) struct Doctor {
    /// How long the broker may take to answer
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse::duration)]
    timeout: Duration,
}

/// A step on the way to a connection, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Step {
    Settings,
    Files,
    Name,
    Udp,
    Protocol,
    Tls,
    Authentication,
    Version,
    Clock,
}

impl Step {
    const ALL: [Self; 9] = [
        Self::Settings,
        Self::Files,
        Self::Name,
        Self::Udp,
        Self::Protocol,
        Self::Tls,
        Self::Authentication,
        Self::Version,
        Self::Clock,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Files => "files",
            Self::Name => "name",
            Self::Udp => "udp",
            Self::Protocol => "protocol",
            Self::Tls => "tls",
            Self::Authentication => "authentication",
            Self::Version => "version",
            Self::Clock => "clock",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Ok,
    Failed,
    Skipped,
}

/// What a step found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    name: Step,
    result: Outcome,
    /// What was seen.
    seen: String,
    /// What to do about a failure.
    advice: Option<String>,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    ok: bool,
    checks: &'a [Check],
}

impl Doctor {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let [interrupted] = signals::tokens()?;
        let (checks, exit) = tokio::select! {
            done = Checks::run(global, self.timeout) => done,
            () = interrupted.cancelled() => return Err(Failure::cancelled()),
        };
        let mut stdout = io::stdout().lock();
        match global.output {
            Output::Json => {
                let report = Report { ok: exit == Exit::Ok, checks: &checks };
                writeln!(stdout, "{}", report::pretty(&report)?)?;
            }
            Output::Table => stdout.write_all(text(&checks).as_bytes())?,
        }
        stdout.flush()?;
        Ok(exit)
    }
}

fn text(checks: &[Check]) -> String {
    let mut text = String::new();
    for Check { name, result, seen, advice } in checks {
        let result = match result {
            Outcome::Ok => "ok",
            Outcome::Failed => "failed",
            Outcome::Skipped => "skipped",
        };
        let line = format!("{result:<8} {:<15} {seen}", name.name());
        text.push_str(line.trim_end());
        text.push('\n');
        if let Some(advice) = advice {
            text.push_str(&format!("{:<8} {:<15} to do: {advice}\n", "", ""));
        }
    }
    text
}
