//! What one identity may have in flight.

use mcp_broker::broker::{ConnectionId, FallbackStep, Identity};
use mcp_proto::{Cancel, ErrorCode, Message, Outcome};

use crate::fixture::{Fixture, client_hello, task};

fn client_as(it: &mut Fixture, name: &str) -> ConnectionId {
    let id = it.connect_as(Identity::new(name));
    it.give(id, Message::Hello(Box::new(client_hello(None))));
    it.expect_ack(id);
    id
}

fn limited(tasks: usize, bytes: usize) -> Fixture {
    Fixture::with(|config| {
        (config.max_identity_tasks, config.max_identity_bytes) = (tasks, bytes);
    })
}

/// It is over the limit of its identity.
fn expect_over(it: &mut Fixture, client: ConnectionId, id: &str) {
    let error = it.expect_deliver(client, id).error.unwrap();
    assert_eq!(error.code, ErrorCode::LimitExceeded, "{error:?}");
    assert_eq!(error.retry_after_ms, Some(1_000));
}

#[test]
fn an_identity_has_so_many_tasks_over_all_its_sessions_and_others_have_their_own() {
    let mut it = limited(2, usize::MAX);
    let (alice, bob) = (client_as(&mut it, "alice"), client_as(&mut it, "bob"));
    let again = client_as(&mut it, "alice");
    it.send(alice, "a-1");
    it.send(again, "a-2");
    for client in [alice, again] {
        it.send(client, "a-3");
        expect_over(&mut it, client, "a-3");
    }
    // One that is known already is none more.
    it.send(again, "a-1");
    it.send(bob, "b-1");
    it.expect_nothing();
}

#[test]
fn whatever_ends_makes_room() {
    let mut it = limited(1, usize::MAX);
    let alice = client_as(&mut it, "alice");
    let worker = it.worker("w", 1);
    for id in ["ok", "failed", "cancelled", "expired"] {
        it.send_task(alice, task(id), 50);
        let attempt = it.expect_route(worker).attempt_id;
        it.send(alice, "over");
        expect_over(&mut it, alice, "over");
        match id {
            "ok" => it.result(worker, attempt),
            "failed" => it.fail(worker, attempt),
            "cancelled" => {
                it.give(alice, Message::Cancel(Cancel::Task(id.try_into().unwrap())));
                it.expect_cancel(worker, attempt);
                it.result(worker, attempt);
            }
            _ => {
                it.advance(50);
                it.expect_cancel(worker, attempt);
                it.result(worker, attempt);
            }
        }
        it.expect_deliver(alice, id);
    }
}

#[test]
fn an_identity_has_so_many_bytes() {
    let mut it = limited(usize::MAX, 1_000);
    let alice = client_as(&mut it, "alice");
    let send = |it: &mut Fixture, id: &str, body: &'static str| {
        it.give_body(alice, Message::Send(mcp_proto::Send::new(task(id).encode(), 60_000)), body);
    };
    const HALF: &str = match std::str::from_utf8(&[b'x'; 450]) {
        Ok(text) => text,
        Err(_) => unreachable!(),
    };
    send(&mut it, "a-1", HALF);
    send(&mut it, "a-2", HALF);
    send(&mut it, "a-3", HALF);
    expect_over(&mut it, alice, "a-3");
    it.give(alice, Message::Cancel(Cancel::Task("a-1".try_into().unwrap())));
    it.expect_deliver(alice, "a-1");
    send(&mut it, "a-4", HALF);
    it.expect_nothing();
}

#[test]
fn the_identity_that_is_everybodys_has_no_limit_of_its_own() {
    let mut it = limited(1, 1);
    let client = it.client();
    for id in ["a", "b", "c"] {
        it.send(client, id);
    }
    it.expect_nothing();
}

#[test]
fn a_task_that_another_action_does_counts_with_what_it_is_then() {
    let mut it = Fixture::with(|config| {
        config.max_identity_bytes = 1_000;
        let other = "another-action-of-a-longer-name".try_into().unwrap();
        config.rules.fallback = vec![FallbackStep::Action(other)];
    });
    let alice = client_as(&mut it, "alice");
    for _ in 0..100 {
        it.send_task(alice, task("t"), 10);
        it.advance(10);
        let outcome = it.expect_deliver(alice, "t").outcome;
        assert!(matches!(outcome, Outcome::Expired | Outcome::Rejected), "{outcome:?}");
    }
}
