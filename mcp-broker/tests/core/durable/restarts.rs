//! A broker that was started again, with what its journal had on disk.

use std::collections::HashMap;

use mcp_broker::broker::{CoreConfig, Now, Record, Restored, TaskName};
use mcp_proto::{Cancel, ErrorCode, Executed, Message, Outcome, TaskState};

use super::{done, durable, expect_accepted, sync, with};
use crate::fixture::{Fixture, task_id};

/// What counts of a journal's first records, in order.
fn kept(records: &[(u64, Record)]) -> Vec<Record> {
    let mut newest = HashMap::new();
    for (index, (_, record)) in records.iter().enumerate() {
        newest.insert(about(record), index);
    }
    let counts = |index: &usize, record: &Record| {
        let is_end = matches!(record, Record::Forgotten(_) | Record::DeadForgotten(_));
        newest[&about(record)] == *index && !is_end
    };
    let numbered = records.iter().map(|(_, record)| record).enumerate();
    numbered.filter(|(index, record)| counts(index, record)).map(|it| it.1.clone()).collect()
}

fn about(record: &Record) -> (bool, TaskName) {
    match record {
        Record::Accepted(name, _)
        | Record::Ended(name, _)
        | Record::Settled(name, _)
        | Record::Forgotten(name) => (false, name.clone()),
        Record::Dead(name, _) | Record::DeadForgotten(name) => (true, name.clone()),
    }
}

/// The broker was killed, `down_ms` ago, when so many records were on disk.
pub(super) fn restarted_with(
    before: &mut Fixture,
    on_disk: usize,
    down_ms: u64,
    change: impl FnOnce(&mut CoreConfig),
) -> (Fixture, Restored) {
    before.discard();
    let mut it = with(|config| {
        config.epoch = 8;
        change(config);
    });
    it.now = Now { wall_ms: before.now.wall_ms + down_ms, ..Now::default() };
    let restored = it.core.restore_from_journal(it.now, kept(&before.records[..on_disk]));
    it.collect();
    (it, restored)
}

pub(super) fn restarted(before: &mut Fixture) -> (Fixture, Restored) {
    let on_disk = before.records.len();
    restarted_with(before, on_disk, 0, |_| {})
}

/// The same, but the journal can't be written to any more: what was written last may not be on disk.
fn restarted_without_disk(before: &mut Fixture) -> Fixture {
    before.discard();
    let mut it = with(|config| config.epoch = 8);
    it.now = Now { wall_ms: before.now.wall_ms, ..Now::default() };
    it.core.journal_failed(it.now, "the disk is read-only");
    it.core.restore_from_journal(it.now, kept(&before.records));
    it.collect();
    it
}

#[test]
fn what_may_not_be_on_disk_is_not_said_to_be_accepted() {
    let mut it = with(|_| {});
    let client = it.client();
    it.send_task(client, durable("t"), 60_000);

    let mut it = restarted_without_disk(&mut it);
    let client = it.client();
    it.send_task(client, durable("t"), 60_000);
    it.expect_nothing();
    it.give(client, Message::Fetch(task_id("t")));
    assert_eq!(it.expect_status(client, "t"), TaskState::Queued);
    let worker = it.worker("w", 1);
    let route = it.expect_route(worker);
    it.result(worker, route.attempt_id);
    assert_eq!(it.expect_end(client, "t").0, Outcome::Ok);
}

#[test]
fn what_may_not_be_on_disk_is_not_said_to_be_not_executed() {
    let mut it = with(|_| {});
    let client = it.client();
    it.send_task(client, durable("t"), 60_000);
    it.give(client, Message::Cancel(Cancel::Task(task_id("t"))));

    let mut it = restarted_without_disk(&mut it);
    let client = it.client();
    it.give(client, Message::Fetch(task_id("t")));
    let cancelled = (Outcome::Cancelled, Executed::Maybe, Some(ErrorCode::Cancelled));
    assert_eq!(it.expect_end(client, "t"), cancelled);
}

#[test]
fn a_task_goes_on_and_whoever_asks_gets_its_outcome() {
    let mut it = with(|_| {});
    let (client, worker) = (it.client(), it.worker("w", 1));
    it.send_task(client, durable("running"), 60_000);
    it.expect_route(worker);
    it.send_task(client, durable("waiting"), 60_000);
    sync(&mut it);

    let (mut it, restored) = restarted(&mut it);
    assert_eq!(restored, Restored { tasks: 2, ..Restored::default() });
    let (client, worker) = (it.client(), it.worker("w", 1));
    // That which came first is first.
    let first = it.expect_route(worker);
    it.give(client, Message::Fetch(task_id("running")));
    expect_accepted(&mut it, client, "running");
    assert_eq!(it.expect_status(client, "running"), TaskState::Running);
    it.send_task(client, durable("waiting"), 60_000);
    expect_accepted(&mut it, client, "waiting");
    it.result(worker, first.attempt_id);
    let second = it.expect_route(worker);
    sync(&mut it);
    assert_eq!(it.expect_end(client, "running").0, Outcome::Ok);
    it.result(worker, second.attempt_id);
    sync(&mut it);
    assert_eq!(it.expect_end(client, "waiting").0, Outcome::Ok);
}

#[test]
fn an_outcome_and_a_settled_id_are_still_known() {
    let mut it = with(|_| {});
    let (client, worker) = (it.client(), it.worker("w", 1));
    done(&mut it, client, worker, "ended");
    done(&mut it, client, worker, "settled");
    it.give(client, Message::Settle(task_id("settled")));

    let (mut it, restored) = restarted(&mut it);
    assert_eq!(restored, Restored { outcomes: 1, settled: 1, ..Restored::default() });
    let client = it.client();
    it.give(client, Message::Fetch(task_id("ended")));
    assert_eq!(it.expect_end(client, "ended").0, Outcome::Ok);
    it.send_task(client, durable("settled"), 60_000);
    let settled = (Outcome::Rejected, Executed::Yes, Some(ErrorCode::Settled));
    assert_eq!(it.expect_end(client, "settled"), settled);
}

#[test]
fn an_outcome_that_was_not_on_disk_was_not_told_and_the_task_runs_again() {
    let mut it = with(|_| {});
    let (client, worker) = (it.client(), it.worker("w", 1));
    it.send_task(client, durable("t"), 60_000);
    let route = it.expect_route(worker);
    sync(&mut it);
    expect_accepted(&mut it, client, "t");
    it.result(worker, route.attempt_id);
    it.expect_nothing();

    let (mut it, _) = restarted_with(&mut it, 1, 0, |_| {});
    let worker = it.worker("w", 1);
    it.expect_route(worker);
}

#[test]
fn what_ran_before_the_restart_is_not_said_to_be_not_executed() {
    let mut it = with(|_| {});
    let (client, worker) = (it.client(), it.worker("w", 1));
    it.send_task(client, durable("t"), 60_000);
    it.expect_route(worker);
    sync(&mut it);

    let (mut it, _) = restarted(&mut it);
    let client = it.client();
    it.send_task(client, durable("t"), 60_000);
    expect_accepted(&mut it, client, "t");
    it.give(client, Message::Cancel(Cancel::Task(task_id("t"))));
    sync(&mut it);
    let cancelled = (Outcome::Cancelled, Executed::Maybe, Some(ErrorCode::Cancelled));
    assert_eq!(it.expect_end(client, "t"), cancelled);
}

#[test]
fn its_time_to_live_goes_on_while_the_broker_is_down() {
    let mut it = with(|_| {});
    let client = it.client();
    for (id, ttl_ms) in [("short", 5_000), ("long", 60_000)] {
        it.send_task(client, durable(id), ttl_ms);
    }
    sync(&mut it);

    let (mut it, _) = restarted_with(&mut it, 2, 20_000, |_| {});
    let client = it.client();
    it.give(client, Message::Fetch(task_id("long")));
    expect_accepted(&mut it, client, "long");
    assert_eq!(it.expect_status(client, "long"), TaskState::Queued);
    it.advance(10);
    sync(&mut it);
    it.give(client, Message::Fetch(task_id("short")));
    let expired = (Outcome::Expired, Executed::Maybe, Some(ErrorCode::Expired));
    assert_eq!(it.expect_end(client, "short"), expired);
    it.advance(39_900);
    it.expect_nothing();
    it.advance(200);
    sync(&mut it);
    assert_eq!(it.expect_end(client, "long"), expired);
}

#[test]
fn a_delay_goes_on_while_the_broker_is_down() {
    let mut it = with(|_| {});
    let client = it.client();
    let send =
        mcp_proto::Send { delay_ms: 30_000, ..mcp_proto::Send::new(durable("t").encode(), 60_000) };
    it.give_body(client, Message::Send(send), "input");
    sync(&mut it);

    let (mut it, _) = restarted_with(&mut it, 1, 20_000, |_| {});
    let worker = it.worker("w", 1);
    it.advance(9_900);
    it.expect_nothing();
    it.advance(200);
    it.expect_route(worker);
}

#[test]
fn retention_goes_on_while_the_broker_is_down() {
    let retention = |config: &mut CoreConfig| config.durable.retention_ms = 10_000;
    let mut it = with(retention);
    let (client, worker) = (it.client(), it.worker("w", 1));
    done(&mut it, client, worker, "t");

    let (mut it, _) = restarted_with(&mut it, 2, 8_000, retention);
    assert_eq!(it.core.stats().durable.ended, 1);
    it.advance(1_900);
    assert_eq!(it.core.stats().durable.ended, 1);
    it.advance(200);
    assert_eq!(it.core.stats().durable.ended, 0);
}

#[test]
fn a_broker_that_shuts_down_leaves_its_durable_tasks_for_the_next_start() {
    let mut it = with(|_| {});
    let (client, worker) = (it.client(), it.worker("w", 2));
    for id in ["finishes", "goes-on", "waits"] {
        it.send_task(client, durable(id), 60_000);
    }
    let (finishes, goes_on) = (it.expect_route(worker), it.expect_route(worker));
    sync(&mut it);
    for id in ["finishes", "goes-on", "waits"] {
        expect_accepted(&mut it, client, id);
    }
    it.core.begin_shutdown(it.now, 1_000);
    it.collect();
    it.expect_goaway(client);
    it.expect_goaway(worker);
    it.result(worker, finishes.attempt_id);
    sync(&mut it);
    assert_eq!(it.expect_end(client, "finishes").0, Outcome::Ok);
    assert!(!it.core.is_drained());
    it.advance(1_000);
    it.expect_ping(worker);
    it.expect_cancel(worker, goes_on.attempt_id);
    it.expect_nothing();
    assert!(it.core.is_drained());

    let (mut it, restored) = restarted(&mut it);
    assert_eq!((restored.tasks, restored.outcomes), (2, 1));
    let worker = it.worker("w", 2);
    it.expect_route(worker);
    it.expect_route(worker);
}

#[test]
fn what_failed_is_a_dead_letter_until_it_is_too_old() {
    let keep = |config: &mut CoreConfig| config.durable.dead_letter_retention_ms = 10_000;
    let mut it = with(keep);
    let (client, worker) = (it.client(), it.worker("w", 1));
    it.send_task(client, durable("t"), 60_000);
    let route = it.expect_route(worker);
    it.fail(worker, route.attempt_id);
    let dead = it.records.iter().position(|(_, it)| matches!(it, Record::Dead(..))).unwrap();
    sync(&mut it);
    expect_accepted(&mut it, client, "t");
    assert_eq!(it.expect_end(client, "t").0, Outcome::Failed);
    assert_eq!(it.core.stats().durable.dead_letters, 1);

    // Its end was not on disk: it is not dead.
    let (again, restored) = restarted_with(&mut it, dead + 1, 0, keep);
    assert_eq!((restored.tasks, restored.dead_letters), (1, 0));
    assert!(matches!(again.records.last(), Some((_, Record::DeadForgotten(_)))));

    let all = it.records.len();
    let (mut it, restored) = restarted_with(&mut it, all, 9_000, keep);
    assert_eq!((restored.tasks, restored.dead_letters), (0, 1));
    it.advance(1_100);
    assert_eq!(it.core.stats().durable.dead_letters, 0);
    assert!(matches!(it.records.last(), Some((_, Record::DeadForgotten(_)))));
}
