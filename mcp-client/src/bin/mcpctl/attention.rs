//! What an operator should look at.

use mcp_client::Overview;
use mcp_client::overview::ActionOverview;
use serde::Serialize;

use crate::figures::{age, plural};

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Matter {
    /// Whether tasks suffer from it now.
    pub(crate) is_bad: bool,
    /// What it concerns: an action, or a word for a part of the broker.
    pub(crate) about: String,
    /// What is the matter.
    pub(crate) what: String,
    /// The command that says more.
    pub(crate) run: String,
}

/// The matters, the worst first.
pub(crate) fn matters(it: &Overview) -> Vec<Matter> {
    let mut matters = Vec::new();
    let mut add = |is_bad, about: &str, what: String, run: &str| {
        let (about, run) = (about.to_owned(), run.to_owned());
        matters.push(Matter { is_bad, about, what, run });
    };
    if it.is_shutting_down {
        add(true, "stopping", "the broker stops, and takes no new tasks".to_owned(), "");
    }
    if it.is_shedding {
        let what = "the broker runs full: actions that are not core take no tasks";
        add(true, "shedding", what.to_owned(), "mcpctl actions ls");
    }
    if let Some(why) = it.why_not_durable.as_ref().filter(|_| !it.durable.is_available) {
        add(it.durable.in_flight > 0, "durable", format!("durable tasks are refused: {why}"), "");
    }
    let show = |it: &ActionOverview| format!("mcpctl actions show {}", it.action);
    for action in it.actions.iter().filter(|it| is_stuck(it)) {
        let tasks = if action.queued == 1 { "1 task waits" } else { "tasks wait" };
        let count = if action.queued == 1 { String::new() } else { format!("{} ", action.queued) };
        let oldest = age(action.oldest_ms.unwrap_or_default());
        let what = format!("{count}{tasks} and no worker is ready; the oldest for {oldest}");
        add(true, &action.action, what, &show(action));
    }
    for action in it.actions.iter().filter(|it| it.is_degraded) {
        let what = "an operator keeps its tasks from its workers".to_owned();
        add(false, &action.action, what, &show(action));
    }
    for action in it.actions.iter().filter(|it| it.breakers.open > 0) {
        let open = plural(action.breakers.open.into(), "worker");
        let what = format!("the breaker of {open} is open: no tasks for them for a while");
        add(false, &action.action, what, &format!("mcpctl agents ls --action {}", action.action));
    }
    let agents = [
        (it.agents.suspect, "suspect", "no answer"),
        (it.agents.lost, "lost", "gone, and may come back"),
        (it.agents.ejected, "ejected", "left out for failures or for being slow"),
    ];
    for (count, state, what) in agents {
        if count > 0 {
            let what = format!("{}: {what}", plural(count, "agent"));
            add(false, state, what, &format!("mcpctl agents ls --only {state}"));
        }
    }
    if it.agents.drained > 0 {
        let what = format!("{} drained by operators", plural(it.agents.drained, "agent"));
        add(false, "drained", what, "mcpctl agents ls --all");
    }
    if it.dead_letters > 0 {
        let what = plural(it.dead_letters, "durable task");
        add(false, "dead letters", format!("{what} did not end well"), "mcpctl dlq ls");
    }
    matters.sort_by_key(|it| !it.is_bad);
    matters
}

/// Its tasks wait, and nobody takes them.
pub(crate) fn is_stuck(it: &ActionOverview) -> bool {
    it.queued > 0 && it.ready == 0
}

/// How an action is, in a word or two.
pub(crate) fn state(it: &ActionOverview) -> String {
    match it {
        it if it.is_degraded => "degraded".to_owned(),
        it if is_stuck(it) => "no worker".to_owned(),
        it if it.breakers.open > 0 => format!("{} open", it.breakers.open),
        it if it.workers == 0 => "unserved".to_owned(),
        _ => "ok".to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    /// A broker with an action for each name.
    pub(crate) fn overview(actions: &[&str]) -> Overview {
        let rates = json!({"taken": 120.0, "ok": 118.5, "error": 1.25, "rejected": 0.04});
        let row = |name: &&str| {
            json!({
                "action": name, "queued": 0, "queued_bytes": 0, "delayed": 0, "running": 2,
                "workers": 3, "ready": 3, "slots": 8, "is_degraded": false,
                "rates": {"s10": rates, "s60": {}}, "p50_us": 1500, "p99_us": 75000
            })
        };
        let actions: Vec<_> = actions.iter().map(row).collect();
        let overview = json!({
            "broker_id": "broker-1", "epoch": 3, "uptime_ms": 192_000, "wall_ms": 1_800_000_000_000u64,
            "is_shutting_down": false, "is_shedding": false, "why_not_durable": null,
            "agents": {"total": 5, "ready": 4, "slots": 12, "in_flight": 5, "standby": 1},
            "tasks": {"queued": 12, "queued_bytes": 3482, "delayed": 1, "running": 5},
            "rates": {"s10": rates, "s60": {}},
            "durable": {"is_available": true, "in_flight": 3, "kept_outcomes": 10, "bytes": 12_700},
            "dead_letters": 0, "sessions": 2, "connections": 7,
            "actions": actions, "more_actions": false
        });
        serde_json::from_value(overview).unwrap()
    }

    #[test]
    fn nothing_is_the_matter_where_all_is_well() {
        assert_eq!(matters(&overview(&["a", "b"])), []);
    }

    #[test]
    fn what_is_the_matter_is_told_the_worst_first_and_with_a_command() {
        let mut it = overview(&["stuck", "degraded", "broken"]);
        (it.actions[0].queued, it.actions[0].ready, it.actions[0].oldest_ms) = (3, 0, Some(4_200));
        it.actions[1].is_degraded = true;
        it.actions[2].breakers.open = 2;
        (it.agents.lost, it.agents.drained, it.dead_letters) = (1, 1, 4);
        (it.durable.is_available, it.why_not_durable) = (false, Some("disk full".into()));
        let told: Vec<_> = matters(&it).into_iter().map(|it| (it.is_bad, it.about)).collect();
        let expected = [
            (true, "durable"),
            (true, "stuck"),
            (false, "degraded"),
            (false, "broken"),
            (false, "lost"),
            (false, "drained"),
            (false, "dead letters"),
        ];
        assert_eq!(told, expected.map(|(is_bad, about)| (is_bad, about.to_owned())));
        let stuck = &matters(&it)[1];
        assert_eq!(stuck.what, "3 tasks wait and no worker is ready; the oldest for 4.20 s");
        assert_eq!(stuck.run, "mcpctl actions show stuck");
        let states: Vec<_> = it.actions.iter().map(state).collect();
        assert_eq!(states, ["no worker", "degraded", "2 open"]);
    }
}
