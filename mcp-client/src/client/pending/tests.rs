use std::time::Duration;

use mcp_proto::{ActionName, ErrorInfo, Frame, Task};

use super::entry::{DURABLE_END_MARGIN, END_MARGIN};
use super::*;

const TTL: Duration = Duration::from_secs(10);

/// A table, what it sent, and the ends it decided.
struct Fixture {
    pending: Pending<u32>,
    now: Instant,
    wire: Vec<Frame>,
    ended: Vec<Ended<u32>>,
    is_connected: bool,
}

impl Fixture {
    fn new() -> Self {
        Self {
            pending: Pending::new(),
            now: Instant::now(),
            wire: Vec::new(),
            ended: Vec::new(),
            is_connected: false,
        }
    }

    fn connected() -> Self {
        let mut it = Self::new();
        it.connect();
        it
    }

    fn connect(&mut self) {
        self.is_connected = true;
        self.pending.connected(self.now, &mut self.wire);
    }

    fn disconnect(&mut self) {
        self.is_connected = false;
        self.pending.disconnected();
    }

    fn submit(&mut self, name: &str, waiter: u32, is_idempotent: bool) {
        let submission = self.submission(name, waiter);
        self.submit_as(Submission { is_idempotent, ..submission });
    }

    fn submit_durable(&mut self, name: &str, waiter: u32) {
        let submission = self.submission(name, waiter);
        self.submit_as(Submission { is_durable: true, ..submission });
    }

    fn submission(&self, name: &str, waiter: u32) -> Submission<u32> {
        let task = Task::new(id(name), ActionName::try_from("upper").unwrap());
        Submission {
            id: id(name),
            task: task.encode(),
            body: "body".into(),
            deadline: self.now + TTL,
            not_before: None,
            is_idempotent: false,
            is_durable: false,
            incoming: None,
            outgoing: None,
            waiter,
        }
    }

    fn submit_as(&mut self, submission: Submission<u32>) {
        self.pending.submit(submission, self.now, &mut self.wire, &mut self.ended);
    }

    fn accept(&mut self, name: &str) {
        self.pending.accepted(&id(name));
    }

    fn is_accepted(&self, name: &str) -> bool {
        self.pending.acceptance(&id(name)).unwrap().is_set()
    }

    fn deliver(&mut self, name: &str, outcome: Outcome, executed: Executed, code: ErrorCode) {
        let deliver = Box::new(Deliver {
            error: (outcome != Outcome::Ok).then(|| Box::new(ErrorInfo::new(code, "because"))),
            ..Deliver::new(id(name), outcome, executed)
        });
        let body = Bytes::from_static(b"result");
        self.pending.delivered(deliver, body, self.now, true, &mut self.ended);
    }

    fn deliver_ok(&mut self, name: &str) {
        self.deliver(name, Outcome::Ok, Executed::Yes, ErrorCode::Internal);
    }

    fn refuse_shutting_down(&mut self, name: &str) {
        self.deliver(name, Outcome::Rejected, Executed::No, ErrorCode::ShuttingDown);
    }

    fn status(&mut self, name: &str, state: TaskState) {
        self.pending.status(&id(name), state, self.now, &mut self.wire, &mut self.ended);
    }

    fn cancel(&mut self, name: &str) {
        self.pending.cancel(&id(name), &mut self.wire, &mut self.ended);
    }

    fn abandon(&mut self, name: &str) {
        self.pending.abandon(&id(name), &mut self.wire, &mut self.ended);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.pending.expire(self.now, &mut self.ended);
    }

    /// The frames sent since the last call, as "SEND t1".
    fn sent(&mut self) -> Vec<String> {
        let name = |frame: Frame| match frame.message {
            Message::Send(it) => format!("SEND {}", it.task.decode().unwrap().id),
            Message::Cancel(Cancel::Task(id)) => format!("CANCEL {id}"),
            Message::Fetch(id) => format!("FETCH {id}"),
            other => panic!("{other:?}"),
        };
        self.wire.drain(..).map(name).collect()
    }

    /// The ends since the last call: who waited, how it ended, whether it ran.
    fn ends(&mut self) -> Vec<(u32, Outcome, Executed)> {
        self.ended
            .drain(..)
            .map(|(waiter, end)| (waiter, end.deliver.outcome, end.deliver.executed))
            .collect()
    }
}

/// Every test ends with nothing left over that it did not look at.
impl Drop for Fixture {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        assert!(self.ends().is_empty());
        assert!(self.sent().is_empty());
        assert_eq!(self.pending.len(), 0, "tasks are left");
        assert_eq!(self.pending.on_wire(), 0);
    }
}

fn id(name: &str) -> TaskId {
    TaskId::try_from(name).unwrap()
}

const NO: Executed = Executed::No;
const MAYBE: Executed = Executed::Maybe;
const YES: Executed = Executed::Yes;

#[test]
fn a_task_is_sent_once_and_ends_once() {
    let mut it = Fixture::connected();
    it.submit("t", 1, false);
    assert_eq!(it.sent(), ["SEND t"]);
    it.deliver_ok("t");
    assert_eq!(it.ends(), [(1, Outcome::Ok, YES)]);
    it.deliver_ok("t");
    it.pass(TTL * 2);
}

#[test]
fn tasks_wait_for_a_connection_and_go_in_order() {
    let mut it = Fixture::new();
    for (waiter, name) in ["c", "a", "b"].iter().enumerate() {
        it.submit(name, waiter as u32, false);
    }
    assert!(it.sent().is_empty());
    it.now += Duration::from_secs(4);
    it.connect();
    let ttl = |frame: &Frame| match &frame.message {
        Message::Send(it) => it.ttl_ms,
        other => panic!("{other:?}"),
    };
    assert_eq!(it.wire.iter().map(ttl).collect::<Vec<_>>(), [6000, 6000, 6000]);
    assert_eq!(it.sent(), ["SEND c", "SEND a", "SEND b"]);
    ["a", "b", "c"].iter().for_each(|name| it.deliver_ok(name));
    assert_eq!(it.ends().len(), 3);
}

#[test]
fn a_task_that_was_never_sent_expires_at_its_deadline_and_did_not_run() {
    let mut it = Fixture::new();
    it.submit("t", 1, true);
    it.pass(TTL - Duration::from_millis(1));
    assert!(it.ends().is_empty());
    it.pass(Duration::from_millis(1));
    assert_eq!(it.ends(), [(1, Outcome::Expired, NO)]);
}

#[test]
fn a_task_that_the_broker_never_answers_is_lost_soon_after_its_deadline() {
    let mut it = Fixture::connected();
    it.submit("t", 1, true);
    assert_eq!(it.sent(), ["SEND t"]);
    it.pass(TTL);
    assert!(it.ends().is_empty());
    it.pass(END_MARGIN);
    assert_eq!(it.ends(), [(1, Outcome::Lost, MAYBE)]);
}

#[test]
fn after_a_broken_connection_each_task_is_asked_for_not_sent_again() {
    let mut it = Fixture::connected();
    it.submit("kept", 1, false);
    it.submit("running", 2, false);
    it.sent();
    it.disconnect();
    assert_eq!(it.pending.on_wire(), 0);
    it.submit("new", 3, false);
    it.connect();
    assert_eq!(it.sent(), ["FETCH kept", "FETCH running", "SEND new"]);
    it.deliver_ok("kept");
    it.status("running", TaskState::Running);
    it.deliver_ok("running");
    it.deliver_ok("new");
    assert_eq!(it.ends().len(), 3);
}

#[test]
fn a_task_the_broker_does_not_know_is_sent_again_only_if_it_may_run_twice() {
    let mut it = Fixture::connected();
    it.submit("once", 1, false);
    it.submit("any", 2, true);
    it.sent();
    it.disconnect();
    it.connect();
    assert_eq!(it.sent(), ["FETCH once", "FETCH any"]);
    it.status("once", TaskState::Unknown);
    assert_eq!(it.ends(), [(1, Outcome::Lost, MAYBE)]);
    it.status("any", TaskState::Unknown);
    assert_eq!(it.sent(), ["SEND any"]);
    // Only the answer to a question counts.
    it.status("any", TaskState::Unknown);
    assert!(it.sent().is_empty());
    it.deliver_ok("any");
    assert_eq!(it.ends(), [(2, Outcome::Ok, YES)]);
}

#[test]
fn a_task_that_was_sent_again_may_have_run_before() {
    let mut it = Fixture::connected();
    for (waiter, name) in ["refused", "expired"].iter().enumerate() {
        it.submit(name, waiter as u32, true);
    }
    it.sent();
    it.disconnect();
    it.connect();
    it.sent();
    it.status("refused", TaskState::Unknown);
    it.pending.going_away();
    it.status("expired", TaskState::Unknown);
    assert_eq!(it.sent(), ["SEND refused"]);
    it.deliver("refused", Outcome::Rejected, NO, ErrorCode::NoWorker);
    assert_eq!(it.ends(), [(0, Outcome::Rejected, MAYBE)]);
    it.pass(TTL);
    assert_eq!(it.ends(), [(1, Outcome::Expired, MAYBE)]);
}

#[test]
fn a_connection_that_breaks_again_before_the_answer_makes_it_ask_again() {
    let mut it = Fixture::connected();
    it.submit("t", 1, true);
    it.sent();
    for _ in 0..3 {
        it.disconnect();
        it.connect();
        assert_eq!(it.sent(), ["FETCH t"]);
    }
    it.deliver_ok("t");
    assert_eq!(it.ends(), [(1, Outcome::Ok, YES)]);
}

#[test]
fn what_a_stopping_broker_refuses_goes_to_the_next_one() {
    let mut it = Fixture::connected();
    it.submit("t", 1, false);
    assert_eq!(it.sent(), ["SEND t"]);
    it.pending.going_away();
    it.refuse_shutting_down("t");
    // No use in asking the same one again.
    it.submit("u", 2, false);
    assert!(it.sent().is_empty());
    assert_eq!(it.pending.on_wire(), 0);
    it.disconnect();
    it.connect();
    assert_eq!(it.sent(), ["SEND t", "SEND u"]);
    it.deliver_ok("t");
    it.deliver_ok("u");
    assert_eq!(it.ends().len(), 2);
}

#[test]
fn what_workers_that_left_refused_ends_and_the_broker_still_gets_new_tasks() {
    let mut it = Fixture::connected();
    it.submit("t", 1, false);
    it.sent();
    it.refuse_shutting_down("t");
    assert_eq!(it.ends(), [(1, Outcome::Rejected, NO)]);
    it.submit("u", 2, false);
    assert_eq!(it.sent(), ["SEND u"]);
    it.deliver_ok("u");
    it.ends();
}

#[test]
fn what_a_stopping_broker_refused_expires_when_no_other_comes() {
    let mut it = Fixture::connected();
    it.submit("t", 1, false);
    it.sent();
    it.pending.going_away();
    it.refuse_shutting_down("t");
    it.pass(TTL);
    let (_, end) = &it.ended[0];
    assert_eq!(end.deliver.error.as_ref().unwrap().causes[0].code, ErrorCode::ShuttingDown);
    assert_eq!(it.ends(), [(1, Outcome::Expired, NO)]);
}

#[test]
fn after_goaway_new_tasks_wait_and_running_ones_end() {
    let mut it = Fixture::connected();
    it.submit("t", 1, false);
    it.sent();
    it.pending.going_away();
    it.submit("u", 2, false);
    assert!(it.sent().is_empty());
    it.deliver_ok("t");
    assert_eq!(it.ends(), [(1, Outcome::Ok, YES)]);
    assert_eq!(it.pending.on_wire(), 0);
    it.disconnect();
    it.connect();
    assert_eq!(it.sent(), ["SEND u"]);
    it.deliver_ok("u");
    it.ends();
}

#[test]
fn a_dropped_handle_cancels_its_task_and_the_broker_has_the_last_word() {
    let mut it = Fixture::connected();
    it.submit("t", 1, false);
    it.sent();
    it.abandon("t");
    it.abandon("t");
    it.cancel("t");
    assert_eq!(it.sent(), ["CANCEL t"]);
    assert!(it.ends().is_empty());
    it.deliver("t", Outcome::Cancelled, MAYBE, ErrorCode::Cancelled);
    assert_eq!(it.ends(), [(1, Outcome::Cancelled, MAYBE)]);
}

#[test]
fn cancelled_before_it_was_sent_it_is_never_sent() {
    let mut it = Fixture::new();
    it.submit("t", 1, false);
    it.cancel("t");
    assert_eq!(it.ends(), [(1, Outcome::Cancelled, NO)]);
    it.connect();
}

#[test]
fn cancelled_without_a_connection_it_ends_at_once_and_the_broker_is_told_later() {
    let mut it = Fixture::connected();
    it.submit("t", 1, true);
    it.sent();
    it.disconnect();
    it.cancel("t");
    assert_eq!(it.ends(), [(1, Outcome::Cancelled, MAYBE)]);
    it.connect();
    assert_eq!(it.sent(), ["FETCH t", "CANCEL t"]);
    // Idempotent, but nobody wants it any more.
    it.status("t", TaskState::Unknown);
}

#[test]
fn the_same_task_sent_twice_is_one_task_with_one_end_for_both() {
    let mut it = Fixture::connected();
    it.submit("t", 1, false);
    it.submit("t", 2, false);
    assert_eq!(it.sent(), ["SEND t"]);
    it.abandon("t");
    assert!(it.sent().is_empty(), "the other one still wants it");
    it.deliver_ok("t");
    let mut ends = it.ends();
    ends.sort_by_key(|end| end.0);
    assert_eq!(ends, [(1, Outcome::Ok, YES), (2, Outcome::Ok, YES)]);
}

#[test]
fn another_task_with_the_same_id_is_refused() {
    let mut it = Fixture::connected();
    it.submit("t", 1, false);
    it.submit_as(Submission { body: "another body".into(), ..it.submission("t", 2) });
    assert_eq!(it.sent(), ["SEND t"]);
    assert_eq!(it.ends(), [(2, Outcome::Rejected, NO)]);
    it.deliver_ok("t");
    assert_eq!(it.ends(), [(1, Outcome::Ok, YES)]);
}

#[test]
fn giving_up_ends_all_and_says_which_may_have_run() {
    let mut it = Fixture::connected();
    it.submit("sent", 1, false);
    it.sent();
    it.disconnect();
    it.submit("unsent", 2, false);
    it.pending.give_up(ErrorCode::BrokerLost, "gone", &mut it.ended);
    let mut ends = it.ends();
    ends.sort_by_key(|end| end.0);
    assert_eq!(ends, [(1, Outcome::Lost, MAYBE), (2, Outcome::Lost, NO)]);
}

/// Another client sent the same task before, and takes its result in parts.
#[test]
fn the_last_part_of_a_result_is_not_taken_for_all_of_it() {
    let mut it = Fixture::connected();
    it.submit("t", 1, false);
    let deliver = Deliver { chunks: 2, ..Deliver::new(id("t"), Outcome::Ok, Executed::Yes) };
    it.pending.delivered(deliver.into(), "end".into(), it.now, true, &mut it.ended);
    let (_, end) = it.ended.pop().unwrap();
    assert_eq!((end.deliver.outcome, end.deliver.executed), (Outcome::Failed, Executed::Yes));
    assert!(end.body.is_empty());
    assert_eq!(it.sent(), ["SEND t"]);
}

mod any_order;
mod durable;
