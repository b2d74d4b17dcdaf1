//! Results in parts: each in order, once, or said to be missing; a slow reader stalls its own only.

use mcp_broker::broker::{ConnectionId, Disconnect, Identity};
use mcp_proto::{
    AttemptId, Cancel, CancelReason, Chunk, Credit, ErrorCode, Executed, Message, Outcome,
    Progress, Resume, Route, Subject, Task, TaskResult, WorkerHello,
};

use crate::fixture::{Fixture, client_hello, ok_result, task, task_id, worker_hello};

const WINDOW: u32 = 1000;

/// What a chunk counts besides its body.
const OVERHEAD: u64 = 64;

fn chunk(it: &mut Fixture, from: ConnectionId, attempt: AttemptId, seq: u32, body: &'static str) {
    let chunk = Chunk::new(Subject::Attempt(attempt), seq);
    it.give_body(from, Message::Chunk(chunk), body);
}

/// The chunk's attempt, number, gap and body.
fn expect_chunk(it: &mut Fixture, to: ConnectionId, id: &str) -> (u32, u32, bool, String) {
    match it.next_for(to) {
        Some((Message::Chunk(Chunk { of: Subject::Task(task, attempt), seq, gap, .. }), body)) => {
            assert_eq!(task, task_id(id));
            (attempt, seq, gap.is_some(), String::from_utf8(body.to_vec()).unwrap())
        }
        other => panic!("CHUNK expected, got {other:?}"),
    }
}

fn expect_credit(it: &mut Fixture, to: ConnectionId, attempt: AttemptId) -> (u32, u64) {
    match it.next_for(to) {
        Some((Message::Credit(Credit { of, next_seq, limit_bytes }), _)) => {
            assert_eq!(of, Subject::Attempt(attempt));
            (next_seq, limit_bytes)
        }
        other => panic!("CREDIT expected, got {other:?}"),
    }
}

fn credit(it: &mut Fixture, from: ConnectionId, attempt: u32, next_seq: u32, limit_bytes: u64) {
    let of = Subject::Task(task_id("t"), attempt);
    it.give(from, Message::Credit(Credit { of, next_seq, limit_bytes }));
}

fn resume(it: &mut Fixture, from: ConnectionId, attempt: u32, next_seq: u32) {
    let limit_bytes = u64::from(WINDOW) + u64::from(next_seq) * (OVERHEAD + 1);
    let task_id = task_id("t");
    it.give(from, Message::Resume(Resume { task_id, attempt, next_seq, limit_bytes }));
}

fn result(it: &mut Fixture, from: ConnectionId, route: &Route, chunks: u32) {
    it.give_result(from, TaskResult { chunks, ..ok_result(route.attempt_id) });
}

/// A client with a session, a worker with a slot, and the ROUTE of a task between them.
fn streaming() -> (Fixture, ConnectionId, ConnectionId, Route) {
    streaming_of(Fixture::new(), task("t"))
}

fn streaming_of(mut it: Fixture, task: Task) -> (Fixture, ConnectionId, ConnectionId, Route) {
    let (client, _) = it.client_of(Some("s"));
    let worker = it.worker("w", 1);
    it.send_in_parts(client, task, 60_000, WINDOW);
    let route = it.expect_route(worker);
    assert_eq!(route.stream_window_bytes, WINDOW);
    (it, client, worker, route)
}

#[test]
fn chunks_come_in_order_before_the_outcome_that_counts_them() {
    let (mut it, client, worker, route) = streaming();
    for (seq, body) in [(0, "once"), (1, " upon"), (2, "")] {
        chunk(&mut it, worker, route.attempt_id, seq, body);
        assert_eq!(expect_chunk(&mut it, client, "t"), (1, seq, false, body.to_owned()));
    }
    result(&mut it, worker, &route, 3);
    let deliver = it.expect_deliver(client, "t");
    assert_eq!((deliver.outcome, deliver.chunks, deliver.attempt), (Outcome::Ok, 3, 1));
    assert_eq!(it.core.stats().streams, 1);
    credit(&mut it, client, 1, 3, 0);
    assert_eq!((it.core.stats().streams, it.core.stats().stream_bytes), (0, 0));
}

#[test]
fn who_wants_no_chunks_is_sent_none() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    it.send(client, "t");
    let route = it.expect_route(worker);
    assert_eq!(route.stream_window_bytes, 0);
    chunk(&mut it, worker, route.attempt_id, 0, "x");
    assert_eq!(it.expect_cancel(worker, route.attempt_id), CancelReason::Superseded);
    let end = it.expect_end(client, "t");
    assert_eq!(end, (Outcome::Failed, Executed::Yes, Some(ErrorCode::LimitExceeded)));
}

#[test]
fn a_chunk_that_leaves_some_out_or_has_no_credit_ends_the_task() {
    for (seq, body) in [(1, "x"), (0, LONG)] {
        let (mut it, client, worker, route) = streaming();
        chunk(&mut it, worker, route.attempt_id, seq, body);
        it.expect_cancel(worker, route.attempt_id);
        let end = it.expect_end(client, "t");
        assert_eq!(end, (Outcome::Failed, Executed::Yes, Some(ErrorCode::LimitExceeded)));
    }
}

/// With what a chunk counts besides, one more than the window.
const LONG: &str = {
    const BYTES: [u8; 937] = [b'x'; 937];
    match std::str::from_utf8(&BYTES) {
        Ok(text) => text,
        Err(_) => unreachable!(),
    }
};

#[test]
fn a_result_must_have_all_its_chunks() {
    let (mut it, client, worker, route) = streaming();
    chunk(&mut it, worker, route.attempt_id, 0, "x");
    expect_chunk(&mut it, client, "t");
    let result = TaskResult { chunks: 2, ..ok_result(route.attempt_id) };
    it.give(worker, Message::Result(result));
    assert_eq!(it.expect_end(client, "t").2, Some(ErrorCode::LimitExceeded));
}

#[test]
fn credit_goes_from_the_reader_to_the_worker_and_never_shrinks() {
    let (mut it, client, worker, route) = streaming();
    chunk(&mut it, worker, route.attempt_id, 0, "x");
    expect_chunk(&mut it, client, "t");
    credit(&mut it, client, 1, 1, 2_000);
    assert_eq!(expect_credit(&mut it, worker, route.attempt_id), (1, 2_000));
    // Less, of an attempt that is not, or of a task that is not its own: nothing.
    credit(&mut it, client, 1, 1, 1_500);
    credit(&mut it, client, 2, 1, 9_000);
    let other = it.client();
    credit(&mut it, other, 1, 1, 9_000);
    it.expect_nothing();
    // No more than a window beyond what is done with.
    credit(&mut it, client, 1, 1, u64::MAX);
    assert_eq!(expect_credit(&mut it, worker, route.attempt_id), (1, 256 * 1024 + 1 + OVERHEAD));
    result(&mut it, worker, &route, 1);
    it.expect_deliver(client, "t");
}

#[test]
fn a_reader_that_comes_back_misses_nothing_and_gets_nothing_twice() {
    let (mut it, client, worker, route) = streaming();
    for seq in 0..2 {
        chunk(&mut it, worker, route.attempt_id, seq, "x");
        expect_chunk(&mut it, client, "t");
    }
    it.disconnect(client, Disconnect::Broken);
    chunk(&mut it, worker, route.attempt_id, 2, "y");
    let (client, ack) = it.client_of(Some("s"));
    assert!(ack.resumed);
    // Not before it has said where it stands.
    chunk(&mut it, worker, route.attempt_id, 3, "z");
    it.expect_nothing();
    // The second was lost on its way.
    resume(&mut it, client, 1, 1);
    for (seq, body) in [(1, "x"), (2, "y"), (3, "z")] {
        assert_eq!(expect_chunk(&mut it, client, "t"), (1, seq, false, body.to_owned()));
    }
    expect_credit(&mut it, worker, route.attempt_id);
    chunk(&mut it, worker, route.attempt_id, 4, "!");
    assert_eq!(expect_chunk(&mut it, client, "t"), (1, 4, false, "!".to_owned()));
    result(&mut it, worker, &route, 5);
    assert_eq!(it.expect_deliver(client, "t").chunks, 5);
}

#[test]
fn a_reader_that_comes_back_after_the_end_gets_the_rest_too() {
    let (mut it, client, worker, route) = streaming();
    it.disconnect(client, Disconnect::Broken);
    chunk(&mut it, worker, route.attempt_id, 0, "x");
    result(&mut it, worker, &route, 1);
    let (client, _) = it.client_of(Some("s"));
    assert_eq!(it.expect_deliver(client, "t").chunks, 1);
    resume(&mut it, client, 0, 0);
    assert_eq!(expect_chunk(&mut it, client, "t"), (1, 0, false, "x".to_owned()));
    credit(&mut it, client, 1, 1, 0);
    // All done with: there is nothing left of it, and that is said.
    resume(&mut it, client, 1, 1);
    assert_eq!(expect_chunk(&mut it, client, "t"), (1, 1, true, String::new()));
}

#[test]
fn what_there_is_no_room_for_is_said_to_be_missing() {
    let fixture = Fixture::with(|config| config.stream_bytes = 150);
    let (mut it, client, worker, route) = streaming_of(fixture, task("t"));
    it.disconnect(client, Disconnect::Broken);
    for seq in 0..3 {
        chunk(&mut it, worker, route.attempt_id, seq, "x");
    }
    assert!(it.core.stats().stream_bytes <= 150);
    chunk(&mut it, worker, route.attempt_id, 3, "y");
    let (client, _) = it.client_of(Some("s"));
    resume(&mut it, client, 0, 0);
    assert_eq!(expect_chunk(&mut it, client, "t"), (1, 3, true, "y".to_owned()));
    result(&mut it, worker, &route, 4);
    assert_eq!(it.expect_deliver(client, "t").chunks, 4);
}

#[test]
fn what_is_missing_counts_and_that_is_said() {
    let fixture = Fixture::with(|config| config.stream_bytes = 150);
    let (mut it, client, worker, route) = streaming_of(fixture, task("t"));
    it.disconnect(client, Disconnect::Broken);
    // All that the worker has credit for.
    chunk(&mut it, worker, route.attempt_id, 0, &LONG[1..]);
    let (client, _) = it.client_of(Some("s"));
    resume(&mut it, client, 0, 0);
    let Some((Message::Chunk(missing), _)) = it.next_for(client) else { panic!("no CHUNK") };
    assert_eq!((missing.seq, missing.gap), (1, Some(WINDOW.into())));
    credit(&mut it, client, 1, 1, 2 * u64::from(WINDOW));
    assert_eq!(expect_credit(&mut it, worker, route.attempt_id), (1, 2 * u64::from(WINDOW)));
    chunk(&mut it, worker, route.attempt_id, 1, "x");
    assert_eq!(expect_chunk(&mut it, client, "t"), (1, 1, false, "x".to_owned()));
    result(&mut it, worker, &route, 2);
    it.expect_deliver(client, "t");
}

#[test]
fn a_chunk_without_a_body_does_not_say_what_is_missing() {
    let fixture = Fixture::with(|config| config.stream_bytes = 150);
    let (mut it, client, worker, route) = streaming_of(fixture, task("t"));
    it.disconnect(client, Disconnect::Broken);
    for (seq, body) in [(0, "x"), (1, "x"), (2, "x"), (3, ""), (4, "y")] {
        chunk(&mut it, worker, route.attempt_id, seq, body);
    }
    let (client, _) = it.client_of(Some("s"));
    // It would be taken for the word that there are no more.
    resume(&mut it, client, 0, 0);
    assert_eq!(expect_chunk(&mut it, client, "t"), (1, 4, true, "y".to_owned()));
    result(&mut it, worker, &route, 5);
    it.expect_deliver(client, "t");
}

#[test]
fn another_attempt_begins_anew_and_says_so() {
    let idempotent = Task { idempotent: true, ..task("t") };
    let (mut it, client, worker, route) = streaming_of(Fixture::new(), idempotent);
    chunk(&mut it, worker, route.attempt_id, 0, "a");
    expect_chunk(&mut it, client, "t");
    let other = it.worker("v", 1);
    it.disconnect(worker, Disconnect::Broken);
    let again = it.expect_route(other);
    assert_eq!((again.attempt, again.stream_window_bytes), (2, WINDOW));
    // Of the attempt before: too late.
    credit(&mut it, client, 1, 1, 5_000);
    it.expect_nothing();
    chunk(&mut it, other, again.attempt_id, 0, "b");
    assert_eq!(expect_chunk(&mut it, client, "t"), (2, 0, false, "b".to_owned()));
    it.disconnect(client, Disconnect::Broken);
    let (client, _) = it.client_of(Some("s"));
    // It had two chunks of the first attempt: they are void.
    resume(&mut it, client, 1, 2);
    assert_eq!(expect_chunk(&mut it, client, "t"), (2, 0, false, "b".to_owned()));
    result(&mut it, other, &again, 1);
    let deliver = it.expect_deliver(client, "t");
    assert_eq!((deliver.chunks, deliver.attempt), (1, 2));
}

#[test]
fn a_worker_that_comes_back_sends_again_and_is_told_its_credit() {
    let (mut it, client, worker, route) = streaming();
    chunk(&mut it, worker, route.attempt_id, 0, "a");
    expect_chunk(&mut it, client, "t");
    it.disconnect(worker, Disconnect::Broken);
    credit(&mut it, client, 1, 1, 2_000);
    it.expect_nothing();
    let hello = WorkerHello { held: vec![route.attempt_id], ..worker_hello("w", 1) };
    let (worker, ack) = it.worker_of(hello);
    assert_eq!(ack.keep, [route.attempt_id]);
    assert_eq!(expect_credit(&mut it, worker, route.attempt_id), (1, 2_000));
    chunk(&mut it, worker, route.attempt_id, 0, "a");
    it.expect_nothing();
    chunk(&mut it, worker, route.attempt_id, 1, "b");
    assert_eq!(expect_chunk(&mut it, client, "t"), (1, 1, false, "b".to_owned()));
    result(&mut it, worker, &route, 2);
    it.expect_deliver(client, "t");
}

#[test]
fn a_result_that_nobody_reads_does_not_hold_its_worker_up() {
    let (mut it, client, worker, route) = streaming();
    chunk(&mut it, worker, route.attempt_id, 0, "a");
    expect_chunk(&mut it, client, "t");
    it.disconnect(client, Disconnect::Orderly);
    let (next_seq, limit) = expect_credit(&mut it, worker, route.attempt_id);
    assert!(next_seq == 1 && limit >= 256 * 1024);
    chunk(&mut it, worker, route.attempt_id, 1, "b");
    expect_credit(&mut it, worker, route.attempt_id);
    assert_eq!(it.core.stats().stream_bytes, 0);
    result(&mut it, worker, &route, 2);
    it.expect_nothing();
    assert_eq!(it.core.stats().streams, 0);
}

#[test]
fn an_attempt_that_begins_when_nobody_reads_needs_no_credit() {
    let (mut it, client, worker, route) = streaming();
    it.disconnect(client, Disconnect::Orderly);
    expect_credit(&mut it, worker, route.attempt_id);
    it.nack(worker, route.attempt_id);
    let again = it.expect_route(worker);
    assert_eq!((again.attempt, again.stream_window_bytes), (2, 256 * 1024));
    chunk(&mut it, worker, again.attempt_id, 0, LONG);
    expect_credit(&mut it, worker, again.attempt_id);
    result(&mut it, worker, &again, 1);
}

#[test]
fn who_cancels_while_others_wait_reads_no_more() {
    let (mut it, client, worker, route) = streaming();
    chunk(&mut it, worker, route.attempt_id, 0, "a");
    expect_chunk(&mut it, client, "t");
    let other = it.client();
    it.send_in_parts(other, task("t"), 60_000, WINDOW);
    it.give(client, Message::Cancel(Cancel::Task(task_id("t"))));
    assert_eq!(it.expect_end(client, "t").0, Outcome::Cancelled);
    let (next_seq, limit) = expect_credit(&mut it, worker, route.attempt_id);
    assert!(next_seq == 1 && limit >= 256 * 1024);
    // The other one may.
    resume(&mut it, other, 0, 0);
    assert_eq!(expect_chunk(&mut it, other, "t"), (1, 1, true, String::new()));
    chunk(&mut it, worker, route.attempt_id, 1, "b");
    assert_eq!(expect_chunk(&mut it, other, "t"), (1, 1, false, "b".to_owned()));
    result(&mut it, worker, &route, 2);
    it.expect_deliver(other, "t");
}

#[test]
fn another_session_reads_on_only_when_the_reader_is_gone() {
    let (mut it, client, worker, route) = streaming();
    chunk(&mut it, worker, route.attempt_id, 0, "a");
    expect_chunk(&mut it, client, "t");
    let other = it.client();
    resume(&mut it, other, 0, 0);
    assert_eq!(expect_chunk(&mut it, other, "t"), (0, 0, true, String::new()));
    let stranger = it.connect_as(Identity::new("mallory"));
    it.give(stranger, Message::Hello(Box::new(client_hello(None))));
    it.expect_ack(stranger);
    resume(&mut it, stranger, 0, 0);
    assert_eq!(expect_chunk(&mut it, stranger, "t"), (0, 0, true, String::new()));
    it.disconnect(client, Disconnect::Broken);
    resume(&mut it, other, 0, 0);
    assert_eq!(expect_chunk(&mut it, other, "t"), (1, 0, false, "a".to_owned()));
    result(&mut it, worker, &route, 1);
    // The task is still the first session's.
    it.expect_nothing();
    let (client, _) = it.client_of(Some("s"));
    it.expect_deliver(client, "t");
}

#[test]
fn who_reads_on_brings_a_window() {
    let mut it = Fixture::new();
    let sender = it.client();
    // Less than a chunk counts.
    it.send_in_parts(sender, task("t"), 60_000, 1);
    let other = it.client();
    it.send_task(other, task("t"), 60_000);
    it.disconnect(sender, Disconnect::Orderly);
    resume(&mut it, other, 0, 0);
    let worker = it.worker("w", 1);
    assert_eq!(it.expect_route(worker).stream_window_bytes, WINDOW);
}

#[test]
fn chunks_of_a_worker_that_does_not_hold_the_attempt_are_refused() {
    let (mut it, client, worker, route) = streaming();
    let other = it.worker("v", 1);
    chunk(&mut it, other, route.attempt_id, 0, "x");
    assert_eq!(it.expect_error(other).code, ErrorCode::UnknownAttempt);
    let nameless = Chunk::new(Subject::Task(task_id("t"), 1), 0);
    it.give(worker, Message::Chunk(nameless));
    assert_eq!(it.expect_error(worker).code, ErrorCode::InvalidMessage);
    result(&mut it, worker, &route, 0);
    it.expect_deliver(client, "t");
}

#[test]
fn progress_reaches_the_reader_but_not_too_often() {
    let (mut it, client, worker, route) = streaming();
    let of = Subject::Attempt(route.attempt_id);
    let report = |it: &mut Fixture, permille| {
        let progress = Progress { of: of.clone(), permille, message: "busy".into() };
        it.give(worker, Message::Progress(progress));
    };
    let expect = |it: &mut Fixture| match it.next_for(client) {
        Some((Message::Progress(progress), _)) => {
            assert_eq!(progress.of, Subject::Task(task_id("t"), 1));
            progress.permille
        }
        other => panic!("PROGRESS expected, got {other:?}"),
    };
    report(&mut it, Some(10));
    assert_eq!(expect(&mut it), Some(10));
    report(&mut it, Some(20));
    it.expect_nothing();
    it.advance(50);
    report(&mut it, Some(30));
    assert_eq!(expect(&mut it), Some(30));
    report(&mut it, Some(1000));
    assert_eq!(expect(&mut it), Some(1000));
    result(&mut it, worker, &route, 0);
    it.expect_deliver(client, "t");
}

#[test]
fn progress_that_is_done_again_and_again_is_told_once() {
    let (mut it, client, worker, route) = streaming();
    let of = Subject::Attempt(route.attempt_id);
    for _ in 0..3 {
        let progress = Progress { of: of.clone(), permille: Some(1000), message: "done".into() };
        it.give(worker, Message::Progress(progress));
    }
    assert!(matches!(it.next_for(client), Some((Message::Progress(_), _))));
    it.expect_nothing();
    result(&mut it, worker, &route, 0);
    it.expect_deliver(client, "t");
}

#[test]
fn a_reader_that_cancels_for_itself_alone_holds_nobody_up() {
    let (mut it, client, worker, route) = streaming();
    let other = it.client();
    it.send_task(other, task("t"), 60_000);
    chunk(&mut it, worker, route.attempt_id, 0, "a");
    expect_chunk(&mut it, client, "t");
    it.give(client, Message::Cancel(Cancel::Task(task_id("t"))));
    it.expect_end(client, "t");
    let (next_seq, limit) = expect_credit(&mut it, worker, route.attempt_id);
    assert!(next_seq == 1 && limit >= 256 * 1024);
    result(&mut it, worker, &route, 1);
    assert_eq!(it.expect_deliver(other, "t").chunks, 1);
    assert_eq!(it.core.stats().streams, 0);
}

#[test]
fn what_comes_already_is_not_sent_again() {
    let (mut it, client, worker, route) = streaming();
    chunk(&mut it, worker, route.attempt_id, 0, "a");
    expect_chunk(&mut it, client, "t");
    for _ in 0..2 {
        resume(&mut it, client, 0, 0);
    }
    it.expect_nothing();
    // What it says of credit counts.
    resume(&mut it, client, 1, 1);
    assert_eq!(expect_credit(&mut it, worker, route.attempt_id), (1, 1065));
    result(&mut it, worker, &route, 1);
    it.expect_deliver(client, "t");
}
