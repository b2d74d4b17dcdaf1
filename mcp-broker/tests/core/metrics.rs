//! What an operator can see of tasks: how many, how long, what waits and since when.

use mcp_broker::broker::{ActionMetrics, CoreConfig, Disconnect, Histogram};
use mcp_proto::{
    ActionName, ErrorCode, Labels, Message, Outcome, Task, TaskId, TaskResult, WorkerHello,
};

use crate::fixture::{Fixture, idempotent, ok_result, task, worker_hello};

fn task_of(action: &str, id: &str) -> Task {
    Task::new(TaskId::try_from(id).unwrap(), ActionName::try_from(action).unwrap())
}

fn find(it: &Fixture, action: &str) -> Option<ActionMetrics> {
    it.core.metrics(it.now).actions.into_iter().find(|metrics| metrics.action == action)
}

fn of(it: &Fixture, action: &str) -> ActionMetrics {
    find(it, action).unwrap_or_else(|| panic!("no metrics of {action}"))
}

fn ended(metrics: &ActionMetrics, outcome: Outcome) -> u64 {
    metrics.counts.ended().find(|(it, _)| *it == outcome).unwrap().1
}

fn count_and_sum(histogram: &Histogram) -> (u64, u64) {
    (histogram.count(), histogram.sum_us())
}

#[test]
fn a_task_counts_for_its_action_with_its_times() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send(client, "first");
    it.send(client, "second");
    let first = it.expect_route(worker);
    it.advance(5);
    let result = TaskResult { work_us: 3_000, ..ok_result(first.attempt_id) };
    it.give_body(worker, Message::Result(result), "output");
    it.expect_end(client, "first");
    let second = it.expect_route(worker);
    it.advance(2);
    let failed =
        TaskResult { outcome: Outcome::Failed, work_us: 1_000, ..ok_result(second.attempt_id) };
    it.give(worker, Message::Result(failed));
    it.expect_end(client, "second");

    let work = of(&it, "work");
    assert_eq!((ended(&work, Outcome::Ok), ended(&work, Outcome::Failed)), (1, 1));
    assert_eq!(count_and_sum(&work.counts.total), (2, 5_000 + 7_000));
    assert_eq!(count_and_sum(&work.counts.queued), (2, 5_000));
    assert_eq!(count_and_sum(&work.counts.worked), (2, 4_000));
    // 0 µs is in the first bucket, 5 ms in that of 3.2 to 6.4 ms.
    let queued: Vec<_> = work.counts.queued.buckets().filter(|(_, count)| *count > 0).collect();
    assert_eq!(queued, [(Some(100), 1), (Some(6_400), 1)]);
}

#[test]
fn a_task_without_an_outcome_is_a_gauge_and_with_one_a_count() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send(client, "runs");
    it.advance(10);
    it.send_task(client, task("waits"), 100);
    it.advance(30);
    let work = of(&it, "work");
    assert_eq!((work.running, work.queued, work.oldest_us), (1, 1, Some(30_000)));
    assert_eq!(work.workers, Some((1, 1)));
    let bytes = task("waits").encode().0.len() + "input".len();
    assert_eq!(work.queued_bytes, bytes as u64);

    it.advance(100);
    assert_eq!(it.expect_end(client, "waits").0, Outcome::Expired);
    let work = of(&it, "work");
    assert_eq!((work.running, work.queued, work.queued_bytes), (1, 0, 0));
    assert_eq!((work.oldest_us, ended(&work, Outcome::Expired)), (Some(0), 1));
    assert_eq!(count_and_sum(&work.counts.worked), (0, 0));
    let route = it.expect_route(worker);
    it.result(worker, route.attempt_id);
    it.expect_end(client, "runs");
}

#[test]
fn the_oldest_is_found_behind_those_that_left_the_queue() {
    let mut it = Fixture::new();
    let client = it.client();
    let labels = Labels([("gpu".to_owned(), "a100".to_owned())].into());
    it.worker_of(WorkerHello { labels: labels.clone(), slots: 1, ..worker_hello("w", 1) });
    it.send(client, "runs");
    for (id, ttl_ms) in [("a", 100), ("b", 100), ("c", 60_000)] {
        it.send_task(client, task(id), ttl_ms);
        it.advance(10);
    }
    // Of another sub-queue.
    it.send_task(client, Task { required_labels: labels, ..task("d") }, 60_000);
    assert_eq!(of(&it, "work").oldest_us, Some(30_000));
    it.advance(100);
    assert_eq!((of(&it, "work").queued, of(&it, "work").oldest_us), (2, Some(110_000)));
    it.give(client, Message::Cancel(mcp_proto::Cancel::Task(TaskId::try_from("c").unwrap())));
    assert_eq!((of(&it, "work").queued, of(&it, "work").oldest_us), (1, Some(100_000)));
    it.discard();
}

#[test]
fn a_task_that_came_back_is_as_old_as_when_it_was_sent() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send_task(client, idempotent("t"), 60_000);
    it.expect_route(worker);
    it.advance(20);
    it.disconnect(worker, Disconnect::Broken);
    it.advance(5);
    assert_eq!(of(&it, "work").oldest_us, Some(25_000));
    let metrics = it.core.metrics(it.now);
    assert_eq!((metrics.stats.agents_online, metrics.agents_lost_now, metrics.slots), (0, 1, 0));
    it.discard();
}

#[test]
fn what_a_full_queue_refuses_counts_for_its_action() {
    let mut it = Fixture::with(|config| config.max_queue_tasks = 1);
    let client = it.client();
    it.send(client, "a");
    it.send(client, "b");
    let end = it.expect_end(client, "b");
    assert_eq!((end.0, end.2), (Outcome::Rejected, Some(ErrorCode::QueueFull)));
    assert_eq!(ended(&of(&it, "work"), Outcome::Rejected), 1);
    assert_eq!(of(&it, "work").counts.total.count(), 0);
    let refused = it.core.metrics(it.now).refused;
    assert_eq!(refused, [(ErrorCode::QueueFull, 1)]);
}

#[test]
fn counts_outlive_the_queue_and_the_workers_of_an_action() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send(client, "t");
    let route = it.expect_route(worker);
    it.result(worker, route.attempt_id);
    it.expect_end(client, "t");
    it.disconnect(worker, Disconnect::Orderly);
    let work = of(&it, "work");
    assert_eq!((ended(&work, Outcome::Ok), work.workers), (1, Some((0, 0))));
}

/// A hundred are measured by themselves, of which twenty without a worker.
#[test]
fn actions_that_are_made_up_take_no_place_from_those_that_are_served() {
    let mut it = Fixture::with(|config: &mut CoreConfig| config.no_worker_wait_ms = 10);
    let client = it.client();
    for number in 0..150 {
        it.send_task(client, task_of(&format!("made-up-{number}"), &number.to_string()), 1_000);
    }
    let metrics = it.core.metrics(it.now);
    assert_eq!(metrics.actions.len(), 1 + 20);
    assert_eq!((metrics.actions[0].action.as_str(), metrics.actions[0].queued), ("other", 130));
    assert!(metrics.actions[0].queued_bytes > 0);
    it.advance(10);
    it.discard();
    assert_eq!(ended(&of(&it, "other"), Outcome::Rejected), 130);
    assert_eq!(of(&it, "other").queued, 0);

    // One that was among the others gets an entry with its first worker.
    it.send_task(client, task_of("made-up-149", "t"), 60_000);
    let mut hello = worker_hello("w", 1);
    hello.actions = (0..100).map(|n| ActionName::try_from(format!("a-{n}")).unwrap()).collect();
    hello.actions[0] = ActionName::try_from("made-up-149").unwrap();
    let (worker, _) = it.worker_of(hello);
    let route = it.expect_route(worker);
    assert_eq!(of(&it, "made-up-149").running, 1);
    it.result(worker, route.attempt_id);
    it.expect_end(client, "t");
    assert_eq!(ended(&of(&it, "made-up-149"), Outcome::Ok), 1);
    assert_eq!(it.core.metrics(it.now).actions.len(), 1 + 100);
    assert!(find(&it, "a-99").is_none());
}

#[test]
fn an_action_named_like_the_others_is_one_of_them() {
    let mut it = Fixture::new();
    let mut hello = worker_hello("w", 1);
    hello.actions = vec![ActionName::try_from("other").unwrap()];
    it.worker_of(hello);
    assert_eq!(it.core.metrics(it.now).actions.len(), 1);
}

#[test]
fn the_brokers_own_actions_are_measured_like_any() {
    let mut it = Fixture::new();
    let client = it.client();
    it.send_task(client, task_of("mcp.admin.stats", "t"), 1_000);
    it.next_for(client).unwrap();
    assert_eq!(ended(&of(&it, "mcp.admin.stats"), Outcome::Ok), 1);
}
