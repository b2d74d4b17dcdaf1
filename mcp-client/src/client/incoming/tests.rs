use mcp_proto::{Deliver, Executed, Outcome, Subject, TaskId};

use super::*;

fn part(text: &'static str) -> StreamEvent {
    StreamEvent::Part(Bytes::from_static(text.as_bytes()))
}

fn end(attempt: u32, chunks: u32) -> Delivered {
    let id = TaskId::try_from("t").unwrap();
    let deliver = Deliver { attempt, chunks, ..Deliver::new(id, Outcome::Ok, Executed::Yes) };
    Delivered { deliver: Box::new(deliver), body: Bytes::new() }
}

/// What is there to read, and what the broker is told.
fn read(it: &Incoming) -> (Vec<StreamEvent>, Vec<Told>) {
    let (mut events, mut told) = (Vec::new(), Vec::new());
    loop {
        let (event, tell) = it.poll(&mut Context::from_waker(Waker::noop()));
        told.extend(tell);
        match event {
            Poll::Ready(event) => events.push(event),
            Poll::Pending => return (events, told),
        }
    }
}

fn chunk(it: &Incoming, attempt: u32, seq: u32, body: &'static str) -> bool {
    it.chunk(attempt, seq, None, Bytes::from_static(body.as_bytes())).is_some()
}

#[test]
fn parts_come_in_order_and_once() {
    let it = Incoming::new();
    chunk(&it, 1, 0, "a");
    chunk(&it, 1, 1, "b");
    // Again, as after a RESUME that crossed it.
    chunk(&it, 1, 0, "a");
    assert!(it.end(end(1, 2)).is_some());
    assert_eq!(read(&it).0, [part("a"), part("b")]);
}

#[test]
fn the_end_waits_for_parts_that_are_on_their_way() {
    let it = Incoming::new();
    chunk(&it, 1, 0, "a");
    it.resume();
    assert!(it.end(end(1, 3)).is_none());
    assert!(!chunk(&it, 1, 1, "b"));
    assert!(chunk(&it, 1, 2, "c"));
    assert_eq!(read(&it).0, [part("a"), part("b"), part("c")]);
}

#[test]
fn another_attempt_voids_what_came() {
    let it = Incoming::new();
    chunk(&it, 1, 0, "old");
    assert_eq!(read(&it).0, [part("old")]);
    chunk(&it, 1, 1, "old, unread");
    chunk(&it, 2, 0, "new");
    chunk(&it, 1, 2, "late");
    assert!(it.end(end(2, 1)).is_some());
    assert_eq!(read(&it).0, [StreamEvent::Restarted, part("new")]);
}

#[test]
fn an_attempt_without_parts_voids_those_before_it() {
    let it = Incoming::new();
    chunk(&it, 1, 0, "old");
    assert!(it.end(end(2, 0)).is_some());
    assert_eq!(read(&it).0, [StreamEvent::Restarted]);
}

#[test]
fn what_is_missing_is_said() {
    let it = Incoming::new();
    chunk(&it, 1, 0, "a");
    it.chunk(1, 3, Some(0), Bytes::from_static(b"d"));
    assert!(it.end(end(1, 4)).is_some());
    assert_eq!(read(&it).0, [part("a"), StreamEvent::Gap, part("d")]);
}

#[test]
fn what_is_missing_counts_as_read() {
    let it = Incoming::new();
    chunk(&it, 1, 0, "a");
    let before_bytes = u64::from(WINDOW_BYTES);
    it.chunk(1, 9, Some(before_bytes), Bytes::new());
    let (events, told) = read(&it);
    assert_eq!(events, [part("a"), StreamEvent::Gap]);
    assert_eq!(told, [Told { attempt: 1, next_seq: 9, limit_bytes: 2 * before_bytes }]);
    // Whatever a broker says.
    it.chunk(1, 10, Some(u64::MAX), Bytes::from_static(b"b"));
    assert_eq!(read(&it).0, [StreamEvent::Gap, part("b")]);
}

#[test]
fn the_end_does_not_wait_for_what_there_was_no_room_for() {
    let it = Incoming::new();
    for seq in 0..100 {
        it.chunk(1, seq, None, vec![7; 16 * 1024].into());
    }
    assert!(it.end(end(1, 100)).is_some());
    assert_eq!(read(&it).0.last(), Some(&StreamEvent::Gap));
}

#[test]
fn when_nothing_more_is_kept_the_end_does_not_wait() {
    for is_first in [true, false] {
        let it = Incoming::new();
        chunk(&it, 1, 0, "a");
        it.resume();
        if is_first {
            assert!(it.end(end(1, 2)).is_none());
            assert!(it.chunk(1, 1, Some(0), Bytes::new()).is_some());
        } else {
            assert!(it.chunk(1, 1, Some(0), Bytes::new()).is_none());
            assert!(it.end(end(1, 2)).is_some());
        }
        assert_eq!(read(&it).0, [part("a"), StreamEvent::Gap]);
    }
    let it = Incoming::new();
    it.resume();
    assert!(it.end(end(1, 2)).is_none());
    assert!(it.give_up().is_some());
    assert_eq!(read(&it).0, [StreamEvent::Gap]);
}

/// They went to another client, which sent the same task before.
#[test]
fn the_end_does_not_wait_for_parts_that_nothing_brings() {
    let it = Incoming::new();
    assert!(it.end(end(1, 2)).is_some());
    assert_eq!(read(&it).0, [StreamEvent::Gap]);
    // A failure stands, whatever came before it.
    let it = Incoming::new();
    let mut failed = end(1, 2);
    failed.deliver.outcome = Outcome::Failed;
    assert!(it.end(failed).is_some());
    assert!(read(&it).0.is_empty());
    // Sent anew on a connection on which it was asked for first.
    let it = Incoming::new();
    it.resume();
    it.restart();
    chunk(&it, 1, 0, "a");
    assert!(it.end(end(1, 2)).is_some());
}

#[test]
fn nothing_is_missing_when_all_had_come() {
    let it = Incoming::new();
    chunk(&it, 1, 0, "a");
    it.resume();
    it.chunk(1, 1, Some(0), Bytes::new());
    assert!(it.end(end(1, 1)).is_some());
    assert_eq!(read(&it).0, [part("a")]);
}

#[test]
fn the_broker_is_told_when_half_of_the_window_is_read_and_at_the_end() {
    let it = Incoming::new();
    let body = Bytes::from(vec![7; 16 * 1024]);
    for seq in 0..10 {
        it.chunk(1, seq, None, body.clone());
    }
    let counted = body.len() as u64 + CHUNK_OVERHEAD_BYTES;
    let (events, told) = read(&it);
    assert_eq!(events.len(), 10);
    let limit_bytes = u64::from(WINDOW_BYTES) + 8 * counted;
    assert_eq!(told, [Told { attempt: 1, next_seq: 8, limit_bytes }]);
    assert_eq!(it.finish().map(|told| told.next_seq), Some(10));
    assert_eq!(it.finish(), None);
}

#[test]
fn more_than_the_window_is_not_kept() {
    let it = Incoming::new();
    for seq in 0..1000 {
        it.chunk(1, seq, None, vec![7; 16 * 1024].into());
    }
    let (events, _) = read(&it);
    assert_eq!((events.len(), events.last()), (16, Some(&StreamEvent::Gap)));
}

#[test]
fn only_the_latest_progress_is_kept() {
    let it = Incoming::new();
    for permille in [10, 20, 30] {
        let of = Subject::Task(TaskId::try_from("t").unwrap(), 1);
        it.progress(Progress { of, permille: Some(permille), message: "busy".into() });
    }
    let latest = StreamEvent::Progress { fraction: Some(0.03), message: "busy".into() };
    assert_eq!(read(&it).0, [latest]);
}

#[test]
fn what_is_not_read_has_a_bound_whatever_comes() {
    let it = Incoming::new();
    for seq in 1..1000 {
        it.chunk(1, seq, Some(0), Bytes::new());
        let of = Subject::Task(TaskId::try_from("t").unwrap(), 1);
        it.progress(Progress { of, permille: Some(1), message: "busy".into() });
    }
    assert_eq!(read(&it).0.len(), 2);
}

#[test]
fn a_task_that_is_sent_anew_begins_again() {
    let it = Incoming::new();
    chunk(&it, 3, 0, "old");
    it.restart();
    chunk(&it, 1, 0, "new");
    assert_eq!(read(&it).0, [StreamEvent::Restarted, part("new")]);
}
