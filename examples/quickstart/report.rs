//! What is shown, and what is checked.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IsTerminal};
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use mcp_client::{Hop, HopEvent, NodeId, Outcome, TaskEnd, Worker};

use crate::data::{BAD_LINES, Expected, LINES};

/// A task with its end.
pub(crate) struct Done {
    pub(crate) task: Expected,
    pub(crate) end: TaskEnd,
    /// From sending it to its end, as seen by the client.
    pub(crate) took: Duration,
}

/// A bar on a terminal, plain lines elsewhere.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(crate) fn new(tasks: usize) -> Self {
        let bar = ProgressBar::new(tasks as u64);
        if let Ok(style) = ProgressStyle::with_template("[{bar:50}] {pos} of {len} tasks") {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar }
    }

    pub(crate) fn step(&self) {
        self.bar.inc(1);
        let position = self.bar.position();
        if !io::stderr().is_terminal() && position.is_multiple_of(50) {
            println!("{position} of {} tasks", self.bar.length().unwrap_or_default());
        }
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table.column_iter_mut().skip(1).for_each(|it| {
        it.set_cell_alignment(CellAlignment::Right);
    });
    table
}

/// How the tasks of each action ended, and how long the `ok` ones took.
pub(crate) fn outcomes(done: &[Done]) {
    const SHOWN: [Outcome; 5] =
        [Outcome::Ok, Outcome::Failed, Outcome::Expired, Outcome::Rejected, Outcome::Lost];
    let mut table =
        table(["action", "ok", "failed", "expired", "rejected", "lost", "ok p50", "ok p99"]);
    let actions: BTreeSet<_> = done.iter().map(|it| it.task.json.task.action.as_str()).collect();
    let rows = actions.into_iter().map(Some).chain([None]);
    for action in rows {
        let of_action: Vec<_> = done
            .iter()
            .filter(|it| action.is_none_or(|action| it.task.json.task.action.as_str() == action))
            .collect();
        let mut row = vec![action.unwrap_or("all").to_owned()];
        row.extend(SHOWN.map(|outcome| {
            let count = of_action.iter().filter(|it| it.end.outcome == outcome).count();
            if count == 0 { String::new() } else { count.to_string() }
        }));
        let mut took: Vec<_> =
            of_action.iter().filter(|it| it.end.outcome == Outcome::Ok).map(|it| it.took).collect();
        took.sort_unstable();
        row.extend([50, 99].map(|percent| {
            let at = (took.len() * percent).div_ceil(100).saturating_sub(1);
            took.get(at).map(|took| ms(took.as_micros() as u64)).unwrap_or_default()
        }));
        table.add_row(row);
    }
    println!("{}\n", table.trim_fmt());
}

/// Who did the work.
pub(crate) fn shares(done: &[Done], workers: &[Worker]) {
    let mut completed: BTreeMap<NodeId, usize> = BTreeMap::new();
    for hop in done.iter().flat_map(|it| it.end.trace.decode().into_owned().hops) {
        if hop.event == HopEvent::Completed {
            *completed.entry(hop.node_id).or_default() += 1;
        }
    }
    let all: usize = completed.values().sum();
    let mut table = table(["worker", "node", "tasks", "share"]);
    for worker in workers {
        let node_id = worker.node_id();
        let tasks = completed.get(&node_id).copied().unwrap_or_default();
        let share = format!("{:.0} %", 100.0 * tasks as f64 / all.max(1) as f64);
        table.add_row([
            worker.agent_id().to_string(),
            node_id.to_string(),
            tasks.to_string(),
            share,
        ]);
    }
    println!("{}\n", table.trim_fmt());
}

/// Draws the `context_trace` that came back with a task: where its time went.
pub(crate) fn timeline(done: &[Done], workers: &[Worker], task_id: &str) {
    const WIDTH: u64 = 50;
    let Some(done) = done.iter().find(|it| it.end.task_id.as_str() == task_id) else {
        return;
    };
    let trace = done.end.trace.decode();
    println!("The way of task {task_id}, {} from SEND to DELIVER:", ms(trace.total_us));
    let mut at_us = 0;
    let mut draw = |what: String, us: u64| {
        let column = |us: u64| (us * WIDTH / trace.total_us.max(1)) as usize;
        let (from, to) = (column(at_us), column(at_us + us));
        at_us += us;
        let bar = if to > from { "█".repeat(to - from) } else { "▏".to_owned() };
        println!("  {what:<28} {:>9}  {}{bar}", ms(us), " ".repeat(from));
    };
    for hop in &trace.hops {
        let Hop { attempt, node_id, policy, candidates, .. } = hop;
        let worker = workers.iter().find(|worker| worker.node_id() == *node_id);
        let agent_id = worker.map_or(node_id.as_str(), |worker| worker.agent_id().as_str());
        draw("waits in the broker".to_owned(), hop.queue_us);
        draw(format!("to {agent_id} and back"), hop.network_us);
        draw("waits in the worker".to_owned(), hop.worker_queue_us);
        draw("in the handler".to_owned(), hop.work_us);
        println!("  attempt {attempt}: {}; {policy} among {candidates} free workers\n", hop.event);
    }
}

fn ms(us: u64) -> String {
    format!("{:.2} ms", us as f64 / 1e3)
}

/// What is not as it should be: nothing.
pub(crate) fn faults(done: &[Done], bad_lines: &[String]) -> Vec<String> {
    let mut faults = Vec::new();
    for line in bad_lines {
        println!("Not a task, {line}");
    }
    if bad_lines.len() != BAD_LINES {
        faults.push(format!("{} lines are not tasks, not {BAD_LINES}", bad_lines.len()));
    }
    if done.len() + bad_lines.len() != LINES {
        faults.push(format!("{} tasks have an end, of {}", done.len(), LINES - BAD_LINES));
    }
    for Done { task: Expected { json, end: expected }, end, .. } in done {
        let body = String::from_utf8_lossy(&end.body);
        let code = end.error.as_ref().map(|error| error.code.name());
        if end.task_id != json.task.id {
            faults.push(format!("{} has the end of {}", json.task.id, end.task_id));
        } else if end.outcome.name() != expected.outcome {
            faults.push(format!("{end}; {} was expected", expected.outcome));
        } else if expected.body.as_deref().is_some_and(|expected| body.trim() != expected) {
            let expected = expected.body.as_deref().unwrap_or_default();
            faults.push(format!("{}: result {:?}, not {expected:?}", end.task_id, body.trim()));
        } else if expected.code.is_some() && code != expected.code.as_deref() {
            faults.push(format!("{}: code {code:?}, not {:?}", end.task_id, expected.code));
        }
    }
    faults
}
