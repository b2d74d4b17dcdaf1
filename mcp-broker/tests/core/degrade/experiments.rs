//! Shadow tasks, copies and splits beside a chain.

use mcp_broker::broker::{Arm, ArmMetrics, CachedBy, Disconnect, MirrorRule};
use mcp_proto::{Cancel, CancelReason, ErrorCode, Message, Outcome, Task, WorkerHello};

use super::{cached, default, degrade, refusal, rules, send_body, step, with_rules};
use crate::fixture::{Fixture, cancelled_result, idempotent, ok_result, task, worker_hello};
use crate::shadow::{labels, shadow_hello};

#[test]
fn a_shadow_task_takes_no_chain_and_gives_no_answer() {
    let mut rules = rules(&[cached(CachedBy::Action), default("output")]);
    rules.core = false;
    let mut it = Fixture::with(|config| with_rules(config, "work", rules));
    let client = it.client();
    let shadow = |id: &str| Task { shadow: true, ..task(id) };
    let (twin, _) = it.worker_of(shadow_hello("twin", 1));
    degrade(&mut it, "work");
    send_body(&mut it, client, shadow("s-1"), "question");
    let Some((Message::Route(route), _)) = it.next_for(twin) else { panic!("no ROUTE") };
    it.give_body(twin, Message::Result(ok_result(route.attempt_id)), "of a shadow");
    assert_eq!(step(&mut it, client), "");
    it.send(client, "t");
    assert_eq!(step(&mut it, client), "default");
    it.disconnect(twin, Disconnect::Orderly);
    it.send_task(client, shadow("s-2"), 1_000);
    it.advance(1_000);
    assert_eq!(refusal(&mut it, client), (Outcome::Rejected, ErrorCode::NoWorker));
}

#[test]
fn an_answer_is_compared_with_no_copy() {
    let mut rules = rules(&[default("output")]);
    rules.mirror = Some(MirrorRule { percent: 100.0, max_running: 4 });
    let mut it = Fixture::with(|config| with_rules(config, "work", rules));
    let (client, live) = (it.client(), it.worker("live", 1));
    let (twin, _) = it.worker_of(shadow_hello("twin", 1));
    it.send_task(client, idempotent("t"), 60_000);
    it.expect_route(live);
    let copy = it.expect_route(twin);
    it.disconnect(live, Disconnect::Orderly);
    assert_eq!(step(&mut it, client), "default");
    let cancel = Cancel::Attempt(copy.attempt_id, CancelReason::Client);
    assert_eq!(it.next_for(twin), Some((Message::Cancel(cancel), Default::default())));
    it.give(twin, Message::Result(cancelled_result(copy.attempt_id)));
    let metrics = it.core.metrics(it.now);
    let work = metrics.actions.iter().find(|it| it.action == "work").unwrap();
    let mirror = work.mirror.as_deref().unwrap();
    assert_eq!((mirror.mirrored, mirror.not_compared), (1, 1));
}

#[test]
fn a_task_whose_arm_is_deserted_goes_to_another_one_and_an_answer_is_of_no_arm() {
    let arm = |name: &str| Arm { name: name.into(), labels: labels("model", name), weight: 1 };
    let mut rules = rules(&[default("output")]);
    rules.split = vec![arm("a"), arm("b")];
    let mut it = Fixture::with(|config| with_rules(config, "work", rules));
    let client = it.client();
    let worker = |it: &mut Fixture, name: &str| {
        let hello = worker_hello(name, 1);
        it.worker_of(WorkerHello { labels: labels("model", name), ..hello }).0
    };
    let a = worker(&mut it, "a");
    it.send_task(client, idempotent("t"), 60_000);
    it.expect_route(a);
    let b = worker(&mut it, "b");
    it.disconnect(a, Disconnect::Orderly);
    it.expect_route(b);
    it.disconnect(b, Disconnect::Orderly);
    assert_eq!(step(&mut it, client), "default");
    let metrics = it.core.metrics(it.now);
    let work = metrics.actions.iter().find(|it| it.action == "work").unwrap();
    let ended = |arm: &ArmMetrics| arm.counts.ended().map(|(_, n)| n).sum::<u64>();
    assert_eq!(work.arms.iter().map(ended).sum::<u64>(), 0);
}
