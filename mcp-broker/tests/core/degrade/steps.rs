//! The steps of a chain, in their order.

use mcp_broker::broker::{ActionRules, CachedBy, Disconnect, FallbackStep};
use mcp_proto::{ErrorCode, Executed, Message, Outcome, Retry, Task};

use super::{
    answer, cached, default, deliver, name, refusal, routed, rules, small, step, waits_and_runs,
    with, with_rules, worker_of,
};
use crate::fixture::{Fixture, idempotent, task, task_id};

#[test]
fn without_a_worker_the_steps_are_tried_in_order_and_at_once() {
    let mut it = with(&[cached(CachedBy::Body), small(), default("sorry")]);
    let client = it.client();
    // Nothing is cached, and nobody serves the other action.
    it.send(client, "t-1");
    let (deliver, body) = deliver(&mut it, client);
    assert_eq!((deliver.outcome, deliver.executed), (Outcome::Ok, Executed::No));
    assert_eq!(deliver.fallback.as_deref(), Some("default"));
    assert_eq!((&*deliver.content_type, &body[..]), ("text/plain", &b"sorry"[..]));
    assert_eq!((deliver.chunks, deliver.trace.decode().hops.len()), (0, 0));

    let other = worker_of(&mut it, "s", "small", 1);
    it.send(client, "t-2");
    let route = it.expect_route(other);
    assert_eq!(routed(&route), Task { action: name("small"), ..task("t-2") });
    it.result(other, route.attempt_id);
    let end = it.expect_deliver(client, "t-2");
    assert_eq!((end.executed, end.fallback.as_deref()), (Executed::Yes, Some("action:small")));

    let worker = it.worker("w", 1);
    it.send(client, "t-3");
    let route = it.expect_route(worker);
    it.result(worker, route.attempt_id);
    assert_eq!(it.expect_deliver(client, "t-3").fallback, None);
    it.disconnect(worker, Disconnect::Orderly);
    it.send(client, "t-4");
    let end = it.expect_deliver(client, "t-4");
    assert_eq!((end.executed, end.fallback.as_deref()), (Executed::No, Some("cached")));

    // Nothing is remembered: with a worker, it gets the next one.
    let worker = it.worker("w", 1);
    it.send(client, "t-5");
    it.expect_route(worker);
    assert_eq!((it.core.stats().degraded, waits_and_runs(&it)), (3, (0, 1)));
    it.discard();
}

#[test]
fn a_fallback_action_has_no_chain_of_its_own_and_its_failure_is_one() {
    let mut it = Fixture::with(|config| {
        with_rules(config, "work", rules(&[small()]));
        with_rules(config, "small", rules(&[default("of small")]));
    });
    let client = it.client();
    it.send(client, "t");
    // For its own tasks it has one.
    it.send_task(client, Task { action: name("small"), ..task("of-small") }, 60_000);
    assert_eq!(answer(&mut it, client), ("default".into(), "of small".into()));
    it.expect_nothing();
    let other = worker_of(&mut it, "s", "small", 2);
    it.send(client, "u");
    let attempt = it.expect_route(other).attempt_id;
    it.fail(other, attempt);
    let (deliver, _) = deliver(&mut it, client);
    assert_eq!((deliver.outcome, deliver.task_id), (Outcome::Failed, task_id("u")));
    assert_eq!(deliver.fallback.as_deref(), Some("action:small"));
    it.advance(5_000);
    it.expect_route(other);
    it.discard();
}

#[test]
fn a_fallback_action_that_loses_its_workers_is_left_for_the_next_step() {
    let mut it = with(&[small(), FallbackStep::Action(name("tiny")), default("output")]);
    let client = it.client();
    let other = worker_of(&mut it, "s", "small", 1);
    let third = worker_of(&mut it, "t", "tiny", 1);
    it.send_task(client, idempotent("t"), 60_000);
    it.send_task(client, idempotent("u"), 60_000);
    let route = it.expect_route(other);
    it.disconnect(other, Disconnect::Orderly);
    // One comes back, the other one waits and looks around now and then.
    let again = it.expect_route(third);
    assert_eq!((routed(&again).action, routed(&again).id), (name("tiny"), routed(&route).id));
    assert_eq!(again.attempt, 2);
    it.give(third, Message::Started(again.attempt_id));
    it.advance(400);
    it.result(third, again.attempt_id);
    assert_eq!(step(&mut it, client), "action:tiny");
    it.advance(4_600);
    let last = it.expect_route(third);
    assert_eq!(routed(&last).id, task_id("u"));
    it.disconnect(third, Disconnect::Orderly);
    assert_eq!(step(&mut it, client), "default");
    assert_eq!(waits_and_runs(&it), (0, 0));
}

#[test]
fn a_task_for_another_action_is_tried_again_there() {
    let mut it = with(&[small()]);
    let client = it.client();
    let other = worker_of(&mut it, "s", "small", 1);
    let retry = Retry { max_attempts: 2, initial_ms: 50, coefficient_percent: 100, cap_ms: 50 };
    it.send_task(client, Task { retry: Some(retry), ..idempotent("t") }, 60_000);
    let attempt = it.expect_route(other).attempt_id;
    it.fail(other, attempt);
    it.advance(50);
    let route = it.expect_route(other);
    assert_eq!((route.attempt, routed(&route).action), (2, name("small")));
    it.result(other, route.attempt_id);
    assert_eq!(step(&mut it, client), "action:small");
}

#[test]
fn an_action_that_names_itself_is_passed_over() {
    let mut it = Fixture::with(|config| {
        config.rules = rules(&[FallbackStep::Action(name("work")), default("output")]);
    });
    let client = it.client();
    it.send(client, "t");
    assert_eq!(step(&mut it, client), "default");
}

#[test]
fn rules_that_change_hold_for_what_comes_and_a_task_takes_no_step_twice() {
    let mut it = with(&[small()]);
    let client = it.client();
    let other = worker_of(&mut it, "s", "small", 1);
    it.send_task(client, idempotent("t"), 60_000);
    it.expect_route(other);
    it.core.set_rules(it.now, name("work"), rules(&[default("new"), small()]));
    it.send(client, "u");
    assert_eq!(answer(&mut it, client), ("default".into(), "new".into()));
    it.disconnect(other, Disconnect::Orderly);
    it.expect_nothing();
    it.core.set_rules(it.now, name("work"), ActionRules::default());
    it.send(client, "v");
    it.advance(5_000);
    assert_eq!(refusal(&mut it, client), (Outcome::Rejected, ErrorCode::NoWorker));
    it.advance(60_000);
    it.discard();
}
