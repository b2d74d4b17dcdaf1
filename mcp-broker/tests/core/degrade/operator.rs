//! Actions that an operator keeps from their workers.

use mcp_broker::broker::{Disconnect, Event};
use mcp_proto::{ErrorCode, Executed, Outcome, Priority, Task};
use serde_json::json;

use super::{
    answer, ask, default, degrade, deliver, name, restore, small, step, waits_and_runs, with,
    worker_of,
};
use crate::fixture::{Fixture, idempotent, task};

#[test]
fn an_operator_keeps_an_action_from_its_workers_and_gives_it_back() {
    let mut it = with(&[small(), default("sorry")]);
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send(client, "runs");
    it.send(client, "waits");
    let running = it.expect_route(worker);
    let answered = degrade(&mut it, "work");
    assert_eq!((&answered["action"], &answered["changed"]), (&json!("work"), &json!(true)));
    assert_eq!(answered["degraded"]["by"], "anonymous");
    assert_eq!(answered["degraded"]["why"], "a bad model");
    // What waits goes another way at once, and what comes; what runs goes on.
    assert_eq!(answer(&mut it, client), ("default".into(), "sorry".into()));
    it.send(client, "comes");
    assert_eq!(step(&mut it, client), "default");
    it.result(worker, running.attempt_id);
    assert_eq!(it.expect_deliver(client, "runs").fallback, None);
    assert!(it.next_for(worker).is_none());
    let other = worker_of(&mut it, "s", "small", 1);
    it.send(client, "small");
    let route = it.expect_route(other);
    assert_eq!(degrade(&mut it, "work")["changed"], false);

    assert_eq!(
        restore(&mut it, "work"),
        json!({"action": "work", "changed": true, "degraded": null})
    );
    assert_eq!(restore(&mut it, "work")["changed"], false);
    it.send(client, "again");
    it.expect_route(worker);
    it.result(other, route.attempt_id);
    assert_eq!(step(&mut it, client), "action:small");
    let by = "anonymous".to_owned();
    let why = "a bad model".to_owned();
    let action = name("work");
    let events: Vec<_> = it
        .events
        .iter()
        .filter(|it| matches!(it, Event::ActionDegraded { .. } | Event::ActionRestored { .. }))
        .collect();
    assert_eq!(
        events,
        [
            &Event::ActionDegraded { action: action.clone(), by: by.clone(), why },
            &Event::ActionRestored { action, by }
        ]
    );
}

#[test]
fn without_a_chain_tasks_of_a_degraded_action_are_refused() {
    let mut it = Fixture::new();
    let client = it.client();
    // Before anybody has heard of it.
    degrade(&mut it, "work");
    let worker = it.worker("w", 1);
    it.send(client, "t");
    let (end, _) = deliver(&mut it, client);
    let error = end.error.unwrap();
    assert_eq!((end.outcome, end.executed), (Outcome::Rejected, Executed::No));
    assert_eq!((error.code, error.retry_after_ms), (ErrorCode::Degraded, Some(10_000)));
    assert!(error.message.contains("work") && error.message.contains("a bad model"), "{error}");
    restore(&mut it, "work");
    // Refused, it was no task.
    it.send_task(client, idempotent("t"), 60_000);
    it.expect_route(worker);
    degrade(&mut it, "work");
    it.expect_nothing();
    it.disconnect(worker, Disconnect::Orderly);
    let (end, _) = deliver(&mut it, client);
    assert_eq!((end.outcome, end.executed), (Outcome::Rejected, Executed::Maybe));
    assert_eq!(end.error.unwrap().code, ErrorCode::Degraded);
}

#[test]
fn however_many_wait_they_are_sent_on_a_thousand_at_a_time() {
    let mut it = with(&[default("output")]);
    let client = it.client();
    let worker = it.worker("w", 1);
    for n in 0..2_501 {
        let priority = [Priority::Low, Priority::Urgent][n % 2];
        it.send_task(client, Task { priority, ..task(&format!("t-{n}")) }, 60_000);
    }
    degrade(&mut it, "work");
    assert_eq!(waits_and_runs(&it), (1_500, 1));
    it.advance(1);
    assert_eq!(waits_and_runs(&it), (500, 1));
    // Given back meanwhile, the others stay.
    restore(&mut it, "work");
    it.advance(1);
    assert_eq!((waits_and_runs(&it), it.core.stats().degraded), ((500, 1), 2_000));
    degrade(&mut it, "work");
    assert_eq!(waits_and_runs(&it), (0, 1));
    assert!(it.next_for(worker).is_some());
    it.discard();
}

#[test]
fn one_that_waits_for_its_next_attempt_takes_the_chain_when_that_is_due() {
    let mut it = with(&[default("output")]);
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send(client, "t");
    let attempt = it.expect_route(worker).attempt_id;
    it.put_off(worker, attempt, 400);
    degrade(&mut it, "work");
    it.advance(399);
    it.expect_nothing();
    it.advance(1);
    let end = it.expect_deliver(client, "t");
    let trace = end.trace.decode();
    assert_eq!((end.executed, end.fallback.as_deref()), (Executed::No, Some("default")));
    assert_eq!((trace.queue_us, trace.total_us), (400_000, 400_000));
}

#[test]
fn a_degraded_fallback_action_takes_nothing() {
    let mut it = with(&[small(), default("output")]);
    let client = it.client();
    let other = worker_of(&mut it, "s", "small", 1);
    it.send(client, "runs");
    it.send(client, "waits");
    it.expect_route(other);
    degrade(&mut it, "small");
    assert_eq!(step(&mut it, client), "default");
    it.send(client, "comes");
    assert_eq!(step(&mut it, client), "default");
    it.discard();
}

#[test]
fn what_an_operator_asks_wrongly_is_refused() {
    let mut it = Fixture::new();
    for (action, body, problem) in [
        ("degrade", json!({}), "action"),
        ("degrade", json!({"action": "no spaces"}), "action"),
        ("degrade", json!({"action": "mcp.admin.stats"}), "the broker's own"),
        ("degrade", json!({"action": "a", "why": "w".repeat(1025)}), "why has 1025 bytes"),
        ("degrade", json!({"action": "a", "what": 1}), "what"),
        ("restore", json!({"action": "a", "why": "x"}), "why"),
    ] {
        let (end, _) = ask(&mut it, action, &body);
        let error = end.error.unwrap();
        assert_eq!((end.outcome, error.code), (Outcome::Failed, ErrorCode::InvalidTask));
        assert!(error.message.contains(problem), "{problem} is not in {}", error.message);
    }
    for n in 0..1_000 {
        degrade(&mut it, &format!("a-{n}"));
    }
    let (end, _) = ask(&mut it, "degrade", &json!({"action": "one-more"}));
    assert_eq!(end.error.unwrap().code, ErrorCode::LimitExceeded);
}
