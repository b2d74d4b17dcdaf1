//! The broker at a glance.

use mcp_broker::broker::Disconnect;
use mcp_proto::{ActionName, Task};
use serde_json::{Value, json};

use crate::fixture::{Fixture, task};
use crate::operator::Operator;

const OVERVIEW: &str = "mcp.admin.overview";

#[test]
fn a_broker_without_anything_says_so() {
    let mut it = Fixture::new();
    let operator = Operator::new(&mut it);
    let seen = operator.answer(&mut it, OVERVIEW, &json!({}));
    assert_eq!((&seen["broker_id"], &seen["epoch"]), (&json!("broker-1"), &json!(7)));
    assert_eq!((&seen["actions"], &seen["more_actions"]), (&json!([]), &json!(false)));
    assert_eq!((&seen["agents"]["total"], &seen["tasks"]["queued"]), (&json!(0), &json!(0)));
    assert_eq!((&seen["connections"], &seen["is_shutting_down"]), (&json!(1), &json!(false)));
    assert!(seen["why_not_durable"].as_str().unwrap().contains("no journal"));
}

#[test]
fn an_action_has_its_backlog_rates_and_times() {
    let mut it = Fixture::new();
    let (client, operator) = (it.client(), Operator::new(&mut it));
    let worker = it.worker("w", 1);
    let lost = it.worker("lost", 2);
    it.disconnect(lost, Disconnect::Broken);
    it.advance(10_000);
    for number in 0..20 {
        it.send(client, &format!("t-{number}"));
        let attempt = it.expect_route(worker).attempt_id;
        it.advance(100);
        if number % 4 == 0 {
            it.fail(worker, attempt)
        } else {
            it.result(worker, attempt)
        }
        it.expect_end(client, &format!("t-{number}"));
    }
    it.send(client, "runs");
    it.expect_route(worker);
    it.send(client, "waits");
    let nobody = ActionName::try_from("nobody").unwrap();
    it.send_task(client, Task { action: nobody, ..task("nobody's") }, 60_000);
    it.advance(1_000);
    let seen = operator.answer(&mut it, OVERVIEW, &json!({}));
    let tasks = &seen["tasks"];
    assert_eq!((&tasks["queued"], &tasks["delayed"]), (&json!(2), &json!(0)));
    assert_eq!(&tasks["running"], &json!(1));
    let agents = &seen["agents"];
    // Silent for a second.
    assert_eq!((&agents["total"], &agents["suspect"]), (&json!(1), &json!(1)));
    assert_eq!((&agents["slots"], &agents["in_flight"]), (&json!(1), &json!(1)));
    let row = |name: &str| -> Value {
        let rows = seen["actions"].as_array().unwrap();
        rows.iter().find(|row| row["action"] == name).unwrap().clone()
    };
    let work = row("work");
    assert_eq!(
        (&work["queued"], &work["running"], &work["slots"]),
        (&json!(1), &json!(1), &json!(1))
    );
    assert_eq!((&work["oldest_ms"], &work["is_degraded"]), (&json!(1_000), &json!(false)));
    // Of the 10 s before the present one, three had tasks.
    let rates = &work["rates"]["s10"];
    assert_eq!((&rates["ok"], &rates["error"]), (&json!(1.5), &json!(0.5)));
    assert_eq!(rates["taken"], json!(2.2));
    let p50_us = work["p50_us"].as_u64().unwrap();
    assert!((51_200..=102_400).contains(&p50_us), "{p50_us}");
    assert_eq!((&row("nobody")["workers"], &row("nobody")["p50_us"]), (&json!(0), &Value::Null));
    assert_eq!(seen["rates"]["s10"]["taken"], json!(2.3));
    it.discard();
}
