//! Durable tasks: nothing is acknowledged before it is on disk, and nothing acknowledged is lost.

mod dead_letters;
mod kept;
mod restarts;

use mcp_broker::broker::{ConnectionId, CoreConfig, Disconnect, Record};
use mcp_proto::{Cancel, Delivery, ErrorCode, Executed, Message, Outcome, Task};

use crate::fixture::{Fixture, task, task_id};

fn durable(id: &str) -> Task {
    Task { delivery: Delivery::Durable, ..task(id) }
}

fn with(change: impl FnOnce(&mut CoreConfig)) -> Fixture {
    Fixture::with(|config| {
        config.is_durable = true;
        change(config);
    })
}

/// All that was emitted is on disk.
fn sync(it: &mut Fixture) {
    let last = it.records.last().map_or(0, |(seq, _)| *seq);
    it.core.journal_synced(it.now, last);
    it.collect();
}

fn expect_accepted(it: &mut Fixture, client: ConnectionId, id: &str) {
    match it.next_for(client) {
        Some((Message::Accepted(accepted), _)) => assert_eq!(accepted.as_str(), id),
        other => panic!("{other:?}"),
    }
}

/// Sends a task, has it done, and gets its outcome.
fn done(it: &mut Fixture, client: ConnectionId, worker: ConnectionId, id: &str) {
    it.send_task(client, durable(id), 60_000);
    let route = it.expect_route(worker);
    sync(it);
    expect_accepted(it, client, id);
    it.result(worker, route.attempt_id);
    sync(it);
    assert_eq!(it.expect_end(client, id).0, Outcome::Ok);
}

#[test]
fn accepted_and_deliver_wait_for_the_sync_and_route_does_not() {
    let mut it = with(|_| {});
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send_task(client, durable("t"), 60_000);
    let route = it.expect_route(worker);
    it.expect_nothing();
    assert!(matches!(it.records[0], (1, Record::Accepted(..))));
    sync(&mut it);
    expect_accepted(&mut it, client, "t");
    it.result(worker, route.attempt_id);
    it.expect_nothing();
    assert!(matches!(it.records[1], (2, Record::Ended(..))));
    sync(&mut it);
    assert_eq!(it.expect_end(client, "t").0, Outcome::Ok);
}

#[test]
fn a_durable_task_runs_again_when_its_worker_is_lost() {
    let mut it = with(|_| {});
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
    let mut it = with(|_| {});
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
    assert_eq!(it.expect_end(client, "waiting"), maybe);
    it.send_task(client, durable("late"), 60_000);
    assert_eq!(it.expect_end(client, "late").2, unavailable);
    it.result(worker, route.attempt_id);
    it.send(client, "fast");
    let route = it.expect_route(worker);
    it.result(worker, route.attempt_id);
    assert_eq!(it.expect_end(client, "fast").0, Outcome::Ok);
}

/// A task that was accepted and waits for a worker when the journal fails.
fn waiting_without_journal(id: &str) -> (Fixture, ConnectionId) {
    let mut it = with(|_| {});
    let client = it.client();
    it.send_task(client, durable(id), 60_000);
    sync(&mut it);
    expect_accepted(&mut it, client, id);
    it.core.journal_failed(it.now, "no space left");
    it.collect();
    (it, client)
}

#[test]
fn what_ends_after_the_journal_failed_may_run_after_a_restart() {
    let (mut it, client) = waiting_without_journal("t");
    it.give(client, Message::Cancel(Cancel::Task(task_id("t"))));
    let cancelled = (Outcome::Cancelled, Executed::Maybe, Some(ErrorCode::Cancelled));
    assert_eq!(it.expect_end(client, "t"), cancelled);
}

#[test]
fn what_had_ended_when_the_journal_failed_may_run_after_a_restart() {
    let mut it = with(|_| {});
    let client = it.client();
    it.send_task(client, durable("t"), 60_000);
    sync(&mut it);
    expect_accepted(&mut it, client, "t");
    it.give(client, Message::Cancel(Cancel::Task(task_id("t"))));
    it.expect_nothing();
    it.core.journal_failed(it.now, "no space left");
    it.collect();
    let cancelled = (Outcome::Cancelled, Executed::Maybe, Some(ErrorCode::Cancelled));
    assert_eq!(it.expect_end(client, "t"), cancelled);
}

#[test]
fn a_broker_that_shuts_down_after_its_journal_failed_leaves_what_is_on_disk() {
    let (mut it, client) = waiting_without_journal("t");
    it.core.begin_shutdown(it.now, 1_000);
    it.collect();
    it.expect_goaway(client);
    it.expect_nothing();
    assert!(it.core.is_drained());
}

#[test]
fn who_joins_is_told_once_it_is_on_disk() {
    let mut it = with(|_| {});
    let (first, second, third) = (it.client(), it.client(), it.client());
    it.send_task(first, durable("t"), 60_000);
    it.send_task(second, durable("t"), 60_000);
    it.expect_nothing();
    sync(&mut it);
    expect_accepted(&mut it, first, "t");
    expect_accepted(&mut it, second, "t");
    it.send_task(third, durable("t"), 60_000);
    expect_accepted(&mut it, third, "t");
    // A client that has sent it before, and does not know.
    it.send_task(first, durable("t"), 60_000);
    expect_accepted(&mut it, first, "t");
    it.expect_nothing();
}

#[test]
fn it_waits_for_a_worker_as_long_as_it_lives() {
    let mut it = with(|config| config.rules.max_queue_wait_ms = 1_000);
    let client = it.client();
    it.send_task(client, durable("t"), 60_000);
    sync(&mut it);
    expect_accepted(&mut it, client, "t");
    it.advance(59_000);
    it.expect_nothing();
    it.advance(1_500);
    sync(&mut it);
    let expired = (Outcome::Expired, Executed::No, Some(ErrorCode::Expired));
    assert_eq!(it.expect_end(client, "t"), expired);
}

#[test]
fn one_that_everybody_hands_back_is_offered_again_as_long_as_it_lives() {
    let mut it = with(|config| config.max_nacks = 2);
    let (client, worker) = (it.client(), it.worker("w", 1));
    it.send_task(client, durable("t"), 3_000);
    sync(&mut it);
    for attempt in 1..=4 {
        let route = it.expect_route(worker);
        it.nack(worker, route.attempt_id);
        if attempt > 1 {
            it.advance(990);
            assert_eq!(it.core.stats().delayed, 1);
            it.advance(11);
        }
    }
    expect_accepted(&mut it, client, "t");
    it.expect_nothing();
    sync(&mut it);
    let expired = (Outcome::Expired, Executed::No, Some(ErrorCode::Expired));
    assert_eq!(it.expect_end(client, "t"), expired);
}

#[test]
fn a_delayed_task_is_routed_when_its_time_has_come() {
    let mut it = with(|_| {});
    let client = it.client();
    let worker = it.worker("w", 1);
    let send =
        mcp_proto::Send { delay_ms: 5_000, ..mcp_proto::Send::new(durable("t").encode(), 60_000) };
    it.give_body(client, Message::Send(send), "input");
    sync(&mut it);
    expect_accepted(&mut it, client, "t");
    it.advance(4_990);
    it.expect_nothing();
    it.advance(20);
    assert_eq!(it.expect_route(worker).attempt, 1);
}

#[test]
fn its_result_comes_whole() {
    let mut it = with(|_| {});
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send_in_parts(client, durable("t"), 60_000, 1_000);
    assert_eq!(it.expect_route(worker).stream_window_bytes, 0);
}
