//! Another attempt: after a failure, after silence, after a worker put a task off.

use mcp_broker::broker::{ConnectionId, Disconnect};
use mcp_proto::{
    AttemptId, Cancel, CancelReason, Deliver, Delivery, ErrorCode, Executed, HopEvent, Message,
    Outcome, Progress, Retry, Route, Subject, Task, TaskResult, TaskState, WorkerHello,
};

use crate::fixture::{
    Fixture, cancelled_result, failed_result, hello_of, idempotent, ok_result, task, task_id,
    worker_hello,
};

/// Waits of 100 ms, 200 ms, 400 ms, …
fn retry(max_attempts: u32) -> Option<Retry> {
    Some(Retry { max_attempts, ..Retry::default() })
}

fn retried(id: &str, max_attempts: u32) -> Task {
    Task { retry: retry(max_attempts), ..idempotent(id) }
}

fn timed(task: Task, attempt_timeout_ms: u32) -> Task {
    Task { attempt_timeout_ms, ..task }
}

fn progress(id: AttemptId) -> Message {
    let of = Subject::Attempt(id);
    Message::Progress(Progress { of, permille: None, message: Default::default() })
}

fn fetch(it: &mut Fixture, client: ConnectionId, id: &str) -> TaskState {
    it.give(client, Message::Fetch(task_id(id)));
    it.expect_status(client, id)
}

fn cancel(it: &mut Fixture, client: ConnectionId, id: &str) {
    it.give(client, Message::Cancel(Cancel::Task(task_id(id))));
}

fn reasons(deliver: &Deliver) -> Vec<String> {
    deliver.trace.decode().hops.iter().map(|hop| hop.reason.to_string()).collect()
}

fn last_reason(deliver: &Deliver) -> String {
    deliver.trace.decode().hops.last().map(|hop| hop.reason.to_string()).unwrap_or_default()
}

/// The worker of the two that got the task, the other one, and the ROUTE.
fn routed_of(
    it: &mut Fixture,
    (a, b): (ConnectionId, ConnectionId),
) -> (ConnectionId, ConnectionId, Route) {
    let (to, other) = match it.next_for(a) {
        Some((Message::Route(route), _)) => return (a, b, route),
        Some((other, _)) => panic!("{other:?}"),
        None => (b, a),
    };
    let route = it.expect_route(to);
    (to, other, route)
}

#[test]
fn a_task_that_failed_is_tried_again_after_waits_that_grow() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send_task(client, retried("t", 3), 60_000);
    for (attempt, wait_ms) in [(1, 100), (2, 200)] {
        let route = it.expect_route(worker);
        assert_eq!(route.attempt, attempt);
        it.advance(5);
        it.fail(worker, route.attempt_id);
        assert_eq!(fetch(&mut it, client, "t"), TaskState::Queued);
        let stats = it.core.stats();
        assert_eq!((stats.delayed, stats.queued, stats.running, stats.in_flight), (1, 0, 0, 0));
        it.advance(wait_ms - 1);
        it.expect_nothing();
        it.advance(1);
    }
    let route = it.expect_route(worker);
    it.fail(worker, route.attempt_id);
    let deliver = it.expect_deliver(client, "t");
    assert_eq!((deliver.outcome, deliver.executed), (Outcome::Failed, Executed::Yes));
    assert_eq!(
        reasons(&deliver),
        ["failed; tried again", "failed; tried again", "failed; no attempt is left"]
    );
    let waited: Vec<_> = deliver.trace.decode().hops.iter().map(|hop| hop.queue_us).collect();
    assert_eq!(waited, [0, 100_000, 200_000]);
    assert_eq!(deliver.trace.decode().total_us, 310_000);
    let stats = it.core.stats();
    assert_eq!((stats.retried, stats.retries_refused, stats.delayed), (2, 0, 0));
}

#[test]
fn a_task_that_is_tried_again_ends_as_its_last_attempt_does() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send_task(client, retried("t", 3), 60_000);
    let route = it.expect_route(worker);
    it.fail(worker, route.attempt_id);
    it.advance(100);
    let route = it.expect_route(worker);
    it.result(worker, route.attempt_id);
    let deliver = it.expect_deliver(client, "t");
    assert_eq!(deliver.outcome, Outcome::Ok);
    assert_eq!(reasons(&deliver), ["failed; tried again", ""]);
}

#[test]
fn it_goes_to_another_worker_if_there_is_one() {
    let mut it = Fixture::new();
    let client = it.client();
    let both = (it.worker("a", 1), it.worker("b", 1));
    it.send_task(client, retried("t", 2), 60_000);
    let (first, second, route) = routed_of(&mut it, both);
    it.fail(first, route.attempt_id);
    it.advance(100);
    let route = it.expect_route(second);
    it.result(second, route.attempt_id);
    it.expect_end(client, "t");
}

#[test]
fn it_goes_to_the_same_worker_rather_than_waiting_for_another() {
    let mut it = Fixture::new();
    let client = it.client();
    let both = (it.worker("a", 1), it.worker("b", 1));
    it.send_task(client, retried("t", 2), 60_000);
    let (first, second, route) = routed_of(&mut it, both);
    it.send(client, "long");
    it.expect_route(second);
    it.fail(first, route.attempt_id);
    it.send(client, "between");
    let route = it.expect_route(first);
    it.advance(100);
    it.expect_nothing();
    it.result(first, route.attempt_id);
    it.expect_end(client, "between");
    assert_eq!(it.expect_route(first).attempt, 2);
}

#[test]
fn a_failure_stands_when_it_is_permanent_or_the_task_may_not_run_twice() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send_task(client, retried("permanent", 3), 60_000);
    let route = it.expect_route(worker);
    let result = TaskResult { permanent: true, ..failed_result(route.attempt_id) };
    it.give(worker, Message::Result(result));
    let deliver = it.expect_deliver(client, "permanent");
    assert_eq!(reasons(&deliver), ["failed for good"]);

    it.send_task(client, Task { retry: retry(3), ..task("once") }, 60_000);
    let route = it.expect_route(worker);
    it.fail(worker, route.attempt_id);
    let deliver = it.expect_deliver(client, "once");
    assert_eq!(reasons(&deliver), ["failed; it may not run twice"]);

    // And a task that asked for nothing is not spoken of.
    it.send_task(client, idempotent("plain"), 60_000);
    let route = it.expect_route(worker);
    it.fail(worker, route.attempt_id);
    assert_eq!(reasons(&it.expect_deliver(client, "plain")), [""]);
    assert_eq!(it.core.stats().retried, 0);
}

#[test]
fn what_did_not_begin_is_tried_again_though_it_may_not_run_twice() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send_task(client, Task { retry: retry(2), ..task("t") }, 60_000);
    for _ in 0..2 {
        let route = it.expect_route(worker);
        let result = TaskResult { executed: Executed::No, ..failed_result(route.attempt_id) };
        it.give(worker, Message::Result(result));
        it.advance(100);
    }
    let end = it.expect_end(client, "t");
    assert_eq!(end, (Outcome::Failed, Executed::No, Some(ErrorCode::HandlerFailed)));
}

#[test]
fn what_ran_before_is_not_said_to_be_not_executed() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send_task(client, retried("t", 2), 60_000);
    let route = it.expect_route(worker);
    it.fail(worker, route.attempt_id);
    it.advance(100);
    let route = it.expect_route(worker);
    let result = TaskResult { executed: Executed::No, ..failed_result(route.attempt_id) };
    it.give(worker, Message::Result(result));
    assert_eq!(it.expect_end(client, "t").1, Executed::Maybe);
}

#[test]
fn a_wait_that_would_not_end_before_the_deadline_is_none() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send_task(client, retried("t", 3), 100);
    let route = it.expect_route(worker);
    it.fail(worker, route.attempt_id);
    let deliver = it.expect_deliver(client, "t");
    assert_eq!(deliver.outcome, Outcome::Failed);
    assert_eq!(last_reason(&deliver), "failed; its time to live ends before another attempt");
}

#[test]
fn retries_are_no_more_than_their_budget() {
    let mut it = Fixture::with(|config| config.retry_budget_percent = 50);
    let client = it.client();
    let worker = it.worker("w", 1);
    let mut refused = Vec::new();
    for number in 0..30 {
        let id = format!("t{number}");
        it.send_task(client, retried(&id, 2), 60_000);
        let route = it.expect_route(worker);
        it.fail(worker, route.attempt_id);
        if let Some((Message::Deliver(deliver), _)) = it.next_for(client) {
            assert_eq!(deliver.outcome, Outcome::Failed);
            refused.push(last_reason(&deliver));
        }
    }
    // Ten of the reserve, and one for every two tasks.
    assert_eq!(it.core.stats().retried, 10 + 15);
    assert_eq!(refused, ["failed; the retry budget is spent"; 5]);
    assert_eq!(it.core.stats().retries_refused, 5);
    it.discard();
}

#[test]
fn lost_workers_count_among_the_attempts() {
    let mut it = Fixture::new();
    let client = it.client();
    let first = it.worker("first", 1);
    it.send_task(client, retried("t", 2), 60_000);
    it.expect_route(first);
    let second = it.worker("second", 1);
    it.disconnect(first, Disconnect::Broken);
    let route = it.expect_route(second);
    it.worker("third", 1);
    // The last attempt is waited for, as for a task that may not run twice.
    it.disconnect(second, Disconnect::Broken);
    it.expect_nothing();
    let hello = WorkerHello { held: vec![route.attempt_id], ..worker_hello("second", 1) };
    let (second, ack) = it.worker_of(hello);
    assert_eq!(ack.keep, [route.attempt_id]);
    it.disconnect(second, Disconnect::Orderly);
    let deliver = it.expect_deliver(client, "t");
    assert_eq!(deliver.error.unwrap().code, ErrorCode::WorkerLost);
    let last = deliver.trace.decode().hops.last().unwrap().clone();
    assert_eq!((last.event, &*last.reason), (HopEvent::WorkerLost, "worker lost"));
}

#[test]
fn while_it_waits_for_its_time_it_can_be_cancelled_joined_and_shut_down() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 4);
    for id in ["cancelled", "shut-down"] {
        it.send_task(client, retried(id, 3), 60_000);
        let route = it.expect_route(worker);
        it.fail(worker, route.attempt_id);
    }
    it.send(client, "put-off");
    let route = it.expect_route(worker);
    it.put_off(worker, route.attempt_id, 1_000);
    assert_eq!(it.core.stats().delayed, 3);
    let other = it.client();
    it.send_task(other, retried("cancelled", 3), 60_000);
    assert_eq!((it.core.stats().joined, it.core.stats().duplicates), (1, 1));
    cancel(&mut it, other, "cancelled");
    it.expect_end(other, "cancelled");
    cancel(&mut it, client, "cancelled");
    let end = it.expect_end(client, "cancelled");
    assert_eq!(end, (Outcome::Cancelled, Executed::Maybe, Some(ErrorCode::Cancelled)));
    it.core.begin_shutdown(it.now, 1_000);
    let code = Some(ErrorCode::ShuttingDown);
    it.collect();
    it.expect_goaway(client);
    assert_eq!(it.expect_end(client, "shut-down"), (Outcome::Failed, Executed::Maybe, code));
    assert_eq!(it.expect_end(client, "put-off"), (Outcome::Rejected, Executed::No, code));
    assert!(it.core.is_drained());
    assert_eq!(it.core.stats().delayed, 0);
    it.discard();
}

#[test]
fn a_failure_during_shutdown_stands() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send_task(client, retried("t", 3), 60_000);
    let route = it.expect_route(worker);
    it.core.begin_shutdown(it.now, 1_000);
    it.collect();
    it.expect_goaway(client);
    it.fail(worker, route.attempt_id);
    let deliver = it.expect_deliver(client, "t");
    assert_eq!(deliver.error.as_ref().unwrap().code, ErrorCode::HandlerFailed);
    assert_eq!(last_reason(&deliver), "failed; the broker is shutting down");
    it.discard();
}

#[test]
fn a_durable_task_is_tried_again() {
    let mut it = Fixture::with(|config| config.is_durable = true);
    let client = it.client();
    let worker = it.worker("w", 1);
    let durable = Task { delivery: Delivery::Durable, retry: retry(2), ..task("t") };
    it.send_task(client, durable, 60_000);
    it.core.journal_synced(it.now, 1);
    it.collect();
    assert!(matches!(it.next_for(client), Some((Message::Accepted(_), _))));
    let route = it.expect_route(worker);
    it.fail(worker, route.attempt_id);
    it.advance(100);
    let route = it.expect_route(worker);
    it.result(worker, route.attempt_id);
    it.core.journal_synced(it.now, 2);
    it.collect();
    assert_eq!(it.expect_end(client, "t").0, Outcome::Ok);
}

#[test]
fn a_silent_attempt_ends_and_its_late_result_is_fenced_off() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send_task(client, timed(task("t"), 200), 60_000);
    let route = it.expect_route(worker);
    it.advance(199);
    it.expect_nothing();
    it.advance(1);
    assert_eq!(it.expect_cancel(worker, route.attempt_id), CancelReason::Superseded);
    let deliver = it.expect_deliver(client, "t");
    assert_eq!((deliver.outcome, deliver.executed), (Outcome::Failed, Executed::Maybe));
    assert_eq!(deliver.error.as_ref().unwrap().code, ErrorCode::AttemptTimeout);
    assert_eq!(deliver.trace.decode().hops[0].event, HopEvent::TimedOut);
    assert_eq!(reasons(&deliver), ["no sign of life; it may not run twice"]);
    // Its slot is taken until the worker says that it is free.
    assert_eq!(it.in_flight("w"), 1);
    it.result(worker, route.attempt_id);
    assert_eq!(it.in_flight("w"), 0);
    let stats = it.core.stats();
    assert_eq!((stats.timed_out, stats.late_results, stats.failed), (1, 1, 1));
}

#[test]
fn signs_of_life_put_the_time_out_off() {
    let mut it = Fixture::new();
    let client = it.client();
    let (worker, other) = (it.worker("w", 1), it.client());
    it.send_task(client, timed(task("t"), 200), 60_000);
    let route = it.expect_route(worker);
    it.advance(150);
    it.give(worker, Message::Started(route.attempt_id));
    it.advance(150);
    it.give(worker, progress(route.attempt_id));
    it.advance(199);
    while let Some((Message::Ping(ping), _)) = it.next_for(worker) {
        it.give(worker, Message::Pong(ping.seq));
    }
    it.expect_nothing();
    // Nobody else speaks for it, nor is anybody told off for trying.
    let (thief, _) = it.worker_of(WorkerHello {
        actions: vec!["other".try_into().unwrap()],
        ..worker_hello("thief", 1)
    });
    it.give(thief, progress(route.attempt_id));
    it.give(worker, progress(AttemptId(77)));
    it.advance(1);
    it.expect_cancel(worker, route.attempt_id);
    assert_eq!(it.expect_end(client, "t").2, Some(ErrorCode::AttemptTimeout));
    it.give(worker, progress(route.attempt_id));
    it.give(worker, Message::Result(cancelled_result(route.attempt_id)));
    let _ = other;
}

#[test]
fn a_silent_attempt_at_a_task_that_may_run_twice_is_followed_by_another() {
    let mut it = Fixture::new();
    let client = it.client();
    let both = (it.worker("a", 1), it.worker("b", 1));
    // Without `retry` at once, with it after its wait.
    for (id, retry, wait_ms) in [("plain", None, 0), ("retried", retry(2), 100)] {
        it.send_task(client, timed(Task { retry, ..idempotent(id) }, 200), 60_000);
        let (silent, other, first) = routed_of(&mut it, both);
        it.advance(200);
        assert_eq!(it.expect_cancel(silent, first.attempt_id), CancelReason::Superseded);
        it.advance(wait_ms);
        let second = it.expect_route(other);
        assert_eq!(second.attempt, 2);
        // The fence: the first one's result comes too late, even if it is the first to come.
        it.result(silent, first.attempt_id);
        it.expect_nothing();
        it.result(other, second.attempt_id);
        let deliver = it.expect_deliver(client, id);
        assert_eq!(deliver.outcome, Outcome::Ok);
        assert_eq!(reasons(&deliver), ["no sign of life; tried again", ""]);
    }
    assert_eq!((it.core.stats().timed_out, it.core.stats().late_results), (2, 2));
}

#[test]
fn silence_is_bounded_by_attempts_budget_and_deadline() {
    let mut it = Fixture::with(|config| config.retry_budget_percent = 0);
    let client = it.client();
    let worker = it.worker("w", 1);
    let mut ends = Vec::new();
    for (id, max_attempts, ttl_ms) in [("attempts", 2, 60_000), ("deadline", 2, 45)] {
        it.send_task(client, timed(retried(id, max_attempts), 20), ttl_ms);
        while let Some((message, _)) = it.next_for(worker) {
            match message {
                Message::Route(route) => {
                    it.advance(20);
                    it.expect_cancel(worker, route.attempt_id);
                    it.give(worker, Message::Result(cancelled_result(route.attempt_id)));
                    it.advance(100);
                }
                other => panic!("{other:?}"),
            }
        }
        let deliver = it.expect_deliver(client, id);
        assert_eq!(deliver.error.as_ref().unwrap().code, ErrorCode::AttemptTimeout);
        ends.push((deliver.trace.decode().hops.len(), last_reason(&deliver)));
    }
    // Without a `retry` only the budget ends it.
    it.send_task(client, timed(idempotent("budget"), 1), 60_000);
    while let Some((Message::Route(route), _)) = it.next_for(worker) {
        it.advance(1);
        it.expect_cancel(worker, route.attempt_id);
        it.give(worker, Message::Result(cancelled_result(route.attempt_id)));
    }
    let deliver = it.expect_deliver(client, "budget");
    ends.push((deliver.trace.decode().hops.len(), last_reason(&deliver)));
    let ends: Vec<_> = ends.iter().map(|(hops, reason)| (*hops, reason.as_str())).collect();
    assert_eq!(
        ends,
        [
            (2, "no sign of life; no attempt is left"),
            (1, "no sign of life; its time to live ends before another attempt"),
            (10, "no sign of life; the retry budget is spent"),
        ]
    );
}

#[test]
fn the_deadline_comes_before_a_later_time_out() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send_task(client, timed(task("t"), 300), 200);
    let route = it.expect_route(worker);
    it.advance(200);
    assert_eq!(it.expect_cancel(worker, route.attempt_id), CancelReason::Expired);
    assert_eq!(it.expect_end(client, "t").0, Outcome::Expired);
    it.give(worker, Message::Result(cancelled_result(route.attempt_id)));
}

#[test]
fn an_attempt_at_a_lost_worker_times_out_all_the_same() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send_task(client, timed(task("t"), 200), 60_000);
    let route = it.expect_route(worker);
    it.disconnect(worker, Disconnect::Broken);
    it.advance(200);
    assert_eq!(it.expect_end(client, "t").2, Some(ErrorCode::AttemptTimeout));
    let hello = WorkerHello { held: vec![route.attempt_id], ..worker_hello("w", 1) };
    let (_, ack) = it.worker_of(hello);
    assert!(ack.keep.is_empty());
}

#[test]
fn a_task_that_is_put_off_is_shown_to_each_worker_once_and_then_waits() {
    let mut it = Fixture::new();
    let client = it.client();
    let both = (it.worker("a", 1), it.worker("b", 1));
    it.send(client, "t");
    let (first, second, route) = routed_of(&mut it, both);
    it.put_off(first, route.attempt_id, 300);
    let route = it.expect_route(second);
    it.put_off(second, route.attempt_id, 200);
    assert_eq!(fetch(&mut it, client, "t"), TaskState::Queued);
    it.advance(199);
    it.expect_nothing();
    it.advance(1);
    // The one that has been left alone for longer.
    let route = it.expect_route(first);
    assert_eq!(route.attempt, 3);
    it.result(first, route.attempt_id);
    let deliver = it.expect_deliver(client, "t");
    assert_eq!((deliver.outcome, deliver.executed), (Outcome::Ok, Executed::Yes));
    let stats = it.core.stats();
    assert_eq!((stats.put_off, stats.nacked, stats.retried, stats.delayed), (2, 2, 0, 0));
}

#[test]
fn being_put_off_is_no_failure_however_often() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send_task(client, Task { retry: retry(1), ..task("t") }, 600_000);
    for _ in 0..200 {
        let route = it.expect_route(worker);
        it.put_off(worker, route.attempt_id, 1);
        it.advance(10);
    }
    let route = it.expect_route(worker);
    assert_eq!(route.attempt, 201);
    it.result(worker, route.attempt_id);
    let deliver = it.expect_deliver(client, "t");
    assert_eq!(deliver.outcome, Outcome::Ok);
    // The trace stays bounded, and says so.
    assert_eq!((deliver.trace.decode().hops.len(), deliver.trace.decode().truncated), (64, true));
    assert_eq!(deliver.trace.decode().hops.last().unwrap().attempt, 201);
}

#[test]
fn a_task_is_put_off_for_a_minute_at_most_and_until_its_deadline() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 2);
    it.send_task(client, task("short"), 1_000);
    it.send_task(client, task("long"), 600_000);
    for _ in 0..2 {
        let route = it.expect_route(worker);
        it.put_off(worker, route.attempt_id, u64::MAX);
    }
    it.advance(1_000);
    let end = it.expect_end(client, "short");
    assert_eq!(end, (Outcome::Expired, Executed::No, Some(ErrorCode::Expired)));
    let (worker, _) = it.worker_of(worker_hello("w", 2));
    it.discard();
    for _ in 0..4 {
        it.advance(14_700);
        it.give(worker, Message::Pong(0));
        it.expect_nothing();
    }
    it.advance(200);
    let route = it.expect_route(worker);
    it.result(worker, route.attempt_id);
    it.expect_end(client, "long");
}

#[test]
fn what_waits_for_its_time_is_bounded_as_a_queue_is() {
    let mut it = Fixture::with(|config| config.max_queue_tasks = 1);
    let client = it.client();
    let worker = it.worker("w", 2);
    it.send_task(client, retried("a", 2), 60_000);
    it.send_task(client, retried("b", 2), 60_000);
    for _ in 0..2 {
        let route = it.expect_route(worker);
        it.fail(worker, route.attempt_id);
    }
    let deliver = it.expect_deliver(client, "b");
    assert_eq!(last_reason(&deliver), "failed; too many tasks wait for another attempt");
    // One that is put off then counts as handed back.
    it.send(client, "c");
    for _ in 0..8 {
        let route = it.expect_route(worker);
        it.put_off(worker, route.attempt_id, 1_000);
    }
    assert_eq!(
        it.expect_end(client, "c"),
        (Outcome::Rejected, Executed::No, Some(ErrorCode::AllBusy))
    );
    it.advance(100);
    it.expect_route(worker);
    it.discard();
}

#[test]
fn what_is_given_up_unstarted_counts_as_handed_back() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send(client, "t");
    for _ in 0..8 {
        let route = it.expect_route(worker);
        let executed = Executed::No;
        let result = TaskResult { executed, ..cancelled_result(route.attempt_id) };
        it.give(worker, Message::Result(result));
    }
    let end = it.expect_end(client, "t");
    assert_eq!((end.0, end.1), (Outcome::Rejected, Executed::No));
}

#[test]
fn an_attempt_that_is_given_up_counts_among_the_attempts() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send_task(client, retried("t", 2), 60_000);
    for attempt in 1..=2 {
        let route = it.expect_route(worker);
        assert_eq!(route.attempt, attempt);
        it.give(worker, Message::Result(cancelled_result(route.attempt_id)));
    }
    assert_eq!(it.expect_end(client, "t").0, Outcome::Failed);
}

#[test]
fn a_result_over_the_limit_would_be_so_again() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send_task(client, retried("t", 3), 60_000);
    let route = it.expect_route(worker);
    let message = Message::Result(ok_result(route.attempt_id));
    it.give_incoming(worker, mcp_proto::Incoming::BodyTooLarge { message, body_bytes: 70_000 });
    let end = it.expect_end(client, "t");
    assert_eq!(end, (Outcome::Failed, Executed::Yes, Some(ErrorCode::BodyTooLarge)));
}

#[test]
fn delayed_tasks_outlive_the_workers_of_their_action() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send_task(client, retried("t", 2), 60_000);
    let route = it.expect_route(worker);
    it.fail(worker, route.attempt_id);
    it.disconnect(worker, Disconnect::Orderly);
    it.advance(1_000);
    assert_eq!((it.core.stats().delayed, it.core.stats().queued), (0, 1));
    let work = it.core.metrics(it.now).actions;
    assert_eq!(work.iter().map(|it| (it.delayed, it.queued)).collect::<Vec<_>>(), [(0, 0), (0, 1)]);
    let again = it.connect();
    it.give(again, hello_of(worker_hello("w", 1)));
    it.expect_ack(again);
    let route = it.expect_route(again);
    it.result(again, route.attempt_id);
    it.expect_end(client, "t");
}
