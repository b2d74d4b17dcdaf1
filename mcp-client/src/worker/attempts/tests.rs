use mcp_proto::{
    ActionName, Frame, InputLength, Limits, NodeId, Park, Progress, Subject, Task, TaskId,
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::worker::{HandlerError, HandlerReply};

const TTL: Duration = Duration::from_secs(10);
const PING_INTERVAL: Duration = Duration::from_secs(30);

fn handler() -> Arc<dyn Handler> {
    Arc::new(|_: Job| async { Ok::<_, HandlerError>(()) })
}

/// A table, and what came of what was done to it.
struct Fixture {
    attempts: Attempts,
    now: Instant,
    wire: Vec<Frame>,
    starts: Vec<Start>,
    /// Lines of started jobs, by attempt.
    running: HashMap<u64, Line>,
    epoch: u64,
}

impl Fixture {
    /// Connected.
    fn new(slots: u32, prefetch: u32) -> Self {
        let mut it = Self {
            attempts: Attempts::new(slots, prefetch),
            now: Instant::now(),
            wire: Vec::new(),
            starts: Vec::new(),
            running: HashMap::new(),
            epoch: 1,
        };
        it.connect(&[]);
        it
    }

    fn connect(&mut self, keep: &[u64]) {
        let ack = Ack {
            mcp_version: "1.0".into(),
            broker_id: NodeId::try_from("broker").unwrap(),
            epoch: self.epoch,
            features: Vec::new(),
            limits: Limits::default(),
            node_id: NodeId::try_from("node").ok(),
            generation: 1,
            lease_ms: 30_000,
            ping_interval_ms: PING_INTERVAL.as_millis() as u32,
            keep: keep.iter().copied().map(AttemptId).collect(),
            session_id: None,
            resumed: false,
            detach_ms: 0,
        };
        self.attempts.connected(&ack, self.now, &mut self.wire, &mut self.starts);
    }

    fn route(&mut self, id: u64) {
        self.route_with(id, TTL, true);
    }

    fn route_with(&mut self, id: u64, ttl: Duration, is_served: bool) {
        let task_id = TaskId::try_from(format!("t{id}")).unwrap();
        let task = Task::new(task_id, ActionName::try_from("upper").unwrap());
        self.route_task(id, task, ttl, is_served);
    }

    fn route_task(&mut self, id: u64, task: Task, ttl: Duration, is_served: bool) {
        self.route_line(id, task, ttl, is_served, Line::dead());
    }

    fn route_line(&mut self, id: u64, task: Task, ttl: Duration, is_served: bool, line: Line) {
        let routed = Routed {
            id: AttemptId(id),
            job: Ok(Job {
                task: Box::new(task),
                body: Bytes::new(),
                deadline: self.now + ttl,
                attempt: 1,
                line,
            }),
            handler: is_served.then(handler),
            arrived_at: self.now,
            stream_window_bytes: 0,
        };
        self.attempts.route(routed, self.now, &mut self.wire, &mut self.starts);
    }

    fn cancel(&mut self, id: u64, reason: CancelReason) {
        self.attempts.cancel(AttemptId(id), reason, self.now, &mut self.wire);
    }

    fn park(&mut self, id: u64) {
        self.attempts.park(AttemptId(id), self.now, &mut self.wire, &mut self.starts);
    }

    fn unpark(&mut self, id: u64) -> Option<CancellationToken> {
        self.attempts.unpark(AttemptId(id), &mut self.wire)
    }

    fn reclaim(&mut self, id: u64) {
        self.attempts.reclaim(AttemptId(id), &mut self.wire);
    }

    fn complete(&mut self, id: u64, completion: Completion) {
        self.running.remove(&id).expect("it was started");
        let (id, now) = (AttemptId(id), self.now);
        self.attempts.complete(id, completion, now, &mut self.wire, &mut self.starts);
    }

    fn reply(&mut self, id: u64) {
        self.complete(id, Completion::Reply(HandlerReply::new("done")));
    }

    fn stopped(&mut self, id: u64) {
        assert!(self.running[&id].is_over());
        self.complete(id, Completion::Stopped);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.attempts.timeout(self.now, &mut self.wire);
    }

    fn sign(&mut self, id: u64, permille: Option<u16>, message: &'static str) -> Signed {
        let sign = Sign { permille, message: message.into() };
        self.attempts.sign(AttemptId(id), sign, self.now, &mut self.wire)
    }

    /// Attempts started since the last call.
    fn started(&mut self) -> Vec<u64> {
        let started: Vec<_> =
            self.starts.drain(..).map(|start| (start.id.0, start.job.line)).collect();
        let ids = started.iter().map(|(id, _)| *id).collect();
        self.running.extend(started);
        ids
    }

    /// What was sent since the last call.
    fn sent(&mut self) -> Vec<String> {
        let name = |frame: Frame| match frame.message {
            Message::Result(it) => format!("{} {} {}", it.attempt_id.0, it.outcome, it.executed),
            Message::Nack(it) => format!("{} nack {}", it.attempt_id.0, it.error.unwrap().code),
            Message::Started(id) => format!("{} started", id.0),
            Message::Progress(Progress { of: Subject::Attempt(id), permille, message }) => {
                match permille {
                    None => format!("{} alive", id.0),
                    Some(permille) => format!("{} {permille} {message}", id.0),
                }
            }
            Message::Park(it) if it.parked => format!("{} parks", it.attempt_id.0),
            Message::Park(it) => format!("{} goes on", it.attempt_id.0),
            Message::Credit(Credit { of: Subject::Attempt(id), next_seq, limit_bytes }) => {
                format!("{} credit {next_seq} {limit_bytes}", id.0)
            }
            Message::Ping(Ping { readiness: None, .. }) => "probe".to_owned(),
            Message::Ping(it) => {
                let mut held: Vec<_> = it.held.iter().map(|id| id.0).collect();
                held.sort_unstable();
                let readiness = it.readiness.unwrap();
                format!("ping {readiness} {} {held:?}", it.routes_received)
            }
            other => panic!("{other:?}"),
        };
        self.wire.drain(..).map(name).collect()
    }

    fn hello(&self) -> Vec<u64> {
        let mut held: Vec<_> = self.attempts.held_for_hello().iter().map(|id| id.0).collect();
        held.sort_unstable();
        held
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        assert!(self.sent().is_empty());
        assert!(self.started().is_empty());
        let stats = self.attempts.stats();
        let held = self.running.len();
        assert_eq!((stats.running + stats.parked) as usize, held, "a slot is lost");
    }
}

#[test]
fn slots_bound_what_runs_and_the_rest_waits_in_order() {
    let mut it = Fixture::new(2, 2);
    (1..=4).for_each(|id| it.route(id));
    assert_eq!(it.started(), [1, 2]);
    it.route(5);
    assert_eq!(it.sent(), ["5 nack ALL_BUSY"]);
    it.reply(2);
    assert_eq!(it.sent(), ["2 ok yes"]);
    assert_eq!(it.started(), [3]);
    it.reply(1);
    it.reply(3);
    assert_eq!(it.started(), [4]);
    it.reply(4);
    assert_eq!(it.sent(), ["1 ok yes", "3 ok yes", "4 ok yes"]);
}

#[test]
fn the_durations_of_an_attempt_are_reported() {
    let mut it = Fixture::new(1, 1);
    it.route(1);
    it.route(2);
    it.started();
    it.now += Duration::from_millis(3);
    it.reply(1);
    it.started();
    it.now += Duration::from_millis(5);
    it.reply(2);
    let times = |frame: &Frame| match &frame.message {
        Message::Result(it) => (it.queue_us, it.work_us),
        other => panic!("{other:?}"),
    };
    assert_eq!(it.wire.iter().map(times).collect::<Vec<_>>(), [(0, 3000), (3000, 5000)]);
    it.sent();
}

#[test]
fn an_action_without_a_handler_is_handed_back() {
    let mut it = Fixture::new(1, 0);
    it.route_with(1, TTL, false);
    assert_eq!(it.sent(), ["1 nack UNKNOWN_ACTION"]);
}

#[test]
fn a_task_that_can_not_be_read_fails() {
    let mut it = Fixture::new(1, 0);
    let task = mcp_proto::EncodedTask(Bytes::from_static(b"\xff")).decode();
    let routed = Routed {
        id: AttemptId(1),
        job: Err(task.unwrap_err()),
        handler: Some(handler()),
        arrived_at: it.now,
        stream_window_bytes: 0,
    };
    it.attempts.route(routed, it.now, &mut it.wire, &mut it.starts);
    it.attempts.route_too_large(AttemptId(2), 70_000, &mut it.wire);
    assert_eq!(it.sent(), ["1 failed no", "2 failed no"]);
}

#[test]
fn cancelled_before_its_start_it_never_runs() {
    let mut it = Fixture::new(1, 1);
    it.route(1);
    it.route(2);
    assert_eq!(it.started(), [1]);
    it.cancel(2, CancelReason::Client);
    assert_eq!(it.sent(), ["2 cancelled no"]);
    it.reply(1);
    assert_eq!(it.sent(), ["1 ok yes"]);
}

#[test]
fn cancelled_while_running_it_is_stopped_and_the_slot_comes_back_with_its_end() {
    let mut it = Fixture::new(1, 1);
    it.route(1);
    it.route(2);
    assert_eq!(it.started(), [1]);
    it.cancel(1, CancelReason::Client);
    it.cancel(1, CancelReason::Expired);
    assert!(it.sent().is_empty() && it.started().is_empty());
    it.stopped(1);
    assert_eq!(it.sent(), ["1 cancelled yes"]);
    assert_eq!(it.started(), [2]);
    it.cancel(2, CancelReason::Expired);
    it.stopped(2);
    assert_eq!(it.sent(), ["2 expired yes"]);
}

#[test]
fn a_handler_that_was_done_before_the_cancel_has_its_result_told() {
    let mut it = Fixture::new(1, 0);
    it.route(1);
    it.started();
    it.cancel(1, CancelReason::Client);
    it.reply(1);
    assert_eq!(it.sent(), ["1 ok yes"]);
    it.cancel(1, CancelReason::Client);
}

#[test]
fn the_time_to_live_holds_here_too() {
    let mut it = Fixture::new(1, 1);
    it.route(1);
    it.route_with(2, TTL / 2, true);
    it.started();
    it.pass(TTL / 2);
    assert_eq!(it.sent(), ["2 expired no"]);
    it.pass(TTL / 2);
    it.stopped(1);
    assert_eq!(it.sent(), ["1 expired yes"]);
}

#[test]
fn what_expired_while_it_waited_is_not_started() {
    let mut it = Fixture::new(1, 1);
    it.route(1);
    it.route_with(2, TTL / 2, true);
    it.started();
    it.now += TTL / 2;
    it.reply(1);
    assert_eq!(it.sent(), ["1 ok yes", "2 expired no"]);
}

#[test]
fn a_panic_fails_the_task_and_returns_the_slot() {
    let mut it = Fixture::new(1, 1);
    it.route(1);
    it.route(2);
    it.started();
    it.complete(1, Completion::Panicked("oh".to_owned()));
    assert_eq!(it.started(), [2]);
    match &it.wire[0].message {
        Message::Result(result) => {
            let error = result.error.as_ref().unwrap();
            assert_eq!(error.code, ErrorCode::HandlerPanic);
            assert_eq!(error.message, "the handler panicked: oh");
        }
        other => panic!("{other:?}"),
    }
    it.sent();
    it.reply(2);
    it.sent();
    assert_eq!(it.attempts.stats().panics, 1);
}

#[test]
fn a_result_over_the_limit_fails() {
    let mut it = Fixture::new(1, 0);
    it.route(1);
    it.started();
    it.complete(1, Completion::Reply(HandlerReply::new(vec![0; 64 * 1024 + 1])));
    assert!(it.wire[0].body.is_empty());
    assert_eq!(it.sent(), ["1 failed yes"]);
}

#[test]
fn a_ping_lists_what_is_held() {
    let mut it = Fixture::new(1, 2);
    (1..=3).for_each(|id| it.route_with(id, TTL * 10, true));
    it.started();
    it.reply(1);
    assert_eq!(it.started(), [2]);
    it.sent();
    it.pass(PING_INTERVAL);
    assert_eq!(it.sent(), ["ping ready 3 [2, 3]"]);
    assert!(it.attempts.finished.is_owed());
    it.attempts.pong(0);
    assert!(!it.attempts.finished.is_owed());
    it.cancel(3, CancelReason::Client);
    it.reply(2);
    it.sent();
}

#[test]
fn many_results_are_confirmed_in_between() {
    let mut it = Fixture::new(1, 0);
    for id in 0..256 {
        it.route(id);
        it.started();
        it.reply(id);
    }
    let sent = it.sent();
    assert_eq!(sent.len(), 257);
    assert_eq!(sent[256], "probe");
    assert_eq!(it.hello().len(), 256);
    it.attempts.pong(0);
    assert!(it.attempts.is_idle());
}

#[test]
fn over_a_broken_connection_attempts_go_on() {
    let mut it = Fixture::new(1, 1);
    it.route(1);
    it.route(2);
    it.started();
    it.attempts.disconnected();
    // Nothing new is started, and the result waits.
    it.reply(1);
    assert!(it.started().is_empty() && it.sent().is_empty());
    assert_eq!(it.hello(), [1, 2]);
    it.connect(&[1, 2]);
    assert_eq!(it.sent(), ["1 ok yes"]);
    assert_eq!(it.started(), [2]);
    it.reply(2);
    assert_eq!(it.sent(), ["2 ok yes"]);
}

#[test]
fn what_the_broker_does_not_keep_is_stopped_and_never_told() {
    let mut it = Fixture::new(2, 1);
    (1..=3).for_each(|id| it.route(id));
    it.started();
    it.attempts.disconnected();
    it.reply(2);
    it.connect(&[]);
    assert!(it.hello().is_empty());
    it.stopped(1);
    assert!(it.sent().is_empty() && it.started().is_empty());
    assert!(it.attempts.is_idle());
    assert_eq!(it.attempts.stats().abandoned, 2);
}

#[test]
fn an_abandoned_handler_takes_its_slot_until_it_is_gone_but_counts_no_more() {
    let mut it = Fixture::new(1, 0);
    it.route(1);
    it.started();
    it.attempts.disconnected();
    it.connect(&[]);
    it.route(2);
    assert!(it.started().is_empty() && it.sent().is_empty());
    it.stopped(1);
    assert_eq!(it.started(), [2]);
    it.reply(2);
    assert_eq!(it.sent(), ["2 ok yes"]);
}

#[test]
fn attempts_of_an_earlier_epoch_are_nobodys() {
    let mut it = Fixture::new(1, 0);
    it.route(1);
    it.started();
    it.attempts.disconnected();
    it.epoch += 1;
    it.connect(&[1]);
    it.stopped(1);
    assert!(it.attempts.is_idle());
}

#[test]
fn an_unconfirmed_result_is_sent_again_and_a_confirmed_one_is_not() {
    let mut it = Fixture::new(1, 0);
    it.route(1);
    it.started();
    it.reply(1);
    it.pass(PING_INTERVAL);
    it.route(2);
    it.started();
    it.reply(2);
    it.sent();
    it.attempts.pong(0);
    it.attempts.disconnected();
    assert_eq!(it.hello(), [2]);
    it.connect(&[2]);
    assert_eq!(it.sent(), ["2 ok yes"]);
}

#[test]
fn draining_finishes_what_is_held_and_takes_nothing_new() {
    let mut it = Fixture::new(1, 1);
    it.route(1);
    it.route(2);
    it.started();
    it.attempts.begin_drain(&mut it.wire);
    it.attempts.begin_drain(&mut it.wire);
    assert_eq!(it.sent(), ["ping draining 2 [1, 2]"]);
    it.route(3);
    assert_eq!(it.sent(), ["3 nack SHUTTING_DOWN"]);
    it.reply(1);
    assert_eq!(it.started(), [2]);
    it.reply(2);
    // The last one is confirmed at once.
    assert_eq!(it.sent(), ["1 ok yes", "2 ok yes", "probe"]);
    assert!(!it.attempts.is_idle());
    it.attempts.pong(1);
    assert!(it.attempts.is_idle());
}

#[test]
fn at_the_end_of_a_drain_what_never_started_goes_back_and_the_rest_is_stopped() {
    let mut it = Fixture::new(1, 1);
    it.route(1);
    it.route(2);
    it.started();
    it.attempts.begin_drain(&mut it.wire);
    it.sent();
    it.attempts.end_drain(&mut it.wire);
    assert_eq!(it.sent(), ["2 nack SHUTTING_DOWN"]);
    it.stopped(1);
    // Given up, so that it is placed again if it may run twice.
    assert_eq!(it.sent(), ["1 cancelled yes", "probe"]);
}

#[test]
fn the_last_result_of_a_drain_is_confirmed_at_once_whatever_was_abandoned() {
    let mut it = Fixture::new(2, 0);
    it.route(1);
    it.route(2);
    it.started();
    it.attempts.disconnected();
    it.connect(&[2]);
    it.attempts.begin_drain(&mut it.wire);
    it.sent();
    it.reply(2);
    assert_eq!(it.sent(), ["2 ok yes", "probe"]);
    it.stopped(1);
}

#[test]
fn a_drained_worker_that_reconnects_says_so_again() {
    let mut it = Fixture::new(1, 0);
    it.route(1);
    it.started();
    it.attempts.disconnected();
    it.attempts.begin_drain(&mut it.wire);
    it.wire.clear();
    assert_eq!(it.attempts.readiness(), Readiness::Draining);
    it.connect(&[1]);
    assert_eq!(it.sent(), ["ping draining 0 [1]"]);
    it.reply(1);
    assert_eq!(it.sent(), ["1 ok yes", "probe"]);
}

/// However frames, handlers, time and connections interleave: one RESULT or NACK per ROUTE on a
/// connection that stays, never more handlers than slots but for those that took theirs back, the
/// broker knows which are parked, and nothing is left over.
mod any_order {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Op {
        Route,
        Finish(u8),
        Panic(u8),
        Cancel(u8),
        Pass(u8),
        Reconnect(bool),
        Park(u8),
        GoOn(u8),
        TakeBack(u8),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => Just(Op::Route),
            3 => any::<u8>().prop_map(Op::Finish),
            1 => any::<u8>().prop_map(Op::Panic),
            1 => any::<u8>().prop_map(Op::Cancel),
            1 => (0..5u8).prop_map(Op::Pass),
            1 => any::<bool>().prop_map(Op::Reconnect),
            2 => any::<u8>().prop_map(Op::Park),
            2 => any::<u8>().prop_map(Op::GoOn),
            1 => any::<u8>().prop_map(Op::TakeBack),
        ]
    }

    proptest! {
        #[test]
        fn each_attempt_is_answered_once(
            slots in 1..4u32,
            prefetch in 0..3u32,
            ops in proptest::collection::vec(op(), 0..100),
        ) {
            let mut it = Fixture::new(slots, prefetch);
            let mut routed: Vec<u64> = Vec::new();
            // Attempts that the broker waits for an answer to.
            let mut open: HashSet<u64> = HashSet::new();
            // What it knows to be parked, and handlers that took their slots back.
            let (mut parked, mut taken_back) = (HashSet::new(), HashSet::new());
            let pick = |it: &Fixture, at: u8| {
                let mut ids: Vec<_> = it.running.keys().copied().collect();
                ids.sort_unstable();
                (!ids.is_empty()).then(|| ids[at as usize % ids.len()])
            };
            for op in ops {
                match op {
                    Op::Route => {
                        let id = routed.len() as u64;
                        routed.push(id);
                        open.insert(id);
                        it.route(id);
                    }
                    Op::Finish(at) => {
                        if let Some(id) = pick(&it, at) {
                            it.reply(id);
                        }
                    }
                    Op::Panic(at) => {
                        if let Some(id) = pick(&it, at) {
                            it.complete(id, Completion::Panicked(String::new()));
                        }
                    }
                    Op::Cancel(at) if !routed.is_empty() => {
                        it.cancel(routed[at as usize % routed.len()], CancelReason::Client);
                    }
                    Op::Cancel(_) => {}
                    Op::Pass(seconds) => it.pass(Duration::from_secs(seconds.into())),
                    Op::Park(at) => {
                        if let Some(id) = pick(&it, at) {
                            taken_back.remove(&id);
                            it.park(id);
                        }
                    }
                    Op::GoOn(at) => {
                        if let Some(id) = pick(&it, at) {
                            it.unpark(id);
                        }
                    }
                    Op::TakeBack(at) => {
                        if let Some(id) = pick(&it, at) {
                            taken_back.insert(id);
                            it.reclaim(id);
                        }
                    }
                    Op::Reconnect(keeps) => {
                        parked.clear();
                        let held = it.hello();
                        it.attempts.disconnected();
                        // An answer may not have arrived: the broker asks for it again.
                        if keeps {
                            open.extend(&held);
                            it.connect(&held);
                        } else {
                            open.clear();
                            it.connect(&[]);
                        }
                    }
                }
                it.started();
                for frame in &it.wire {
                    match frame.message {
                        Message::Park(Park { attempt_id, parked: true }) => {
                            prop_assert!(parked.insert(attempt_id));
                        }
                        Message::Park(Park { attempt_id, parked: false }) => {
                            prop_assert!(parked.remove(&attempt_id));
                        }
                        _ => {}
                    }
                }
                for (id, attempt) in &it.attempts.held {
                    let is_parked = matches!(attempt.slot, Slot::Free);
                    prop_assert!(attempt.ending.is_some() || is_parked == parked.contains(id));
                }
                let answers = it.wire.iter().filter_map(|frame| match &frame.message {
                    Message::Result(result) => Some(result.attempt_id.0),
                    Message::Nack(nack) => Some(nack.attempt_id.0),
                    _ => None,
                });
                for id in answers {
                    prop_assert!(open.remove(&id), "{id} is answered twice, or was abandoned");
                }
                it.wire.clear();
                let taken_back = taken_back.iter().filter(|id| it.running.contains_key(id));
                let running = it.attempts.stats().running as usize;
                prop_assert!(running <= slots as usize + taken_back.count());
            }
            while let Some(id) = pick(&it, 0) {
                it.reply(id);
                it.started();
            }
            let answers = it.wire.drain(..).filter_map(|frame| match frame.message {
                Message::Result(result) => Some(result.attempt_id.0),
                _ => None,
            });
            for id in answers {
                prop_assert!(open.remove(&id));
            }
            prop_assert!(open.is_empty(), "never answered: {open:?}");
            prop_assert!(it.attempts.held.is_empty() && it.attempts.waiting.is_empty());
        }
    }
}

#[test]
fn the_beginning_of_a_handler_is_told_where_signs_of_life_are_waited_for() {
    let mut it = Fixture::new(1, 1);
    let task = |id: &str| {
        let task = Task::new(id.try_into().unwrap(), ActionName::try_from("upper").unwrap());
        Task { attempt_timeout_ms: 1_000, ..task }
    };
    it.route_task(1, task("a"), TTL, true);
    it.route_task(2, task("b"), TTL, true);
    assert_eq!(it.sent(), ["1 started"]);
    it.started();
    it.reply(1);
    assert_eq!(it.sent(), ["1 ok yes", "2 started"]);
    it.started();
    it.reply(2);
    it.sent();
}

#[test]
fn of_many_signs_the_latest_is_sent_once_it_is_time() {
    let mut it = Fixture::new(1, 0);
    it.route(1);
    it.started();
    assert_eq!(it.sign(1, Some(100), "a"), Signed::Pushed);
    assert_eq!(it.sign(1, None, ""), Signed::Waits);
    assert_eq!(it.sign(1, Some(200), "b"), Signed::Nothing);
    assert_eq!(it.sign(1, Some(300), "c"), Signed::Nothing);
    // A bare sign of life says no more than one that waits.
    assert_eq!(it.sign(1, None, ""), Signed::Nothing);
    assert_eq!(it.sent(), ["1 100 a"]);
    let at = it.attempts.next_timeout().unwrap();
    assert_eq!(at, it.now + Duration::from_millis(50));
    it.pass(Duration::from_millis(49));
    assert!(it.sent().is_empty());
    it.pass(Duration::from_millis(1));
    assert_eq!(it.sent(), ["1 300 c"]);
    it.pass(Duration::from_millis(50));
    assert!(it.sent().is_empty());
    assert_eq!(it.sign(1, None, ""), Signed::Pushed);
    assert_eq!(it.sign(1, Some(400), "d"), Signed::Waits);
    it.reply(1);
    assert_eq!(it.sent(), ["1 alive", "1 ok yes"]);
    it.pass(Duration::from_millis(50));
}

#[test]
fn a_sign_waits_for_a_connection_and_is_no_more_when_its_attempt_is_over() {
    let mut it = Fixture::new(2, 0);
    it.route(1);
    it.route(2);
    it.started();
    it.attempts.disconnected();
    it.sign(1, Some(100), "a");
    it.sign(1, Some(200), "b");
    it.sign(2, Some(300), "c");
    it.pass(Duration::from_secs(1));
    assert!(it.sent().is_empty());
    it.connect(&[1, 2]);
    it.cancel(2, CancelReason::Client);
    assert_eq!(it.attempts.next_timeout().map(|at| at <= it.now), Some(true));
    it.pass(Duration::ZERO);
    assert_eq!(it.sent(), ["1 200 b"]);
    assert_eq!(it.sign(2, Some(400), "d"), Signed::Nothing);
    assert_eq!(it.sign(77, Some(400), "d"), Signed::Nothing);
    it.stopped(2);
    it.reply(1);
    it.sent();
}

#[test]
fn a_busy_handler_hands_its_attempt_back_and_its_slot_with_it() {
    let mut it = Fixture::new(1, 1);
    it.route(1);
    it.route(2);
    it.started();
    let busy = HandlerError::busy("warming up", Duration::from_millis(700));
    it.complete(1, Completion::Failed(Box::new(busy.clone())));
    match &it.wire[0].message {
        Message::Nack(Nack { error: Some(error), .. }) => {
            assert_eq!((error.code, error.retry_after_ms), (ErrorCode::AllBusy, Some(700)));
            assert_eq!(error.message, "warming up");
        }
        other => panic!("{other:?}"),
    }
    it.sent();
    assert_eq!(it.started(), [2]);
    assert_eq!(it.attempts.stats().nacked, 1);
    // Once it is being cancelled, that is what is told.
    it.cancel(2, CancelReason::Client);
    it.complete(2, Completion::Failed(Box::new(busy)));
    assert_eq!(it.sent(), ["2 cancelled yes"]);
}

#[test]
fn a_permanent_failure_is_told_as_one() {
    let mut it = Fixture::new(1, 0);
    for (id, error, is_permanent) in
        [(1, HandlerError::new("no"), false), (2, HandlerError::permanent("never"), true)]
    {
        it.route(id);
        it.started();
        it.complete(id, Completion::Failed(Box::new(error)));
        match &it.wire[0].message {
            Message::Result(result) => {
                assert_eq!((result.outcome, result.permanent), (Outcome::Failed, is_permanent));
            }
            other => panic!("{other:?}"),
        }
        it.sent();
    }
}

#[test]
fn a_parked_handler_leaves_its_slot_to_others() {
    let mut it = Fixture::new(1, 1);
    it.route(1);
    it.route(2);
    assert_eq!(it.started(), [1]);
    it.park(1);
    it.park(1);
    assert_eq!((it.sent(), it.started()), (vec!["1 parks".to_owned()], vec![2]));
    let stats = it.attempts.stats();
    assert_eq!((stats.running, stats.parked, stats.waiting), (1, 1, 0));
    // It has no slot before the other handler is done, and goes before what waits.
    let turn = it.unpark(1).unwrap();
    it.route(3);
    assert!(it.sent() == ["1 goes on"] && it.started().is_empty() && !turn.is_cancelled());
    it.reply(2);
    assert!(turn.is_cancelled() && it.started().is_empty());
    assert!(it.unpark(1).is_none());
    assert_eq!(it.sent(), ["2 ok yes"]);
    it.reply(1);
    assert_eq!(it.started(), [3]);
    it.reply(3);
    assert_eq!(it.sent(), ["1 ok yes", "3 ok yes"]);
    assert_eq!(it.attempts.stats().running, 0);
}

#[test]
fn a_handler_that_finds_its_slot_free_goes_on_at_once() {
    let mut it = Fixture::new(1, 0);
    it.route(1);
    assert_eq!(it.started(), [1]);
    it.park(1);
    assert!(it.unpark(1).is_none() && it.unpark(1).is_none());
    assert_eq!(it.sent(), ["1 parks", "1 goes on"]);
    assert_eq!(it.attempts.stats().running, 1);
}

#[test]
fn a_wait_that_is_dropped_takes_the_slot_back_at_once() {
    let mut it = Fixture::new(1, 0);
    it.route(1);
    it.started();
    it.park(1);
    it.route(2);
    assert_eq!(it.started(), [2]);
    it.reclaim(1);
    it.reclaim(1);
    assert_eq!(it.sent(), ["1 parks", "1 goes on"]);
    assert_eq!(it.attempts.stats().running, 2);
    // One that waits for its turn, too.
    it.park(2);
    it.route(3);
    let turn = it.unpark(2).unwrap();
    it.reclaim(2);
    assert!(turn.is_cancelled());
    it.reply(1);
    assert!(it.started().is_empty());
    it.reply(2);
    assert_eq!(it.started(), [3]);
    assert_eq!(it.sent(), ["2 parks", "2 goes on", "1 ok yes", "2 ok yes"]);
    assert_eq!(it.attempts.stats().running, 1);
}

#[test]
fn a_route_that_crossed_a_handler_that_goes_on_is_kept() {
    let mut it = Fixture::new(1, 0);
    it.route(1);
    it.started();
    it.park(1);
    assert!(it.unpark(1).is_none());
    it.sent();
    it.route(2);
    assert!(it.started().is_empty() && it.sent().is_empty());
    // More than that can't have been on its way.
    it.route(3);
    assert_eq!(it.sent(), ["3 nack ALL_BUSY"]);
    it.reply(1);
    assert_eq!((it.sent(), it.started()), (vec!["1 ok yes".to_owned()], vec![2]));
}

#[test]
fn handlers_that_end_while_parked_leave_nothing_behind() {
    let mut it = Fixture::new(1, 0);
    it.route(1);
    it.started();
    it.park(1);
    it.route(2);
    it.started();
    it.park(2);
    it.route(3);
    assert_eq!(it.started(), [3]);
    let turn = it.unpark(2).unwrap();
    it.sent();
    // A part of the handler waits elsewhere, and was not asked.
    it.reply(1);
    it.cancel(2, CancelReason::Client);
    it.stopped(2);
    assert!(turn.is_cancelled() && it.unpark(2).is_none());
    it.reclaim(1);
    assert_eq!(it.sent(), ["1 ok yes", "2 cancelled yes"]);
    assert_eq!(it.attempts.stats().running, 1);
    it.reply(3);
    assert_eq!((it.sent(), it.attempts.stats().running), (vec!["3 ok yes".to_owned()], 0));
}

#[test]
fn one_that_is_stopped_while_parked_only_ends() {
    let mut it = Fixture::new(1, 0);
    it.route(1);
    it.started();
    it.park(1);
    it.cancel(1, CancelReason::Client);
    it.reclaim(1);
    it.stopped(1);
    assert_eq!(it.sent(), ["1 parks", "1 cancelled yes"]);
    assert_eq!(it.attempts.stats().running, 0);
}

#[test]
fn on_a_new_connection_the_broker_is_told_again_what_is_parked() {
    let mut it = Fixture::new(2, 0);
    (1..=2).for_each(|id| it.route(id));
    it.started();
    it.park(1);
    it.sent();
    it.attempts.disconnected();
    it.park(2);
    assert!(it.sent().is_empty());
    it.connect(&[1, 2]);
    let mut sent = it.sent();
    sent.sort();
    assert_eq!(sent, ["1 parks", "2 parks"]);
    it.attempts.disconnected();
    assert!(it.unpark(1).is_none());
    it.connect(&[1]);
    assert!(it.sent().is_empty());
    it.stopped(2);
}

#[test]
fn an_input_reaches_its_handler_and_its_credit_is_told_again_after_a_break() {
    let mut it = Fixture::new(1, 1);
    let task =
        |id: &str| Task::new(TaskId::try_from(id).unwrap(), ActionName::try_from("upper").unwrap());
    for id in [1, 2] {
        it.route_line(
            id,
            task(&format!("t{id}")),
            TTL,
            true,
            Line::dead_with_input(InputLength::Unknown),
        );
    }
    assert_eq!(it.started(), [1]);
    let body = || Bytes::from_static(b"part");
    // Also for one that waits, and for one that is not known.
    for id in [1, 2, 3] {
        it.attempts.input(AttemptId(id), 0, false, body());
    }
    let told = Told { next_seq: 1, limit_bytes: 1_000 };
    it.attempts.credit_input(AttemptId(1), told, &mut it.wire);
    it.attempts.credit_input(AttemptId(3), told, &mut it.wire);
    assert_eq!(it.sent(), ["1 credit 1 1000"]);
    it.attempts.disconnected();
    it.attempts.credit_input(AttemptId(1), told, &mut it.wire);
    assert_eq!(it.sent(), [""; 0]);
    it.connect(&[1]);
    assert_eq!(it.sent(), ["1 credit 0 262144"]);
    // Of the other, the handler never hears.
    let line = it.running[&1].clone();
    it.cancel(1, CancelReason::Client);
    let inlet = line.inlet().unwrap();
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let over = crate::worker::InputError::Over;
    assert_eq!(inlet.poll(&mut cx).0, std::task::Poll::Ready(Some(Err(over))));
}
