//! Workers that vanish, come back, are replaced, or forget.

use mcp_broker::broker::{Disconnect, Event};
use mcp_proto::{
    Ack, CancelReason, ErrorCode, Executed, Message, Outcome, Readiness, RoutesReceived,
    WorkerHello,
};

use crate::fixture::{
    Fixture, cancelled_result, child_of, hello_of, idempotent, report, worker_hello,
};

#[test]
fn an_idempotent_task_of_a_lost_worker_goes_elsewhere_at_once() {
    let mut it = Fixture::new();
    let client = it.client();
    let first = it.worker("first", 1);
    it.send_task(client, idempotent("t"), 60_000);
    it.expect_route(first);
    let second = it.worker("second", 1);
    it.disconnect(first, Disconnect::Broken);
    assert_eq!(it.online(), ["second"]);
    let route = it.expect_route(second);
    it.result(second, route.attempt_id);
    let deliver = it.expect_deliver(client, "t");
    let trace = deliver.trace.decode();
    assert_eq!(trace.hops.len(), 2);
    assert_eq!(&*trace.hops[0].reason, "worker lost; dispatched again");
    it.advance(10_000);
}

#[test]
fn any_other_task_of_a_lost_worker_fails_after_the_grace_and_never_runs_again() {
    let mut it = Fixture::new();
    let client = it.client();
    let first = it.worker("first", 1);
    it.send(client, "t");
    it.expect_route(first);
    it.worker("second", 1);
    it.disconnect(first, Disconnect::Broken);
    it.advance(9_999);
    it.expect_nothing();
    it.advance(1);
    let end = it.expect_end(client, "t");
    assert_eq!(end, (Outcome::Failed, Executed::Maybe, Some(ErrorCode::WorkerLost)));
}

#[test]
fn a_worker_that_closes_in_order_leaves_no_grace() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send(client, "t");
    it.expect_route(worker);
    it.disconnect(worker, Disconnect::Orderly);
    let end = it.expect_end(client, "t");
    assert_eq!(end, (Outcome::Failed, Executed::Maybe, Some(ErrorCode::WorkerLost)));
    assert!(it.core.agents(it.now, true).is_empty());
}

#[test]
fn a_worker_that_has_closed_is_sent_nothing() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 2);
    it.send_task(client, idempotent("parent"), 50);
    it.send_task(client, child_of("parent", "child"), 50);
    it.expect_route(worker);
    it.expect_route(worker);
    it.worker("another", 1);
    // The timers are late: the parent ends only when it is to go elsewhere, and the child with it.
    it.now.mono = it.now.mono.plus_ms(60);
    it.disconnect(worker, Disconnect::Orderly);
    for id in ["child", "parent"] {
        assert_eq!(it.expect_end(client, id).0, Outcome::Expired);
    }
}

#[test]
fn a_worker_that_reconnects_goes_on_with_what_it_holds() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 2);
    it.send(client, "held");
    it.send(client, "forgotten");
    let held = it.expect_route(worker);
    it.expect_route(worker);
    it.disconnect(worker, Disconnect::Broken);
    it.advance(5_000);
    let hello = WorkerHello { held: vec![held.attempt_id], ..worker_hello("w", 2) };
    let (worker, ack) = it.worker_of(hello);
    assert_eq!((ack.keep, ack.generation), (vec![held.attempt_id], 2));
    // What it does not know any more is lost for good; the rest ends ok, run once.
    let end = it.expect_end(client, "forgotten");
    assert_eq!(end, (Outcome::Failed, Executed::Maybe, Some(ErrorCode::WorkerLost)));
    it.result(worker, held.attempt_id);
    assert_eq!(it.expect_end(client, "held").0, Outcome::Ok);
    assert_eq!(it.in_flight("w"), 0);
}

#[test]
fn what_never_reached_its_worker_is_dispatched_again() {
    let mut it = Fixture::new();
    let client = it.client();
    let (worker, ack) = it.worker_of(worker_hello("w", 3));
    for id in ["held", "forgotten", "lost"] {
        it.send(client, id);
    }
    let held = it.expect_route(worker).attempt_id;
    it.expect_route(worker);
    it.expect_route(worker);
    it.disconnect(worker, Disconnect::Broken);
    let Ack { epoch, generation, .. } = ack;
    let received = Some(RoutesReceived { epoch, generation, routes: 2 });
    let back = || WorkerHello { held: vec![held], received, ..worker_hello("w", 3) };
    let (worker, ack) = it.worker_of(back());
    assert_eq!(ack.keep, [held]);
    assert_eq!(it.expect_end(client, "forgotten").2, Some(ErrorCode::WorkerLost));
    it.expect_route(worker);

    // A HELLO from before the latest ACK, as one that was long under way: it says nothing of this one.
    it.disconnect(worker, Disconnect::Broken);
    let (worker, ack) = it.worker_of(back());
    assert_eq!(ack.keep, [held]);
    assert_eq!(it.expect_end(client, "lost").2, Some(ErrorCode::WorkerLost));
    it.result(worker, held);
    assert_eq!(it.expect_end(client, "held").0, Outcome::Ok);
    assert_eq!(it.in_flight("w"), 0);
}

#[test]
fn a_worker_that_reconnects_abandons_what_went_elsewhere() {
    let mut it = Fixture::new();
    let client = it.client();
    let first = it.worker("first", 1);
    it.send_task(client, idempotent("t"), 60_000);
    let old = it.expect_route(first);
    it.disconnect(first, Disconnect::Broken);
    let second = it.worker("second", 1);
    let new = it.expect_route(second);
    let hello = WorkerHello { held: vec![old.attempt_id], ..worker_hello("first", 1) };
    let (first, ack) = it.worker_of(hello);
    assert!(ack.keep.is_empty());
    assert_eq!(it.in_flight("first"), 0);
    // Its late result is fenced off.
    it.result(first, old.attempt_id);
    assert_eq!(it.expect_error(first).code, ErrorCode::UnknownAttempt);
    it.result(second, new.attempt_id);
    assert_eq!(it.expect_end(client, "t").0, Outcome::Ok);
}

#[test]
fn a_silent_worker_is_probed_then_lost_and_back_when_it_is_heard() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 2);
    it.send(client, "once");
    it.send_task(client, idempotent("again"), 60_000);
    let once = it.expect_route(worker);
    let again = it.expect_route(worker);
    it.advance(500);
    it.expect_ping(worker);
    assert_eq!(it.online(), ["w"]);
    it.advance(1_500);
    assert!(it.online().is_empty());
    let other = it.worker("other", 1);
    let moved = it.expect_route(other);

    // Its network is back: no new connection is needed.
    for _ in 0..6 {
        it.advance(500);
        it.expect_ping(other);
        it.give(other, Message::Pong(0));
    }
    it.give(worker, Message::Pong(0));
    assert_eq!(it.online(), ["other", "w"]);
    assert_eq!(it.expect_cancel(worker, again.attempt_id), CancelReason::Superseded);
    it.give(worker, Message::Result(cancelled_result(again.attempt_id)));
    it.result(worker, once.attempt_id);
    assert_eq!(it.expect_end(client, "once").0, Outcome::Ok);
    it.result(other, moved.attempt_id);
    assert_eq!(it.expect_end(client, "again").0, Outcome::Ok);
    assert_eq!((it.in_flight("w"), it.in_flight("other")), (0, 0));
}

#[test]
fn a_silent_worker_that_is_heard_to_drain_gets_no_task() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 2);
    it.send(client, "held");
    let held = it.expect_route(worker);
    it.advance(500);
    it.expect_ping(worker);
    it.advance(1_500);
    assert!(it.online().is_empty());
    it.send(client, "waits");
    it.give(worker, report(1, &[held.attempt_id], Readiness::Draining));
    assert_eq!(it.online(), ["w"]);
    it.expect_pong(worker);
    it.expect_nothing();
    it.result(worker, held.attempt_id);
    assert_eq!(it.expect_end(client, "held").0, Outcome::Ok);
}

#[test]
fn a_worker_that_the_network_says_is_gone_is_asked_and_then_lost() {
    let mut it = Fixture::new();
    let client = it.client();
    let (gone, other) = (it.worker("gone", 1), it.worker("other", 1));
    it.send_task(client, idempotent("t"), 60_000);
    let (holder, name, spare) = match it.next_for(gone) {
        Some(_) => (gone, "gone", other),
        None => {
            it.expect_route(other);
            (other, "other", gone)
        }
    };
    it.unreachable(holder);
    it.expect_ping(holder);
    assert!(it.online().contains(&name.to_owned()), "one report may be false");
    it.unreachable(holder);
    assert!(!it.online().contains(&name.to_owned()));
    let route = it.expect_route(spare);
    it.result(spare, route.attempt_id);
    it.expect_end(client, "t");
    // Reports about clients, and about workers that are lost already, change nothing.
    it.unreachable(client);
    it.unreachable(holder);
    it.discard();
}

#[test]
fn a_worker_that_answers_is_there_whatever_the_network_says() {
    let mut it = Fixture::new();
    let worker = it.worker("w", 1);
    for _ in 0..3 {
        it.unreachable(worker);
        let seq = it.expect_ping(worker);
        it.give(worker, Message::Pong(seq));
    }
    assert_eq!(it.online(), ["w"]);
}

#[test]
fn an_answered_probe_is_a_sign_of_life() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send(client, "t");
    let route = it.expect_route(worker);
    for _ in 0..20 {
        it.advance(500);
        let seq = it.expect_ping(worker);
        it.give(worker, Message::Pong(seq));
    }
    assert_eq!(it.online(), ["w"]);
    it.result(worker, route.attempt_id);
    it.expect_end(client, "t");
}

#[test]
fn an_idle_worker_is_not_probed_and_its_lease_is_renewed_by_pings() {
    let mut it = Fixture::new();
    let worker = it.worker("w", 1);
    for _ in 0..5 {
        it.advance(20_000);
        it.give(worker, report(0, &[], Readiness::Ready));
        it.expect_pong(worker);
    }
    it.advance(29_999);
    assert_eq!(it.online(), ["w"]);
    it.advance(1);
    assert!(it.online().is_empty());
    it.advance(10_000);
    assert_eq!(it.expect_refusal(worker).code, ErrorCode::LeaseExpired);
    assert!(it.core.agents(it.now, true).is_empty());
}

#[test]
fn a_second_live_process_displaces_the_first() {
    let mut it = Fixture::new();
    let client = it.client();
    let first = it.worker("w", 1);
    it.send_task(client, idempotent("t"), 60_000);
    it.expect_route(first);
    let hello =
        WorkerHello { instance_id: "another-process".try_into().unwrap(), ..worker_hello("w", 1) };
    let (second, ack) = it.worker_of(hello);
    assert_eq!(ack.generation, 2);
    let goaway = it.expect_goaway(first);
    assert_eq!((goaway.code, goaway.reconnect), (ErrorCode::Replaced, false));
    assert_eq!(it.expect_close(first), Some(ErrorCode::Replaced));
    assert_eq!(it.online(), ["w"]);
    let route = it.expect_route(second);
    // The late end of the first connection removes nothing.
    it.disconnect(first, Disconnect::Broken);
    it.result(second, route.attempt_id);
    assert_eq!(it.expect_end(client, "t").0, Outcome::Ok);
}

#[test]
fn the_node_id_is_the_agents_for_ever() {
    let mut it = Fixture::new();
    let (first, ack) = it.worker_of(worker_hello("w", 1));
    it.disconnect(first, Disconnect::Orderly);
    let (_, again) = it.worker_of(worker_hello("w", 1));
    let (_, other) = it.worker_of(worker_hello("x", 1));
    assert_eq!(ack.node_id, again.node_id);
    assert!(again.generation > ack.generation && other.node_id != ack.node_id);
}

#[test]
fn the_same_process_on_a_second_connection_takes_over_from_its_first() {
    let mut it = Fixture::new();
    let client = it.client();
    let old = it.worker("w", 1);
    it.send(client, "t");
    let route = it.expect_route(old);
    // The broker has not noticed yet that the first connection is gone.
    let hello = WorkerHello { held: vec![route.attempt_id], ..worker_hello("w", 1) };
    let (new, ack) = it.worker_of(hello);
    assert_eq!(ack.keep, [route.attempt_id]);
    it.expect_goaway(old);
    assert_eq!(it.expect_close(old), Some(ErrorCode::Replaced));
    it.result(new, route.attempt_id);
    assert_eq!(it.expect_end(client, "t").0, Outcome::Ok);
}

#[test]
fn an_attempt_that_its_worker_forgot_is_found_by_its_ping() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 2);
    it.send_task(client, idempotent("forgotten"), 60_000);
    let forgotten = it.expect_route(worker);
    it.send(client, "held");
    let held = it.expect_route(worker);
    // Sent before the second ROUTE arrived: that one is not forgotten, only not there yet.
    it.give(worker, report(1, &[forgotten.attempt_id], Readiness::Ready));
    it.expect_pong(worker);
    it.expect_nothing();
    it.give(worker, report(2, &[held.attempt_id], Readiness::Ready));
    it.expect_pong(worker);
    let again = it.expect_route(worker);
    assert_eq!((again.attempt, it.core.stats().leaked, it.in_flight("w")), (2, 1, 2));
    // A PING without a report says nothing about what it holds.
    it.give(worker, Message::Ping(mcp_proto::Ping::probe(5)));
    assert_eq!(it.expect_pong(worker), 5);
    for route in [held, again] {
        it.result(worker, route.attempt_id);
    }
    it.expect_end(client, "held");
    it.expect_end(client, "forgotten");
}

#[test]
fn a_draining_worker_finishes_and_gets_nothing_new() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 2);
    it.send(client, "a");
    let route = it.expect_route(worker);
    it.give(worker, report(1, &[route.attempt_id], Readiness::Draining));
    it.expect_pong(worker);
    it.send(client, "b");
    it.result(worker, route.attempt_id);
    it.expect_end(client, "a");
    it.expect_nothing();
    it.disconnect(worker, Disconnect::Orderly);
    let other = it.worker("other", 1);
    it.expect_route(other);
}

#[test]
fn an_unconfirmed_cancel_is_noted_and_the_slot_stays_taken() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send_task(client, crate::fixture::task("t"), 100);
    let route = it.expect_route(worker);
    it.advance(100);
    it.expect_cancel(worker, route.attempt_id);
    it.expect_end(client, "t");
    for _ in 0..12 {
        it.advance(450);
        while it.next_for(worker).is_some() {}
        it.give(worker, report(1, &[route.attempt_id], Readiness::Ready));
        it.expect_pong(worker);
    }
    assert!(it.events.iter().any(|event| matches!(event, Event::CancelUnconfirmed { .. })));
    assert_eq!((it.in_flight("w"), it.core.stats().cancels_unconfirmed), (1, 1));
    it.give(worker, Message::Result(cancelled_result(route.attempt_id)));
    assert_eq!(it.in_flight("w"), 0);
}

#[test]
fn another_identity_cannot_take_an_agents_name() {
    let mut it = Fixture::new();
    it.worker("w", 1);
    let thief = it.connect_as(mcp_broker::broker::Identity::new("thief"));
    it.give(thief, hello_of(worker_hello("w", 1)));
    assert_eq!(it.expect_refusal(thief).code, ErrorCode::IdentityMismatch);
    assert_eq!(it.online(), ["w"]);
}
