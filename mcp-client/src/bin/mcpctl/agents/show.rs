//! One agent as text for people.

use std::fmt::Write;

use mcp_client::agents::{AgentAction, AgentDetails};
use mcp_client::{AgentInfo, TaskSummary};

use super::ls;
use crate::figures::age;
use crate::latency;
use crate::tasks::ms;

/// Ended tasks that are listed; `tasks ls --agent` has more.
const RECENT: usize = 10;

/// A line for each thing to say, and one for each action and task.
pub(super) fn text(it: &AgentDetails) -> String {
    let agent = &it.agent;
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // A String can't fail.
        let _ = writeln!(text, "{name:<9} {value}");
    };
    line("agent", format!("{}, node {}", agent.agent_id, agent.node_id));
    line("state", state(agent));
    if let Some(drained) = &agent.drained {
        line("drained", drained.to_string());
    }
    line("slots", format!("{} in use", ls::slots(agent)));
    if let Some(identity) = &it.identity {
        line("identity", identity.clone());
    }
    if let (Some(sdk), Some(service_type)) = (&it.sdk, &it.service_type) {
        let parts: Vec<_> = [sdk, service_type].into_iter().filter(|it| !it.is_empty()).collect();
        line("software", parts.into_iter().cloned().collect::<Vec<_>>().join(", "));
    }
    if let Some(since_ms) = it.registered_ms {
        let connected = match it.connected_ms {
            Some(since_ms) => format!("connected for {}", age(since_ms)),
            None => "its connection broke".to_owned(),
        };
        line("since", format!("registered for {}, {connected}", age(since_ms)));
    }
    if let Some(seen_ms) = agent.last_seen_ms {
        line("seen", format!("{} ago", ms(seen_ms)));
    }
    if !agent.labels.is_empty() {
        let labels: Vec<_> = agent.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        line("labels", labels.join(", "));
    }
    for action in &it.serves {
        line("action", self::action(action));
    }
    for task in &it.holds {
        line("holds", self::task(task));
    }
    if it.more_held {
        line("holds", format!("more: mcpctl tasks ls --agent {}", agent.agent_id));
    }
    let outcomes = it.outcomes.iter().filter(|(_, count)| **count > 0);
    let outcomes: Vec<_> = outcomes.map(|(outcome, count)| format!("{count} {outcome}")).collect();
    if !outcomes.is_empty() {
        line("ended", outcomes.join(", "));
    }
    for task in it.recent.iter().take(RECENT) {
        line("had", self::task(task));
    }
    text.truncate(text.trim_end().len());
    text
}

/// In a word, and what it is made of where that says more.
fn state(it: &AgentInfo) -> String {
    match it.readiness == it.state {
        true => format!("{} ({})", it.state, it.presence),
        false => format!("{} ({}, {})", it.state, it.presence, it.readiness),
    }
}

fn action(it: &AgentAction) -> String {
    let mut text = format!("{}: {}", it.action, it.health);
    let mut add = |part: String| text.push_str(&part);
    if let Some(for_ms) = it.for_ms {
        add(format!(" for {}", ms(for_ms)));
    }
    if let Some(us) = it.service_us {
        add(format!(", {} a task", latency::show(std::time::Duration::from_micros(us))));
    }
    add(format!(", {:.1} % ok", it.ok_share * 100.0));
    if it.is_shadow {
        add(", shadow tasks only".to_owned());
    }
    text
}

fn task(it: &TaskSummary) -> String {
    let error = it.error_code.map(|code| format!(" {code}")).unwrap_or_default();
    format!("{} of {}: {}{error}, {} ago", it.task_id, it.action, it.status, ms(it.status_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_told_line_by_line() {
        let json = r#"{"node_id":"n-1","agent_id":"upper-1","state":"ejected","presence":"online",
            "readiness":"ready","health":"breaker open","unwell":[],"actions":["upper"],
            "labels":{"gpu":"a100"},"slots":4,"in_flight":1,"last_seen_ms":20,
            "identity":"anonymous","service_type":"test","sdk":"mcp-client/0.1","generation":3,
            "prefetch":0,"registered_ms":5000,"connected_ms":4000,"serves":[{"action":"upper",
            "health":"breaker open","for_ms":9000,"service_us":1500,"ok_share":0.25,
            "is_shadow":false}],"holds":[],"more_held":false,"more_recent":false,
            "recent":[{"task_id":"t","identity":"anonymous","action":"upper","status":"failed",
            "priority":"normal","age_ms":70,"status_ms":60,"attempts":1,
            "error_code":"HANDLER_PANIC"}],"outcomes":{"failed":1,"ok":0},
            "drained":{"by":"ann","why":"new disk","since_wall_ms":1}}"#;
        let text = text(&serde_json::from_str(json).unwrap());
        for expected in [
            "agent     upper-1, node n-1",
            "state     ejected (online, ready)",
            "drained   by ann: new disk",
            "slots     1/4 in use",
            "action    upper: breaker open for 9.00 s, 1.50 ms a task, 25.0 % ok",
            "ended     1 failed",
            "had       t of upper: failed HANDLER_PANIC, 60.0 ms ago",
        ] {
            assert!(text.lines().any(|line| line == expected), "{expected} in\n{text}");
        }
    }
}
