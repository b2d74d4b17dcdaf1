//! What is refused at once: what would come too late, or too much of it.

use mcp_broker::broker::{ActionRules, CoreConfig, RateLimit};
use mcp_proto::{ActionName, ErrorCode, Executed, Message, Outcome, Priority, Task, WorkerHello};

use crate::fixture::{Fixture, cancelled_result, task, worker_hello};
use crate::load::{Load, quantile};

const SERVICE_US: u64 = 20_000;

fn with_rules(change: impl FnOnce(&mut ActionRules)) -> Fixture {
    Fixture::with(|config: &mut CoreConfig| change(&mut config.rules))
}

/// Workers of so many slots that have done enough for it to be known how long they take.
fn warm(it: Fixture, slots: &[u32]) -> Load {
    let mut load = Load::new(it, slots, |_| SERVICE_US);
    for _ in 0..10 {
        load.send("", 60_000);
        load.pass_us(SERVICE_US);
    }
    load.ended.clear();
    load
}

#[test]
fn under_three_times_the_load_what_is_admitted_is_fast_and_the_workers_are_busy() {
    let it = with_rules(|rules| rules.max_queue_wait_ms = 2 * SERVICE_US / 1000);
    let slots = [2, 1, 1];
    let mut load = Load::new(it, &slots, |_| SERVICE_US);
    let capacity_per_s = slots.iter().sum::<u32>() as u64 * 1_000_000 / SERVICE_US;
    let every_us = 1_000_000 / (3 * capacity_per_s);
    for _ in 0..60 * 3 * capacity_per_s {
        load.send("", 10_000);
        load.pass_us(every_us);
    }
    let seconds = load.it.now.mono.0 / 1_000_000;
    let ok: Vec<_> = load.ok_of("").collect();
    let goodput = ok.len() as f64 / (seconds * capacity_per_s) as f64;
    let p99_us = quantile(ok.iter().map(|it| it.took_us()), 0.99);
    let refused = load.ended.iter().filter(|it| it.code == Some(ErrorCode::Overloaded));
    let refusal_us = quantile(refused.map(|it| it.took_us()), 0.95);
    assert!(goodput >= 0.95, "{goodput}");
    assert!(p99_us <= 4 * SERVICE_US, "{p99_us}");
    assert_eq!(refusal_us, 0, "most are refused at once");
    load.drain();
}

#[test]
fn without_a_bound_of_their_own_tasks_may_wait_as_long_as_they_live() {
    let mut load = warm(Fixture::new(), &[2]);
    // Two run; of the others those are taken that two slots do in the time.
    (0..1_000).for_each(|_| load.send("", 1_000));
    let is_refused = |it: &&crate::load::Ended| it.code == Some(ErrorCode::Overloaded);
    let refused = load.ended.iter().filter(is_refused).count();
    assert!((900..930).contains(&refused), "{refused}");
    load.drain();
    assert_eq!(load.ok_of("").count(), 1_000 - refused);
}

/// Without refusals each task would be begun just before its time is over, and end in vain.
#[test]
fn under_three_times_the_load_what_is_admitted_is_done_in_its_time_to_live() {
    let mut load = Load::new(Fixture::new(), &[2, 2], |_| SERVICE_US);
    let every_us = SERVICE_US / 4 / 3;
    for _ in 0..10_000_000 / every_us {
        load.send("", 1_000);
        load.pass_us(every_us);
    }
    load.drain();
    let expired = load.ended.iter().filter(|it| it.outcome == Outcome::Expired).count();
    assert!(load.ok_of("").count() as u64 >= 95 * 10 * 4 * (1_000_000 / SERVICE_US) / 100);
    assert!(expired <= 20, "{expired}");
}

/// The refusal of a task of this client.
fn refusal(load: &mut Load, task: Task, ttl_ms: u64) -> Option<(ErrorCode, u64, String)> {
    let id = task.id.clone();
    load.it.send_task(load.client, task, ttl_ms);
    let (message, _) = load.it.next_for(load.client)?;
    let Message::Deliver(deliver) = message else { panic!("{message:?}") };
    assert_eq!((&deliver.task_id, deliver.outcome), (&id, Outcome::Rejected));
    assert_eq!(deliver.executed, Executed::No);
    let error = deliver.error?;
    Some((error.code, error.retry_after_ms?, error.message))
}

#[test]
fn a_refusal_says_how_long_the_wait_is_and_when_it_will_do() {
    let mut load = warm(with_rules(|rules| rules.max_queue_wait_ms = 100), &[1]);
    let mut number = 0;
    let mut another = |ttl_ms| {
        number += 1;
        (task(&format!("n{number}")), ttl_ms)
    };
    let mut taken = 0;
    let (code, after_ms, message) = loop {
        let (task, ttl_ms) = another(60_000);
        match refusal(&mut load, task, ttl_ms) {
            Some(refusal) => break refusal,
            None => taken += 1,
        }
    };
    // One runs, and four wait for 20 to 80 ms.
    assert_eq!((taken, code), (5, ErrorCode::Overloaded));
    assert!(
        message.contains("about 100 ms") && message.contains("may wait for 100 ms"),
        "{message}"
    );
    assert!((10..=40).contains(&after_ms), "{after_ms}");
    // What has less time goes first, and so is taken; what is lost anyway is not.
    let (task, _) = another(0);
    let (code, _, message) = refusal(&mut load, task, 10).unwrap();
    assert_eq!(code, ErrorCode::Overloaded);
    assert!(message.contains("it has 10 ms to live"), "{message}");
    let (task, _) = another(0);
    assert_eq!(refusal(&mut load, task, 50), None);
    load.it.discard();
}

#[test]
fn what_goes_first_is_not_refused_for_what_it_goes_before() {
    let mut load = warm(Fixture::new(), &[1]);
    (0..500).for_each(|_| load.send("flood", 60_000));
    assert!(load.ended.is_empty());
    let with =
        |id, priority, tenant: &'static str| Task { priority, tenant: tenant.into(), ..task(id) };
    let (normal, high) = (Priority::Normal, Priority::High);
    assert!(refusal(&mut load, with("a", Priority::Low, "other"), 1_000).is_some());
    assert_eq!(refusal(&mut load, with("b", high, "flood"), 1_000), None);
    assert_eq!(refusal(&mut load, with("c", normal, "other"), 1_000), None);
    assert_eq!(refusal(&mut load, with("d", normal, "flood"), 1_000), None);
    load.it.discard();
}

#[test]
fn what_waited_for_longer_than_was_foreseen_is_refused_then() {
    let mut it = with_rules(|rules| rules.max_queue_wait_ms = 50);
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send(client, "runs");
    let route = it.expect_route(worker);
    it.send(client, "waits");
    it.advance(49);
    it.expect_nothing();
    it.advance(1);
    let error = it.expect_deliver(client, "waits").error.unwrap();
    assert_eq!((error.code, error.retry_after_ms), (ErrorCode::AllBusy, Some(100)));
    assert!(error.message.contains("50 ms") && error.message.contains("were busy"), "{error}");
    // What came back may wait for longer.
    it.nack(worker, route.attempt_id);
    let route = it.expect_route(worker);
    it.result(worker, route.attempt_id);
    it.expect_end(client, "runs");
}

#[test]
fn what_has_expired_takes_no_slot() {
    let mut load = warm(Fixture::new(), &[1]);
    load.send("", 60_000);
    // Too little is known of these to refuse them: they have less than tasks take.
    (0..5).for_each(|_| load.send("", 19));
    load.send("", 60_000);
    load.drain();
    let mut ended: Vec<_> = load.ended.iter().map(|it| (it.ended, it.outcome)).collect();
    ended.sort_by_key(|(at, _)| *at);
    assert_eq!(load.ok_of("").count(), 2);
    assert!(load.ok_of("").all(|it| it.took_us() <= 2 * SERVICE_US), "{ended:?}");
}

#[test]
fn a_tenant_that_fills_a_queue_leaves_room_for_others() {
    let mut it = Fixture::with(|config| config.rules.max_queue_tasks = 90);
    let client = it.client();
    let mut sent = 0;
    let mut taken = |it: &mut Fixture, tenant: &str, count: usize| {
        let mut taken = 0;
        for _ in 0..count {
            sent += 1;
            let task = Task { tenant: tenant.to_owned().into(), ..task(&format!("t{sent}")) };
            it.send_task(client, task, 60_000);
            match it.next_for(client) {
                Some((Message::Deliver(deliver), _)) => {
                    let error = deliver.error.unwrap();
                    assert_eq!(error.code, ErrorCode::QueueFull);
                    assert!(error.retry_after_ms.is_some());
                }
                None => taken += 1,
                other => panic!("{other:?}"),
            }
        }
        taken
    };
    assert_eq!(taken(&mut it, "flood", 1_000), 80);
    assert!(taken(&mut it, "other", 1_000) >= 8);
    assert!(taken(&mut it, "third", 1_000) >= 1);
    assert_eq!(taken(&mut it, "flood", 1_000), 0);
    it.discard();
}

#[test]
fn a_rate_limit_refuses_at_once_and_says_exactly_when_to_come_again() {
    let mut it = with_rules(|rules| rules.rate_limit = RateLimit::new(10.0, 2));
    let client = it.client();
    let worker = it.worker("w", 100);
    for id in ["a", "b"] {
        it.send(client, id);
        it.expect_route(worker);
    }
    it.send(client, "c");
    let error = it.expect_deliver(client, "c").error.unwrap();
    assert_eq!((error.code, error.retry_after_ms), (ErrorCode::RateLimited, Some(100)));
    it.advance(99);
    it.send(client, "c");
    let error = it.expect_deliver(client, "c").error.unwrap();
    assert_eq!((error.code, error.retry_after_ms), (ErrorCode::RateLimited, Some(1)));
    it.advance(1);
    it.send(client, "c");
    it.expect_route(worker);
    // A task that is known already is not another one.
    it.send(client, "c");
    it.expect_nothing();
    let refused = it.core.metrics(it.now).refused;
    assert_eq!(refused, [(ErrorCode::RateLimited, 2)]);
}

#[test]
fn each_tenant_has_a_rate_of_its_own_beside_that_of_all() {
    let mut it = with_rules(|rules| {
        rules.rate_limit = RateLimit::new(10.0, 3);
        rules.tenant_rate_limit = RateLimit::new(10.0, 1);
    });
    let client = it.client();
    let worker = it.worker("w", 100);
    let code = |it: &mut Fixture, tenant: &str, id: &str| {
        it.send_task(client, Task { tenant: tenant.to_owned().into(), ..task(id) }, 60_000);
        match it.next_for(client) {
            Some((Message::Deliver(deliver), _)) => Some(deliver.error.unwrap().code),
            _ => None,
        }
    };
    let limited = Some(ErrorCode::RateLimited);
    assert_eq!(code(&mut it, "a", "a1"), None);
    // What its tenant's rate refuses takes nothing of that of all.
    (0..10).for_each(|n| assert_eq!(code(&mut it, "a", &format!("a2{n}")), limited));
    assert_eq!([code(&mut it, "b", "b1"), code(&mut it, "", "n1")], [None, None]);
    assert_eq!(code(&mut it, "", "n2"), limited);
    assert_eq!(code(&mut it, "c", "c1"), limited);
    it.advance(100);
    // And the other way round.
    assert_eq!([code(&mut it, "c", "c1"), code(&mut it, "a", "a3")], [None, limited]);
    it.advance(100);
    assert_eq!(code(&mut it, "a", "a3"), None);
    (0..5).for_each(|_| drop(it.expect_route(worker)));
}

#[test]
fn no_more_than_the_cap_run_and_whoever_has_room_takes_the_next() {
    let mut it = with_rules(|rules| rules.max_running = 2);
    let client = it.client();
    let workers = ["v", "w", "x"].map(|name| it.worker(name, 4));
    (0..5).for_each(|n| it.send(client, &format!("t{n}")));
    let mut running: Vec<_> = Vec::new();
    let look = |it: &mut Fixture, running: &mut Vec<_>| {
        for worker in workers {
            while let Some((Message::Route(route), _)) = it.next_for(worker) {
                running.push((worker, route));
            }
        }
    };
    look(&mut it, &mut running);
    assert_eq!((running.len(), it.core.stats().queued), (2, 3));
    // The worker that ends one leaves: another one takes the next.
    let (worker, route) = running.remove(0);
    it.result(worker, route.attempt_id);
    while it.next_for(client).is_some() {}
    look(&mut it, &mut running);
    assert_eq!((running.len(), it.core.stats().queued), (2, 2));
    let (worker, _) = running[1];
    running.retain(|(it, _)| *it != worker);
    it.disconnect(worker, mcp_broker::broker::Disconnect::Orderly);
    look(&mut it, &mut running);
    assert_eq!((running.len(), it.core.stats().in_flight), (2, 2));
    // With the cap goes the wait.
    let rules = ActionRules::default();
    it.core.set_rules(it.now, ActionName::try_from("work").unwrap(), rules);
    assert_eq!(it.core.stats().queued, 0);
    it.discard();
}

#[test]
fn an_attempt_that_outlives_its_task_counts_until_its_worker_is_done() {
    let mut it = with_rules(|rules| rules.max_running = 1);
    let client = it.client();
    let worker = it.worker("w", 4);
    it.send_task(client, task("t"), 100);
    it.send(client, "next");
    let route = it.expect_route(worker);
    it.advance(100);
    assert_eq!(it.expect_end(client, "t").0, Outcome::Expired);
    it.expect_cancel(worker, route.attempt_id);
    it.expect_nothing();
    it.give(worker, Message::Result(cancelled_result(route.attempt_id)));
    it.expect_route(worker);
}

/// The worker whose attempt ends has its slot taken by another action.
#[test]
fn a_cap_that_is_free_again_is_used_by_another_worker() {
    let actions = ["work", "play"].map(|name| ActionName::try_from(name).unwrap());
    let mut it = Fixture::with(|config| {
        let mut rules = ActionRules::default();
        rules.max_running = 1;
        config.actions.insert(actions[0].clone(), rules);
    });
    let client = it.client();
    let of_both = actions.iter().rev().cloned().collect();
    let both = WorkerHello { actions: of_both, ..worker_hello("both", 1) };
    let (both, _) = it.worker_of(both);
    it.send(client, "a");
    it.send(client, "b");
    it.send_task(client, Task { action: actions[1].clone(), ..task("p") }, 60_000);
    let route = it.expect_route(both);
    let other = it.worker("other", 1);
    it.expect_nothing();
    it.result(both, route.attempt_id);
    it.expect_end(client, "a");
    let played = it.expect_route(both).task.decode().unwrap().id;
    let worked = it.expect_route(other).task.decode().unwrap().id;
    assert_eq!((played.as_str(), worked.as_str()), ("p", "b"));
}
