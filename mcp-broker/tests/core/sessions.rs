//! A client's session outlives its connection.

use mcp_broker::broker::{Disconnect, Identity};
use mcp_proto::{ErrorCode, Message, Outcome, TaskState};

use crate::fixture::{Fixture, client_hello, task_id};

#[test]
fn results_wait_for_a_client_that_comes_back() {
    let mut it = Fixture::new();
    let (client, ack) = it.client_of(Some("s"));
    assert!(!ack.resumed);
    let worker = it.worker("w", 1);
    it.send(client, "t");
    let route = it.expect_route(worker);
    it.disconnect(client, Disconnect::Broken);
    it.result(worker, route.attempt_id);
    it.expect_nothing();
    it.advance(29_000);
    let (client, ack) = it.client_of(Some("s"));
    assert!(ack.resumed);
    assert_eq!(it.expect_end(client, "t").0, Outcome::Ok);
}

#[test]
fn a_result_that_was_lost_on_the_way_can_be_fetched() {
    let mut it = Fixture::new();
    let (client, _) = it.client_of(Some("s"));
    let worker = it.worker("w", 1);
    it.send(client, "t");
    let route = it.expect_route(worker);
    it.result(worker, route.attempt_id);
    it.expect_deliver(client, "t"); // ... which never arrived
    it.disconnect(client, Disconnect::Broken);
    let (client, _) = it.client_of(Some("s"));
    it.give(client, Message::Fetch(task_id("t")));
    assert_eq!(it.expect_end(client, "t").0, Outcome::Ok);
}

#[test]
fn fetch_says_what_is_known_and_waits_for_the_rest() {
    let mut it = Fixture::new();
    let client = it.client();
    it.send(client, "t");
    it.disconnect(client, Disconnect::Orderly);
    let client = it.client();
    for (id, state) in [("t", TaskState::Queued), ("u", TaskState::Unknown)] {
        it.give(client, Message::Fetch(task_id(id)));
        assert_eq!(it.expect_status(client, id), state);
    }
    let worker = it.worker("w", 1);
    let route = it.expect_route(worker);
    it.give(client, Message::Fetch(task_id("t")));
    assert_eq!(it.expect_status(client, "t"), TaskState::Running);
    it.result(worker, route.attempt_id);
    assert_eq!(it.expect_end(client, "t").0, Outcome::Ok);
}

#[test]
fn a_session_ends_when_nobody_comes_back() {
    let mut it = Fixture::new();
    let (client, _) = it.client_of(Some("s"));
    it.disconnect(client, Disconnect::Broken);
    it.advance(30_000);
    assert_eq!(it.core.stats().sessions, 0);
    let (_, ack) = it.client_of(Some("s"));
    assert!(!ack.resumed);
}

#[test]
fn a_newer_connection_of_a_session_displaces_the_older() {
    let mut it = Fixture::new();
    let (old, _) = it.client_of(Some("s"));
    it.send(old, "t");
    let (new, ack) = it.client_of(Some("s"));
    assert!(ack.resumed);
    assert_eq!(it.expect_goaway(old).code, ErrorCode::Replaced);
    assert_eq!(it.expect_close(old), Some(ErrorCode::Replaced));
    it.disconnect(old, Disconnect::Broken);
    let worker = it.worker("w", 1);
    let route = it.expect_route(worker);
    it.result(worker, route.attempt_id);
    assert_eq!(it.expect_end(new, "t").0, Outcome::Ok);
}

#[test]
fn what_is_held_for_a_detached_session_is_bounded() {
    let mut it = Fixture::with(|config| config.max_detached_results = 1);
    let (client, _) = it.client_of(Some("s"));
    let worker = it.worker("w", 2);
    it.send(client, "a");
    it.send(client, "b");
    let routes = [it.expect_route(worker), it.expect_route(worker)];
    it.disconnect(client, Disconnect::Broken);
    for route in routes {
        it.result(worker, route.attempt_id);
    }
    let (client, _) = it.client_of(Some("s"));
    it.expect_end(client, "a");
    it.expect_nothing();
    it.give(client, Message::Fetch(task_id("b")));
    it.expect_end(client, "b");
}

#[test]
fn a_session_has_a_limit_of_tasks() {
    let mut it = Fixture::with(|config| config.limits.max_session_tasks = 1);
    let client = it.client();
    it.send(client, "a");
    it.send(client, "b");
    assert_eq!(it.expect_end(client, "b").2, Some(ErrorCode::LimitExceeded));
}

#[test]
fn a_session_belongs_to_its_identity() {
    let mut it = Fixture::new();
    it.client_of(Some("s"));
    let thief = it.connect_as(Identity::new("thief"));
    it.give(thief, Message::Hello(Box::new(client_hello(Some("s")))));
    assert_eq!(it.expect_refusal(thief).code, ErrorCode::IdentityMismatch);
}
