//! One task as text for people.

use std::fmt::Write;
use std::time::Duration;

use mcp_client::{Hop, TaskInfo};

use super::ms;
use crate::latency;

/// A line for each thing to say, and one for each hop.
pub(super) fn text(info: &TaskInfo) -> String {
    let it = &info.summary;
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // A String can't fail.
        let _ = writeln!(text, "{name:<9} {value}");
    };
    line("task", format!("{}, of {}", it.task_id, it.identity));
    if let Some(trace_id) = info.trace_id {
        line("trace", trace_id.to_string());
    }
    line("action", format!("{}, priority {}", it.action, it.priority));
    let ended = match info.executed {
        Some(executed) => format!("{} ago, executed: {executed}", ms(it.status_ms)),
        None => format!("for {}", ms(it.status_ms)),
    };
    line("status", format!("{} {ended}", it.status));
    if let Some(step) = &info.fallback {
        line("fallback", step.to_string());
    }
    if let Some(error) = &info.error {
        line("error", error.to_string());
    }
    let ttl = it.ttl_left_ms.map(|left| format!(", {} left to live", ms(left)));
    line("age", format!("{}{}", ms(it.age_ms), ttl.unwrap_or_default()));
    match (&it.agent_id, &it.node_id) {
        (Some(agent), Some(node)) => line("agent", format!("{agent}, node {node}")),
        (None, Some(node)) => line("agent", format!("gone, node {node}")),
        (_, None) => {}
    }
    if let Some(agent) = &info.hedge_agent_id {
        line("hedge", agent.to_string());
    }
    if let Some(delivery) = info.delivery {
        let idempotent = if info.idempotent == Some(true) { ", idempotent" } else { "" };
        let waiters = match info.waiters {
            Some(waiters @ 2..) => format!(", {waiters} sessions wait for it"),
            _ => String::new(),
        };
        line("delivery", format!("{delivery}{idempotent}{waiters}"));
    }
    if let Some(labels) = info.required_labels.as_ref().filter(|labels| !labels.is_empty()) {
        let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        line("labels", labels.join(", "));
    }
    if info.chunks > 0 {
        line("chunks", info.chunks.to_string());
    }
    line("attempts", it.attempts.to_string());
    if info.context_trace.truncated {
        text.push_str("  … older ones are left out\n");
    }
    for hop in &info.context_trace.hops {
        text.push_str(&hop_line(hop));
    }
    text.truncate(text.trim_end().len());
    text
}

pub(crate) fn hop_line(hop: &Hop) -> String {
    let us = |us| latency::show(Duration::from_micros(us));
    let mut line = format!(
        "  {}. {} {}: queued {}, network {}, worker's queue {}, worked {}; {} of {}",
        hop.attempt,
        hop.node_id,
        hop.event,
        us(hop.queue_us),
        us(hop.network_us),
        us(hop.worker_queue_us),
        us(hop.work_us),
        hop.policy,
        hop.candidates,
    );
    if !hop.reason.is_empty() {
        line.push_str("; ");
        line.push_str(&hop.reason);
    }
    if let Some(explanation) = &hop.explanation {
        line.push_str(&format!("\n     because: {}", explanation.why));
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use mcp_client::{
        ContextTrace, Delivery, ErrorCode, ErrorInfo, Executed, Explanation, HopEvent, TaskStatus,
    };

    use super::super::ls::tests::summary;
    use super::*;

    fn hop(attempt: u32) -> Hop {
        Hop {
            node_id: "n-1".try_into().unwrap(),
            event: HopEvent::Completed,
            attempt,
            queue_us: 20,
            network_us: 300,
            worker_queue_us: 4_000,
            work_us: 50_000,
            policy: "least_loaded".into(),
            candidates: 3,
            reason: "failed; tried again".into(),
            began_us: 0,
            explanation: Some(Box::new(Explanation {
                why: "it is its turn".to_owned(),
                ..Explanation::default()
            })),
        }
    }

    #[test]
    fn a_task_that_runs_says_where_and_how_long_it_may() {
        let info = TaskInfo {
            summary: summary(TaskStatus::Running),
            delivery: Some(Delivery::Fast),
            idempotent: Some(true),
            required_labels: Some([("gpu".to_owned(), "a100".to_owned())].into()),
            waiters: Some(2),
            hedge_agent_id: Some("upper-2".try_into().unwrap()),
            trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".parse().ok(),
            chunks: 5,
            fallback: None,
            executed: None,
            error: None,
            context_trace: ContextTrace { hops: vec![hop(1)], ..ContextTrace::default() },
        };
        let expected = "\
task      t-1, of anonymous
trace     4bf92f3577b34da6a3ce929d0e0e4736
action    upper, priority high
status    running for 250 ms
age       3.00 s, 27.0 s left to live
agent     upper-1, node n-1
hedge     upper-2
delivery  fast, idempotent, 2 sessions wait for it
labels    gpu=a100
chunks    5
attempts  2
  1. n-1 completed: queued 20 µs, network 300 µs, worker's queue 4.00 ms, worked 50.0 ms; \
                        least_loaded of 3; failed; tried again
     because: it is its turn";
        assert_eq!(text(&info), expected);
    }

    #[test]
    fn a_task_that_ended_says_why_and_whether_it_ran() {
        let mut summary = summary(TaskStatus::Failed);
        (summary.agent_id, summary.ttl_left_ms) = (None, None);
        let info = TaskInfo {
            summary,
            delivery: None,
            idempotent: None,
            required_labels: None,
            waiters: None,
            hedge_agent_id: None,
            trace_id: None,
            chunks: 0,
            fallback: Some("action:small".into()),
            executed: Some(Executed::Maybe),
            error: Some(ErrorInfo::new(ErrorCode::WorkerLost, "its worker was lost")),
            context_trace: ContextTrace { truncated: true, ..ContextTrace::default() },
        };
        let expected = "\
task      t-1, of anonymous
action    upper, priority high
status    failed 250 ms ago, executed: maybe
fallback  action:small
error     WORKER_LOST: its worker was lost
age       3.00 s
agent     gone, node n-1
attempts  2
  … older ones are left out";
        assert_eq!(text(&info), expected);
    }
}
