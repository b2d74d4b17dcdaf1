//! A task goes to a worker with room and comes back, once.

use mcp_broker::broker::Policy;
use mcp_proto::{ErrorCode, Executed, HopEvent, Labels, Message, Outcome, TaskResult};

use crate::fixture::{Fixture, ok_result, task, worker_hello};

#[test]
fn a_task_goes_from_client_to_worker_and_back_with_its_trace() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send(client, "t");
    it.advance(5);
    let route = it.expect_route(worker);
    assert_eq!((route.attempt, route.ttl_ms), (1, 60_000));
    let result = TaskResult { queue_us: 500, work_us: 3_000, ..ok_result(route.attempt_id) };
    it.give_body(worker, Message::Result(result), "output");

    let deliver = it.expect_deliver(client, "t");
    assert_eq!((deliver.outcome, deliver.executed), (Outcome::Ok, Executed::Yes));
    let trace = deliver.trace.decode();
    assert_eq!((trace.broker_id.as_ref().unwrap().as_str(), trace.total_us), ("broker-1", 5_000));
    let hop = &trace.hops[0];
    assert_eq!((hop.event, hop.attempt, hop.candidates), (HopEvent::Completed, 1, 1));
    assert_eq!((hop.queue_us, hop.network_us), (0, 1_500));
    assert_eq!((hop.worker_queue_us, hop.work_us, &*hop.policy), (500, 3_000, "least_loaded"));
}

#[test]
fn a_handlers_error_is_the_tasks_outcome() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send(client, "t");
    let route = it.expect_route(worker);
    let result = TaskResult { outcome: Outcome::Failed, ..ok_result(route.attempt_id) };
    it.give(worker, Message::Result(result));
    let end = it.expect_end(client, "t");
    assert_eq!(end, (Outcome::Failed, Executed::Yes, Some(ErrorCode::HandlerFailed)));
}

#[test]
fn a_worker_never_holds_more_than_its_slots_and_prefetch() {
    let mut it = Fixture::new();
    let client = it.client();
    let (worker, _) = it.worker_of(mcp_proto::WorkerHello { prefetch: 1, ..worker_hello("w", 2) });
    for id in ["a", "b", "c", "d"] {
        it.send(client, id);
    }
    let first = it.expect_route(worker);
    it.expect_route(worker);
    it.expect_route(worker);
    it.expect_nothing();
    assert_eq!((it.in_flight("w"), it.core.stats().queued), (3, 1));
    // The slot comes back with the RESULT, and goes to the next task in the same step.
    it.result(worker, first.attempt_id);
    it.expect_end(client, "a");
    assert_eq!(it.expect_route(worker).task.decode().unwrap().id.as_str(), "d");
    assert_eq!(it.in_flight("w"), 3);
}

#[test]
fn a_result_counts_once() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 2);
    it.send(client, "t");
    let route = it.expect_route(worker);
    it.result(worker, route.attempt_id);
    it.expect_end(client, "t");
    it.result(worker, route.attempt_id);
    assert_eq!(it.expect_error(worker).code, ErrorCode::UnknownAttempt);
    assert_eq!((it.in_flight("w"), it.core.stats().refused_results), (0, 1));
}

#[test]
fn a_result_for_somebody_elses_attempt_is_refused() {
    let mut it = Fixture::new();
    let client = it.client();
    let (holder, thief) = (it.worker("holder", 1), it.worker("thief", 1));
    for id in ["a", "b"] {
        it.send(client, id);
    }
    let (route, stolen) = (it.expect_route(holder), it.expect_route(thief));
    it.result(thief, route.attempt_id);
    assert_eq!(it.expect_error(thief).code, ErrorCode::UnknownAttempt);
    it.expect_nothing();
    it.result(holder, route.attempt_id);
    it.result(thief, stolen.attempt_id);
    let mut ends = [it.next_for(client), it.next_for(client)].map(|it| match it {
        Some((Message::Deliver(deliver), _)) => deliver.task_id.to_string(),
        other => panic!("{other:?}"),
    });
    ends.sort();
    assert_eq!(ends, ["a", "b"]);
}

#[test]
fn round_robin_takes_each_in_turn() {
    let mut it = Fixture::with(|config| config.rules.policy = Policy::RoundRobin);
    let client = it.client();
    let workers = [it.worker("a", 2), it.worker("b", 2), it.worker("c", 2)];
    for id in ["1", "2", "3", "4", "5", "6"] {
        it.send(client, id);
    }
    for worker in workers {
        it.expect_route(worker);
        it.expect_route(worker);
    }
}

#[test]
fn least_loaded_fills_by_share_of_slots() {
    let mut it = Fixture::new();
    let client = it.client();
    let (small, large) = (it.worker("small", 2), it.worker("large", 6));
    for id in ["1", "2", "3", "4"] {
        it.send(client, id);
    }
    assert_eq!((it.in_flight("small"), it.in_flight("large")), (1, 3));
    it.expect_route(small);
    (0..3).for_each(|_| drop(it.expect_route(large)));
}

#[test]
fn a_task_goes_only_where_its_labels_are() {
    let mut it = Fixture::new();
    let client = it.client();
    let labels = Labels([("gpu".to_owned(), "a100".to_owned())].into());
    it.worker("plain", 4);
    let hello = mcp_proto::WorkerHello { labels: labels.clone(), ..worker_hello("gpu", 1) };
    let (gpu, _) = it.worker_of(hello);
    let needs_gpu = |id| mcp_proto::Task { required_labels: labels.clone(), ..task(id) };
    it.send_task(client, needs_gpu("a"), 60_000);
    it.send_task(client, needs_gpu("b"), 60_000);
    let route = it.expect_route(gpu);
    // "b" waits for the gpu although the other worker has room, and does not hold up others.
    it.expect_nothing();
    it.result(gpu, route.attempt_id);
    it.expect_end(client, "a");
    let route = it.expect_route(gpu);
    it.result(gpu, route.attempt_id);
    it.expect_end(client, "b");
}

#[test]
fn a_shadow_task_reaches_only_shadow_workers() {
    let mut it = Fixture::new();
    let client = it.client();
    it.worker("real", 4);
    it.send_task(client, mcp_proto::Task { shadow: true, ..task("t") }, 60_000);
    it.expect_nothing();
    let labels = Labels([("shadow".to_owned(), "true".to_owned())].into());
    let hello = mcp_proto::WorkerHello { labels, ..worker_hello("shadow", 1) };
    let (shadow, _) = it.worker_of(hello);
    let route = it.expect_route(shadow);
    it.result(shadow, route.attempt_id);
    it.expect_end(client, "t");
}

#[test]
fn a_task_handed_back_goes_to_another_worker() {
    let mut it = Fixture::new();
    let client = it.client();
    let first = it.worker("first", 1);
    it.send(client, "t");
    let route = it.expect_route(first);
    let second = it.worker("second", 1);
    it.nack(first, route.attempt_id);
    let route = it.expect_route(second);
    assert_eq!(route.attempt, 2);
    it.result(second, route.attempt_id);
    let deliver = it.expect_deliver(client, "t");
    let events: Vec<_> = deliver.trace.decode().hops.iter().map(|hop| hop.event).collect();
    assert_eq!(events, [HopEvent::Nacked, HopEvent::Completed]);
    assert_eq!((it.in_flight("first"), it.in_flight("second")), (0, 0));
}

#[test]
fn a_task_that_everybody_hands_back_is_rejected_unexecuted() {
    let mut it = Fixture::with(|config| config.max_nacks = 3);
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send(client, "t");
    for _ in 0..3 {
        let route = it.expect_route(worker);
        it.nack(worker, route.attempt_id);
    }
    let end = it.expect_end(client, "t");
    assert_eq!(end, (Outcome::Rejected, Executed::No, Some(ErrorCode::AllBusy)));
}

#[test]
fn a_worker_cannot_claim_more_time_than_it_had() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send(client, "t");
    it.advance(2);
    let route = it.expect_route(worker);
    let lie = TaskResult { queue_us: u64::MAX, work_us: u64::MAX, ..ok_result(route.attempt_id) };
    it.give_body(worker, Message::Result(lie), "output");
    let deliver = it.expect_deliver(client, "t");
    let hop = &deliver.trace.decode().hops[0];
    assert_eq!((hop.work_us, hop.worker_queue_us, hop.network_us), (2_000, 0, 0));
}
