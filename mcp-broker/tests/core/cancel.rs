//! A client changes its mind.

use mcp_proto::{Cancel, CancelReason, ErrorCode, Executed, Message, Outcome};

use crate::fixture::{Fixture, cancelled_result, client_hello, task_id};

fn cancel(id: &str) -> Message {
    Message::Cancel(Cancel::Task(task_id(id)))
}

#[test]
fn a_queued_task_is_cancelled_unexecuted() {
    let mut it = Fixture::new();
    let client = it.client();
    it.send(client, "t");
    it.give(client, cancel("t"));
    let end = it.expect_end(client, "t");
    assert_eq!(end, (Outcome::Cancelled, Executed::No, Some(ErrorCode::Cancelled)));
    let worker = it.worker("w", 1);
    it.expect_nothing();
    let _ = worker;
}

#[test]
fn a_running_task_is_cancelled_at_once_and_its_slot_is_back_when_confirmed() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send(client, "t");
    let route = it.expect_route(worker);
    it.give(client, cancel("t"));
    let end = it.expect_end(client, "t");
    assert_eq!(end, (Outcome::Cancelled, Executed::Maybe, Some(ErrorCode::Cancelled)));
    assert_eq!(it.expect_cancel(worker, route.attempt_id), CancelReason::Client);
    it.give(client, cancel("t"));
    assert_eq!(it.in_flight("w"), 1);
    it.give(worker, Message::Result(cancelled_result(route.attempt_id)));
    assert_eq!(it.in_flight("w"), 0);
}

#[test]
fn a_result_that_crosses_the_cancel_changes_nothing() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send(client, "t");
    let route = it.expect_route(worker);
    it.give(client, cancel("t"));
    it.expect_end(client, "t");
    it.expect_cancel(worker, route.attempt_id);
    it.result(worker, route.attempt_id);
    assert_eq!((it.in_flight("w"), it.core.stats().late_results), (0, 1));
}

#[test]
fn only_who_waits_for_a_task_can_cancel_it() {
    let mut it = Fixture::new();
    let (owner, stranger) = (it.client(), it.client());
    it.send(owner, "t");
    it.give(stranger, cancel("t"));
    it.give(stranger, cancel("unknown"));
    it.expect_nothing();
    assert_eq!(it.core.stats().queued, 1);
}

#[test]
fn a_task_that_two_wait_for_goes_on_for_the_other() {
    let mut it = Fixture::new();
    let (one, two) = (it.client(), it.client());
    let worker = it.worker("w", 1);
    it.send(one, "t");
    let route = it.expect_route(worker);
    it.send(two, "t");
    it.give(one, cancel("t"));
    assert_eq!(it.expect_end(one, "t").0, Outcome::Cancelled);
    it.expect_nothing();
    it.result(worker, route.attempt_id);
    assert_eq!(it.expect_end(two, "t").0, Outcome::Ok);
}

#[test]
fn a_client_must_name_a_task_not_an_attempt() {
    let mut it = Fixture::new();
    let client = it.connect();
    it.give(client, Message::Hello(Box::new(client_hello(None))));
    it.expect_ack(client);
    let attempt = mcp_proto::AttemptId(1);
    it.give(client, Message::Cancel(Cancel::Attempt(attempt, CancelReason::Client)));
    assert_eq!(it.expect_error(client).code, ErrorCode::InvalidMessage);
}
