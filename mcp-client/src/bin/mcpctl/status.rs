//! `mcpctl status`: the broker on one screen.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use mcp_client::Overview;
use mcp_client::overview::{ActionOverview, Rates};
use serde::Serialize;

use crate::attention::{self, Matter};
use crate::exit::{self, Exit, Failure};
use crate::figures::{age, bytes, plural, rate, time};
use crate::global::{Global, Output};
use crate::{connect, report, signals, table};

const EXAMPLES: &str = "\
Examples:
  mcpctl status
  mcpctl status --require durable || echo 'no durable tasks now'
  mcpctl status -o json | jq .overview.tasks.queued";

/// Actions that are listed: `mcpctl actions ls` and `mcpctl top` have more.
const ACTIONS: usize = 10;

/// Show on one screen how the broker is
///
/// Whether it is ready, what waits and for how long, what comes and goes, its agents by state, durable
/// tasks and dead letters; what needs a look, with the command that says more; and its actions, those with
/// the longest waiting tasks first. Rates are over 10 s, P50 and P99 from SEND to outcome in the last
/// minute.
///
/// The exit status is 1 when the broker is not ready (it stops, or what is required is not there), and 5
/// when it can't be reached. With `-o json`, {ready, reason, attention, overview}, with attention an array of
/// {is_bad, about, what, run}, and overview what mcp.admin.overview answers.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
pub(crate) struct Status {
    /// It is not ready without this
    #[arg(long, value_enum, value_name = "WHAT")]
    require: Option<Required>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Required {
    /// Durable tasks are taken
    Durable,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    ready: bool,
    /// Why not.
    reason: Option<&'a str>,
    attention: Vec<Matter>,
    overview: &'a Overview,
}

impl Status {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let endpoint = global.endpoint()?;
        let [interrupted] = signals::tokens()?;
        let address = endpoint.address().to_owned();
        let client = connect::client(endpoint, &interrupted).await?;
        let overview = connect::answer(client.overview(), &interrupted).await;
        client.close().await;
        let overview = overview?;
        let reason = not_ready(&overview, self.require);
        let mut stdout = io::stdout().lock();
        match global.output {
            Output::Json => {
                let attention = attention::matters(&overview);
                let ready = reason.is_none();
                let report = Report { ready, reason, attention, overview: &overview };
                writeln!(stdout, "{}", report::pretty(&report)?)?;
            }
            Output::Table => stdout.write_all(text(&overview, &address, reason).as_bytes())?,
        }
        stdout.flush()?;
        Ok(if reason.is_none() { Exit::Ok } else { Exit::Failed })
    }
}

fn not_ready(it: &Overview, required: Option<Required>) -> Option<&str> {
    match required {
        _ if it.is_shutting_down => Some("it stops, and takes no new tasks"),
        Some(Required::Durable) if !it.durable.is_available => {
            Some(it.why_not_durable.as_deref().unwrap_or("durable tasks are refused"))
        }
        _ => None,
    }
}

/// A screen of lines, for `status` and for a `top` without a terminal.
pub(crate) fn text(it: &Overview, address: &str, not_ready: Option<&str>) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:<8} {value}\n"));
    let up = age(it.uptime_ms);
    line("broker", format!("{} at {address}, up {up}", it.broker_id));
    line("ready", not_ready.map_or("yes".to_owned(), |why| format!("no: {why}")));
    line("tasks", tasks(it));
    line("rates", rates(&it.rates.s10));
    line("agents", agents(it));
    line("durable", durable(it));
    let peers = (plural(it.connections, "connection"), plural(it.sessions, "client session"));
    line("peers", format!("{}, {}", peers.0, peers.1));
    let matters = attention::matters(it);
    if !matters.is_empty() {
        text.push_str("\nneeds a look\n");
        for Matter { is_bad, about, what, run } in &matters {
            let sign = if *is_bad { '!' } else { '-' };
            let run = if run.is_empty() { String::new() } else { format!("  ({run})") };
            text.push_str(&format!("{sign} {about}: {what}{run}\n"));
        }
    }
    if !it.actions.is_empty() {
        text.push('\n');
        text.push_str(&actions(&it.actions[..it.actions.len().min(ACTIONS)]));
        text.push('\n');
        if it.actions.len() > ACTIONS || it.more_actions {
            text.push_str("there are more: mcpctl actions ls, mcpctl top\n");
        }
    }
    text
}

pub(crate) fn tasks(it: &Overview) -> String {
    let oldest = it.actions.iter().filter_map(|it| it.oldest_ms).max();
    let oldest = oldest.map(|ms| format!(", the oldest for {}", age(ms))).unwrap_or_default();
    let tasks = &it.tasks;
    let size = match tasks.queued {
        0 => String::new(),
        _ => format!(" ({}{oldest})", bytes(tasks.queued_bytes)),
    };
    format!("{} waiting{size}, {} delayed, {} running", tasks.queued, tasks.delayed, tasks.running)
}

pub(crate) fn rates(it: &Rates) -> String {
    let [taken, ok, error, cancelled, rejected] =
        [it.taken, it.ok, it.error, it.cancelled, it.rejected].map(rate);
    format!(
        "{taken}/s taken; {ok}/s ok, {error}/s error, {cancelled}/s cancelled, {rejected}/s rejected"
    )
}

pub(crate) fn agents(it: &Overview) -> String {
    let agents = &it.agents;
    let states = [
        (agents.ready, "ready"),
        (agents.standby, "standby"),
        (agents.draining, "draining"),
        (agents.suspect, "suspect"),
        (agents.ejected, "ejected"),
        (agents.lost, "lost"),
    ];
    let states = states.into_iter().filter(|(count, _)| *count > 0);
    let states: Vec<_> = states.map(|(count, state)| format!("{count} {state}")).collect();
    let states = if states.is_empty() { "none".to_owned() } else { states.join(", ") };
    format!("{states}; {} of {} slots in use", agents.in_flight, agents.slots)
}

pub(crate) fn durable(it: &Overview) -> String {
    let durable = &it.durable;
    let letters = plural(it.dead_letters, "dead letter");
    if durable.is_available {
        let kept = plural(durable.kept_outcomes, "kept outcome");
        let bytes = bytes(durable.bytes);
        return format!("{} in flight, {kept}, {bytes}; {letters}", durable.in_flight);
    }
    format!("refused: {}; {letters}", it.why_not_durable.as_deref().unwrap_or("not available"))
}

fn actions(actions: &[ActionOverview]) -> String {
    let header = [
        "ACTION",
        "WAIT",
        "OLDEST",
        "RUN/SLOTS",
        "IN/S",
        "OK/S",
        "ERR/S",
        "P50",
        "P99",
        "READY",
        "STATE",
    ];
    let row = |it: &ActionOverview| {
        [
            it.action.clone(),
            it.queued.to_string(),
            it.oldest_ms.map_or("-".to_owned(), age),
            format!("{}/{}", it.running, it.slots),
            rate(it.rates.s10.taken),
            rate(it.rates.s10.ok),
            rate(it.rates.s10.error),
            time(it.p50_us),
            time(it.p99_us),
            format!("{}/{}", it.ready, it.workers),
            attention::state(it),
        ]
    };
    table::draw(header, actions.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::tests::overview;

    #[test]
    fn a_broker_is_one_screen() {
        let mut it = overview(&["upper", "lower"]);
        it.actions[0].oldest_ms = Some(4_200);
        it.dead_letters = 1;
        let expected = "\
broker   broker-1 at b:1, up 3 min 12 s
ready    yes
tasks    12 waiting (3.4 KiB, the oldest for 4.20 s), 1 delayed, 5 running
rates    120/s taken; 118/s ok, 1.2/s error, 0/s cancelled, 0.04/s rejected
agents   4 ready, 1 standby; 5 of 12 slots in use
durable  3 in flight, 10 kept outcomes, 12 KiB; 1 dead letter
peers    7 connections, 2 client sessions

needs a look
- dead letters: 1 durable task did not end well  (mcpctl dlq ls)

ACTION  WAIT  OLDEST  RUN/SLOTS  IN/S  OK/S  ERR/S  P50      P99      READY  STATE
upper   0     4.20 s  2/8        120   118   1.2    1.50 ms  75.0 ms  3/3    ok
lower   0     -       2/8        120   118   1.2    1.50 ms  75.0 ms  3/3    ok
";
        assert_eq!(text(&it, "b:1", None), expected);
        it.more_actions = true;
        assert!(text(&it, "b:1", Some("x")).contains("ready    no: x\n"));
        assert!(text(&it, "b:1", None).ends_with("mcpctl top\n"));
    }

    #[test]
    fn what_is_required_decides_whether_it_is_ready() {
        let mut it = overview(&[]);
        assert_eq!(not_ready(&it, Some(Required::Durable)), None);
        (it.durable.is_available, it.why_not_durable) = (false, Some("disk full".into()));
        assert_eq!(not_ready(&it, None), None);
        assert_eq!(not_ready(&it, Some(Required::Durable)), Some("disk full"));
        assert!(durable(&it).starts_with("refused: disk full"));
        it.is_shutting_down = true;
        assert!(not_ready(&it, None).unwrap().contains("stops"));
    }
}
