//! Durable tasks: nothing is acknowledged before it is on disk.

use mcp_broker::broker::{Disconnect, Record};
use mcp_proto::{Delivery, ErrorCode, Executed, Message, Outcome, Task};

use crate::fixture::{Fixture, task};

fn durable(id: &str) -> Task {
    Task { delivery: Delivery::Durable, ..task(id) }
}

#[test]
fn accepted_and_deliver_wait_for_the_sync_and_route_does_not() {
    let mut it = Fixture::with(|config| config.is_durable = true);
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send_task(client, durable("t"), 60_000);
    let route = it.expect_route(worker);
    it.expect_nothing();
    assert!(matches!(it.records[0], (1, Record::Accepted { .. })));
    it.core.journal_synced(it.now, 1);
    it.collect();
    match it.next_for(client) {
        Some((Message::Accepted(id), _)) => assert_eq!(id.as_str(), "t"),
        other => panic!("{other:?}"),
    }
    it.result(worker, route.attempt_id);
    it.expect_nothing();
    assert!(matches!(it.records[1], (2, Record::Ended { .. })));
    it.core.journal_synced(it.now, 2);
    it.collect();
    assert_eq!(it.expect_end(client, "t").0, Outcome::Ok);
}

#[test]
fn a_durable_task_runs_again_when_its_worker_is_lost() {
    let mut it = Fixture::with(|config| config.is_durable = true);
    let client = it.client();
    let first = it.worker("first", 1);
    it.send_task(client, durable("t"), 60_000);
    it.expect_route(first);
    it.disconnect(first, Disconnect::Broken);
    let second = it.worker("second", 1);
    assert_eq!(it.expect_route(second).attempt, 2);
}

#[test]
fn without_a_durable_journal_they_are_refused() {
    let mut it = Fixture::new();
    let client = it.client();
    it.send_task(client, durable("t"), 60_000);
    let end = it.expect_end(client, "t");
    assert_eq!(end, (Outcome::Rejected, Executed::No, Some(ErrorCode::DurableUnavailable)));
}

#[test]
fn a_failed_journal_refuses_durable_tasks_and_leaves_fast_ones_alone() {
    let mut it = Fixture::with(|config| config.is_durable = true);
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send_task(client, durable("running"), 60_000);
    let route = it.expect_route(worker);
    it.send_task(client, durable("waiting"), 60_000);
    it.core.journal_failed(it.now, "no space left");
    it.collect();
    let unavailable = Some(ErrorCode::DurableUnavailable);
    let maybe = (Outcome::Rejected, Executed::Maybe, unavailable);
    assert_eq!(it.expect_end(client, "running"), maybe);
    it.expect_cancel(worker, route.attempt_id);
    assert_eq!(it.expect_end(client, "waiting"), (Outcome::Rejected, Executed::No, unavailable));
    it.send_task(client, durable("late"), 60_000);
    assert_eq!(it.expect_end(client, "late").2, unavailable);
    it.result(worker, route.attempt_id);
    it.send(client, "fast");
    let route = it.expect_route(worker);
    it.result(worker, route.attempt_id);
    assert_eq!(it.expect_end(client, "fast").0, Outcome::Ok);
}
