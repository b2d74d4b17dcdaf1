//! Workers that fail, are slow, or are new; and tasks that no worker survives.

use mcp_broker::broker::{ActionRules, AgentView, Breakers, ConnectionId, Disconnect, Event};
use mcp_proto::{
    CancelReason, ErrorCode, Executed, Labels, Message, Outcome, Readiness, Retry, Route, Task,
    WorkerHello,
};

use crate::fixture::{
    Fixture, cancelled_result, idempotent, panic_result, report, task, worker_hello,
};

/// Workers are not asked whether they are there, as nothing here depends on that.
fn fixture(change: impl FnOnce(&mut ActionRules)) -> Fixture {
    Fixture::with(|config| {
        config.lease_ms = 100_000_000;
        config.probe_after_ms = 10_000_000;
        config.lost_after_ms = 20_000_000;
        change(&mut config.rules);
    })
}

/// A task is sent, and its handler panics.
fn panics(it: &mut Fixture, client: ConnectionId, worker: ConnectionId, id: &str) {
    it.send(client, id);
    let route = it.expect_route(worker);
    it.give(worker, Message::Result(panic_result(route.attempt_id)));
    assert_eq!(it.expect_end(client, id).2, Some(ErrorCode::HandlerPanic));
}

fn done(it: &mut Fixture, client: ConnectionId, worker: ConnectionId, route: &Route) {
    it.result(worker, route.attempt_id);
    let id = route.task.decode().unwrap().id.to_string();
    assert_eq!(it.expect_end(client, &id).0, Outcome::Ok);
}

fn view(it: &Fixture, name: &str) -> AgentView {
    let agents = it.core.agents(it.now, true);
    agents.into_iter().find(|agent| agent.agent_id.as_str() == name).unwrap()
}

fn health(it: &Fixture, name: &str) -> &'static str {
    view(it, name).health
}

fn next_process(name: &str, process: u32) -> WorkerHello {
    let instance_id = format!("{name}-process-{process}").try_into().unwrap();
    WorkerHello { instance_id, ..worker_hello(name, 4) }
}

/// The worker whose breaker opened after 5 faults, at the time 0.
fn broken(it: &mut Fixture, client: ConnectionId, slots: u32) -> ConnectionId {
    let worker = it.worker("w", slots);
    for n in 0..5 {
        panics(it, client, worker, &format!("fault-{n}"));
    }
    assert_eq!(health(it, "w"), "breaker open");
    worker
}

#[test]
fn a_faulty_worker_is_out_after_five_faults_and_back_through_one_probe() {
    let mut it = fixture(|_| {});
    let client = it.client();
    let worker = it.worker("w", 4);
    for n in 0..4 {
        panics(&mut it, client, worker, &format!("fault-{n}"));
    }
    assert_eq!(health(&it, "w"), "ok");
    panics(&mut it, client, worker, "the-fifth");
    let it_is = view(&it, "w");
    assert_eq!((it_is.health, it_is.unwell[0].health), ("breaker open", "breaker open"));
    assert_eq!(it_is.unwell[0].for_ms, Some(30_000));
    assert!(it.events.iter().any(|event| event.to_string().contains("5 faults in a row")));

    // Another one does the work meanwhile.
    let other = it.worker("other", 1);
    let work = it.core.metrics(it.now).actions.pop().unwrap();
    let breakers = Breakers { closed: 1, half_open: 0, open: 1 };
    assert_eq!((work.workers, work.breakers), (Some((2, 1)), Some(breakers)));
    it.send(client, "a");
    let route = it.expect_route(other);
    done(&mut it, client, other, &route);
    it.disconnect(other, Disconnect::Orderly);

    it.advance(29_000);
    for id in ["b", "c", "d"] {
        it.send(client, id);
    }
    it.expect_nothing();
    it.advance(1_000);
    let probe = it.expect_route(worker);
    assert_eq!(health(&it, "w"), "probing");
    it.expect_nothing();
    done(&mut it, client, worker, &probe);
    assert_eq!(health(&it, "w"), "ok");
    assert!(it.events.iter().any(|event| matches!(event, Event::BreakerClosed { .. })));
    for _ in 0..2 {
        let route = it.expect_route(worker);
        done(&mut it, client, worker, &route);
    }
    assert_eq!(it.core.stats().breakers_opened, 1);
}

#[test]
fn a_clients_failing_tasks_take_nobody_out() {
    let mut it = fixture(|_| {});
    let client = it.client();
    let worker = it.worker("w", 4);
    for n in 0..1_000 {
        let id = format!("t{n}");
        it.send(client, &id);
        let route = it.expect_route(worker);
        it.fail(worker, route.attempt_id);
        assert_eq!(it.expect_end(client, &id).2, Some(ErrorCode::HandlerFailed));
    }
    assert_eq!((health(&it, "w"), it.core.stats().breakers_opened), ("ok", 0));
}

#[test]
fn pushback_takes_nobody_out() {
    let mut it = fixture(|_| {});
    let client = it.client();
    let worker = it.worker("w", 4);
    for n in 0..20 {
        let id = format!("t{n}");
        it.send(client, &id);
        while let Some((Message::Route(route), _)) = it.next_for(worker) {
            it.nack(worker, route.attempt_id);
        }
        assert_eq!(it.expect_end(client, &id).2, Some(ErrorCode::AllBusy));
    }
    assert_eq!(health(&it, "w"), "ok");
}

#[test]
fn a_large_share_of_faults_opens_it_though_they_are_not_in_a_row() {
    let mut it = fixture(|_| {});
    let client = it.client();
    let worker = it.worker("w", 4);
    for n in 0..10 {
        assert_eq!(health(&it, "w"), "ok");
        it.send(client, &format!("ok-{n}"));
        let route = it.expect_route(worker);
        done(&mut it, client, worker, &route);
        panics(&mut it, client, worker, &format!("fault-{n}"));
        it.advance(100);
    }
    assert_eq!(health(&it, "w"), "breaker open");
}

#[test]
fn a_probe_that_is_a_fault_opens_it_for_twice_as_long() {
    let mut it = fixture(|_| {});
    let client = it.client();
    let worker = broken(&mut it, client, 4);
    it.advance(30_000);
    panics(&mut it, client, worker, "probe");
    assert_eq!(view(&it, "w").unwell[0].for_ms, Some(60_000));
    it.advance(60_000);
    it.send(client, "again");
    let route = it.expect_route(worker);
    done(&mut it, client, worker, &route);
    assert_eq!(health(&it, "w"), "ok");
}

#[test]
fn a_probe_without_a_verdict_is_followed_by_another() {
    let mut it = fixture(|_| {});
    let client = it.client();
    let worker = broken(&mut it, client, 4);
    it.advance(30_000);
    // Handed back: it is asked again, as there is no other.
    it.send(client, "a");
    let route = it.expect_route(worker);
    it.nack(worker, route.attempt_id);
    let route = it.expect_route(worker);
    it.send_task(client, task("b"), 60_000);
    it.expect_nothing();
    // Cancelled: when its worker has confirmed that.
    it.give(client, Message::Cancel(mcp_proto::Cancel::Task("a".try_into().unwrap())));
    it.expect_end(client, "a");
    assert_eq!(it.expect_cancel(worker, route.attempt_id), CancelReason::Client);
    it.expect_nothing();
    it.give(worker, Message::Result(cancelled_result(route.attempt_id)));
    let route = it.expect_route(worker);
    it.expect_nothing();
    // The task's own error: the worker works.
    it.fail(worker, route.attempt_id);
    it.expect_end(client, "b");
    assert_eq!(health(&it, "w"), "ok");
}

#[test]
fn what_it_had_before_its_breaker_opened_says_nothing_about_it_after() {
    let mut it = fixture(|_| {});
    let client = it.client();
    let worker = it.worker("w", 4);
    it.send(client, "long");
    let long = it.expect_route(worker);
    for n in 0..5 {
        panics(&mut it, client, worker, &format!("fault-{n}"));
    }
    it.advance(30_000);
    done(&mut it, client, worker, &long);
    assert_eq!(health(&it, "w"), "half-open");
}

#[test]
fn what_waited_for_a_worker_does_not_wait_for_its_breaker() {
    let mut it = fixture(|_| {});
    let client = it.client();
    let worker = it.worker("w", 1);
    for n in 0..4 {
        panics(&mut it, client, worker, &format!("fault-{n}"));
    }
    it.send(client, "the-fifth");
    let route = it.expect_route(worker);
    it.send_task(client, task("before"), 600_000);
    it.advance(20_000);
    it.give(worker, Message::Result(panic_result(route.attempt_id)));
    it.expect_end(client, "the-fifth");
    it.advance(2_000);
    it.send_task(client, task("after"), 600_000);
    it.advance(2_999);
    it.expect_nothing();
    it.advance(1);
    let refused = it.expect_deliver(client, "before");
    let error = refused.error.unwrap();
    assert_eq!((refused.outcome, refused.executed), (Outcome::Rejected, Executed::No));
    assert_eq!((error.code, error.retry_after_ms), (ErrorCode::AllUnhealthy, Some(25_000)));
    assert!(error.message.contains("breaker open"), "{error}");
    it.expect_nothing();
    it.advance(2_000);
    let error = it.expect_deliver(client, "after").error.unwrap();
    assert_eq!(error.retry_after_ms, Some(23_000));
    // Nothing keeps those waiting that come just before it is tried again.
    it.advance(19_000);
    it.send_task(client, task("late"), 600_000);
    it.advance(4_000);
    let route = it.expect_route(worker);
    done(&mut it, client, worker, &route);
}

#[test]
fn a_task_that_comes_back_while_all_breakers_are_open_is_refused_as_well() {
    let mut it = fixture(|_| {});
    let client = it.client();
    let worker = it.worker("w", 2);
    it.send_task(client, task("held"), 600_000);
    let held = it.expect_route(worker);
    for n in 0..5 {
        panics(&mut it, client, worker, &format!("fault-{n}"));
    }
    it.advance(10_000);
    it.nack(worker, held.attempt_id);
    it.advance(4_999);
    it.expect_nothing();
    it.advance(1);
    assert_eq!(it.expect_end(client, "held").2, Some(ErrorCode::AllUnhealthy));
}

#[test]
fn many_tasks_are_refused_in_several_steps() {
    let mut it = fixture(|_| {});
    let client = it.client();
    let worker = it.worker("w", 1);
    for n in 0..4 {
        panics(&mut it, client, worker, &format!("fault-{n}"));
    }
    it.send(client, "the-fifth");
    let route = it.expect_route(worker);
    for n in 0..3_000 {
        it.send_task(client, task(&format!("t{n}")), 600_000);
    }
    it.give(worker, Message::Result(panic_result(route.attempt_id)));
    it.expect_end(client, "the-fifth");
    it.advance(5_000);
    let refused = std::iter::from_fn(|| it.next_for(client)).count();
    assert_eq!(refused, 1_024);
    it.advance(2);
    let refused = std::iter::from_fn(|| it.next_for(client)).count();
    assert_eq!((refused, it.core.stats().queued), (3_000 - 1_024, 0));
}

#[test]
fn a_lost_worker_is_one_fault_and_whoever_is_lost_again_and_again_is_known_when_it_comes() {
    let mut it = fixture(|_| {});
    let client = it.client();
    for process in 0..5 {
        let (worker, _) = it.worker_of(next_process("w", process));
        assert_eq!(health(&it, "w"), "ok");
        for n in 0..4 {
            it.send(client, &format!("t{process}-{n}"));
            it.expect_route(worker);
        }
        it.disconnect(worker, Disconnect::Orderly);
        for n in 0..4 {
            let end = it.expect_end(client, &format!("t{process}-{n}"));
            assert_eq!(end.2, Some(ErrorCode::WorkerLost));
        }
    }
    it.advance(10_000);
    let (worker, _) = it.worker_of(next_process("w", 5));
    assert_eq!(health(&it, "w"), "breaker open");
    it.advance(19_000);
    it.send(client, "probe");
    it.expect_nothing();
    it.advance(1_000);
    let route = it.expect_route(worker);
    done(&mut it, client, worker, &route);
    assert_eq!(health(&it, "w"), "ok");
}

#[test]
fn its_connection_broken_and_made_again_a_worker_is_as_it_was() {
    let mut it = fixture(|_| {});
    let client = it.client();
    let worker = broken(&mut it, client, 4);
    it.disconnect(worker, Disconnect::Broken);
    let (worker, _) = it.worker_of(worker_hello("w", 4));
    assert_eq!(health(&it, "w"), "breaker open");
    // On a second one while the first is there, as well.
    let (second, _) = it.worker_of(worker_hello("w", 4));
    it.expect_goaway(worker);
    it.expect_close(worker);
    assert_eq!(health(&it, "w"), "breaker open");
    it.advance(30_000);
    it.send(client, "probe");
    let probe = it.expect_route(second);
    it.disconnect(second, Disconnect::Broken);
    // It goes on with the probe; that it was lost was a fault.
    let hello = WorkerHello { held: vec![probe.attempt_id], ..worker_hello("w", 4) };
    let (third, ack) = it.worker_of(hello);
    assert_eq!((ack.keep.len(), health(&it, "w")), (1, "breaker open"));
    done(&mut it, client, third, &probe);
    assert_eq!(view(&it, "w").unwell[0].for_ms, Some(60_000));
}

fn retried(id: &str) -> Task {
    let retry = Retry { max_attempts: 10, ..Retry::default() };
    Task { retry: Some(retry), ..idempotent(id) }
}

/// The worker that was routed a task.
fn routed(it: &mut Fixture, workers: &[ConnectionId]) -> Option<(usize, Route)> {
    let next = |(index, worker): (usize, &ConnectionId)| match it.next_for(*worker)? {
        (Message::Route(route), _) => Some((index, route)),
        other => panic!("{other:?}"),
    };
    workers.iter().enumerate().find_map(next)
}

#[test]
fn a_task_that_panics_everywhere_stops_after_three_workers_and_they_stay() {
    let mut it = fixture(|_| {});
    let client = it.client();
    let workers: Vec<_> = (0..5).map(|n| it.worker(&format!("w{n}"), 1)).collect();
    for n in 0..20 {
        let id = format!("t{n}");
        it.send_task(client, retried(&id), 60_000);
        let mut tried = Vec::new();
        while let Some((index, route)) = routed(&mut it, &workers) {
            it.give(workers[index], Message::Result(panic_result(route.attempt_id)));
            it.advance(1_000);
            if !tried.contains(&index) {
                tried.push(index);
            }
        }
        assert_eq!(tried.len(), 3);
        let deliver = it.expect_deliver(client, &id);
        let error = deliver.error.unwrap();
        assert_eq!((deliver.outcome, deliver.executed), (Outcome::Failed, Executed::Maybe));
        assert_eq!(
            (error.code, error.causes[0].code),
            (ErrorCode::Poisoned, ErrorCode::HandlerPanic)
        );
        assert!(error.message.starts_with("3 workers"), "{error}");
        // Of others' tasks, each worker does some.
        for worker in 0..5 {
            it.send(client, &format!("{id}-{worker}"));
        }
        while let Some((index, route)) = routed(&mut it, &workers) {
            done(&mut it, client, workers[index], &route);
        }
    }
    let stats = it.core.stats();
    assert_eq!((stats.poisoned, stats.breakers_opened), (20, 0));
    let poisoned = |event: &&Event| matches!(event, Event::TaskPoisoned { workers: 3, .. });
    assert_eq!(it.events.iter().filter(poisoned).count(), 20);
}

#[test]
fn a_task_that_kills_its_workers_stops_after_three_of_them() {
    let mut it = fixture(|_| {});
    let client = it.client();
    let workers: Vec<_> = (0..5).map(|n| it.worker(&format!("w{n}"), 1)).collect();
    it.send_task(client, idempotent("t"), 600_000);
    let mut killed = 0;
    while let Some((index, _)) = routed(&mut it, &workers) {
        it.disconnect(workers[index], Disconnect::Broken);
        killed += 1;
    }
    assert_eq!((killed, it.online().len()), (3, 2));
    let deliver = it.expect_deliver(client, "t");
    assert_eq!(deliver.error.unwrap().code, ErrorCode::Poisoned);
    let reasons: Vec<_> =
        deliver.trace.decode().hops.iter().map(|hop| hop.reason.to_string()).collect();
    let again = "worker lost; dispatched again";
    assert_eq!(reasons, [again, again, "worker lost, as others before it"]);
    // The same worker, started again each time, counts each time.
    workers.iter().for_each(|worker| it.disconnect(*worker, Disconnect::Orderly));
    it.send_task(client, idempotent("u"), 600_000);
    for process in 0..3 {
        let (worker, _) = it.worker_of(next_process("again", process));
        it.expect_route(worker);
        it.disconnect(worker, Disconnect::Orderly);
    }
    assert_eq!(it.expect_end(client, "u").2, Some(ErrorCode::Poisoned));
}

#[test]
fn a_task_that_is_given_up_again_and_again_ends() {
    let mut it = fixture(|_| {});
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send_task(client, idempotent("t"), 600_000);
    let mut attempts = 0;
    while let Some((Message::Route(route), _)) = it.next_for(worker) {
        attempts += 1;
        it.give(worker, Message::Result(cancelled_result(route.attempt_id)));
    }
    assert_eq!(attempts, it.core.config().max_nacks);
    assert_eq!(it.expect_end(client, "t").2, Some(ErrorCode::Poisoned));
    assert_eq!(health(&it, "w"), "ok");
}

#[test]
fn a_time_out_that_is_short_for_its_client_is_no_fault_of_the_worker() {
    let mut it = fixture(|_| {});
    let client = it.client();
    let worker = it.worker("w", 1);
    let times_out = |it: &mut Fixture, id: &str, attempt_timeout_ms: u32| {
        it.send_task(client, Task { attempt_timeout_ms, ..task(id) }, 60_000);
        let route = it.expect_route(worker);
        it.advance(attempt_timeout_ms.into());
        assert_eq!(it.expect_end(client, id).2, Some(ErrorCode::AttemptTimeout));
        it.expect_cancel(worker, route.attempt_id);
        it.give(worker, Message::Result(cancelled_result(route.attempt_id)));
    };
    let is_out = |it: &Fixture| health(it, "w") == "breaker open";
    // Nobody knows yet how long a task takes.
    (0..10).for_each(|n| times_out(&mut it, &format!("unknown-{n}"), 5_000));
    assert!(!is_out(&it));
    for n in 0..8 {
        it.send(client, &format!("takes-2-s-{n}"));
        let route = it.expect_route(worker);
        it.advance(2_000);
        done(&mut it, client, worker, &route);
    }
    for (n, ms) in [1, 100, 999, 1_000, 4_000, 7_999].into_iter().enumerate() {
        times_out(&mut it, &format!("short-{n}"), ms);
    }
    assert!(!is_out(&it));
    (0..4).for_each(|n| times_out(&mut it, &format!("long-{n}"), 8_000));
    assert!(!is_out(&it));
    times_out(&mut it, "the-fifth", 8_000);
    assert!(is_out(&it));
}

#[test]
fn a_forgotten_attempt_is_a_fault() {
    let mut it = fixture(|_| {});
    let client = it.client();
    let worker = it.worker("w", 1);
    for n in 0..5 {
        let id = format!("t{n}");
        it.send(client, &id);
        it.expect_route(worker);
        it.give(worker, report(n + 1, &[], Readiness::Ready));
        it.expect_pong(worker);
        it.expect_end(client, &id);
    }
    assert_eq!(health(&it, "w"), "breaker open");
}

/// So many rounds of as many tasks as there are workers, of which each takes so many ms for a task.
/// Returns how many each did.
fn rounds(
    it: &mut Fixture,
    client: ConnectionId,
    workers: &[ConnectionId],
    rounds: usize,
    takes_ms: impl Fn(usize) -> u64,
) -> Vec<usize> {
    let mut did = vec![0; workers.len()];
    for _ in 0..rounds {
        let mut held = Vec::new();
        for _ in workers {
            it.send(client, &format!("t{}", it.core.stats().accepted));
        }
        loop {
            while let Some((index, route)) = routed(it, workers) {
                held.push((it.now.mono.plus_ms(takes_ms(index)), index, route));
            }
            let first = (0..held.len()).min_by_key(|place| held[*place].0);
            let Some((at, index, route)) = first.map(|place| held.swap_remove(place)) else {
                break;
            };
            it.advance(at.since(it.now.mono) / 1000);
            done(it, client, workers[index], &route);
            did[index] += 1;
        }
    }
    did
}

#[test]
fn one_slow_worker_of_eight_is_left_out_for_a_while() {
    let mut it = fixture(|_| {});
    let client = it.client();
    let workers: Vec<_> = (0..8).map(|n| it.worker(&format!("w{n}"), 1)).collect();
    let takes_ms = |index: usize| if index == 3 { 200 } else { 20 };
    let mut slow = 0;
    while health(&it, "w3") == "ok" || health(&it, "w3") == "slow start" {
        slow += rounds(&mut it, client, &workers, 1, takes_ms)[3];
    }
    // 32 tasks to compare, and 2 of them in a row.
    assert_eq!((slow, health(&it, "w3")), (33, "ejected"));
    let is_it = |event: &Event| matches!(event, Event::WorkerEjected { percent: 950..1050, .. });
    assert!(it.events.iter().any(is_it));
    assert_eq!(rounds(&mut it, client, &workers, 20, takes_ms)[3], 0);
    assert_eq!(it.core.stats().workers_ejected, 1);
    // Back, it has to show again how it is.
    it.advance(30_000);
    assert_eq!(health(&it, "w3"), "slow start");
    it.advance(10_000);
    assert_eq!(health(&it, "w3"), "ok");
    assert_eq!(rounds(&mut it, client, &workers, 100, |_| 20)[3], 100);
    assert_eq!(it.core.stats().workers_ejected, 1);
}

#[test]
fn at_most_half_of_the_workers_are_left_out() {
    let mut it = fixture(|rules| {
        rules.outlier.eject_ms = 10_000_000;
        rules.slow_start_ms = 0;
    });
    let client = it.client();
    let workers: Vec<_> = (0..5).map(|n| it.worker(&format!("w{n}"), 1)).collect();
    for slow in 0..3 {
        rounds(&mut it, client, &workers, 100, |index| if index <= slow { 300 } else { 20 });
    }
    let ejected = (0..5).filter(|n| health(&it, &format!("w{n}")) == "ejected").count();
    assert_eq!(ejected, 2);
}

#[test]
fn whoever_is_left_out_does_what_nobody_else_can() {
    let mut it = fixture(|rules| rules.slow_start_ms = 0);
    let client = it.client();
    let labels = Labels([("gpu".into(), "a100".into())].into());
    let slow = WorkerHello { labels: labels.clone(), ..worker_hello("slow", 1) };
    let slow = it.worker_of(slow).0;
    let mut workers = vec![slow];
    workers.extend((0..3).map(|n| it.worker(&format!("w{n}"), 1)));
    rounds(&mut it, client, &workers, 60, |index| if index == 0 { 300 } else { 20 });
    assert_eq!(health(&it, "slow"), "ejected");
    // Only it has the labels.
    it.send_task(client, Task { required_labels: labels, ..task("gpu") }, 60_000);
    let route = it.expect_route(slow);
    done(&mut it, client, slow, &route);
    // The others are busy, but they are there.
    for n in 0..4 {
        it.send(client, &format!("plain-{n}"));
    }
    let routes: Vec<_> = (0..3).map(|_| routed(&mut it, &workers).unwrap()).collect();
    it.expect_nothing();
    for (index, route) in routes {
        assert_ne!(index, 0);
        it.disconnect(workers[index], Disconnect::Broken);
        let id = route.task.decode().unwrap().id.to_string();
        let is_last = it.online().len() == 1;
        assert_eq!(it.next_for(slow).is_some(), is_last, "{id}");
    }
    it.core.handle_timeout(it.now);
    it.advance(10_000);
    it.discard();
}

#[test]
fn a_worker_that_is_new_gets_less_than_its_part_at_first() {
    let mut it = fixture(|_| {});
    let client = it.client();
    let old = it.worker("old", 10);
    it.advance(10_000);
    let new = it.worker("new", 10);
    assert_eq!((health(&it, "old"), health(&it, "new")), ("ok", "slow start"));
    assert_eq!(view(&it, "new").unwell[0].for_ms, Some(10_000));
    let share = |it: &mut Fixture, tasks: usize| {
        let mut routes = Vec::new();
        for n in 0..tasks {
            it.send(client, &format!("t{}-{n}", it.core.stats().accepted));
            routes.push(routed(it, &[old, new]).unwrap());
        }
        let of_new = routes.iter().filter(|(index, _)| *index == 1).count();
        for (index, route) in routes {
            done(it, client, [old, new][index], &route);
        }
        of_new
    };
    // As if it had one slot. With all 20 tasks it has as many as the other one.
    let at_first = share(&mut it, 10);
    assert!((1..=2).contains(&at_first), "{at_first}");
    assert_eq!(share(&mut it, 20), 10);
    it.advance(8_000);
    assert!((4..=5).contains(&share(&mut it, 10)));
    it.advance(2_000);
    assert_eq!((health(&it, "new"), share(&mut it, 10)), ("ok", 5));
}

#[test]
fn a_fleet_that_starts_at_once_starts_with_all() {
    let mut it = fixture(|_| {});
    for n in 0..4 {
        it.worker(&format!("w{n}"), 10);
        it.advance(500);
    }
    assert!((0..4).all(|n| health(&it, &format!("w{n}")) == "ok"));
    it.advance(8_500);
    // The first has been there for long enough.
    it.worker("late", 10);
    assert_eq!(health(&it, "late"), "slow start");
}

#[test]
fn rules_that_change_free_whom_they_no_longer_bar() {
    let mut it = fixture(|_| {});
    let client = it.client();
    let worker = broken(&mut it, client, 1);
    it.send(client, "t");
    let mut rules = ActionRules::default();
    rules.breaker.failures = 0;
    it.core.set_rules(it.now, "work".try_into().unwrap(), rules);
    it.collect();
    let route = it.expect_route(worker);
    done(&mut it, client, worker, &route);
    for n in 0..100 {
        panics(&mut it, client, worker, &format!("t{n}"));
    }
    assert_eq!(health(&it, "w"), "ok");
}
