//! A share of the live tasks is copied to shadow workers, and nobody notices.

use mcp_broker::broker::{ConnectionId, Disconnect, MirrorCounts, MirrorRule};
use mcp_proto::{
    AttemptId, Cancel, CancelReason, Chunk, Executed, InputLength, Message, Outcome, Priority,
    Route, Send, Subject, Task, TaskResult, WorkerHello,
};

use crate::fixture::{
    Fixture, cancelled_result, failed_result, idempotent, ok_result, task, task_id, worker_hello,
};
use crate::shadow::{labels, shadow_hello};

/// A core that copies so much of what it routes.
fn mirroring(percent: f64, max_running: usize) -> Fixture {
    Fixture::with(|config| config.rules.mirror = Some(MirrorRule { percent, max_running }))
}

fn counts(it: &Fixture) -> MirrorCounts {
    let metrics = it.core.metrics(it.now);
    let action = metrics.actions.into_iter().find(|action| action.action == "work");
    action.and_then(|action| action.mirror).map(|mirror| *mirror).unwrap_or_default()
}

fn answer(it: &mut Fixture, from: ConnectionId, attempt: AttemptId, body: &'static str) {
    it.give_body(from, Message::Result(ok_result(attempt)), body);
}

/// A live worker, a shadow worker, and a client whose task both have.
struct Pair {
    client: ConnectionId,
    live: ConnectionId,
    twin: ConnectionId,
    original: Route,
    copy: Route,
}

fn pair(it: &mut Fixture, sent: Task) -> Pair {
    let (client, live) = (it.client(), it.worker("live", 4));
    let (twin, _) = it.worker_of(shadow_hello("twin", 4));
    it.send_task(client, sent, 60_000);
    let (original, copy) = (it.expect_route(live), it.expect_route(twin));
    Pair { client, live, twin, original, copy }
}

#[test]
fn a_copy_is_a_shadow_task_of_its_own() {
    let mut it = mirroring(100.0, 64);
    let sent = Task {
        priority: Priority::Urgent,
        parent: Some(task_id("p")),
        tenant: "acme".into(),
        ..idempotent("t")
    };
    let Pair { client, live, twin, original, copy } = pair(&mut it, sent);
    assert_eq!(original.task.decode().unwrap().id.as_str(), "t");
    let task = copy.task.decode().unwrap();
    assert!(task.id.as_str().starts_with("mirror-"), "{}", task.id);
    assert_eq!((task.shadow, task.priority, task.idempotent), (true, Priority::Low, false));
    assert_eq!((task.tenant.as_ref(), task.parent), ("acme", None));
    assert_eq!((copy.attempt, copy.ttl_ms, copy.stream_window_bytes), (1, 60_000, 0));
    it.result(twin, copy.attempt_id);
    it.result(live, original.attempt_id);
    it.expect_end(client, "t");
    assert_eq!((it.core.stats().ok, it.core.stats().shadow.ok), (1, 1));
}

#[test]
fn equal_and_different_results_are_told_apart_whichever_comes_first() {
    let mut it = mirroring(100.0, 64);
    let (client, live) = (it.client(), it.worker("live", 1));
    let (twin, _) = it.worker_of(shadow_hello("twin", 1));
    let mut sent = 0;
    let mut run = |is_copy_first: bool, of_live: Option<&'static str>, of_twin| {
        sent += 1;
        it.send(client, &format!("t{sent}"));
        let (original, copy) = (it.expect_route(live), it.expect_route(twin));
        let mut ends = [(live, original.attempt_id, of_live), (twin, copy.attempt_id, of_twin)];
        if is_copy_first {
            ends.reverse();
        }
        for (worker, attempt, body) in ends {
            it.advance(1);
            match body {
                Some(body) => answer(&mut it, worker, attempt, body),
                None => it.fail(worker, attempt),
            }
        }
        it.discard();
        let counts = counts(&it);
        (counts.equal, counts.different)
    };
    assert_eq!(run(false, Some("a"), Some("a")), (1, 0));
    assert_eq!(run(true, Some("a"), Some("a")), (2, 0));
    assert_eq!(run(false, Some("a"), Some("b")), (2, 1));
    assert_eq!(run(true, Some("a"), None), (2, 2));
    assert_eq!(run(true, None, Some("")), (2, 3));
    assert_eq!(run(false, None, None), (3, 3));
    let counts = counts(&it);
    assert_eq!((counts.mirrored, counts.live.count(), counts.shadow.count()), (6, 6, 6));
    // The one that ended last took 2 ms, the other one 1 ms.
    assert_eq!((counts.live.sum_us(), counts.shadow.sum_us()), (9_000, 9_000));
}

#[test]
fn a_result_in_parts_is_compared_with_the_whole() {
    let mut it = mirroring(100.0, 64);
    let client = it.client();
    let (twin, _) = it.worker_of(shadow_hello("twin", 100));
    let mut sent = 0;
    // What a first attempt emitted, and what the second did; the copy's result.
    let mut run = |lost: &[&'static str], parts: &[&'static str], of_twin: &'static str| {
        sent += 1;
        let id = format!("t{sent}");
        it.send_in_parts(client, idempotent(&id), 60_000, 200_000);
        let emit = |it: &mut Fixture, parts: &[&'static str]| {
            let live = it.worker("live", 1);
            let attempt = it.expect_route(live).attempt_id;
            for (seq, part) in (0..).zip(parts) {
                let chunk = Message::Chunk(Chunk::new(Subject::Attempt(attempt), seq));
                it.give_body(live, chunk, *part);
            }
            (live, attempt)
        };
        if !lost.is_empty() {
            let (live, _) = emit(&mut it, lost);
            it.disconnect(live, Disconnect::Orderly);
        }
        let (live, attempt_id) = emit(&mut it, parts);
        let result = TaskResult { chunks: parts.len() as u32, ..ok_result(attempt_id) };
        it.give_body(live, Message::Result(result), "end");
        it.disconnect(live, Disconnect::Orderly);
        let copy = it.expect_route(twin);
        answer(&mut it, twin, copy.attempt_id, of_twin);
        it.discard();
        let counts = counts(&it);
        (counts.equal, counts.different, counts.not_compared)
    };
    assert_eq!(run(&[], &["a", "bc"], "abcend"), (1, 0, 0));
    assert_eq!(run(&[], &["ab", "d"], "abcend"), (1, 1, 0));
    assert_eq!(run(&["x"], &["ab", "", "c"], "abcend"), (2, 1, 0));
    // Its copy could not give as much.
    let long: &str = Box::leak("x".repeat(40_000).into());
    assert_eq!(run(&[], &[long, long], ""), (2, 1, 1));
}

#[test]
fn an_input_in_chunks_is_not_copied() {
    let mut it = mirroring(100.0, 64);
    let (client, live) = (it.client(), it.worker("live", 1));
    it.worker_of(shadow_hello("twin", 1));
    let send = Send::new(task("t").encode(), 60_000);
    let send = Send { input_follows: Some(InputLength::Unknown), ..send };
    it.give_body(client, Message::Send(send), "input");
    it.expect_route(live);
    it.discard();
    assert_eq!((counts(&it).mirrored, counts(&it).skipped), (0, 0));
}

#[test]
fn only_the_first_attempt_at_a_task_is_copied() {
    let mut it = mirroring(100.0, 64);
    let (client, first) = (it.client(), it.worker("first", 1));
    let (twin, _) = it.worker_of(shadow_hello("twin", 4));
    it.send_task(client, idempotent("t"), 60_000);
    let (_, copy) = (it.expect_route(first), it.expect_route(twin));
    it.disconnect(first, Disconnect::Orderly);
    let second = it.worker("second", 1);
    let original = it.expect_route(second);
    it.result(second, original.attempt_id);
    it.expect_end(client, "t");
    it.result(twin, copy.attempt_id);
    assert_eq!((counts(&it).mirrored, counts(&it).equal), (1, 1));
}

#[test]
fn a_copy_whose_original_has_no_result_is_cancelled() {
    let mut it = mirroring(100.0, 64);
    let Pair { client, live, twin, original, copy } = pair(&mut it, task("t"));
    it.give(client, Message::Cancel(Cancel::Task(task_id("t"))));
    assert_eq!(it.expect_end(client, "t").0, Outcome::Cancelled);
    assert_eq!(it.expect_cancel(live, original.attempt_id), CancelReason::Client);
    it.expect_cancel(twin, copy.attempt_id);
    it.give(twin, Message::Result(cancelled_result(copy.attempt_id)));
    assert_eq!((counts(&it).not_compared, counts(&it).shadow_failed), (1, 0));
    assert_eq!((it.in_flight("twin"), it.core.stats().shadow.cancelled), (0, 1));
}

#[test]
fn a_copy_has_one_attempt_and_never_waits() {
    let mut it = mirroring(100.0, 64);
    let (client, live) = (it.client(), it.worker("live", 8));
    let (twin, _) = it.worker_of(shadow_hello("twin", 1));
    let (other, _) = it.worker_of(shadow_hello("other", 1));
    // Handed back, put off, given up by its worker, failed, and lost with its worker.
    type Act = fn(&mut Fixture, ConnectionId, AttemptId);
    let acts: [Act; 5] = [
        |it, by, attempt| it.nack(by, attempt),
        |it, by, attempt| it.put_off(by, attempt, 10),
        |it, by, attempt| {
            let result = TaskResult { executed: Executed::No, ..cancelled_result(attempt) };
            it.give(by, Message::Result(result));
        },
        |it, by, attempt| it.give(by, Message::Result(failed_result(attempt))),
        |it, by, _| it.disconnect(by, Disconnect::Orderly),
    ];
    for (n, act) in acts.into_iter().enumerate() {
        let id = format!("t{n}");
        it.send_task(client, idempotent(&id), 60_000);
        let original = it.expect_route(live);
        let mut copies = [twin, other].into_iter().filter_map(|twin| {
            let (message, _) = it.next_for(twin)?;
            let Message::Route(route) = message else { panic!("{message:?}") };
            Some((twin, route.attempt_id))
        });
        let (by, attempt) = copies.next().unwrap();
        assert!(copies.next().is_none());
        act(&mut it, by, attempt);
        it.advance(50);
        it.result(live, original.attempt_id);
        it.expect_end(client, &id);
        it.expect_nothing();
    }
    let counts = counts(&it);
    assert_eq!((counts.shadow_failed, counts.different), (4, 1));
    assert_eq!(it.core.stats().shadow.running, 0);
}

#[test]
fn a_copy_that_hangs_ends_after_a_minute() {
    let mut it = mirroring(100.0, 64);
    let (client, live) = (it.client(), it.worker("live", 1));
    let (twin, _) = it.worker_of(shadow_hello("twin", 1));
    it.send_task(client, task("t"), 600_000);
    let (original, copy) = (it.expect_route(live), it.expect_route(twin));
    assert_eq!(copy.ttl_ms, 60_000);
    it.result(live, original.attempt_id);
    it.expect_end(client, "t");
    for _ in 0..60 {
        it.advance(1_000);
        it.give(twin, Message::Started(copy.attempt_id));
    }
    it.discard();
    assert_eq!((counts(&it).shadow_failed, it.core.stats().shadow.expired), (1, 1));
}

#[test]
fn what_no_shadow_worker_has_room_for_is_skipped() {
    let mut it = mirroring(100.0, 64);
    let (client, live) = (it.client(), it.worker("live", 4));
    let gpu = labels("gpu", "a100");
    it.send(client, "a");
    let (twin, _) = it.worker_of(shadow_hello("twin", 1));
    let labelled = WorkerHello { labels: gpu.clone(), ..worker_hello("gpu", 1) };
    let (with_gpu, _) = it.worker_of(labelled);
    // No shadow worker has the label that it requires.
    it.send_task(client, Task { required_labels: gpu, ..task("b") }, 60_000);
    it.expect_route(with_gpu);
    it.send(client, "c");
    it.expect_route(twin);
    it.send(client, "d");
    (0..3).for_each(|_| drop(it.expect_route(live)));
    it.expect_nothing();
    assert_eq!((counts(&it).mirrored, counts(&it).skipped), (1, 3));
    assert_eq!(it.core.stats().shadow.queued, 0);
}

#[test]
fn copies_and_comparisons_are_bounded() {
    let mut it = mirroring(100.0, 2);
    let (client, live) = (it.client(), it.worker("live", 100));
    let (twin, _) = it.worker_of(shadow_hello("twin", 100));
    for id in ["a", "b", "c"] {
        it.send(client, id);
    }
    let originals: Vec<_> = (0..3).map(|_| it.expect_route(live).attempt_id).collect();
    let copies: Vec<_> = (0..2).map(|_| it.expect_route(twin).attempt_id).collect();
    it.expect_nothing();
    // A place is free when both have ended, or can be made when a copy has.
    it.result(live, originals[0]);
    it.expect_end(client, "a");
    it.send(client, "d");
    it.expect_route(live);
    it.expect_nothing();
    it.result(twin, copies[1]);
    it.send(client, "e");
    it.expect_route(live);
    it.expect_route(twin);
    it.result(live, originals[1]);
    it.expect_end(client, "b");
    let counts = counts(&it);
    assert_eq!((counts.mirrored, counts.skipped, counts.given_up), (3, 2, 1));
    assert_eq!((counts.equal, counts.different), (0, 0));
}

#[test]
fn a_share_is_copied() {
    let mut it = mirroring(5.0, 64);
    let (client, live) = (it.client(), it.worker("live", 1));
    let (twin, _) = it.worker_of(shadow_hello("twin", 1));
    for n in 0..4_000 {
        it.send(client, &format!("t{n}"));
        let original = it.expect_route(live);
        it.result(live, original.attempt_id);
        if let Some((Message::Route(copy), _)) = it.next_for(twin) {
            it.result(twin, copy.attempt_id);
        }
    }
    it.discard();
    let counts = counts(&it);
    assert!((150..250).contains(&counts.mirrored), "{counts:?}");
    assert_eq!((counts.equal, counts.skipped), (counts.mirrored, 0));
}

#[test]
fn a_broker_that_shuts_down_waits_for_no_copy() {
    let mut it = mirroring(100.0, 64);
    let Pair { client, live, twin, original, copy } = pair(&mut it, task("t"));
    it.core.begin_shutdown(it.now, 10_000);
    it.collect();
    for peer in [client, live, twin] {
        it.expect_goaway(peer);
    }
    it.expect_cancel(twin, copy.attempt_id);
    it.result(live, original.attempt_id);
    it.expect_end(client, "t");
    assert!(it.core.is_drained());
}

/// What the shadow workers do.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Twin {
    None,
    Works,
    Fails,
    Hangs,
    HandsBack,
    Crashes,
}

/// All that a client sees, and which of three live workers gets which task when.
fn seen(mirror: Option<MirrorRule>, twin: Twin) -> (Vec<String>, MirrorCounts) {
    let mut it = Fixture::with(|config| config.rules.mirror = mirror);
    let client = it.client();
    let live = ["a", "b", "c"].map(|name| it.worker(name, 2));
    let connect = |it: &mut Fixture, n: usize| {
        let slots = if twin == Twin::Hangs { 2 } else { 100 };
        (twin != Twin::None).then(|| it.worker_of(shadow_hello(&format!("twin-{n}"), slots)).0)
    };
    let mut shadow = connect(&mut it, 0);
    let (mut seen, mut held) = (Vec::new(), Vec::new());
    for n in 0..200 {
        let (sent, ttl_ms) = (if n % 3 == 0 { idempotent } else { task }, [60_000, 40][n % 2]);
        it.send_task(client, sent(&format!("t{n}")), ttl_ms);
        if n % 5 == 0 {
            it.give(client, Message::Cancel(Cancel::Task(task_id(&format!("t{}", n / 2)))));
        }
        it.advance(7);
        for (index, worker) in live.into_iter().enumerate() {
            while let Some((message, _)) = it.next_for(worker) {
                match message {
                    Message::Route(route) => {
                        let id = route.task.decode().unwrap().id;
                        seen.push(format!("{:?} {index}: {id} {}", it.now.mono, route.ttl_ms));
                        held.push((worker, route.attempt_id));
                    }
                    Message::Cancel(Cancel::Attempt(id, reason)) => {
                        seen.push(format!("{:?} {index}: cancel {reason:?}", it.now.mono));
                        held.retain(|(_, attempt)| *attempt != id);
                        it.give(worker, Message::Result(cancelled_result(id)));
                    }
                    Message::Ping(ping) => it.give(worker, Message::Pong(ping.seq)),
                    other => panic!("{other:?}"),
                }
            }
        }
        if held.len() > 3 {
            let (worker, attempt) = held.remove(0);
            if n % 7 == 0 { it.fail(worker, attempt) } else { it.result(worker, attempt) }
        }
        while let Some(by) = shadow
            && let Some((message, _)) = it.next_for(by)
        {
            match message {
                Message::Route(copy) => match twin {
                    Twin::Works => it.result(by, copy.attempt_id),
                    Twin::Fails => it.fail(by, copy.attempt_id),
                    Twin::HandsBack => it.nack(by, copy.attempt_id),
                    Twin::Crashes => {
                        it.disconnect(by, Disconnect::Broken);
                        shadow = connect(&mut it, n + 1);
                    }
                    Twin::Hangs | Twin::None => {}
                },
                Message::Ping(ping) => it.give(by, Message::Pong(ping.seq)),
                _ => {}
            }
        }
        while let Some((message, body)) = it.next_for(client) {
            seen.push(format!("{:?} {message:?} {body:?}", it.now.mono));
        }
    }
    it.discard();
    (seen, counts(&it))
}

#[test]
fn nobody_notices_that_tasks_are_copied() {
    let (without, none) = seen(None, Twin::None);
    assert_eq!(none, MirrorCounts::default());
    assert!(without.len() > 300, "{}", without.len());
    for twin in [Twin::None, Twin::Works, Twin::Fails, Twin::Hangs, Twin::HandsBack, Twin::Crashes]
    {
        let rule = MirrorRule { percent: 60.0, max_running: 8 };
        let (with, counts) = seen(Some(rule), twin);
        assert_eq!(without, with, "{twin:?}");
        assert!(counts.mirrored > 0 || twin == Twin::None, "{twin:?}: {counts:?}");
        let is_full = matches!(twin, Twin::None | Twin::Hangs);
        assert!(counts.skipped > 0 || !is_full, "{twin:?}: {counts:?}");
    }
}
