//! What is kept of durable tasks that have ended.

use mcp_proto::{ErrorCode, Executed, Message, Outcome, Task};

use super::{done, durable, expect_accepted, sync, with};
use crate::fixture::{task, task_id};

#[test]
fn an_outcome_answers_until_it_is_settled_and_then_its_id_does() {
    let mut it =
        with(|config| (config.kept_results, config.durable.settled_retention_ms) = (0, 5_000));
    let (client, worker) = (it.client(), it.worker("w", 1));
    done(&mut it, client, worker, "t");
    let later = it.client();
    it.send_task(later, durable("t"), 60_000);
    assert_eq!(it.expect_end(later, "t").0, Outcome::Ok);
    it.give(later, Message::Fetch(task_id("t")));
    assert_eq!(it.expect_end(later, "t").0, Outcome::Ok);

    it.give(client, Message::Settle(task_id("t")));
    let settled = (Outcome::Rejected, Executed::Yes, Some(ErrorCode::Settled));
    it.send_task(later, durable("t"), 60_000);
    assert_eq!(it.expect_end(later, "t"), settled);
    it.give(later, Message::Fetch(task_id("t")));
    assert_eq!(it.expect_end(later, "t"), settled);
    // Once more has no effect.
    let records = it.records.len();
    it.give(later, Message::Settle(task_id("t")));
    assert_eq!(it.records.len(), records);

    it.advance(5_001);
    it.send_task(client, durable("t"), 60_000);
    it.expect_route(worker);
}

#[test]
fn another_input_under_the_same_id_is_refused() {
    let mut it = with(|config| config.kept_results = 0);
    let (client, worker) = (it.client(), it.worker("w", 1));
    done(&mut it, client, worker, "t");
    let other = Task { action: "other".try_into().unwrap(), ..durable("t") };
    let mismatch = Some(ErrorCode::DuplicateMismatch);
    it.send_task(client, other.clone(), 60_000);
    assert_eq!(it.expect_end(client, "t").2, mismatch);
    it.give(client, Message::Settle(task_id("t")));
    it.send_task(client, other, 60_000);
    assert_eq!(it.expect_end(client, "t").2, mismatch);
}

#[test]
fn an_outcome_that_nobody_settles_is_forgotten_after_its_retention() {
    let mut it = with(|config| (config.kept_results, config.durable.retention_ms) = (0, 10_000));
    let (client, worker) = (it.client(), it.worker("w", 1));
    done(&mut it, client, worker, "t");
    assert_eq!(it.core.stats().durable.ended, 1);
    it.advance(9_990);
    assert_eq!(it.core.stats().durable.ended, 1);
    it.advance(20);
    let durable = it.core.stats().durable;
    assert_eq!((durable.ended, durable.settled, durable.bytes), (0, 0, 0));
}

#[test]
fn ids_of_settled_tasks_are_bounded_and_the_oldest_go_first() {
    let mut it = with(|config| (config.kept_results, config.durable.max_settled) = (0, 2));
    let (client, worker) = (it.client(), it.worker("w", 1));
    for id in ["a", "b", "c"] {
        done(&mut it, client, worker, id);
        it.give(client, Message::Settle(task_id(id)));
    }
    assert_eq!(it.core.stats().durable.settled, 2);
    it.send_task(client, durable("b"), 60_000);
    assert_eq!(it.expect_end(client, "b").2, Some(ErrorCode::Settled));
    it.send_task(client, durable("a"), 60_000);
    it.expect_route(worker);
}

#[test]
fn beyond_their_bytes_durable_tasks_are_refused_and_settling_makes_room() {
    let mut it = with(|config| config.durable.max_bytes = 70);
    let (client, worker) = (it.client(), it.worker("w", 1));
    done(&mut it, client, worker, "t");
    it.send_task(client, durable("more"), 60_000);
    let full = (Outcome::Rejected, Executed::No, Some(ErrorCode::QueueFull));
    assert_eq!(it.expect_end(client, "more"), full);
    // Others go on.
    it.send(client, "fast");
    let route = it.expect_route(worker);
    it.result(worker, route.attempt_id);
    it.expect_end(client, "fast");

    it.give(client, Message::Settle(task_id("t")));
    it.send_task(client, durable("more"), 60_000);
    it.expect_route(worker);
    sync(&mut it);
    expect_accepted(&mut it, client, "more");
}

#[test]
fn settling_what_is_not_durable_or_has_not_ended_has_no_effect() {
    let mut it = with(|_| {});
    let (client, worker) = (it.client(), it.worker("w", 2));
    it.send_task(client, task("fast"), 60_000);
    it.send_task(client, durable("t"), 60_000);
    let (fast, route) = (it.expect_route(worker), it.expect_route(worker));
    for id in ["fast", "t", "unknown"] {
        it.give(client, Message::Settle(task_id(id)));
    }
    sync(&mut it);
    expect_accepted(&mut it, client, "t");
    it.result(worker, fast.attempt_id);
    it.result(worker, route.attempt_id);
    it.expect_end(client, "fast");
    sync(&mut it);
    assert_eq!(it.expect_end(client, "t").0, Outcome::Ok);
    it.expect_nothing();
}
