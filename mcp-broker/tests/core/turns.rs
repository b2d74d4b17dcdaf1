//! Whose turn it is: classes that age, tenants that are equals, deadlines.

use mcp_broker::broker::Disconnect;
use mcp_proto::{ActionName, Labels, Priority, Task, WorkerHello};

use crate::fixture::{Fixture, idempotent, task, worker_hello};
use crate::load::{Load, quantile};

fn of(tenant: &str, id: &str) -> Task {
    Task { tenant: tenant.to_owned().into(), ..task(id) }
}

/// Ids in the order in which a worker with one slot gets them.
fn order(it: &mut Fixture, worker: mcp_broker::broker::ConnectionId, count: usize) -> Vec<String> {
    let next = |_| {
        let route = it.expect_route(worker);
        it.result(worker, route.attempt_id);
        route.task.decode().unwrap().id.to_string()
    };
    let order = (0..count).map(next).collect();
    it.discard();
    order
}

#[test]
fn of_one_class_and_tenant_the_earliest_deadline_goes_first() {
    let mut it = Fixture::new();
    let client = it.client();
    for (id, ttl_ms) in [("a", 4_000), ("b", 2_000), ("c", 3_000), ("d", 2_000)] {
        it.send_task(client, task(id), ttl_ms);
    }
    it.send_task(client, Task { priority: Priority::High, ..task("e") }, 4_500);
    let worker = it.worker("w", 1);
    assert_eq!(order(&mut it, worker, 5), ["e", "b", "d", "c", "a"]);
}

#[test]
fn what_came_back_goes_before_what_has_less_time() {
    let mut it = Fixture::new();
    let client = it.client();
    let lost = it.worker("lost", 2);
    for id in ["a", "b"] {
        it.send_task(client, idempotent(id), 60_000);
    }
    it.send_task(client, task("hasty"), 10_000);
    it.disconnect(lost, Disconnect::Broken);
    it.discard();
    let worker = it.worker("w", 1);
    assert_eq!(order(&mut it, worker, 3), ["a", "b", "hasty"]);
}

#[test]
fn a_flood_of_one_tenant_takes_turns_with_others() {
    let mut it = Fixture::new();
    let client = it.client();
    for n in 0..4 {
        it.send_task(client, of("flood", &format!("flood-{n}")), 1_000);
    }
    for n in 0..2 {
        it.send_task(client, of("other", &format!("other-{n}")), 60_000);
    }
    it.send(client, "none");
    let worker = it.worker("w", 1);
    let order = order(&mut it, worker, 7);
    let place = |id: &str| order.iter().position(|it| it == id).unwrap();
    assert!(place("other-0") < 3 && place("none") < 3 && place("other-1") < 5, "{order:?}");
    assert_eq!(order[5..], ["flood-2", "flood-3"]);
}

/// The class of what waits, in the order in which it goes: the high ones come for ever.
fn turns_beside_an_endless_stream(age_ms: u64, low: &Task, until_ms: u64) -> Vec<(u64, String)> {
    let mut it = Fixture::with(|config| config.rules.age_ms = age_ms);
    let client = it.client();
    let worker = it.worker("w", 1);
    let urgent = |n: u64| Task { priority: Priority::Urgent, ..task(&format!("urgent-{n}")) };
    it.send_task(client, urgent(0), 400);
    it.send_task(client, low.clone(), 60_000);
    let mut routes = Vec::new();
    for n in 1..until_ms / 100 {
        it.send_task(client, urgent(n), 400);
        let route = it.expect_route(worker);
        let id = route.task.decode().unwrap().id.to_string();
        routes.push((it.now.mono.0 / 1000, id));
        it.advance(100);
        it.result(worker, route.attempt_id);
        while it.next_for(client).is_some() {}
    }
    it.discard();
    routes
}

#[test]
fn a_low_task_beside_an_endless_urgent_stream_has_its_turn_when_its_class_has_risen() {
    let low = Task { priority: Priority::Low, ..task("low") };
    let first = |routes: Vec<(u64, String)>| routes.into_iter().find(|(_, id)| id == "low");
    let of_ms = |ms| (ms, "low".to_owned());
    assert_eq!(first(turns_beside_an_endless_stream(1_000, &low, 5_000)), Some(of_ms(3_000)));
    let normal = Task { priority: Priority::Normal, ..low.clone() };
    assert_eq!(first(turns_beside_an_endless_stream(1_000, &normal, 5_000)), Some(of_ms(2_000)));
    let of_another = Task { tenant: "other".into(), ..low.clone() };
    assert_eq!(
        first(turns_beside_an_endless_stream(1_000, &of_another, 5_000)),
        Some(of_ms(3_000))
    );
    assert_eq!(first(turns_beside_an_endless_stream(0, &low, 30_000)), None);
}

#[test]
fn a_class_that_rose_begins_anew_after_one_task() {
    let mut it = Fixture::with(|config| config.rules.age_ms = 1_000);
    let client = it.client();
    for n in 0..3 {
        let low = Task { priority: Priority::Low, ..of("flood", &format!("low-{n}")) };
        it.send_task(client, low, 60_000);
        it.send_task(client, of("other", &format!("normal-{n}")), 60_000);
    }
    it.advance(2_000);
    let worker = it.worker("w", 1);
    // Both classes rose; then the one that nobody kept from its turn goes first.
    let order = order(&mut it, worker, 6);
    assert_eq!(order, ["normal-0", "low-0", "normal-1", "normal-2", "low-1", "low-2"]);
}

#[test]
fn labels_make_a_queue_of_their_own_and_a_worker_takes_the_best_of_both() {
    let mut it = Fixture::new();
    let client = it.client();
    let labels = Labels([("gpu".to_owned(), "a100".to_owned())].into());
    let on_gpu = |id| Task { required_labels: labels.clone(), ..of("gpu", id) };
    for (id, ttl_ms) in [("a", 9_000), ("b", 7_000), ("c", 5_000)] {
        it.send_task(client, of("gpu", id), ttl_ms);
    }
    for (id, ttl_ms) in [("x", 8_000), ("y", 6_000)] {
        it.send_task(client, on_gpu(id), ttl_ms);
    }
    it.send_task(client, Task { priority: Priority::High, ..on_gpu("high") }, 10_000);
    let hello = WorkerHello { labels, ..worker_hello("w", 1) };
    let (worker, _) = it.worker_of(hello);
    assert_eq!(order(&mut it, worker, 6), ["high", "c", "y", "b", "x", "a"]);
}

/// One tenant floods, another sends a task whenever it has the result of the one before.
#[test]
fn who_sends_one_at_a_time_beside_a_flood_waits_for_one_service_time_at_most() {
    let mut load = Load::new(Fixture::new(), &[2, 2], |_| 20_000);
    (0..10_000).for_each(|_| load.send("flood", 600_000));
    for _ in 0..200 {
        let before = load.ok_of("one").count();
        load.send("one", 600_000);
        while load.ok_of("one").count() == before {
            load.pass_us(1_000);
        }
    }
    assert!(load.ok_of("one").all(|it| it.waited_us() <= 20_000), "{:?}", load.ended);
    assert!(quantile(load.ok_of("one").map(|it| it.waited_us()), 0.5) <= 20_000);
    load.it.discard();
}

/// As long as both want more, each gets half of the service, whatever its tasks take, also where that
/// is longer than it takes a class to rise.
#[test]
fn tenants_share_service_and_not_tasks() {
    for (age_ms, expected) in [(5_000, 10), (50, 10)] {
        let service_us = |tenant: &str| if tenant == "long" { 100_000 } else { 10_000 };
        let it = Fixture::with(|config| config.rules.age_ms = age_ms);
        let mut load = Load::new(it, &[2], service_us);
        for _ in 0..2_000 {
            load.send("long", 600_000);
            load.send("short", 600_000);
        }
        load.pass_us(20_000_000);
        let [long, short] = ["long", "short"].map(|tenant| load.ok_of(tenant).count());
        let ratio = short as f64 / long as f64 / f64::from(expected);
        assert!((0.9..1.1).contains(&ratio), "{short} short, {long} long");
        load.it.discard();
    }
}

/// What nobody else wanted is not held against who took it.
#[test]
fn who_was_served_alone_is_an_equal_of_who_comes_later() {
    let mut load = Load::new(Fixture::new(), &[1], |_| 10_000);
    (0..1_000).for_each(|_| load.send("early", 600_000));
    load.pass_us(5_000_000);
    (0..1_000).for_each(|_| load.send("late", 600_000));
    let early = load.ok_of("early").count();
    load.pass_us(1_000_000);
    let (early, late) = (load.ok_of("early").count() - early, load.ok_of("late").count());
    assert!(early.abs_diff(late) <= 2, "{early} and {late}");
    load.it.discard();
}

#[test]
fn a_hundred_thousand_made_up_tenants_keep_nobody_from_its_turn() {
    let mut load = Load::new(Fixture::new(), &[4], |_| 10_000);
    load.send("honest", 600_000);
    for n in 0..100_000 {
        load.send(&format!("made-up-{n}"), 600_000);
    }
    for _ in 0..20 {
        let before = load.ok_of("honest").count();
        load.send("honest", 600_000);
        while load.ok_of("honest").count() == before {
            load.pass_us(10_000);
        }
    }
    // A turn of each of those that are told apart, at most.
    let longest = load.ok_of("honest").map(|it| it.waited_us()).max();
    assert!(longest.is_some_and(|us| us <= 1_100 * 10_000 / 4), "{longest:?}");
    load.it.discard();
}

#[test]
fn of_many_that_wait_each_gets_its_turn_or_its_end() {
    let mut it = Fixture::with(|config| config.limits.max_session_tasks = u32::MAX);
    let client = it.client();
    for n in 0..100_000 {
        it.send_task(client, task(&n.to_string()), 1_000);
    }
    assert_eq!(it.core.stats().queued, 100_000);
    let worker = it.worker("w", 100);
    for n in 0..1_000 {
        let route = it.expect_route(worker);
        assert_eq!(route.task.decode().unwrap().id.as_str(), n.to_string());
        it.result(worker, route.attempt_id);
        it.expect_deliver(client, &n.to_string());
    }
    it.advance(1_000);
    assert_eq!((it.core.stats().queued, it.core.stats().expired), (0, 99_000));
    it.discard();
}

/// Of several sub-queues and actions, the worker's actions are still served in turn.
#[test]
fn a_workers_actions_share_its_slot_whatever_their_priorities() {
    let mut it = Fixture::new();
    let client = it.client();
    let actions = ["work", "play"].map(|name| ActionName::try_from(name).unwrap());
    for n in 0..2 {
        it.send_task(client, Task { priority: Priority::Urgent, ..task(&format!("w{n}")) }, 60_000);
        let play = Task { action: actions[1].clone(), ..task(&format!("p{n}")) };
        it.send_task(client, Task { priority: Priority::Low, ..play }, 60_000);
    }
    let hello = WorkerHello { actions: actions.into(), ..worker_hello("w", 1) };
    let (worker, _) = it.worker_of(hello);
    assert_eq!(order(&mut it, worker, 4), ["w0", "p0", "w1", "p1"]);
}
