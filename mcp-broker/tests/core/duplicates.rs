//! The same task sent again.

use bytes::Bytes;
use mcp_proto::{ErrorCode, Executed, Frame, Incoming, Message, Outcome, Send, TaskState};

use crate::fixture::{Fixture, task, task_id};

#[test]
fn a_duplicate_joins_while_the_first_is_in_flight() {
    let mut it = Fixture::new();
    let (one, two) = (it.client(), it.client());
    let worker = it.worker("w", 4);
    it.send(one, "t");
    it.send(two, "t");
    it.send(one, "t");
    let route = it.expect_route(worker);
    it.expect_nothing();
    it.result(worker, route.attempt_id);
    assert_eq!(it.expect_end(one, "t").0, Outcome::Ok);
    assert_eq!(it.expect_end(two, "t").0, Outcome::Ok);
    assert_eq!(it.core.stats().duplicates, 2);
}

#[test]
fn a_duplicate_of_a_finished_task_gets_its_result_again() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send(client, "t");
    let route = it.expect_route(worker);
    it.result(worker, route.attempt_id);
    it.expect_end(client, "t");
    it.send(client, "t");
    assert_eq!(it.expect_end(client, "t").0, Outcome::Ok);
}

#[test]
fn a_task_that_was_refused_a_place_may_be_sent_again_under_its_id() {
    let mut it = Fixture::new();
    let client = it.client();
    it.send(client, "t");
    it.advance(60_000);
    let refused = (Outcome::Rejected, Executed::No, Some(ErrorCode::NoWorker));
    assert_eq!(it.expect_end(client, "t"), refused);
    // Still to be had by who asks.
    it.give(client, Message::Fetch(task_id("t")));
    assert_eq!(it.expect_end(client, "t"), refused);

    let worker = it.worker("w", 1);
    it.send(client, "t");
    let route = it.expect_route(worker);
    it.result(worker, route.attempt_id);
    assert_eq!(it.expect_end(client, "t").0, Outcome::Ok);
    assert_eq!(it.core.stats().duplicates, 0);
}

#[test]
fn the_same_id_with_another_body_is_refused() {
    let mut it = Fixture::new();
    let client = it.client();
    it.send(client, "t");
    let message = Message::Send(Send::new(task("t").encode(), 1_000));
    let frame = Frame { message, body: Bytes::from_static(b"something else") };
    it.give_incoming(client, Incoming::Frame(frame));
    let end = it.expect_end(client, "t");
    assert_eq!(end, (Outcome::Rejected, Executed::No, Some(ErrorCode::DuplicateMismatch)));
}

#[test]
fn identities_have_their_own_ids() {
    let mut it = Fixture::new();
    let one = it.client();
    let two = it.connect_as(mcp_broker::broker::Identity::new("other"));
    it.give(two, Message::Hello(Box::new(crate::fixture::client_hello(None))));
    it.expect_ack(two);
    let worker = it.worker("w", 4);
    it.send(one, "t");
    it.send(two, "t");
    let (a, b) = (it.expect_route(worker), it.expect_route(worker));
    it.give(two, Message::Fetch(task_id("t")));
    assert_eq!(it.expect_status(two, "t"), TaskState::Running);
    it.result(worker, a.attempt_id);
    it.expect_end(one, "t");
    it.result(worker, b.attempt_id);
    it.expect_end(two, "t");
}
