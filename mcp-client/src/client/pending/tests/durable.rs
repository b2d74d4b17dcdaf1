//! Durable tasks: sent until they are accepted, asked for from then on, and never lost before their
//! time is over.

use super::*;

/// DELIVER of a broker that has taken no durable task.
fn deliver_unavailable(it: &mut Fixture, name: &str) {
    it.deliver(name, Outcome::Rejected, NO, ErrorCode::DurableUnavailable);
}

#[test]
fn until_it_is_accepted_it_is_sent_again_on_every_connection() {
    let mut it = Fixture::connected();
    it.submit_durable("t", 1);
    assert_eq!(it.sent(), ["SEND t"]);
    for _ in 0..2 {
        it.disconnect();
        it.connect();
        assert_eq!(it.sent(), ["SEND t"]);
    }
    assert!(!it.is_accepted("t"));
    it.accept("t");
    assert!(it.is_accepted("t"));
    it.disconnect();
    it.connect();
    assert_eq!(it.sent(), ["FETCH t"]);
    it.status("t", TaskState::Running);
    it.deliver_ok("t");
    assert_eq!(it.ends(), [(1, Outcome::Ok, YES)]);
}

#[test]
fn one_that_was_accepted_is_sent_again_to_a_broker_that_has_lost_it() {
    let mut it = Fixture::connected();
    it.submit_durable("t", 1);
    it.accept("t");
    it.disconnect();
    it.now += Duration::from_secs(9);
    it.connect();
    it.sent();
    it.status("t", TaskState::Unknown);
    match it.wire.last().map(|frame| &frame.message) {
        Some(Message::Send(send)) => assert_eq!(send.ttl_ms, 1_000),
        other => panic!("{other:?}"),
    }
    assert_eq!(it.sent(), ["SEND t"]);
    // It may have run before, though this broker says that it did not.
    deliver_unavailable(&mut it, "t");
    assert_eq!(it.ends(), [(1, Outcome::Rejected, MAYBE)]);
}

#[test]
fn it_is_lost_only_after_its_time_to_live_and_a_grace() {
    let mut it = Fixture::connected();
    it.submit_durable("asked", 1);
    it.submit_durable("sent", 2);
    it.accept("asked");
    it.disconnect();
    it.pass(TTL);
    it.connect();
    // There is nothing left of its time: no use in sending it.
    assert_eq!(it.sent(), ["SEND asked", "SEND sent", "FETCH asked", "FETCH sent"]);
    it.pass(DURABLE_END_MARGIN - Duration::from_millis(1));
    assert!(it.ends().is_empty());
    it.status("sent", TaskState::Unknown);
    assert_eq!(it.ends(), [(2, Outcome::Lost, MAYBE)]);
    it.pass(Duration::from_millis(1));
    assert_eq!(it.ends(), [(1, Outcome::Lost, MAYBE)]);
}

#[test]
fn a_dropped_handle_lets_it_go_on() {
    let mut it = Fixture::connected();
    it.submit_durable("t", 1);
    it.abandon("t");
    it.disconnect();
    it.connect();
    assert_eq!(it.sent(), ["SEND t", "SEND t"]);
    it.deliver_ok("t");
    assert_eq!(it.ends(), [(1, Outcome::Ok, YES)]);
}

#[test]
fn cancelled_it_is_not_sent_again() {
    let mut it = Fixture::connected();
    it.submit_durable("t", 1);
    it.disconnect();
    it.cancel("t");
    assert_eq!(it.ends(), [(1, Outcome::Cancelled, MAYBE)]);
    it.connect();
    assert_eq!(it.sent(), ["SEND t", "FETCH t", "CANCEL t"]);
    it.status("t", TaskState::Unknown);
}

#[test]
fn what_is_left_of_its_delay_goes_with_it() {
    let mut it = Fixture::new();
    let delay = Duration::from_millis(4_000);
    let task = Submission { not_before: Some(it.now + delay), ..it.submission("t", 1) };
    it.submit_as(Submission { is_durable: true, ..task });
    let mut delays = Vec::new();
    for pass_ms in [0, 1_500, 2_499, 500, 5_500] {
        it.now += Duration::from_millis(pass_ms);
        it.connect();
        match &it.wire.last().unwrap().message {
            Message::Send(send) => delays.push((send.ttl_ms, send.delay_ms)),
            other => panic!("{other:?}"),
        }
        it.disconnect();
    }
    assert_eq!(delays, [(10_000, 4_000), (8_500, 2_500), (6_001, 1), (5_501, 0), (1, 0)]);
    assert_eq!(it.sent().len(), 5);
    it.connect();
    it.sent();
    it.deliver_ok("t");
    it.ends();
}

/// A part of a millisecond counts as one, of the time to live and of the delay.
#[test]
fn a_delay_is_less_than_the_time_to_live() {
    let mut it = Fixture::connected();
    let deadline = it.now + Duration::from_micros(900);
    let not_before = Some(it.now + Duration::from_micros(800));
    it.submit_as(Submission { deadline, not_before, ..it.submission("t", 1) });
    match &it.wire[0].message {
        Message::Send(send) => assert_eq!((send.ttl_ms, send.delay_ms), (1, 0)),
        other => panic!("{other:?}"),
    }
    it.sent();
    it.deliver_ok("t");
    it.ends();
}

#[test]
fn a_durable_task_does_not_join_one_that_is_not() {
    let mut it = Fixture::connected();
    it.submit("fast", 1, false);
    it.submit_durable("fast", 2);
    assert_eq!(it.ends(), [(2, Outcome::Rejected, NO)]);
    it.submit_durable("durable", 3);
    it.submit("durable", 4, false);
    assert_eq!(it.sent(), ["SEND fast", "SEND durable"]);
    it.deliver_ok("fast");
    it.deliver_ok("durable");
    assert_eq!(it.ends().len(), 3);
}
