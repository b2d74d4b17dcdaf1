//! Waiting: its order, its bounds and its end.

use mcp_broker::broker::Disconnect;
use mcp_proto::{CancelReason, ErrorCode, Executed, Message, Outcome, Priority, Readiness, Task};

use crate::fixture::{Fixture, cancelled_result, report, task, worker_hello};

#[test]
fn urgent_tasks_go_first_and_equals_in_order() {
    let mut it = Fixture::new();
    let client = it.client();
    let send = |it: &mut Fixture, id, priority| {
        it.send_task(client, Task { priority, ..task(id) }, 60_000);
    };
    send(&mut it, "low", Priority::Low);
    send(&mut it, "normal-1", Priority::Normal);
    send(&mut it, "normal-2", Priority::Normal);
    send(&mut it, "urgent", Priority::Urgent);
    let worker = it.worker("w", 4);
    let order: Vec<_> =
        (0..4).map(|_| it.expect_route(worker).task.decode().unwrap().id.to_string()).collect();
    assert_eq!(order, ["urgent", "normal-1", "normal-2", "low"]);
}

#[test]
fn without_a_worker_a_task_is_rejected_after_the_wait_or_at_its_deadline() {
    let mut it = Fixture::new();
    let client = it.client();
    it.send_task(client, task("patient"), 60_000);
    it.send_task(client, task("hasty"), 2_000);
    it.advance(1_999);
    it.expect_nothing();
    it.advance(1);
    let no_worker = (Outcome::Rejected, Executed::No, Some(ErrorCode::NoWorker));
    assert_eq!(it.expect_end(client, "hasty"), no_worker);
    it.advance(3_000);
    let deliver = it.expect_deliver(client, "patient");
    let error = deliver.error.unwrap();
    assert_eq!(error.code, ErrorCode::NoWorker);
    assert!(error.message.contains("work") && error.retry_after_ms.is_some(), "{error}");
}

#[test]
fn without_a_ready_worker_it_is_another_code() {
    let mut it = Fixture::new();
    let client = it.client();
    let standby = mcp_proto::WorkerHello { readiness: Readiness::Standby, ..worker_hello("w", 1) };
    let (worker, _) = it.worker_of(standby);
    it.send(client, "t");
    it.advance(5_000);
    let end = it.expect_end(client, "t");
    assert_eq!(end, (Outcome::Rejected, Executed::No, Some(ErrorCode::AllUnhealthy)));
    // Ready, it gets the next one at once.
    it.send(client, "u");
    it.give(worker, report(0, &[], Readiness::Ready));
    it.expect_pong(worker);
    it.expect_route(worker);
}

#[test]
fn a_task_expires_in_the_queue_unexecuted() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send(client, "long");
    it.send_task(client, task("short"), 100);
    let route = it.expect_route(worker);
    it.advance(100);
    let end = it.expect_end(client, "short");
    assert_eq!(end, (Outcome::Expired, Executed::No, Some(ErrorCode::Expired)));
    it.result(worker, route.attempt_id);
    it.expect_end(client, "long");
}

#[test]
fn after_a_restart_tasks_wait_for_the_workers_of_before() {
    let mut it = Fixture::with(|config| config.restart_grace_ms = 15_000);
    let client = it.client();
    it.send_task(client, task("late"), 60_000);
    it.send_task(client, task("short"), 2_000);
    it.advance(2_000);
    let no_worker = (Outcome::Rejected, Executed::No, Some(ErrorCode::NoWorker));
    assert_eq!(it.expect_end(client, "short"), no_worker);
    it.advance(12_000);
    let worker = it.worker("w", 1);
    let route = it.expect_route(worker);
    it.result(worker, route.attempt_id);
    assert_eq!(it.expect_end(client, "late").0, Outcome::Ok);
}

#[test]
fn what_expired_in_the_queue_says_what_it_waited_for() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    for (id, ttl_ms) in [("runs", 60_000), ("a", 1_000), ("b", 2_000)] {
        it.send_task(client, task(id), ttl_ms);
    }
    it.expect_route(worker);
    let message_of = |it: &mut Fixture, id| {
        let deliver = it.expect_deliver(client, id);
        assert_eq!(deliver.outcome, Outcome::Expired);
        deliver.error.map(|error| error.message.to_string()).unwrap_or_default()
    };
    it.advance(1_000);
    assert!(message_of(&mut it, "a").contains("all workers were busy"));
    it.expect_ping(worker);
    it.disconnect(worker, Disconnect::Orderly);
    it.expect_end(client, "runs");
    it.advance(1_000);
    assert!(message_of(&mut it, "b").contains("no worker for it was left"));
}

#[test]
fn a_task_expires_at_its_worker_and_keeps_its_slot_until_confirmed() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send_task(client, task("t"), 100);
    it.send(client, "next");
    let route = it.expect_route(worker);
    it.advance(100);
    let end = it.expect_end(client, "t");
    assert_eq!(end, (Outcome::Expired, Executed::Maybe, Some(ErrorCode::Expired)));
    assert_eq!(it.expect_cancel(worker, route.attempt_id), CancelReason::Expired);
    assert_eq!(it.in_flight("w"), 1);
    it.expect_nothing();
    it.give(worker, Message::Result(cancelled_result(route.attempt_id)));
    it.expect_route(worker);
    assert_eq!(it.core.stats().late_results, 1);
}

#[test]
fn a_task_is_never_dispatched_after_its_deadline_even_if_no_timer_has_fired_yet() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send(client, "long");
    it.send_task(client, task("short"), 100);
    let route = it.expect_route(worker);
    it.now.mono = it.now.mono.plus_ms(100);
    it.result(worker, route.attempt_id);
    it.expect_end(client, "long");
    assert_eq!(it.expect_end(client, "short").0, Outcome::Expired);
    it.expect_nothing();
}

#[test]
fn what_remains_of_the_time_to_live_is_forwarded() {
    let mut it = Fixture::new();
    let client = it.client();
    it.send_task(client, task("t"), 4_000);
    it.advance(1_500);
    let worker = it.worker("w", 1);
    assert_eq!(it.expect_route(worker).ttl_ms, 2_500);
}

#[test]
fn a_full_queue_refuses_with_a_time_to_retry() {
    let mut it = Fixture::with(|config| config.max_queue_tasks = 2);
    let client = it.client();
    for id in ["a", "b", "c"] {
        it.send(client, id);
    }
    let error = it.expect_deliver(client, "c").error.unwrap();
    assert_eq!(error.code, ErrorCode::QueueFull);
    assert!(error.retry_after_ms.is_some());
    // Room is made by whatever ends a task, and a worker with room needs none.
    it.give(client, Message::Cancel(mcp_proto::Cancel::Task("a".try_into().unwrap())));
    it.expect_end(client, "a");
    it.send(client, "d");
    it.expect_nothing();
    assert_eq!(it.core.stats().queued, 2);
}

#[test]
fn a_flood_of_many_clients_leaves_room_in_the_queue_for_another_one() {
    const TASKS: usize = 1_000;
    for hostile in [1, 2, 10, 50] {
        let mut it = Fixture::with(|config| config.max_queue_tasks = TASKS);
        let clients: Vec<_> = (0..hostile).map(|_| it.client()).collect();
        for round in 0..2 * TASKS / hostile {
            for client in &clients {
                it.send(*client, &format!("{}-{round}", client.0));
                while it.next_for(*client).is_some() {}
            }
        }
        // Each has eight times what is left.
        let queued = it.core.stats().queued as usize;
        let share = 8 * hostile * TASKS / (8 * hostile + 1);
        assert!(queued.abs_diff(share) <= hostile && queued < TASKS, "{hostile}: {queued}");
        let honest = it.client();
        it.send(honest, "a");
        assert!(it.next_for(honest).is_none());
    }
}

#[test]
fn a_queue_is_bounded_in_bytes() {
    let mut it = Fixture::with(|config| config.max_queue_bytes = 60);
    let client = it.client();
    for id in ["a", "b", "c", "d", "e"] {
        it.send(client, id);
    }
    let refused = std::iter::from_fn(|| it.next_for(client)).count();
    assert!((1..5).contains(&refused), "{refused}");
}

#[test]
fn an_action_that_nobody_uses_leaves_nothing_behind() {
    let mut it = Fixture::new();
    let client = it.client();
    for n in 0..1_000 {
        let action = mcp_proto::ActionName::try_from(format!("unknown-{n}")).unwrap();
        let id = mcp_proto::TaskId::try_from(format!("t-{n}")).unwrap();
        it.send_task(client, Task::new(id, action), 1_000);
    }
    it.advance(1_000);
    assert_eq!(std::iter::from_fn(|| it.next_for(client)).count(), 1_000);
    assert_eq!((it.core.stats().queued, it.core.stats().running), (0, 0));
}

#[test]
fn a_workers_actions_share_its_slot() {
    let mut it = Fixture::new();
    let client = it.client();
    let actions = ["work", "play"].map(|name| mcp_proto::ActionName::try_from(name).unwrap());
    for n in 0..3 {
        for action in &actions {
            let id = mcp_proto::TaskId::try_from(format!("{action}-{n}")).unwrap();
            it.send_task(client, Task::new(id, action.clone()), 60_000);
        }
    }
    let hello = mcp_proto::WorkerHello { actions: actions.into(), ..worker_hello("w", 1) };
    let (worker, _) = it.worker_of(hello);
    let mut order = Vec::new();
    for _ in 0..6 {
        let route = it.expect_route(worker);
        let task = route.task.decode().unwrap();
        order.push(task.action.to_string());
        it.result(worker, route.attempt_id);
        it.expect_end(client, task.id.as_str());
    }
    assert_eq!(order, ["work", "play", "work", "play", "work", "play"]);
    it.disconnect(worker, Disconnect::Orderly);
}
