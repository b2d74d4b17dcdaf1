//! Leaving in order.

use mcp_proto::{CancelReason, ErrorCode, Executed, Message, Outcome};

use crate::fixture::{Fixture, client_hello};

#[test]
fn everybody_is_told_and_what_runs_may_finish() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send(client, "running");
    it.send(client, "waiting");
    let route = it.expect_route(worker);
    it.core.begin_shutdown(it.now, 10_000);
    it.collect();
    for peer in [client, worker] {
        let goaway = it.expect_goaway(peer);
        assert_eq!((goaway.code, goaway.reconnect), (ErrorCode::ShuttingDown, true));
    }
    let refused = (Outcome::Rejected, Executed::No, Some(ErrorCode::ShuttingDown));
    assert_eq!(it.expect_end(client, "waiting"), refused);
    it.send(client, "late");
    assert_eq!(it.expect_end(client, "late"), refused);
    assert!(!it.core.is_drained());
    it.result(worker, route.attempt_id);
    assert_eq!(it.expect_end(client, "running").0, Outcome::Ok);
    assert!(it.core.is_drained());
}

#[test]
fn what_runs_too_long_is_ended() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send(client, "t");
    let route = it.expect_route(worker);
    it.core.begin_shutdown(it.now, 400);
    it.collect();
    it.expect_goaway(client);
    it.expect_goaway(worker);
    it.advance(400);
    let end = it.expect_end(client, "t");
    assert_eq!(end, (Outcome::Failed, Executed::Maybe, Some(ErrorCode::ShuttingDown)));
    assert_eq!(it.expect_cancel(worker, route.attempt_id), CancelReason::Shutdown);
    assert!(it.core.is_drained());
}

#[test]
fn nobody_gets_in_any_more() {
    let mut it = Fixture::new();
    it.core.begin_shutdown(it.now, 100);
    let late = it.connect();
    it.give(late, Message::Hello(Box::new(client_hello(None))));
    assert_eq!(it.expect_refusal(late).code, ErrorCode::ShuttingDown);
}
