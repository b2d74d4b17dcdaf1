//! An explanation as a sentence and a table.

use std::time::Duration;

use mcp_client::{Decision, ExplainedWorker, Explanation, Hop};

use crate::{latency, table};

/// Workers that a sentence names; of more, their number.
const NAMED: usize = 3;

/// What would become of a task.
pub(super) fn of_question(it: &Explanation) -> String {
    let error = it.error_code.map(|code| format!(" ({code})")).unwrap_or_default();
    let sentence = match it.decision {
        Decision::Route => format!("{} would get it", likely(it)),
        Decision::Wait => format!("it would wait{error}"),
        Decision::Refuse => format!("it would be refused{error}"),
        _ => "this broker knows more than this program".to_owned(),
    };
    let wait = it.predicted_wait_ms.filter(|_| it.decision == Decision::Wait);
    let wait = wait.map(|ms| format!("; about {}", latency::show(Duration::from_millis(ms))));
    let mut text = format!("{sentence}: {}{}\n", it.why, wait.unwrap_or_default());
    if !it.fallback.is_empty() {
        text.push_str(&format!(
            "unless its fallback chain answers it: {}\n",
            it.fallback.join(", ")
        ));
    }
    text.push_str(&format!("policy {}\n", it.policy));
    if !it.workers.is_empty() {
        text.push_str(&format!("\n{}", workers(it)));
    }
    text.truncate(text.trim_end().len());
    text
}

/// Why each attempt went where it went.
pub(super) fn of_attempts(hops: &[Hop]) -> String {
    let mut text = String::new();
    for hop in hops {
        let Some(it) = &hop.explanation else {
            text.push_str(&format!("attempt {} went to {}\n", hop.attempt, hop.node_id));
            continue;
        };
        let name = it.workers.iter().find(|worker| worker.node_id == hop.node_id);
        let name = name.map_or(hop.node_id.as_str(), |worker| worker.agent_id.as_str());
        let (attempt, event) = (hop.attempt, hop.event);
        text.push_str(&format!("attempt {attempt} went to {name}: {}; {event}\n", it.why));
        text.push_str(&format!("policy {}\n\n{}\n\n", it.policy, workers(it)));
    }
    if hops.is_empty() {
        text.push_str("no worker got it\n");
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// Who may get it.
fn likely(it: &Explanation) -> String {
    let likely = it.workers.iter().filter(|worker| worker.probability > 0.0);
    let names: Vec<_> = likely.map(|worker| worker.agent_id.as_str()).collect();
    match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) if others.len() < NAMED => format!("{} or {last}", others.join(", ")),
        Some(_) => format!("one of {} workers", names.len()),
        None => "a worker".to_owned(),
    }
}

fn workers(it: &Explanation) -> String {
    let header = ["WORKER", "CHANCE", "SLOTS", "SERVICE", "SCORE", "RULED OUT"];
    let mut text = table::draw(header, it.workers.iter().map(row));
    if it.left_out > 0 {
        text.push_str(&format!("\n… and {} more", it.left_out));
    }
    text
}

fn row(it: &ExplainedWorker) -> [String; 6] {
    let prefetch = if it.prefetch > 0 { format!("+{}", it.prefetch) } else { String::new() };
    let us = |us| latency::show(Duration::from_micros(us));
    [
        it.agent_id.to_string(),
        chance(it.probability),
        format!("{}/{}{prefetch}", it.in_flight, it.slots),
        it.service_us.map(us).unwrap_or_default(),
        it.score.as_ref().map(|score| score.text.clone()).unwrap_or_default(),
        ruled_out(it),
    ]
}

fn chance(probability: f64) -> String {
    match probability * 100.0 {
        0.0 => String::new(),
        ..1.0 => "< 1 %".to_owned(),
        percent => format!("{percent:.0} %"),
    }
}

fn ruled_out(it: &ExplainedWorker) -> String {
    let mut text = match it.missing_labels.is_empty() {
        true => it.ruled_out.clone().unwrap_or_default(),
        false => {
            let labels = it.missing_labels.iter().map(|(key, value)| format!("{key}={value}"));
            format!("lacks {}", labels.collect::<Vec<_>>().join(" "))
        }
    };
    if it.health != "ok" {
        let comma = if text.is_empty() { "" } else { ", " };
        text.push_str(&format!("{comma}{}", it.health));
    }
    text
}

#[cfg(test)]
mod tests {
    use mcp_client::{ErrorCode, HopEvent, explain::Score};

    use super::*;

    fn worker(name: &str, probability: f64) -> ExplainedWorker {
        ExplainedWorker {
            agent_id: name.try_into().unwrap(),
            node_id: format!("n-{name}").try_into().unwrap(),
            probability,
            ruled_out: None,
            score: Some(Score { value: 0.25, text: "25 % of its slots in use".to_owned() }),
            missing_labels: Default::default(),
            presence: "online".to_owned(),
            readiness: "ready".to_owned(),
            health: "ok".to_owned(),
            in_flight: 1,
            slots: 4,
            prefetch: 0,
            service_us: Some(20_100),
        }
    }

    fn explanation(workers: Vec<ExplainedWorker>) -> Explanation {
        Explanation {
            decision: Decision::Route,
            why: "least of all".to_owned(),
            policy: "least_loaded".to_owned(),
            candidates: 2,
            workers,
            ..Explanation::default()
        }
    }

    #[test]
    fn a_worker_is_one_row_and_the_first_line_says_who_gets_it() {
        let mut lacks = worker("c", 0.0);
        lacks.missing_labels = [("gpu".to_owned(), "a100".to_owned())].into();
        (lacks.score, lacks.health, lacks.prefetch) = (None, "suspect".to_owned(), 2);
        let it = explanation(vec![worker("a", 0.5), worker("b", 0.5), lacks]);
        let text = of_question(&it);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[..2], ["a or b would get it: least of all", "policy least_loaded"]);
        let rows = table::cells(&text);
        assert_eq!(rows[4], ["a", "50 %", "1/4", "20.1 ms", "25 % of its slots in use"]);
        assert_eq!(rows[6], ["c", "1/4+2", "20.1 ms", "lacks gpu=a100, suspect"]);
        let certain = explanation(vec![worker("a", 1.0)]);
        assert!(of_question(&certain).starts_with("a would get it: "));
        let many = explanation(vec![worker("a", 0.2); 5]);
        assert!(of_question(&many).starts_with("one of 5 workers would get it: "));
    }

    #[test]
    fn a_task_that_would_wait_says_how_long_and_one_that_is_refused_why() {
        let it = Explanation { decision: Decision::Wait, ..explanation(Vec::new()) };
        let waits = Explanation { predicted_wait_ms: Some(40), left_out: 1, ..it.clone() };
        assert_eq!(
            of_question(&waits),
            "it would wait: least of all; about 40.0 ms\npolicy least_loaded"
        );
        let error_code = Some(ErrorCode::QueueFull);
        let refused = Explanation { decision: Decision::Refuse, error_code, ..it };
        assert!(of_question(&refused).starts_with("it would be refused (QUEUE_FULL): least"));
    }

    #[test]
    fn each_attempt_says_who_had_it_and_why() {
        let hop = |attempt, explanation: Option<Explanation>| Hop {
            node_id: "n-b".try_into().unwrap(),
            event: HopEvent::Completed,
            attempt,
            queue_us: 0,
            network_us: 0,
            worker_queue_us: 0,
            work_us: 0,
            policy: "least_loaded".into(),
            candidates: 2,
            reason: Default::default(),
            began_us: 0,
            explanation: explanation.map(Box::new),
        };
        let it = explanation(vec![worker("a", 0.5), worker("b", 0.5)]);
        let text = of_attempts(&[hop(1, None), hop(2, Some(it))]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "attempt 1 went to n-b");
        assert_eq!(lines[1], "attempt 2 went to b: least of all; completed");
        assert_eq!(of_attempts(&[]), "no worker got it\n");
    }
}
