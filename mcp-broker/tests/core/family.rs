//! Parents, their children and what parks: links, deadlines, cancelling, traces, slots.

use mcp_broker::broker::{ConnectionId, Disconnect, Identity, Record};
use mcp_proto::{
    ActionName, AttemptId, Cancel, CancelReason, Child, ContextTrace, Delivery, ErrorCode,
    Executed, Hello, HopEvent, Message, Outcome, Readiness, Task, TaskState, WorkerHello, limits,
};

use crate::fixture::{
    Fixture, cancelled_result, child_of, client_hello, hello_of, report, task, task_id,
    worker_hello,
};

/// A client, and a worker with enough slots for all.
fn fixture() -> (Fixture, ConnectionId, ConnectionId) {
    let mut it = Fixture::new();
    let (client, worker) = (it.client(), it.worker("w", 100));
    (it, client, worker)
}

/// Why some attempt of a worker is cancelled.
fn cancel(it: &mut Fixture, worker: ConnectionId) -> CancelReason {
    match it.next_for(worker) {
        Some((Message::Cancel(Cancel::Attempt(_, reason)), _)) => reason,
        other => panic!("CANCEL expected, got {other:?}"),
    }
}

fn cancel_task(it: &mut Fixture, client: ConnectionId, id: &str) {
    it.give(client, Message::Cancel(Cancel::Task(task_id(id))));
}

/// The ids of a tree in order of their ends, each with what is below it before it.
fn ids(trace: &ContextTrace) -> Vec<String> {
    let below = |child: &Child| {
        let mut ids = ids(&child.trace);
        ids.push(child.task_id.to_string());
        ids
    };
    trace.children.iter().flat_map(below).collect()
}

#[test]
fn a_childs_time_to_live_ends_with_its_parents() {
    let (mut it, client, worker) = fixture();
    it.send_task(client, task("parent"), 400);
    let parent = it.expect_route(worker);
    it.advance(100);
    it.send_task(client, child_of("parent", "child"), 60_000);
    let child = it.expect_route(worker);
    assert_eq!((parent.ttl_ms, child.ttl_ms), (400, 300));
    it.send_task(client, child_of("child", "grandchild"), 50);
    assert_eq!(it.expect_route(worker).ttl_ms, 50);
    it.advance(49);
    it.expect_nothing();

    it.advance(1);
    assert_eq!(cancel(&mut it, worker), CancelReason::Expired);
    assert_eq!(it.expect_end(client, "grandchild").0, Outcome::Expired);
    it.advance(250);
    // At the same time: each has run out of time, whichever timer fires first.
    let mut ends = Vec::new();
    for _ in 0..2 {
        assert_eq!(cancel(&mut it, worker), CancelReason::Expired);
        match it.next_for(client) {
            Some((Message::Deliver(deliver), _)) => ends.push(*deliver),
            other => panic!("DELIVER expected, got {other:?}"),
        }
    }
    ends.sort_by(|a, b| a.task_id.cmp(&b.task_id));
    assert!(ends.iter().all(|end| end.outcome == Outcome::Expired));
    assert_eq!(ids(&ends[1].trace.decode()), ["grandchild", "child"]);
}

#[test]
fn cancelling_a_task_cancels_all_below_it() {
    let (mut it, client, worker) = fixture();
    it.send(client, "a");
    let a = it.expect_route(worker).attempt_id;
    it.send_task(client, child_of("a", "b"), 1_000);
    let b = it.expect_route(worker).attempt_id;
    it.send_task(client, child_of("b", "c"), 1_000);
    let c = it.expect_route(worker).attempt_id;
    // Another one that ends, and one that only waits.
    it.send_task(client, child_of("a", "done"), 1_000);
    let done = it.expect_route(worker).attempt_id;
    it.result(worker, done);
    it.expect_deliver(client, "done");
    it.send_task(client, Task { shadow: true, ..child_of("b", "waits") }, 1_000);
    it.send(client, "unrelated");
    let unrelated = it.expect_route(worker).attempt_id;

    cancel_task(&mut it, client, "a");
    for attempt in [a, b, c] {
        assert_eq!(it.expect_cancel(worker, attempt), CancelReason::Client);
    }
    for (id, executed) in [("c", Executed::Maybe), ("waits", Executed::No), ("b", Executed::Maybe)]
    {
        let end = it.expect_deliver(client, id);
        assert_eq!((end.outcome, end.executed), (Outcome::Cancelled, executed));
        let error = end.error.unwrap();
        assert_eq!(error.code, ErrorCode::Cancelled);
        assert!(error.message.contains("its parent"), "{}", error.message);
    }
    let end = it.expect_deliver(client, "a");
    assert_eq!(end.outcome, Outcome::Cancelled);
    assert_eq!(ids(&end.trace.decode()), ["done", "c", "waits", "b"]);
    let below = &end.trace.decode().children[1];
    assert_eq!((below.action.as_str(), below.outcome), ("work", Outcome::Cancelled));
    assert_eq!(below.trace.hops[0].event, HopEvent::Cancelled);
    assert_eq!(below.trace.hops[0].reason, "cancelled with its parent");
    it.result(worker, unrelated);
    assert_eq!(it.expect_end(client, "unrelated").0, Outcome::Ok);
}

#[test]
fn a_parent_that_ends_by_itself_leaves_its_children_alone() {
    let (mut it, client, worker) = fixture();
    it.send(client, "a");
    let a = it.expect_route(worker).attempt_id;
    it.send_task(client, child_of("a", "b"), 1_000);
    let b = it.expect_route(worker).attempt_id;
    it.result(worker, a);
    let end = it.expect_deliver(client, "a");
    assert!(end.trace.decode().children.is_empty() && !end.trace.decode().truncated);
    it.result(worker, b);
    assert_eq!(it.expect_end(client, "b").0, Outcome::Ok);
    // One that comes later is nobody's child.
    it.send_task(client, child_of("a", "late"), 1_000);
    let late = it.expect_route(worker);
    assert_eq!(late.ttl_ms, 1_000);
    it.result(worker, late.attempt_id);
    it.expect_deliver(client, "late");
}

#[test]
fn a_child_of_a_task_that_was_cancelled_is_refused() {
    let (mut it, client, worker) = fixture();
    it.send(client, "a");
    let a = it.expect_route(worker).attempt_id;
    cancel_task(&mut it, client, "a");
    it.expect_cancel(worker, a);
    it.expect_deliver(client, "a");
    it.send_task(client, child_of("a", "b"), 1_000);
    let refused = (Outcome::Rejected, Executed::No, Some(ErrorCode::Cancelled));
    assert_eq!(it.expect_end(client, "b"), refused);
}

#[test]
fn a_durable_parent_ends_its_children_before_its_end_is_journalled() {
    let mut it = Fixture::with(|config| config.is_durable = true);
    let (client, worker) = (it.client(), it.worker("w", 100));
    it.send_task(client, Task { delivery: Delivery::Durable, ..task("a") }, 1_000);
    let a = it.expect_route(worker).attempt_id;
    it.send_task(client, Task { delivery: Delivery::Durable, ..child_of("a", "b") }, 60_000);
    let b = it.expect_route(worker);
    assert_eq!(b.ttl_ms, 1_000);
    let deadline = |record: &Record| match record {
        Record::Accepted(_, task) => task.deadline_wall_ms,
        other => panic!("{other:?}"),
    };
    assert_eq!(deadline(&it.records[0].1), deadline(&it.records[1].1));
    cancel_task(&mut it, client, "a");
    assert_eq!(it.expect_cancel(worker, a), CancelReason::Client);
    assert_eq!(it.expect_cancel(worker, b.attempt_id), CancelReason::Client);
    it.send_task(client, child_of("a", "c"), 1_000);
    assert_eq!(it.expect_end(client, "c").2, Some(ErrorCode::Cancelled));
    let last = it.records.last().unwrap().0;
    it.core.journal_synced(it.now, last);
    it.collect();
    assert!(matches!(it.next_for(client), Some((Message::Accepted(_), _))));
    assert!(matches!(it.next_for(client), Some((Message::Accepted(_), _))));
    assert_eq!(it.expect_end(client, "b").0, Outcome::Cancelled);
    assert_eq!(ids(&it.expect_deliver(client, "a").trace.decode()), ["b"]);
}

#[test]
fn a_parent_of_another_identity_is_none() {
    let (mut it, client, worker) = fixture();
    let other = it.connect_as(Identity::new("other"));
    it.give(other, Message::Hello(Box::new(client_hello(None))));
    it.expect_ack(other);
    it.send_task(client, task("a"), 1_000);
    let a = it.expect_route(worker).attempt_id;
    it.send_task(other, child_of("a", "b"), 60_000);
    let b = it.expect_route(worker);
    assert_eq!(b.ttl_ms, 60_000);
    cancel_task(&mut it, client, "a");
    it.expect_cancel(worker, a);
    assert!(it.expect_deliver(client, "a").trace.decode().children.is_empty());
    it.result(worker, b.attempt_id);
    it.expect_deliver(other, "b");
}

#[test]
fn a_chain_is_as_deep_as_the_protocol_allows_whatever_its_tasks_say() {
    let (mut it, client, worker) = fixture();
    it.send(client, "t0");
    it.expect_route(worker);
    for level in 1..=limits::MAX_DEPTH {
        // They all say 0.
        it.send_task(client, child_of(&format!("t{}", level - 1), &format!("t{level}")), 1_000);
        it.expect_route(worker);
    }
    it.send_task(client, child_of("t16", "t17"), 1_000);
    let refused = (Outcome::Rejected, Executed::No, Some(ErrorCode::InvalidTask));
    assert_eq!(it.expect_end(client, "t17"), refused);
    cancel_task(&mut it, client, "t0");
    for _ in 0..=limits::MAX_DEPTH {
        assert_eq!(cancel(&mut it, worker), CancelReason::Client);
    }
    for level in (1..=limits::MAX_DEPTH).rev() {
        it.expect_deliver(client, &format!("t{level}"));
    }
    let end = it.expect_deliver(client, "t0");
    assert_eq!(ids(&end.trace.decode()).len(), usize::from(limits::MAX_DEPTH));
    assert!(!end.trace.decode().truncated);
}

#[test]
fn a_family_is_bounded() {
    let mut it = Fixture::with(|config| config.max_family = 3);
    let (client, worker) = (it.client(), it.worker("w", 10));
    it.send(client, "a");
    it.expect_route(worker);
    let mut attempts = Vec::new();
    for (parent, id) in [("a", "b"), ("b", "c"), ("b", "d")] {
        it.send_task(client, child_of(parent, id), 1_000);
        attempts.push(it.expect_route(worker).attempt_id);
    }
    for parent in ["a", "b", "c"] {
        it.send_task(client, child_of(parent, "e"), 1_000);
        let refused = (Outcome::Rejected, Executed::No, Some(ErrorCode::LimitExceeded));
        assert_eq!(it.expect_end(client, "e"), refused);
    }
    // One that ends makes room.
    it.result(worker, attempts[1]);
    it.expect_deliver(client, "c");
    it.send_task(client, child_of("d", "e"), 1_000);
    it.expect_route(worker);
    it.send_task(client, child_of("d", "f"), 1_000);
    assert_eq!(it.expect_end(client, "f").0, Outcome::Rejected);
    it.discard();
}

#[test]
fn traces_of_children_are_bounded_and_the_newest_are_kept() {
    let (mut it, client, worker) = fixture();
    it.send(client, "a");
    let a = it.expect_route(worker).attempt_id;
    for index in 0..100 {
        let id = format!("c{index}");
        it.send_task(client, child_of("a", &id), 1_000);
        let attempt = it.expect_route(worker).attempt_id;
        it.advance(1);
        it.result(worker, attempt);
        it.expect_deliver(client, &id);
    }
    it.result(worker, a);
    let end = it.expect_deliver(client, "a");
    let trace = end.trace.decode();
    assert!(trace.truncated);
    assert_eq!(trace.hops.len(), 1);
    let kept = ids(&trace);
    assert_eq!(kept.len(), limits::MAX_HOPS);
    assert!(trace.children[0].trace.hops.is_empty() && trace.children[0].trace.truncated);
    assert_eq!(kept.last().unwrap(), "c99");
    assert_eq!(trace.children.last().unwrap().sent_us, 99_000);
    assert_eq!(trace.children.last().unwrap().trace.total_us, 1_000);
}

#[test]
fn a_task_can_end_with_its_clients_connection() {
    for how in [Disconnect::Broken, Disconnect::Orderly] {
        let (mut it, client, worker) = fixture();
        it.send_task(client, Task { cancel_on_disconnect: true, ..task("a") }, 1_000);
        let a = it.expect_route(worker).attempt_id;
        it.send_task(client, child_of("a", "b"), 1_000);
        let b = it.expect_route(worker).attempt_id;
        it.send(client, "stays");
        it.expect_route(worker);
        it.disconnect(client, how);
        for attempt in [a, b] {
            assert_eq!(it.expect_cancel(worker, attempt), CancelReason::Client);
        }
        it.expect_nothing();
        // Its outcome is kept for whoever asks.
        let client = it.client();
        it.give(client, Message::Fetch(task_id("a")));
        let end = it.expect_deliver(client, "a");
        assert_eq!((end.outcome, end.executed), (Outcome::Cancelled, Executed::Maybe));
        assert!(end.error.unwrap().message.contains("connection"));
    }
}

#[test]
fn while_another_session_watches_a_task_it_goes_on() {
    let (mut it, one, worker) = fixture();
    let two = it.client();
    it.send_task(one, Task { cancel_on_disconnect: true, ..task("a") }, 60_000);
    let a = it.expect_route(worker).attempt_id;
    it.give(two, Message::Fetch(task_id("a")));
    assert_eq!(it.expect_status(two, "a"), TaskState::Running);
    it.disconnect(one, Disconnect::Broken);
    it.expect_nothing();
    it.disconnect(two, Disconnect::Broken);
    assert_eq!(it.expect_cancel(worker, a), CancelReason::Client);
}

#[test]
fn when_the_last_that_watches_a_task_leaves_it_ends() {
    let (mut it, _, worker) = fixture();
    let (one, _) = it.client_of(Some("one"));
    let two = it.client();
    it.send_task(one, Task { cancel_on_disconnect: true, ..task("a") }, 60_000);
    let a = it.expect_route(worker).attempt_id;
    it.give(two, Message::Fetch(task_id("a")));
    it.expect_status(two, "a");
    it.disconnect(one, Disconnect::Broken);
    cancel_task(&mut it, two, "a");
    assert_eq!(it.expect_end(two, "a").0, Outcome::Cancelled);
    it.expect_cancel(worker, a);
    let (one, _) = it.client_of(Some("one"));
    assert_eq!(it.expect_end(one, "a").0, Outcome::Cancelled);
}

#[test]
fn a_parked_attempt_is_not_charged() {
    let mut it = Fixture::new();
    let (client, worker) = (it.client(), it.worker("w", 1));
    it.send(client, "a");
    let a = it.expect_route(worker).attempt_id;
    it.send_task(client, child_of("a", "b"), 1_000);
    it.expect_nothing();
    it.park(worker, a, true);
    let b = it.expect_route(worker).attempt_id;
    assert_eq!(it.in_flight("w"), 1);
    // It goes on: over its slots for a while, and nothing more is routed before it is below.
    it.park(worker, a, false);
    it.park(worker, a, false);
    assert_eq!(it.in_flight("w"), 2);
    it.send(client, "c");
    it.result(worker, b);
    it.expect_deliver(client, "b");
    it.expect_nothing();
    it.result(worker, a);
    let end = it.expect_deliver(client, "a");
    assert_eq!(ids(&end.trace.decode()), ["b"]);
    let c = it.expect_route(worker).attempt_id;
    it.result(worker, c);
    it.expect_deliver(client, "c");
    assert_eq!(it.in_flight("w"), 0);
}

#[test]
fn an_attempt_that_ends_parked_leaves_nothing_behind() {
    let mut it = Fixture::new();
    let (client, worker) = (it.client(), it.worker("w", 1));
    for id in ["a", "b", "c"] {
        it.send(client, id);
        let attempt = it.expect_route(worker).attempt_id;
        it.park(worker, attempt, true);
        it.park(worker, attempt, true);
        match id {
            "a" => it.result(worker, attempt),
            "b" => {
                cancel_task(&mut it, client, "b");
                it.expect_cancel(worker, attempt);
                it.give(worker, Message::Result(cancelled_result(attempt)));
            }
            _ => {
                it.give(worker, report(3, &[], Readiness::Ready));
                it.expect_pong(worker);
            }
        }
        it.expect_deliver(client, id);
        assert_eq!((it.in_flight("w"), it.parked("w")), (0, 0));
    }
}

#[test]
fn what_a_worker_does_not_hold_it_can_not_park() {
    let (mut it, client, worker) = fixture();
    let elsewhere = vec![ActionName::try_from("other").unwrap()];
    let (thief, _) = it.worker_of(WorkerHello { actions: elsewhere, ..worker_hello("thief", 1) });
    it.send(client, "a");
    let a = it.expect_route(worker).attempt_id;
    it.park(thief, a, true);
    assert_eq!(it.expect_error(thief).code, ErrorCode::UnknownAttempt);
    it.result(worker, a);
    it.expect_deliver(client, "a");
    it.park(worker, a, true);
    assert_eq!(it.expect_error(worker).code, ErrorCode::UnknownAttempt);
    assert_eq!((it.in_flight("w"), it.parked("w")), (0, 0));
}

#[test]
fn a_worker_that_comes_back_says_again_what_is_parked() {
    let mut it = Fixture::new();
    let (client, worker) = (it.client(), it.worker("w", 1));
    it.send(client, "a");
    let a = it.expect_route(worker).attempt_id;
    it.park(worker, a, true);
    it.disconnect(worker, Disconnect::Broken);
    let mut hello = worker_hello("w", 1);
    hello.held = vec![a];
    let worker = it.connect();
    it.give(worker, hello_of(hello));
    assert_eq!(it.expect_ack(worker).keep, [a]);
    assert_eq!((it.in_flight("w"), it.parked("w")), (1, 0));
    it.send(client, "b");
    it.expect_nothing();
    it.park(worker, a, true);
    it.expect_route(worker);
    it.discard();
}

#[test]
fn a_silent_worker_that_is_heard_again_has_parked_what_it_had() {
    let mut it = Fixture::new();
    let (client, worker) = (it.client(), it.worker("w", 1));
    it.send(client, "a");
    let a = it.expect_route(worker).attempt_id;
    it.park(worker, a, true);
    it.advance(3_000);
    it.expect_ping(worker);
    assert!(it.online().is_empty());
    it.send(client, "b");
    it.give(worker, Message::Pong(0));
    it.expect_route(worker);
    assert_eq!((it.in_flight("w"), it.parked("w")), (1, 1));
    it.discard();
}

/// A client and a worker on one connection, which sends a task to itself.
fn both_in_one() -> (Fixture, ConnectionId, AttemptId) {
    let mut it = Fixture::new();
    let both = it.connect();
    it.give(both, both_hello(Vec::new()));
    it.expect_ack(both);
    it.send_task(both, Task { cancel_on_disconnect: true, ..task("t") }, 60_000);
    let attempt = it.expect_route(both).attempt_id;
    (it, both, attempt)
}

fn both_hello(held: Vec<AttemptId>) -> Message {
    let worker = Some(WorkerHello { held, ..worker_hello("w", 1) });
    Message::Hello(Box::new(Hello { worker, ..client_hello(Some("s")) }))
}

#[test]
fn a_connection_that_is_resumed_in_both_roles_cancels_nothing() {
    let (mut it, old, attempt) = both_in_one();
    let new = it.connect();
    it.give(new, both_hello(vec![attempt]));
    it.expect_goaway(old);
    it.expect_close(old);
    let ack = it.expect_ack(new);
    assert!(ack.resumed);
    assert_eq!(ack.keep, [attempt]);
    it.result(new, attempt);
    assert_eq!(it.expect_end(new, "t").0, Outcome::Ok);
}

#[test]
fn nothing_is_sent_to_a_worker_that_comes_back_before_its_ack() {
    let (mut it, old, attempt) = both_in_one();
    // As a worker only: its session is detached, and the task with it cancelled.
    let new = it.connect();
    it.give(new, hello_of(WorkerHello { held: vec![attempt], ..worker_hello("w", 1) }));
    it.expect_goaway(old);
    it.expect_close(old);
    assert!(it.expect_ack(new).keep.is_empty());
    it.expect_nothing();
}
