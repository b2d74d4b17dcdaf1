//! Shadow tasks and shadow workers: neither meets a live one.

use mcp_broker::broker::{ActionMetrics, Disconnect, TaskCounts};
use mcp_proto::{
    ActionName, Cancel, ErrorCode, Labels, Message, Outcome, Retry, Task, WorkerHello,
};

use crate::fixture::{Fixture, child_of, task, task_id, worker_hello};

pub(crate) fn shadow_hello(name: &str, slots: u32) -> WorkerHello {
    WorkerHello { labels: labels("shadow", "true"), ..worker_hello(name, slots) }
}

pub(crate) fn labels(key: &str, value: &str) -> Labels {
    Labels([(key.to_owned(), value.to_owned())].into())
}

fn shadow(id: &str) -> Task {
    Task { shadow: true, ..task(id) }
}

fn work(it: &Fixture) -> ActionMetrics {
    let metrics = it.core.metrics(it.now);
    metrics.actions.into_iter().find(|action| action.action == "work").unwrap()
}

#[test]
fn neither_kind_of_task_reaches_the_others_workers() {
    let mut it = Fixture::new();
    let client = it.client();
    let live = it.worker("live", 1);
    let (twin, _) = it.worker_of(shadow_hello("twin", 1));
    for n in 0..3 {
        it.send_task(client, shadow(&format!("s{n}")), 60_000);
        it.send(client, &format!("t{n}"));
    }
    for n in 0..3 {
        let route = it.expect_route(live);
        assert_eq!(route.task.decode().unwrap().id.as_str(), format!("t{n}"));
        it.result(live, route.attempt_id);
        let route = it.expect_route(twin);
        let task = route.task.decode().unwrap();
        assert_eq!((task.id.to_string(), task.shadow), (format!("s{n}"), true));
        it.result(twin, route.attempt_id);
        it.expect_end(client, &format!("t{n}"));
        it.expect_end(client, &format!("s{n}"));
    }
}

#[test]
fn a_task_of_either_kind_waits_in_vain_for_the_others_workers() {
    let mut it = Fixture::new();
    let client = it.client();
    let (twin, _) = it.worker_of(shadow_hello("twin", 1));
    it.send(client, "t");
    it.advance(5_000);
    let error = it.expect_deliver(client, "t").error.unwrap();
    assert_eq!(error.code, ErrorCode::NoWorker);
    assert!(error.message.contains("but with the label shadow=true"), "{error}");
    it.disconnect(twin, Disconnect::Orderly);
    it.worker("live", 1);
    it.send_task(client, shadow("s"), 60_000);
    it.advance(5_000);
    let error = it.expect_deliver(client, "s").error.unwrap();
    assert!(error.message.contains("with the labels shadow=true"), "{error}");
}

#[test]
fn a_worker_that_comes_back_with_the_label_is_a_shadow_worker() {
    let mut it = Fixture::new();
    let client = it.client();
    it.worker("w", 1);
    let (twin, _) =
        it.worker_of(WorkerHello { labels: labels("shadow", "true"), ..worker_hello("w", 1) });
    it.discard();
    it.send(client, "t");
    it.expect_nothing();
    it.send_task(client, shadow("s"), 60_000);
    let route = it.expect_route(twin);
    it.result(twin, route.attempt_id);
    it.expect_end(client, "s");
}

#[test]
fn a_header_or_the_label_itself_makes_a_shadow_task() {
    let mut it = Fixture::new();
    let client = it.client();
    let live = it.worker("live", 4);
    let (twin, _) = it.worker_of(shadow_hello("twin", 4));
    let header = |name: &str, value: &str| [(name.to_owned(), value.to_owned())].into();
    for (name, value) in [("x-load-test", "true"), ("X-Load-Test", "true")] {
        it.send_task(client, Task { headers: header(name, value), ..task(name) }, 60_000);
        assert!(it.expect_route(twin).task.decode().unwrap().shadow);
    }
    let required_labels = labels("shadow", "true");
    it.send_task(client, Task { required_labels, ..task("label") }, 60_000);
    it.expect_route(twin);
    let headers = header("x-load-test", "false");
    it.send_task(client, Task { headers, ..task("live") }, 60_000);
    assert!(!it.expect_route(live).task.decode().unwrap().shadow);
    assert_eq!((it.core.stats().shadow.accepted, it.core.stats().accepted), (3, 1));
}

#[test]
fn what_a_shadow_task_sends_is_a_shadow_task() {
    let mut it = Fixture::new();
    let client = it.client();
    it.worker("live", 4);
    let (twin, _) = it.worker_of(shadow_hello("twin", 4));
    it.send_task(client, shadow("parent"), 60_000);
    it.expect_route(twin);
    it.send_task(client, child_of("parent", "child"), 60_000);
    assert_eq!(it.expect_route(twin).task.decode().unwrap().id.as_str(), "child");
}

#[test]
fn shadow_tasks_are_counted_apart() {
    let mut it = Fixture::with(|config| config.max_queue_tasks = 1);
    let client = it.client();
    let live = it.worker("live", 1);
    it.worker_of(shadow_hello("twin", 1));
    it.send(client, "t");
    let route = it.expect_route(live);
    it.result(live, route.attempt_id);
    it.expect_end(client, "t");
    it.send_task(client, shadow("s"), 60_000);
    it.send_task(client, shadow("waits"), 1_000);
    it.send_task(client, shadow("refused"), 60_000);
    let end = it.expect_end(client, "refused");
    assert_eq!((end.0, end.2), (Outcome::Rejected, Some(ErrorCode::QueueFull)));

    let (now, stats) = (work(&it), it.core.stats());
    assert_eq!((now.queued, now.running, now.workers), (0, 0, Some((1, 1))));
    let others = &it.core.metrics(it.now).actions[0];
    assert_eq!((others.queued, others.queued_bytes, others.running), (0, 0, 0));
    assert_eq!((stats.queued, stats.running), (0, 0));
    assert_eq!((stats.shadow.queued, stats.shadow.running), (1, 1));

    it.advance(1_000);
    it.give(client, Message::Cancel(Cancel::Task(task_id("s"))));
    it.discard();
    let (now, stats) = (work(&it), it.core.stats());
    let ended =
        |counts: &TaskCounts| counts.ended().filter(|(_, count)| *count > 0).collect::<Vec<_>>();
    assert_eq!(ended(&now.counts), [(Outcome::Ok, 1)]);
    assert_eq!((now.counts.total.count(), now.counts.worked.count()), (1, 1));
    let shadow = now.shadow.unwrap();
    let expected = [(Outcome::Expired, 1), (Outcome::Cancelled, 1), (Outcome::Rejected, 1)];
    assert_eq!(ended(&shadow), expected);
    assert_eq!((stats.accepted, stats.ok, stats.failed, stats.rejected), (1, 1, 0, 0));
    let it_is = stats.shadow;
    assert_eq!((it_is.accepted, it_is.cancelled, it_is.expired, it_is.rejected), (2, 1, 1, 1));
    assert!(it.core.metrics(it.now).refused.is_empty());
}

#[test]
fn a_load_test_takes_no_live_tasks_place() {
    let mut it = Fixture::with(|config| {
        config.max_queue_tasks = 2;
        config.max_tasks = 4;
    });
    let client = it.client();
    for n in 0..3 {
        it.send_task(client, shadow(&format!("s{n}")), 60_000);
    }
    assert_eq!(it.expect_end(client, "s2").2, Some(ErrorCode::QueueFull));
    let live = it.worker("live", 2);
    for n in 0..4 {
        it.send(client, &format!("t{n}"));
    }
    it.expect_route(live);
    it.expect_route(live);
    it.expect_nothing();
    it.send(client, "t4");
    assert_eq!(it.expect_end(client, "t4").2, Some(ErrorCode::QueueFull));
}

#[test]
fn a_load_test_that_fails_takes_no_live_tasks_retries() {
    let mut it = Fixture::with(|config| config.retry_budget_percent = 0);
    let client = it.client();
    let live = it.worker("live", 1);
    let (twin, _) = it.worker_of(shadow_hello("twin", 1));
    let retry =
        Some(Retry { max_attempts: 100, initial_ms: 1, coefficient_percent: 100, cap_ms: 1 });
    let failing = |task: Task| Task { idempotent: true, retry, ..task };
    it.send_task(client, failing(shadow("s")), 60_000);
    // Until its budget is spent.
    while let Some((Message::Route(route), _)) = it.next_for(twin) {
        it.fail(twin, route.attempt_id);
        it.advance(1);
    }
    assert_eq!(it.expect_end(client, "s").0, Outcome::Failed);
    assert!(it.core.stats().retries_refused > 0);
    it.send_task(client, failing(task("t")), 60_000);
    let route = it.expect_route(live);
    it.fail(live, route.attempt_id);
    it.advance(1);
    it.expect_route(live);
}

#[test]
fn an_action_of_shadow_tasks_alone_leaves_nothing_behind() {
    let mut it = Fixture::with(|config| config.no_worker_wait_ms = 10);
    let client = it.client();
    for n in 0..100 {
        let action = ActionName::try_from(format!("unknown-{n}")).unwrap();
        it.send_task(client, Task { action, ..shadow(&format!("s{n}")) }, 1_000);
    }
    assert_eq!(it.core.stats().shadow.queued, 100);
    it.advance(10);
    it.discard();
    let shadow = it.core.stats().shadow;
    assert_eq!((shadow.queued, shadow.running, shadow.rejected), (0, 0, 100));
    assert_eq!(it.core.stats().rejected, 0);
}
