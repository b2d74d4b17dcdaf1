//! Inputs in chunks: each in order, once; bounded wherever they wait; and tried again only while the
//! broker has all of it.

use bytes::Bytes;
use mcp_broker::broker::{ConnectionId, Disconnect};
use mcp_proto::limits::{CHUNK_OVERHEAD_BYTES, INPUT_WINDOW_BYTES, MAX_STREAM_WINDOW_BYTES};
use mcp_proto::{
    AttemptId, CancelReason, Chunk, Credit, Delivery, ErrorCode, Executed, InputLength, Message,
    Outcome, Retry, Route, Send, Subject, Task, TaskState, WorkerHello,
};

use crate::fixture::{
    Fixture, cancelled_result, idempotent, ok_result, task, task_id, worker_hello,
};

/// What a full chunk has.
const PART: usize = 16 * 1024;
const COUNTED: u64 = PART as u64 + CHUNK_OVERHEAD_BYTES;

/// How long the beginning is: "input".
const BEGINNING: u64 = 5;

fn send(it: &mut Fixture, from: ConnectionId, task: &Task, length: InputLength) {
    let send = Send { input_follows: Some(length), ..Send::new(task.encode(), 60_000) };
    it.give_body(from, Message::Send(send), "input");
}

fn part(it: &mut Fixture, from: ConnectionId, seq: u32, bytes: usize, last: bool) {
    part_of(it, from, "t", seq, bytes, last);
}

fn part_of(it: &mut Fixture, from: ConnectionId, id: &str, seq: u32, bytes: usize, last: bool) {
    let chunk = Chunk { last, ..Chunk::new(Subject::Task(task_id(id), 0), seq) };
    it.give_body(from, Message::Chunk(chunk), Bytes::from(vec![seq as u8; bytes]));
}

/// What came to the worker: numbers, and whether the last is one.
fn received(it: &mut Fixture, worker: ConnectionId, attempt: AttemptId) -> (Vec<u32>, bool) {
    let (mut numbers, mut is_complete) = (Vec::new(), false);
    while let Some((message, body)) = it.next_for(worker) {
        let Message::Chunk(Chunk { of, seq, gap: None, last }) = message else {
            panic!("CHUNK expected, got {message:?}");
        };
        assert_eq!(of, Subject::Attempt(attempt));
        assert!(!is_complete && body.iter().all(|byte| *byte == seq as u8));
        numbers.push(seq);
        is_complete = last;
    }
    (numbers, is_complete)
}

fn credit(it: &mut Fixture, worker: ConnectionId, attempt: AttemptId, next_seq: u32) {
    let limit_bytes = u64::from(MAX_STREAM_WINDOW_BYTES) + u64::from(next_seq) * COUNTED;
    let of = Subject::Attempt(attempt);
    it.give(worker, Message::Credit(Credit { of, next_seq, limit_bytes }));
}

/// What the client is told: the next chunk, and how many bytes may come.
fn told(it: &mut Fixture, client: ConnectionId) -> Option<(u32, u64)> {
    let (message, _) = it.next_for(client)?;
    let Message::Credit(Credit { of, next_seq, limit_bytes }) = message else {
        panic!("CREDIT expected, got {message:?}");
    };
    assert_eq!(of, Subject::Task(task_id("t"), 0));
    Some((next_seq, limit_bytes))
}

/// A client, a worker with a slot, and the ROUTE of a task between them.
fn uploading(task: &Task, length: InputLength) -> (Fixture, ConnectionId, ConnectionId, Route) {
    let mut it = Fixture::new();
    let (client, _) = it.client_of(Some("s"));
    let worker = it.worker("w", 1);
    send(&mut it, client, task, length);
    let route = it.expect_route(worker);
    assert_eq!(route.input_follows, Some(length));
    (it, client, worker, route)
}

/// As [`uploading`], of unknown length: the client has credit for all the room there is.
fn long(task: &Task) -> (Fixture, ConnectionId, ConnectionId, Route) {
    let (mut it, client, worker, route) = uploading(task, InputLength::Unknown);
    assert_eq!(told(&mut it, client), Some((0, MAX_STREAM_WINDOW_BYTES.into())));
    (it, client, worker, route)
}

fn end(it: &mut Fixture, worker: ConnectionId, route: &Route) {
    it.give_body(worker, Message::Result(ok_result(route.attempt_id)), "output");
}

fn is_all_free(it: &Fixture) {
    let stats = it.core.stats();
    assert_eq!((stats.uploads, stats.upload_bytes, stats.queued), (0, 0, 0));
}

#[test]
fn chunks_follow_the_route_and_the_last_one_is_marked() {
    let (mut it, client, worker, route) = uploading(&task("t"), InputLength::Bytes(BEGINNING + 20));
    part(&mut it, client, 0, 20, false);
    assert_eq!(received(&mut it, worker, route.attempt_id), (vec![0], false));
    part(&mut it, client, 1, 0, true);
    assert_eq!(received(&mut it, worker, route.attempt_id), (vec![1], true));
    assert_eq!(it.core.stats().uploads, 0);
    end(&mut it, worker, &route);
    it.expect_deliver(client, "t");
    is_all_free(&it);
}

#[test]
fn what_comes_while_the_task_waits_is_kept_for_its_worker_and_counts_in_the_queue() {
    let mut it = Fixture::new();
    let client = it.client();
    send(&mut it, client, &task("t"), InputLength::Unknown);
    let (_, limit) = told(&mut it, client).unwrap();
    let queued = |it: &Fixture| -> u64 {
        it.core.metrics(it.now).actions.iter().map(|action| action.queued_bytes).sum()
    };
    assert!(queued(&it) > limit);
    part(&mut it, client, 0, 100, false);
    part(&mut it, client, 1, 100, true);
    // All is there: only that counts.
    assert!(
        queued(&it) < 1_000 && it.core.stats().upload_bytes == 2 * (100 + CHUNK_OVERHEAD_BYTES)
    );
    let worker = it.worker("w", 1);
    let route = it.expect_route(worker);
    assert_eq!(received(&mut it, worker, route.attempt_id), (vec![0, 1], true));
    assert_eq!(queued(&it), 0);
    end(&mut it, worker, &route);
    it.expect_deliver(client, "t");
    is_all_free(&it);
}

#[test]
fn a_waiting_task_takes_no_more_than_its_room_and_the_rest_as_its_worker_reads() {
    let mut it = Fixture::new();
    let client = it.client();
    send(&mut it, client, &task("t"), InputLength::Unknown);
    let (_, limit) = told(&mut it, client).unwrap();
    let parts = (limit / COUNTED) as u32;
    for seq in 0..parts {
        part(&mut it, client, seq, PART, false);
    }
    assert_eq!(told(&mut it, client), None);
    let worker = it.worker("w", 1);
    let route = it.expect_route(worker);
    assert_eq!(received(&mut it, worker, route.attempt_id).0.len() as u32, parts);
    credit(&mut it, worker, route.attempt_id, 1);
    assert_eq!(told(&mut it, client), None);
    credit(&mut it, worker, route.attempt_id, parts);
    assert_eq!(told(&mut it, client), Some((parts, limit + u64::from(parts) * COUNTED)));
    part(&mut it, client, parts, PART, false);
    assert_eq!(received(&mut it, worker, route.attempt_id), (vec![parts], false));
    end(&mut it, worker, &route);
    it.expect_deliver(client, "t");
    is_all_free(&it);
}

#[test]
fn a_worker_that_does_not_read_is_sent_a_window() {
    let (mut it, client, worker, route) = long(&task("t"));
    let window = (u64::from(MAX_STREAM_WINDOW_BYTES) / COUNTED) as u32;
    for seq in 0..window {
        part(&mut it, client, seq, PART, false);
    }
    assert_eq!(received(&mut it, worker, route.attempt_id).0.len() as u32, window);
    credit(&mut it, worker, route.attempt_id, window / 2 + 1);
    let (next_seq, _) = told(&mut it, client).unwrap();
    assert_eq!(next_seq, window);
    for seq in window..window + 5 {
        part(&mut it, client, seq, PART, false);
    }
    // It gave no more credit than that.
    assert_eq!(received(&mut it, worker, route.attempt_id).0.len(), 5);
    end(&mut it, worker, &route);
    it.expect_deliver(client, "t");
}

#[test]
fn small_chunks_get_credit_too() {
    let rest = u64::from(INPUT_WINDOW_BYTES) - 1_000;
    let length = InputLength::Bytes(BEGINNING + rest);
    let (mut it, client, worker, route) = uploading(&task("t"), length);
    // In chunks of a usual size it would fit.
    assert_eq!(told(&mut it, client), None);
    let mut limit = u64::from(INPUT_WINDOW_BYTES);
    let (mut sent, mut seq) = (0, 0);
    while sent < rest {
        let bytes = (rest - sent).min(100);
        sent += bytes;
        part(&mut it, client, seq, bytes as usize, sent == rest);
        seq += 1;
        if let Some((next_seq, more)) = told(&mut it, client) {
            assert_eq!(next_seq, seq);
            limit = more;
        }
        assert!(sent + u64::from(seq) * CHUNK_OVERHEAD_BYTES <= limit);
    }
    assert!(received(&mut it, worker, route.attempt_id).1);
    end(&mut it, worker, &route);
    it.expect_deliver(client, "t");
}

#[test]
fn an_input_that_breaks_a_rule_ends_its_task_and_nothing_else() {
    let over = u64::from(MAX_STREAM_WINDOW_BYTES) as usize;
    let cases: [(InputLength, u32, usize, bool, ErrorCode); 5] = [
        (InputLength::Unknown, 1, 10, false, ErrorCode::LimitExceeded),
        (InputLength::Unknown, 0, over, false, ErrorCode::LimitExceeded),
        (InputLength::Bytes(100), 0, 96, false, ErrorCode::InvalidTask),
        (InputLength::Bytes(100), 0, 94, true, ErrorCode::InvalidTask),
        (InputLength::Unknown, 0, 996, false, ErrorCode::BodyTooLarge),
    ];
    for (length, seq, bytes, last, code) in cases {
        for is_running in [true, false] {
            let mut it = Fixture::with(|config| match code {
                ErrorCode::BodyTooLarge => config.limits.max_input_bytes = 1_000,
                _ => config.limits.max_input_bytes = 1_000_000,
            });
            let client = it.client();
            let worker = is_running.then(|| it.worker("w", 1));
            send(&mut it, client, &task("t"), length);
            let route = worker.map(|worker| (worker, it.expect_route(worker)));
            while it.next_for(client).is_some() {}
            part(&mut it, client, seq, bytes, last);
            let expected = match &route {
                Some((worker, route)) => {
                    let reason = it.expect_cancel(*worker, route.attempt_id);
                    assert_eq!(reason, CancelReason::Superseded);
                    it.give(*worker, Message::Result(cancelled_result(route.attempt_id)));
                    (Outcome::Failed, Executed::Maybe, Some(code))
                }
                None => (Outcome::Rejected, Executed::No, Some(code)),
            };
            assert_eq!(it.expect_end(client, "t"), expected, "{length:?} {bytes}");
            is_all_free(&it);
            // On its way before the client knew.
            part(&mut it, client, seq + 1, 10, true);
            it.expect_nothing();
        }
    }
}

#[test]
fn what_can_never_be_taken_is_rejected_at_once() {
    let durable = Task { delivery: Delivery::Durable, ..task("t") };
    for (task, length, code, max) in [
        (task("t"), InputLength::Bytes(1_001), ErrorCode::BodyTooLarge, 1_000),
        (task("t"), InputLength::Bytes(4), ErrorCode::InvalidTask, 1_000),
        (task("t"), InputLength::Unknown, ErrorCode::BodyTooLarge, 0),
        (durable, InputLength::Unknown, ErrorCode::Unsupported, 1_000),
    ] {
        let mut it = Fixture::with(|config| {
            config.limits.max_input_bytes = max;
            config.is_durable = true;
        });
        let (client, ack) = it.client_of(None);
        assert_eq!(ack.limits.max_input_bytes, max);
        send(&mut it, client, &task, length);
        let expected = (Outcome::Rejected, Executed::No, Some(code));
        assert_eq!(it.expect_end(client, "t"), expected);
        is_all_free(&it);
    }
}

#[test]
fn the_room_of_all_inputs_is_bounded_and_the_last_of_it_is_given_in_small_parts() {
    let narrow = INPUT_WINDOW_BYTES as usize;
    let wide = MAX_STREAM_WINDOW_BYTES as usize;
    let mut it = Fixture::with(|config| config.max_upload_bytes = 2 * wide + narrow / 2);
    let client = it.client();
    send(&mut it, client, &task("t"), InputLength::Unknown);
    assert_eq!(told(&mut it, client), Some((0, wide as u64)));
    let mut count = 1;
    let refused = loop {
        let id = format!("t{count}");
        send(&mut it, client, &task(&id), InputLength::Unknown);
        match it.next_for(client) {
            None => count += 1,
            Some((Message::Deliver(deliver), _)) => break deliver,
            Some((other, _)) => panic!("{other:?}"),
        }
    };
    assert_eq!(count, 5);
    let error = refused.error.unwrap();
    assert_eq!((error.code, error.retry_after_ms), (ErrorCode::QueueFull, Some(1_000)));
    // One that is there completely makes room.
    part_of(&mut it, client, "t1", 0, 10, true);
    send(&mut it, client, &task("again"), InputLength::Unknown);
    it.expect_nothing();
    it.disconnect(client, Disconnect::Orderly);
    assert_eq!(it.core.stats().uploads, 0);
}

#[test]
fn one_with_little_room_gets_more_once_there_is() {
    let wide = u64::from(MAX_STREAM_WINDOW_BYTES);
    let mut it = Fixture::with(|config| config.max_upload_bytes = 2 * wide as usize);
    let client = it.client();
    let other = it.client();
    let worker = it.worker("w", 1);
    send(&mut it, other, &task("o"), InputLength::Unknown);
    let first = it.expect_route(worker);
    it.next_for(other).unwrap();
    send(&mut it, client, &task("t"), InputLength::Unknown);
    assert_eq!(told(&mut it, client), None);
    for seq in 0..3 {
        part(&mut it, client, seq, PART, false);
    }
    end(&mut it, worker, &first);
    it.expect_deliver(other, "o");
    let route = it.expect_route(worker);
    assert_eq!(received(&mut it, worker, route.attempt_id).0, [0, 1, 2]);
    credit(&mut it, worker, route.attempt_id, 3);
    assert_eq!(told(&mut it, client), Some((3, wide)));
    assert_eq!(it.core.stats().upload_bytes, wide);
    end(&mut it, worker, &route);
    it.expect_deliver(client, "t");
    is_all_free(&it);
}

#[test]
fn a_task_is_tried_again_while_the_broker_has_all_of_its_input() {
    // It fits the room: nothing is forgotten, whatever the worker has read.
    let rest = 10 * PART as u64;
    let length = InputLength::Bytes(BEGINNING + rest);
    let (mut it, client, worker, route) = uploading(&idempotent("t"), length);
    told(&mut it, client).unwrap();
    for seq in 0..9 {
        part(&mut it, client, seq, PART, false);
    }
    received(&mut it, worker, route.attempt_id);
    credit(&mut it, worker, route.attempt_id, 9);
    assert_eq!(told(&mut it, client), None);
    let other = it.worker("v", 1);
    it.disconnect(worker, Disconnect::Broken);
    let again = it.expect_route(other);
    assert_eq!(received(&mut it, other, again.attempt_id), ((0..9).collect(), false));
    part(&mut it, client, 9, PART, true);
    assert_eq!(received(&mut it, other, again.attempt_id), (vec![9], true));
    credit(&mut it, other, again.attempt_id, 10);
    it.disconnect(other, Disconnect::Orderly);
    let third = it.worker("u", 1);
    let route = it.expect_route(third);
    assert_eq!(received(&mut it, third, route.attempt_id), ((0..10).collect(), true));
    end(&mut it, third, &route);
    it.expect_deliver(client, "t");
    is_all_free(&it);
}

/// A running attempt of whose input some is forgotten.
fn partly_forgotten(task: &Task) -> (Fixture, ConnectionId, ConnectionId, Route) {
    let (mut it, client, worker, route) = long(task);
    for seq in 0..12 {
        part(&mut it, client, seq, PART, false);
    }
    received(&mut it, worker, route.attempt_id);
    credit(&mut it, worker, route.attempt_id, 12);
    assert_eq!(told(&mut it, client).map(|(next_seq, _)| next_seq), Some(12));
    (it, client, worker, route)
}

#[test]
fn a_task_whose_input_is_partly_forgotten_is_not_tried_again() {
    let retry = Retry { max_attempts: 3, initial_ms: 1, coefficient_percent: 100, cap_ms: 1 };
    let retried = Task { retry: Some(retry), ..idempotent("t") };
    // Lost.
    let (mut it, client, worker, _) = partly_forgotten(&idempotent("t"));
    it.worker("v", 1);
    it.disconnect(worker, Disconnect::Orderly);
    let deliver = it.expect_deliver(client, "t");
    let error = deliver.error.unwrap();
    assert_eq!((deliver.outcome, deliver.executed), (Outcome::Failed, Executed::Maybe));
    assert!(error.code == ErrorCode::WorkerLost && error.message.contains("input"), "{error}");
    is_all_free(&it);
    // Failed.
    let (mut it, client, worker, route) = partly_forgotten(&retried);
    it.fail(worker, route.attempt_id);
    assert_eq!(it.expect_end(client, "t").2, Some(ErrorCode::HandlerFailed));
    // Given up.
    let (mut it, client, worker, route) = partly_forgotten(&retried);
    it.give(worker, Message::Result(cancelled_result(route.attempt_id)));
    assert_eq!(it.expect_end(client, "t").0, Outcome::Failed);
    // Handed back, or put off.
    for ms in [0, 100] {
        let (mut it, client, worker, route) = partly_forgotten(&retried);
        match ms {
            0 => it.nack(worker, route.attempt_id),
            ms => it.put_off(worker, route.attempt_id, ms),
        }
        let end = it.expect_end(client, "t");
        assert_eq!(end, (Outcome::Rejected, Executed::No, Some(ErrorCode::AllBusy)));
        is_all_free(&it);
    }
}

#[test]
fn one_that_is_handed_back_or_put_off_gets_all_of_its_input_the_next_time() {
    let (mut it, client, worker, route) = long(&task("t"));
    part(&mut it, client, 0, 10, false);
    received(&mut it, worker, route.attempt_id);
    it.nack(worker, route.attempt_id);
    let route = it.expect_route(worker);
    part(&mut it, client, 1, 10, false);
    assert_eq!(received(&mut it, worker, route.attempt_id).0, [0, 1]);
    it.put_off(worker, route.attempt_id, 100);
    // What comes meanwhile is kept, and what is complete takes less room.
    part(&mut it, client, 2, 10, true);
    it.advance(100);
    let route = it.expect_route(worker);
    assert_eq!(received(&mut it, worker, route.attempt_id), (vec![0, 1, 2], true));
    end(&mut it, worker, &route);
    it.expect_deliver(client, "t");
    is_all_free(&it);
}

#[test]
fn a_client_that_comes_back_is_told_where_to_go_on() {
    let (mut it, client, worker, route) = long(&task("t"));
    part(&mut it, client, 0, 10, false);
    it.disconnect(client, Disconnect::Broken);
    let (client, ack) = it.client_of(Some("s"));
    assert!(ack.resumed);
    it.give(client, Message::Fetch(task_id("t")));
    assert_eq!(it.expect_status(client, "t"), TaskState::Running);
    assert_eq!(told(&mut it, client), Some((1, MAX_STREAM_WINDOW_BYTES.into())));
    // What it had sent, and then the rest.
    part(&mut it, client, 0, 10, false);
    part(&mut it, client, 1, 10, true);
    assert_eq!(received(&mut it, worker, route.attempt_id), (vec![0, 1], true));
    // Nobody else is told.
    let other = it.client();
    it.give(other, Message::Fetch(task_id("t")));
    it.expect_status(other, "t");
    part(&mut it, other, 2, 10, true);
    it.expect_nothing();
    end(&mut it, worker, &route);
    it.expect_deliver(client, "t");
    it.expect_deliver(other, "t");
}

#[test]
fn a_worker_that_comes_back_gets_again_what_it_is_not_done_with() {
    let (mut it, client, worker, route) = long(&task("t"));
    for seq in 0..4 {
        part(&mut it, client, seq, 10, false);
    }
    assert_eq!(received(&mut it, worker, route.attempt_id).0, [0, 1, 2, 3]);
    credit(&mut it, worker, route.attempt_id, 2);
    it.disconnect(worker, Disconnect::Broken);
    part(&mut it, client, 4, 10, true);
    it.expect_nothing();
    let hello = WorkerHello { held: vec![route.attempt_id], ..worker_hello("w", 1) };
    let (worker, ack) = it.worker_of(hello);
    assert_eq!(ack.keep, [route.attempt_id]);
    assert_eq!(received(&mut it, worker, route.attempt_id), (vec![2, 3, 4], true));
    end(&mut it, worker, &route);
    it.expect_deliver(client, "t");
}

#[test]
fn an_input_that_its_client_will_never_complete_ends_its_task() {
    for how in [Disconnect::Orderly, Disconnect::Broken] {
        for is_running in [true, false] {
            let mut it = Fixture::with(|config| config.detach_ms = 1_000);
            let client = it.client();
            let other = it.client();
            let worker = is_running.then(|| it.worker("w", 1));
            send(&mut it, client, &task("t"), InputLength::Unknown);
            let route = worker.map(|worker| (worker, it.expect_route(worker)));
            told(&mut it, client);
            it.give(other, Message::Fetch(task_id("t")));
            it.expect_status(other, "t");
            it.disconnect(client, how);
            if how == Disconnect::Broken {
                // It may come back.
                it.advance(400);
                it.expect_nothing();
                it.advance(700);
            }
            let executed = match route {
                Some((worker, route)) => {
                    if how == Disconnect::Broken {
                        it.expect_ping(worker);
                    }
                    it.expect_cancel(worker, route.attempt_id);
                    it.give(worker, Message::Result(cancelled_result(route.attempt_id)));
                    Executed::Maybe
                }
                None => Executed::No,
            };
            let end = it.expect_end(other, "t");
            assert_eq!(end, (Outcome::Cancelled, executed, Some(ErrorCode::Cancelled)));
            is_all_free(&it);
        }
    }
}

#[test]
fn an_input_that_is_complete_does_not_need_its_client() {
    let (mut it, client, worker, route) = long(&task("t"));
    part(&mut it, client, 0, 10, true);
    received(&mut it, worker, route.attempt_id);
    it.disconnect(client, Disconnect::Orderly);
    it.expect_nothing();
    end(&mut it, worker, &route);
    assert_eq!(it.core.stats().ok, 1);
    is_all_free(&it);
}

#[test]
fn a_cancelled_or_finished_task_takes_no_more_of_its_input() {
    let (mut it, client, worker, route) = long(&task("t"));
    it.give(client, Message::Cancel(mcp_proto::Cancel::Task(task_id("t"))));
    it.expect_cancel(worker, route.attempt_id);
    it.expect_end(client, "t");
    part(&mut it, client, 0, 10, false);
    credit(&mut it, worker, route.attempt_id, 0);
    it.expect_nothing();
    is_all_free(&it);
    it.give(worker, Message::Result(cancelled_result(route.attempt_id)));
    // The handler did not want the rest.
    send(&mut it, client, &task("u"), InputLength::Unknown);
    let route = it.expect_route(worker);
    it.next_for(client).unwrap();
    end(&mut it, worker, &route);
    it.expect_deliver(client, "u");
    part_of(&mut it, client, "u", 0, 10, true);
    it.expect_nothing();
}

#[test]
fn an_attempt_that_waits_for_its_client_is_not_silent() {
    let timed = Task { attempt_timeout_ms: 300, ..task("t") };
    let (mut it, client, worker, route) = long(&timed);
    let hears = |it: &mut Fixture, ms: u64| {
        for _ in 0..ms / 100 {
            it.give(worker, Message::Pong(0));
            it.advance(100);
        }
    };
    hears(&mut it, 1_000);
    it.expect_nothing();
    part(&mut it, client, 0, 10, false);
    received(&mut it, worker, route.attempt_id);
    hears(&mut it, 200);
    // Done with all that came: it waits again.
    credit(&mut it, worker, route.attempt_id, 1);
    hears(&mut it, 1_000);
    part(&mut it, client, 1, 10, true);
    received(&mut it, worker, route.attempt_id);
    hears(&mut it, 400);
    it.expect_cancel(worker, route.attempt_id);
    assert_eq!(it.expect_end(client, "t").2, Some(ErrorCode::AttemptTimeout));
}

#[test]
fn the_same_beginning_of_another_length_is_another_task() {
    let (mut it, client, worker, route) = long(&task("t"));
    let other = it.client();
    send(&mut it, other, &task("t"), InputLength::Unknown);
    it.expect_nothing();
    let third = it.client();
    send(&mut it, third, &task("t"), InputLength::Bytes(1_000));
    assert_eq!(it.expect_end(third, "t").2, Some(ErrorCode::DuplicateMismatch));
    it.send(third, "t");
    assert_eq!(it.expect_end(third, "t").2, Some(ErrorCode::DuplicateMismatch));
    // Its chunks are not asked for.
    part(&mut it, other, 0, 10, true);
    it.expect_nothing();
    end(&mut it, worker, &route);
    it.expect_deliver(client, "t");
    it.expect_deliver(other, "t");
}

#[test]
fn who_names_the_wrong_thing_is_told() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    let of = Subject::Attempt(AttemptId(7));
    it.give(client, Message::Chunk(Chunk::new(of.clone(), 0)));
    assert_eq!(it.expect_error(client).code, ErrorCode::InvalidMessage);
    let of_task = Subject::Task(task_id("t"), 0);
    it.give(worker, Message::Credit(Credit { of: of_task, next_seq: 0, limit_bytes: 0 }));
    assert_eq!(it.expect_error(worker).code, ErrorCode::InvalidMessage);
    // An attempt that is not, or a task that is not: over, perhaps.
    it.give(worker, Message::Credit(Credit { of, next_seq: 0, limit_bytes: 0 }));
    part(&mut it, client, 0, 10, true);
    it.expect_nothing();
}
