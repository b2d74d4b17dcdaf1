//! When a task takes its fallback chain, and when not.

use mcp_broker::broker::{CachedBy, Disconnect};
use mcp_proto::{
    Delivery, ErrorCode, Executed, Labels, Message, Outcome, Readiness, Send, Task, WorkerHello,
};

use super::{
    cached, default, deliver, name, refusal, routed, rules, small, step, waits_and_runs, with,
    with_rules, worker_of,
};
use crate::fixture::{Fixture, idempotent, panic_result, report, task, task_id, worker_hello};

#[test]
fn workers_that_are_not_ready_are_none() {
    let mut it = with(&[default("output")]);
    let client = it.client();
    let standby = WorkerHello { readiness: Readiness::Standby, ..worker_hello("w", 1) };
    let (worker, _) = it.worker_of(standby);
    it.send(client, "t");
    assert_eq!(step(&mut it, client), "default");
    it.give(worker, report(0, &[], Readiness::Ready));
    it.expect_pong(worker);
    it.send(client, "u");
    it.expect_route(worker);
}

#[test]
fn workers_whose_breakers_are_open_are_none_and_a_probe_finds_out_when_they_are_back() {
    let mut it = Fixture::with(|config| {
        (config.lease_ms, config.probe_after_ms) = (100_000, 90_000);
        with_rules(config, "work", rules(&[default("output")]));
    });
    let client = it.client();
    let worker = it.worker("w", 2);
    for n in 0..5 {
        it.send(client, &format!("t-{n}"));
        let attempt = it.expect_route(worker).attempt_id;
        it.give(worker, Message::Result(panic_result(attempt)));
        assert_eq!(refusal(&mut it, client), (Outcome::Failed, ErrorCode::HandlerPanic));
    }
    it.send(client, "u-1");
    assert_eq!(step(&mut it, client), "default");
    it.advance(30_000);
    it.send(client, "probe");
    it.send(client, "u-2");
    assert_eq!(step(&mut it, client), "default");
    let probe = it.expect_route(worker);
    it.result(worker, probe.attempt_id);
    assert_eq!(step(&mut it, client), "");
    it.send(client, "u-3");
    it.expect_route(worker);
}

#[test]
fn a_busy_worker_is_waited_for() {
    let mut it = with(&[default("output")]);
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send(client, "t");
    it.send(client, "u");
    let route = it.expect_route(worker);
    it.give(worker, Message::Started(route.attempt_id));
    it.expect_nothing();
    it.result(worker, route.attempt_id);
    assert_eq!(step(&mut it, client), "");
    it.expect_route(worker);
}

#[test]
fn only_a_worker_with_the_labels_counts() {
    let mut it = with(&[small()]);
    let client = it.client();
    let worker = it.worker("w", 1);
    let gpu = Labels([("gpu".to_owned(), "a".to_owned())].into());
    let of_gpu = |id| Task { required_labels: gpu.clone(), ..task(id) };
    let plain = worker_of(&mut it, "s", "small", 1);
    it.send_task(client, of_gpu("t"), 60_000);
    // Neither has them: it waits as it would without a chain.
    it.expect_nothing();
    let hello = WorkerHello { labels: gpu.clone(), ..worker_hello("g", 1) };
    let (other, _) = it.worker_of(WorkerHello { actions: vec![name("small")], ..hello });
    it.send_task(client, of_gpu("u"), 60_000);
    assert_eq!(routed(&it.expect_route(other)).required_labels, gpu);
    for peer in [worker, plain] {
        assert!(it.next_for(peer).is_none());
    }
    it.advance(5_000);
    it.discard();
}

#[test]
fn when_nothing_answers_it_waits_and_tries_again_at_the_end_of_that() {
    let mut it = with(&[cached(CachedBy::Action), small()]);
    let client = it.client();
    it.send(client, "nobody");
    it.advance(3_000);
    it.send(client, "other");
    it.expect_nothing();
    it.advance(2_000);
    let (deliver, _) = deliver(&mut it, client);
    let error = deliver.error.unwrap();
    assert_eq!((deliver.outcome, error.code), (Outcome::Rejected, ErrorCode::NoWorker));
    let [cause] = &error.causes[..] else { panic!("{error:?}") };
    assert!(cause.message.starts_with("fallback small: "), "{}", cause.message);
    let other = worker_of(&mut it, "s", "small", 1);
    it.expect_nothing();
    it.advance(3_000);
    let route = it.expect_route(other);
    assert_eq!(route.ttl_ms, 55_000);
    it.result(other, route.attempt_id);
    let end = it.expect_deliver(client, "other");
    let trace = end.trace.decode();
    assert_eq!(
        (end.fallback.as_deref(), trace.hops[0].queue_us),
        (Some("action:small"), 5_000_000)
    );
}

#[test]
fn what_waits_for_workers_that_are_gone_takes_the_chain_within_some_seconds() {
    let mut it = with(&[default("output")]);
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send(client, "runs");
    it.send(client, "waits");
    it.expect_route(worker);
    it.disconnect(worker, Disconnect::Broken);
    // It may be back at once.
    it.expect_nothing();
    it.advance(5_000);
    assert_eq!(step(&mut it, client), "default");
    it.advance(6_000);
    assert_eq!(refusal(&mut it, client), (Outcome::Failed, ErrorCode::WorkerLost));
}

#[test]
fn a_task_that_comes_back_and_finds_nobody_takes_the_chain() {
    let mut it = with(&[default("output")]);
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send_task(client, idempotent("t"), 60_000);
    it.expect_route(worker);
    it.disconnect(worker, Disconnect::Orderly);
    let end = it.expect_deliver(client, "t");
    // The first attempt may have run.
    assert_eq!((end.fallback.as_deref(), end.executed), (Some("default"), Executed::Maybe));
}

#[test]
fn one_that_is_handed_back_too_often_takes_the_chain() {
    let mut it = Fixture::with(|config| {
        config.max_nacks = 1;
        with_rules(config, "work", rules(&[default("output")]));
    });
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send(client, "t");
    let attempt = it.expect_route(worker).attempt_id;
    it.nack(worker, attempt);
    let end = it.expect_deliver(client, "t");
    assert_eq!((end.fallback.as_deref(), end.executed), (Some("default"), Executed::No));
}

#[test]
fn a_full_queue_takes_the_chain() {
    let mut it = Fixture::with(|config| {
        config.max_queue_tasks = 1;
        with_rules(config, "work", rules(&[small(), default("output")]));
    });
    let client = it.client();
    let (worker, other) = (it.worker("w", 1), worker_of(&mut it, "s", "small", 1));
    (1..=4).for_each(|n| it.send(client, &format!("t-{n}")));
    assert_eq!(routed(&it.expect_route(worker)).id, task_id("t-1"));
    assert_eq!(routed(&it.expect_route(other)).id, task_id("t-3"));
    // t-2 and t-4 wait, each for its workers; the other action's queue is full as well then.
    it.expect_nothing();
    it.send(client, "t-5");
    assert_eq!(step(&mut it, client), "default");
    assert_eq!(waits_and_runs(&it), (2, 2));
    it.discard();
}

#[test]
fn what_would_wait_too_long_or_did_takes_the_chain() {
    let mut rules = rules(&[small(), default("output")]);
    rules.max_queue_wait_ms = 1_500;
    let mut it = Fixture::with(|config| with_rules(config, "work", rules));
    let client = it.client();
    let (worker, other) = (it.worker("w", 1), worker_of(&mut it, "s", "small", 1));
    for n in 0..20 {
        it.send(client, &format!("t-{n}"));
        let attempt = it.expect_route(worker).attempt_id;
        it.give(worker, Message::Started(attempt));
        it.advance(400);
        it.result(worker, attempt);
        step(&mut it, client);
    }
    // Each takes 400 ms: three are in time.
    (1..=5).for_each(|n| it.send(client, &format!("u-{n}")));
    assert_eq!(routed(&it.expect_route(worker)).id, task_id("u-1"));
    assert_eq!(routed(&it.expect_route(other)).id, task_id("u-5"));
    assert_eq!(it.core.stats().queued, 3);
    // They weren't, after all. The first goes where there is room; the others wait there for that.
    it.advance(400);
    it.discard();
    it.advance(1_100);
    it.discard();
    assert_eq!((it.core.stats().rejected, waits_and_runs(&it)), (0, (3, 2)));
    let metrics = it.core.metrics(it.now);
    let of = |action: &str| metrics.actions.iter().find(|it| it.action == action).unwrap();
    assert_eq!((of("work").queued, of("small").queued), (0, 3));
}

#[test]
fn a_full_broker_answers_what_takes_no_place() {
    let mut it = Fixture::with(|config| {
        (config.max_tasks, config.is_durable) = (1, true);
        with_rules(config, "work", rules(&[small(), default("output")]));
    });
    let client = it.client();
    it.worker("w", 1);
    let other = worker_of(&mut it, "s", "small", 1);
    it.send(client, "t-1");
    it.send(client, "t-2");
    assert_eq!(step(&mut it, client), "default");
    let durable = Task { delivery: Delivery::Durable, ..task("t-3") };
    it.send_task(client, durable, 60_000);
    assert_eq!(refusal(&mut it, client), (Outcome::Rejected, ErrorCode::QueueFull));
    assert!(it.next_for(other).is_none());
    it.discard();
}

#[test]
fn bytes_that_wait_are_bounded_over_all_actions() {
    let mut it = Fixture::with(|config| config.max_waiting_bytes = 30);
    let client = it.client();
    for action in ["a", "b", "c"] {
        it.send_task(client, Task { action: name(action), ..task(action) }, 60_000);
    }
    let (deliver, _) = deliver(&mut it, client);
    let error = deliver.error.unwrap();
    assert_eq!((deliver.task_id.as_str(), error.code), ("c", ErrorCode::QueueFull));
    assert!(error.retry_after_ms.is_some());
    it.discard();
}

#[test]
fn what_is_a_tasks_own_takes_no_chain() {
    let mut it = with(&[default("output")]);
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send(client, "fails");
    let attempt = it.expect_route(worker).attempt_id;
    it.fail(worker, attempt);
    assert_eq!(refusal(&mut it, client), (Outcome::Failed, ErrorCode::HandlerFailed));
    it.send(client, "runs");
    it.expect_route(worker);
    it.send_task(client, task("expires"), 100);
    it.advance(100);
    assert_eq!(refusal(&mut it, client), (Outcome::Expired, ErrorCode::Expired));
    it.send(client, "cancelled");
    it.give(client, Message::Cancel(mcp_proto::Cancel::Task(task_id("cancelled"))));
    assert_eq!(refusal(&mut it, client), (Outcome::Cancelled, ErrorCode::Cancelled));
    it.give_body(client, Message::Send(Send::new(task("runs").encode(), 1_000)), "another");
    assert_eq!(refusal(&mut it, client), (Outcome::Rejected, ErrorCode::DuplicateMismatch));
    it.disconnect(worker, Disconnect::Orderly);
    assert_eq!(refusal(&mut it, client), (Outcome::Failed, ErrorCode::WorkerLost));
    let shadow = Task { shadow: true, ..task("shadow") };
    it.send_task(client, shadow, 1_000);
    it.advance(1_000);
    assert_eq!(refusal(&mut it, client), (Outcome::Rejected, ErrorCode::NoWorker));
}

#[test]
fn after_a_restart_the_workers_of_before_are_waited_for() {
    let mut it = Fixture::with(|config| {
        config.restart_grace_ms = 15_000;
        with_rules(config, "work", rules(&[default("output")]));
    });
    let client = it.client();
    it.send(client, "t");
    it.advance(14_999);
    it.expect_nothing();
    it.advance(1);
    assert_eq!(step(&mut it, client), "default");
    it.send(client, "u");
    assert_eq!(step(&mut it, client), "default");
}
