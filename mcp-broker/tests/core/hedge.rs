//! Hedging: another attempt beside one that takes longer than most.

use mcp_broker::broker::{ActionRules, ConnectionId, CoreConfig, Disconnect, HedgeRule, Policy};
use mcp_proto::{
    ActionName, Cancel, CancelReason, Chunk, Deliver, Delivery, ErrorCode, ErrorInfo, Executed,
    HopEvent, InputLength, Message, Outcome, Priority, Readiness, Retry, Route, Send, Subject,
    Task, TaskResult, TaskState, WorkerHello,
};
use serde_json::Value;

use crate::fixture::{
    Fixture, cancelled_result, child_of, failed_result, hello_of, idempotent, ok_result, report,
    task, task_id, worker_hello,
};

/// What tasks take. Their attempts are left alone for this long, and up to an eighth more.
const USUAL_MS: u64 = 100;
const SLOW_MS: u64 = 113;

fn hedging(config: &mut CoreConfig) {
    config.rules.hedge = Some(rule(100, 20));
}

fn rule(budget_percent: u32, min_samples: u32) -> HedgeRule {
    let mut rule = HedgeRule::default();
    (rule.budget_percent, rule.min_samples) = (budget_percent, min_samples);
    rule
}

fn urgent(id: &str) -> Task {
    Task { priority: Priority::High, ..idempotent(id) }
}

/// What a worker says when its attempt ends badly.
type Fails = fn(&Route) -> Message;

/// A worker, and what it was sent.
type Routed = (ConnectionId, Route);

/// Workers of one slot each, and an action whose tasks take 100 ms.
struct Hedged {
    it: Fixture,
    client: ConnectionId,
    operator: ConnectionId,
    workers: Vec<ConnectionId>,
    tasks: usize,
}

impl Hedged {
    fn new() -> Self {
        Self::with(hedging, 2)
    }

    fn with(change: impl FnOnce(&mut CoreConfig), workers: usize) -> Self {
        let mut it = Fixture::with(change);
        let (client, operator) = (it.client(), it.client());
        let workers = (0..workers).map(|index| it.worker(&format!("w{index}"), 1)).collect();
        let mut hedged = Self { it, client, operator, workers, tasks: 0 };
        hedged.usual(20);
        hedged
    }

    /// So many tasks that take as long as usual.
    fn usual(&mut self, tasks: usize) {
        for _ in 0..tasks {
            let id = self.send(task("new"));
            let (worker, route) = self.routed();
            self.it.advance(USUAL_MS);
            self.it.result(worker, route.attempt_id);
            assert_eq!(self.it.expect_end(self.client, &id).0, Outcome::Ok);
        }
    }

    /// Sends a task under a new name.
    fn send(&mut self, task: Task) -> String {
        self.tasks += 1;
        let id = format!("t{}", self.tasks);
        self.it.send_task(self.client, Task { id: task_id(&id), ..task }, 60_000);
        id
    }

    fn all_routed(&mut self) -> Vec<Routed> {
        let mut routed = Vec::new();
        for worker in &self.workers {
            while let Some((message, _)) = self.it.next_for(*worker) {
                match message {
                    Message::Route(route) => routed.push((*worker, route)),
                    other => panic!("ROUTE expected, got {other:?}"),
                }
            }
        }
        routed
    }

    fn routed(&mut self) -> Routed {
        let mut routed = self.all_routed();
        assert_eq!(routed.len(), 1, "{routed:?}");
        routed.remove(0)
    }

    /// A task that is slow, so that it has two attempts.
    fn hedged(&mut self, task: Task) -> (String, Routed, Routed) {
        let id = self.send(task);
        let first = self.routed();
        self.it.advance(SLOW_MS);
        let second = self.routed();
        assert_ne!(first.0, second.0);
        assert_eq!((first.1.attempt, second.1.attempt), (1, 2));
        assert_ne!(first.1.attempt_id, second.1.attempt_id);
        (id, first, second)
    }

    /// Lets time pass in which nothing happens, but that workers are asked whether they are there.
    fn quiet(&mut self, mut ms: u64) {
        while ms > 0 {
            let step = ms.min(100);
            self.it.advance(step);
            ms -= step;
            for worker in &self.workers {
                while let Some((message, _)) = self.it.next_for(*worker) {
                    match message {
                        Message::Ping(ping) => self.it.give(*worker, Message::Pong(ping.seq)),
                        other => panic!("nothing expected, got {other:?}"),
                    }
                }
            }
            self.it.expect_nothing();
        }
    }

    fn name(&self, worker: ConnectionId) -> String {
        format!("w{}", self.workers.iter().position(|it| *it == worker).unwrap())
    }

    fn charged(&self, (worker, _): &Routed) -> u32 {
        self.it.in_flight(&self.name(*worker))
    }

    fn end(&mut self, id: &str) -> Deliver {
        self.it.expect_deliver(self.client, id)
    }

    fn hedges(&self) -> (u64, u64, u64) {
        let stats = self.it.core.stats();
        (stats.hedges, stats.hedges_won, stats.hedges_refused)
    }
}

/// The attempts of a trace, how each ended, and why.
fn hops(deliver: &Deliver) -> Vec<(u32, HopEvent, String)> {
    let hop = |hop: &mcp_proto::Hop| (hop.attempt, hop.event, hop.reason.to_string());
    deliver.trace.decode().hops.iter().map(hop).collect()
}

#[test]
fn an_attempt_is_left_alone_for_as_long_as_most_take() {
    let mut it = Hedged::new();
    let id = it.send(urgent("new"));
    let (first, route) = it.routed();
    it.it.advance(USUAL_MS - 1);
    it.it.expect_nothing();
    it.it.advance(SLOW_MS - USUAL_MS + 1);
    let (second, hedge) = it.routed();
    assert_ne!(first, second);
    assert_eq!((route.attempt, hedge.attempt), (1, 2));
    assert_eq!(
        hedge.ttl_ms,
        60_000 - it.it.routed[&hedge.attempt_id].since(it.it.routed[&route.attempt_id]) / 1000
    );
    // And there is no third.
    it.it.advance(300);
    it.it.expect_nothing();
    it.it.result(first, route.attempt_id);
    it.it.expect_cancel(second, hedge.attempt_id);
    it.it.expect_end(it.client, &id);
    assert_eq!(it.hedges(), (1, 0, 0));
}

#[test]
fn nothing_is_hedged_before_it_is_known_what_is_slow() {
    let mut it = Hedged::with(|config| config.rules.hedge = Some(rule(100, 21)), 2);
    it.send(urgent("new"));
    let (worker, route) = it.routed();
    it.it.advance(490);
    it.it.expect_nothing();
    it.it.result(worker, route.attempt_id);
    it.it.discard();
    it.hedged(urgent("new"));
}

#[test]
fn whoever_does_the_task_first_wins_and_the_other_is_cancelled() {
    for wins in [1, 2] {
        let mut it = Hedged::new();
        let (id, first, second) = it.hedged(urgent("new"));
        let (winner, loser) = if wins == 1 { (first, second) } else { (second, first) };
        it.it.advance(10);
        it.it.result(winner.0, winner.1.attempt_id);
        let reason = it.it.expect_cancel(loser.0, loser.1.attempt_id);
        assert_eq!(reason, CancelReason::Superseded);
        let deliver = it.end(&id);
        assert_eq!((deliver.outcome, deliver.executed), (Outcome::Ok, Executed::Yes));
        let lost = "hedged; another attempt won".to_owned();
        let expected = [
            (loser.1.attempt, HopEvent::Cancelled, lost),
            (winner.1.attempt, HopEvent::Completed, String::new()),
        ];
        assert_eq!(hops(&deliver), expected);
        // When each began, since they were not one after the other.
        let trace = deliver.trace.decode();
        let mut began: Vec<_> = trace.hops.iter().map(|hop| (hop.attempt, hop.began_us)).collect();
        began.sort_unstable();
        let [first, second] = [1, 2].map(|number| {
            let route = if number == winner.1.attempt { &winner.1 } else { &loser.1 };
            it.it.routed[&route.attempt_id]
        });
        assert_eq!(began, [(1, 1), (2, second.since(first))]);
        assert_eq!(it.hedges(), (1, u64::from(wins == 2), 0));
        // Its slot is taken until its worker says that it is free.
        assert_eq!((it.charged(&winner), it.charged(&loser)), (0, 1));
        let late = match wins {
            1 => cancelled_result(loser.1.attempt_id),
            _ => ok_result(loser.1.attempt_id),
        };
        it.it.give_result(loser.0, late);
        assert_eq!(it.charged(&loser), 0);
        let stats = it.it.core.stats();
        assert_eq!((stats.ok, stats.late_results, stats.in_flight), (21, 1, 0));
    }
}

#[test]
fn one_that_fails_while_the_other_runs_changes_nothing() {
    let failed = |route: &Route| Message::Result(failed_result(route.attempt_id));
    let given_up = |route: &Route| {
        // It is not the handler that says so.
        let permanent = true;
        Message::Result(TaskResult { permanent, ..cancelled_result(route.attempt_id) })
    };
    let expired = |route: &Route| {
        let outcome = Outcome::Expired;
        Message::Result(TaskResult { outcome, ..failed_result(route.attempt_id) })
    };
    let partial =
        |route: &Route| Message::Result(TaskResult { chunks: 3, ..ok_result(route.attempt_id) });
    let ends: [(Fails, HopEvent, &str); 4] = [
        (failed, HopEvent::Completed, "failed; another attempt goes on"),
        (given_up, HopEvent::Cancelled, "its worker gave it up; another attempt goes on"),
        (
            expired,
            HopEvent::Expired,
            "its worker stopped it at its deadline; another attempt goes on",
        ),
        (partial, HopEvent::Completed, "failed; another attempt goes on"),
    ];
    for (fails, event, reason) in ends {
        for failing in [1, 2] {
            let mut it = Hedged::new();
            // Of one attempt: what failed beside another one is none of them.
            let retry = Some(Retry { max_attempts: 1, ..Retry::default() });
            let (id, first, second) = it.hedged(Task { retry, ..urgent("new") });
            let (one, other) = if failing == 1 { (first, second) } else { (second, first) };
            it.it.give(one.0, fails(&one.1));
            it.it.expect_nothing();
            assert_eq!((it.charged(&one), it.charged(&other)), (0, 1));
            it.it.advance(300);
            it.it.expect_nothing();
            it.it.result(other.0, other.1.attempt_id);
            let deliver = it.end(&id);
            assert_eq!(deliver.outcome, Outcome::Ok);
            let expected = [
                (one.1.attempt, event, reason.to_owned()),
                (other.1.attempt, HopEvent::Completed, String::new()),
            ];
            assert_eq!(hops(&deliver), expected);
            assert_eq!((it.it.core.stats().retried, it.it.core.stats().late_results), (0, 0));
        }
    }
}

#[test]
fn when_both_fail_the_last_one_decides() {
    let mut it = Hedged::new();
    let (id, first, second) = it.hedged(urgent("new"));
    it.it.fail(second.0, second.1.attempt_id);
    it.it.fail(first.0, first.1.attempt_id);
    let deliver = it.end(&id);
    let code = deliver.error.as_ref().unwrap().code;
    assert_eq!((deliver.outcome, code), (Outcome::Failed, ErrorCode::HandlerFailed));
    assert_eq!(hops(&deliver).len(), 2);
}

#[test]
fn when_both_fail_a_task_is_tried_again_as_often_as_it_asked_for() {
    let mut it = Hedged::with(hedging, 3);
    let retry = Some(Retry { max_attempts: 2, ..Retry::default() });
    let (id, first, second) = it.hedged(Task { retry, ..urgent("new") });
    it.it.fail(first.0, first.1.attempt_id);
    it.it.fail(second.0, second.1.attempt_id);
    it.it.expect_nothing();
    it.it.advance(100);
    let (worker, route) = it.routed();
    assert_eq!(route.attempt, 3);
    // This one is hedged as well.
    it.it.advance(SLOW_MS);
    let (other, hedge) = it.routed();
    it.it.fail(worker, route.attempt_id);
    it.it.fail(other, hedge.attempt_id);
    let deliver = it.end(&id);
    assert_eq!(deliver.outcome, Outcome::Failed);
    let reasons: Vec<_> =
        hops(&deliver).into_iter().map(|(number, _, why)| (number, why)).collect();
    let goes_on = || "failed; another attempt goes on".to_owned();
    let expected = [
        (1, goes_on()),
        (2, "failed; tried again".to_owned()),
        (3, goes_on()),
        (4, "failed; no attempt is left".to_owned()),
    ];
    assert_eq!(reasons, expected);
}

#[test]
fn a_failure_for_good_is_one_for_both() {
    let mut it = Hedged::new();
    let (id, first, second) = it.hedged(urgent("new"));
    let result = TaskResult { permanent: true, ..failed_result(second.1.attempt_id) };
    it.it.give(second.0, Message::Result(result));
    it.it.expect_cancel(first.0, first.1.attempt_id);
    let deliver = it.end(&id);
    assert_eq!(deliver.outcome, Outcome::Failed);
    assert_eq!(hops(&deliver)[0].2, "hedged; another attempt failed for good");
    assert_eq!(it.hedges(), (1, 0, 0));
}

#[test]
fn one_that_is_handed_back_while_the_other_runs_changes_nothing() {
    for is_put_off in [false, true] {
        for handing in [1, 2] {
            let mut it = Hedged::new();
            let (id, first, second) = it.hedged(urgent("new"));
            let (one, other) = if handing == 1 { (first, second) } else { (second, first) };
            match is_put_off {
                true => it.it.put_off(one.0, one.1.attempt_id, 50),
                false => it.it.nack(one.0, one.1.attempt_id),
            }
            it.it.advance(200);
            it.it.expect_nothing();
            it.it.result(other.0, other.1.attempt_id);
            let deliver = it.end(&id);
            assert_eq!(deliver.outcome, Outcome::Ok);
            assert_eq!(hops(&deliver)[0].1, HopEvent::Nacked);
        }
    }
}

#[test]
fn what_may_have_run_beside_another_one_is_not_said_to_be_not_executed() {
    for (is_failed, executed) in [(true, Executed::Maybe), (false, Executed::No)] {
        let mut it = Hedged::new();
        let (id, first, second) = it.hedged(urgent("new"));
        match is_failed {
            true => it.it.fail(first.0, first.1.attempt_id),
            false => it.it.nack(first.0, first.1.attempt_id),
        }
        // Nobody takes it any more.
        for (worker, held) in [(first.0, None), (second.0, Some(second.1.attempt_id))] {
            it.it.give(worker, report(1_000, held.as_slice(), Readiness::Draining));
            it.it.expect_pong(worker);
        }
        it.it.nack(second.0, second.1.attempt_id);
        it.it.give(it.client, Message::Cancel(Cancel::Task(task_id(&id))));
        let end = it.end(&id);
        assert_eq!((end.outcome, end.executed), (Outcome::Cancelled, executed));
    }
}

#[test]
fn a_worker_that_is_lost_or_leaves_takes_only_its_own_attempt_with_it() {
    for how in [Disconnect::Broken, Disconnect::Orderly] {
        for losing in [1, 2] {
            let mut it = Hedged::new();
            let (id, first, second) = it.hedged(urgent("new"));
            let (one, other) = if losing == 1 { (first, second) } else { (second, first) };
            it.it.disconnect(one.0, how);
            it.it.expect_nothing();
            it.it.result(other.0, other.1.attempt_id);
            let deliver = it.end(&id);
            assert_eq!(deliver.outcome, Outcome::Ok);
            let reason = "worker lost; another attempt goes on".to_owned();
            assert_eq!(hops(&deliver)[0], (one.1.attempt, HopEvent::WorkerLost, reason));
        }
    }
}

#[test]
fn a_lost_worker_that_comes_back_has_lost_its_attempt_and_its_slot_is_free() {
    for losing in [1, 2] {
        let mut it = Hedged::new();
        let (id, first, second) = it.hedged(urgent("new"));
        let (one, other) = if losing == 1 { (first, second) } else { (second, first) };
        let name = it.name(one.0);
        it.it.disconnect(one.0, Disconnect::Broken);
        let hello = WorkerHello { held: vec![one.1.attempt_id], ..worker_hello(&name, 1) };
        let (_, ack) = it.it.worker_of(hello);
        assert!(ack.keep.is_empty());
        assert_eq!(it.it.in_flight(&name), 0);
        it.it.result(other.0, other.1.attempt_id);
        it.end(&id);
    }
}

#[test]
fn a_silent_worker_that_is_heard_again_is_told_to_stop() {
    let mut it = Hedged::new();
    let (id, first, second) = it.hedged(urgent("new"));
    // Its probe is not answered.
    for _ in 0..4 {
        it.it.advance(600);
        while let Some((Message::Ping(ping), _)) = it.it.next_for(second.0) {
            it.it.give(second.0, Message::Pong(ping.seq));
        }
    }
    it.it.expect_ping(first.0);
    assert_eq!(it.it.core.stats().agents_lost, 1);
    it.it.give(first.0, Message::Pong(0));
    assert_eq!(it.it.expect_cancel(first.0, first.1.attempt_id), CancelReason::Superseded);
    it.it.result(first.0, first.1.attempt_id);
    it.it.expect_nothing();
    it.it.result(second.0, second.1.attempt_id);
    assert_eq!(it.end(&id).outcome, Outcome::Ok);
}

#[test]
fn when_both_workers_are_lost_the_task_goes_to_another_one() {
    let mut it = Hedged::with(hedging, 3);
    let (id, first, second) = it.hedged(urgent("new"));
    it.it.disconnect(first.0, Disconnect::Broken);
    it.it.disconnect(second.0, Disconnect::Broken);
    let (third, route) = it.routed();
    assert_eq!(route.attempt, 3);
    it.it.result(third, route.attempt_id);
    let deliver = it.end(&id);
    assert_eq!(hops(&deliver)[1].2, "worker lost; dispatched again");
    assert_eq!(deliver.outcome, Outcome::Ok);
}

#[test]
fn a_task_that_takes_both_its_workers_down_is_poisoned() {
    let change = |config: &mut CoreConfig| {
        hedging(config);
        config.rules.poison_after = 2;
    };
    let mut it = Hedged::with(change, 3);
    let (id, first, second) = it.hedged(urgent("new"));
    it.it.disconnect(first.0, Disconnect::Broken);
    // One of them may yet do it.
    it.it.expect_nothing();
    it.it.disconnect(second.0, Disconnect::Broken);
    assert_eq!(it.end(&id).error.unwrap().code, ErrorCode::Poisoned);
}

#[test]
fn both_can_be_resumed() {
    for wins in [1, 2] {
        let mut it = Hedged::new();
        let (id, first, second) = it.hedged(urgent("new"));
        let mut resumed = Vec::new();
        for (worker, route) in [&first, &second] {
            // Over a new connection before the broker knows that the old one is gone.
            let name = it.name(*worker);
            let hello = WorkerHello { held: vec![route.attempt_id], ..worker_hello(&name, 1) };
            let connection = it.it.connect();
            it.it.give(connection, hello_of(hello));
            assert_eq!(it.it.expect_ack(connection).keep, [route.attempt_id]);
            it.it.expect_goaway(*worker);
            it.it.expect_close(*worker);
            resumed.push((connection, route.attempt_id));
        }
        let (winner, loser) = (resumed[wins - 1], resumed[2 - wins]);
        it.it.result(winner.0, winner.1);
        it.it.expect_cancel(loser.0, loser.1);
        assert_eq!(it.end(&id).outcome, Outcome::Ok);
        it.it.result(loser.0, loser.1);
        assert_eq!((it.it.in_flight("w0"), it.it.in_flight("w1")), (0, 0));
    }
}

#[test]
fn an_attempt_that_its_worker_forgot_is_lost_alone() {
    for forgotten in [1, 2] {
        let mut it = Hedged::new();
        let (id, first, second) = it.hedged(urgent("new"));
        let (one, other) = if forgotten == 1 { (first, second) } else { (second, first) };
        it.it.give(one.0, report(1_000, &[], Readiness::Ready));
        it.it.expect_pong(one.0);
        it.it.expect_nothing();
        assert_eq!((it.it.core.stats().leaked, it.charged(&one)), (1, 0));
        it.it.result(other.0, other.1.attempt_id);
        assert_eq!(it.end(&id).outcome, Outcome::Ok);
    }
}

#[test]
fn each_attempt_is_silent_by_itself() {
    for silent in [1, 2] {
        let mut it = Hedged::new();
        let (id, first, second) = it.hedged(Task { attempt_timeout_ms: 250, ..urgent("new") });
        let (one, other) = if silent == 1 { (first, second) } else { (second, first) };
        let sign = Message::Started(other.1.attempt_id);
        for _ in 0..2 {
            it.it.give(other.0, sign.clone());
            it.it.advance(130);
        }
        assert_eq!(it.it.expect_cancel(one.0, one.1.attempt_id), CancelReason::Superseded);
        it.it.expect_nothing();
        assert_eq!(it.it.core.stats().timed_out, 1);
        // The one that is left is watched on.
        it.it.give(other.0, sign);
        it.quiet(249);
        it.it.advance(1);
        it.it.expect_cancel(other.0, other.1.attempt_id);
        // Today's rule: it is tried again, once there is a slot.
        assert_eq!(it.it.core.stats().retried, 1);
        it.it.result(one.0, one.1.attempt_id);
        let (worker, route) = it.routed();
        assert_eq!((worker, route.attempt), (one.0, 3));
        it.it.result(worker, route.attempt_id);
        let deliver = it.end(&id);
        let reasons: Vec<_> = hops(&deliver).into_iter().map(|(.., reason)| reason).collect();
        let expected =
            ["no sign of life; another attempt goes on", "no sign of life; tried again", ""];
        assert_eq!(reasons, expected);
    }
}

#[test]
fn the_deadline_ends_both() {
    let mut it = Hedged::new();
    it.it.send_task(it.client, urgent("short"), 200);
    let first = it.routed();
    it.it.advance(SLOW_MS);
    let second = it.routed();
    it.it.advance(200 - SLOW_MS);
    for (worker, route) in [&first, &second] {
        let reason = it.it.expect_cancel(*worker, route.attempt_id);
        assert_eq!(reason, CancelReason::Expired);
    }
    let deliver = it.end("short");
    assert_eq!((deliver.outcome, deliver.executed), (Outcome::Expired, Executed::Maybe));
    let events: Vec<_> =
        hops(&deliver).into_iter().map(|(number, event, _)| (number, event)).collect();
    assert_eq!(events, [(1, HopEvent::Expired), (2, HopEvent::Expired)]);
    assert_eq!((it.charged(&first), it.charged(&second)), (1, 1));
    it.it.result(first.0, first.1.attempt_id);
    it.it.give_result(second.0, cancelled_result(second.1.attempt_id));
    assert_eq!((it.charged(&first), it.charged(&second)), (0, 0));
}

#[test]
fn its_client_or_an_operator_cancels_both() {
    for is_operator in [false, true] {
        let mut it = Hedged::new();
        let (id, first, second) = it.hedged(urgent("new"));
        if is_operator {
            it.it.ask(it.operator, "mcp.admin.tasks.cancel", &format!(r#"{{"task_id":"{id}"}}"#));
        } else {
            it.it.give(it.client, Message::Cancel(Cancel::Task(task_id(&id))));
        }
        for (worker, route) in [&first, &second] {
            let reason = it.it.expect_cancel(*worker, route.attempt_id);
            assert_eq!(reason, CancelReason::Client);
        }
        let deliver = it.end(&id);
        assert_eq!((deliver.outcome, deliver.executed), (Outcome::Cancelled, Executed::Maybe));
        assert_eq!(hops(&deliver).len(), 2);
    }
}

#[test]
fn a_shutdown_ends_both_and_begins_none() {
    let mut it = Hedged::with(hedging, 3);
    let (id, first, second) = it.hedged(urgent("new"));
    let late = it.send(urgent("new"));
    let third = it.routed();
    it.it.core.begin_shutdown(it.it.now, 400);
    it.it.collect();
    for peer in it.workers.clone().into_iter().chain([it.client, it.operator]) {
        it.it.expect_goaway(peer);
    }
    // A free slot, and nobody takes it.
    it.it.result(second.0, second.1.attempt_id);
    it.it.expect_cancel(first.0, first.1.attempt_id);
    it.end(&id);
    it.quiet(399);
    it.it.advance(1);
    assert_eq!(it.it.expect_cancel(third.0, third.1.attempt_id), CancelReason::Shutdown);
    it.end(&late);
    assert_eq!(it.hedges(), (1, 1, 0));
    it.it.discard();
}

#[test]
fn both_are_shown_and_the_task_is_listed_once() {
    let mut it = Hedged::new();
    let (id, first, second) = it.hedged(urgent("new"));
    let named = format!(r#"{{"task_id":"{id}"}}"#);
    let shown = it.it.ask(it.operator, "mcp.admin.tasks.show", &named);
    assert_eq!(shown["agent_id"], it.name(first.0));
    assert_eq!(shown["hedge_agent_id"], it.name(second.0));
    assert_eq!(shown["attempts"], 2);
    let rows = |it: &mut Hedged, filter: String| {
        let listed = it.it.ask(it.operator, "mcp.admin.tasks.list", &filter);
        listed["tasks"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(rows(&mut it, r#"{"status":"running"}"#.into()), 1);
    for worker in [first.0, second.0] {
        let filter = format!(r#"{{"status":"running","agent":"{}"}}"#, it.name(worker));
        assert_eq!(rows(&mut it, filter), 1);
    }
    it.it.nack(second.0, second.1.attempt_id);
    assert_eq!(
        it.it.ask(it.operator, "mcp.admin.tasks.show", &named)["hedge_agent_id"],
        Value::Null
    );
    it.it.result(first.0, first.1.attempt_id);
    it.end(&id);
}

#[test]
fn hedges_are_no_more_than_their_share_of_the_tasks() {
    let mut it = Hedged::with(|config| config.rules.hedge = Some(rule(5, 20)), 2);
    // One for the twenty tasks so far, and one for the twenty that come.
    for number in 0..20 {
        let id = it.send(urgent("new"));
        let (worker, route) = it.routed();
        it.it.advance(SLOW_MS + number);
        let hedge = it.all_routed().pop();
        it.it.result(worker, route.attempt_id);
        if let Some((other, hedge)) = hedge {
            it.it.expect_cancel(other, hedge.attempt_id);
            it.it.result(other, hedge.attempt_id);
        }
        it.end(&id);
        assert_eq!(it.hedges().0, 1);
    }
    assert!(it.hedges().2 > 0);
    let (id, first, second) = {
        let id = it.send(urgent("new"));
        let first = it.routed();
        it.it.advance(200);
        (id, first, it.routed())
    };
    it.it.result(first.0, first.1.attempt_id);
    it.it.expect_cancel(second.0, second.1.attempt_id);
    it.end(&id);
}

#[test]
fn a_hedge_takes_nobodys_slot_and_waits_for_none() {
    let mut it = Hedged::new();
    let long = it.send(task("new"));
    let (busy, long_route) = it.routed();
    let id = it.send(urgent("new"));
    let (worker, route) = it.routed();
    it.it.advance(SLOW_MS);
    it.it.expect_nothing();
    assert_eq!(it.hedges(), (0, 0, 1));
    // Its moment is over.
    it.it.give(busy, Message::Result(cancelled_result(long_route.attempt_id)));
    assert_eq!(it.end(&long).outcome, Outcome::Failed);
    it.quiet(300);
    it.it.fail(worker, route.attempt_id);
    it.end(&id);
    // What was not made is not spent.
    assert_eq!(it.hedges(), (0, 0, 1));
    it.hedged(urgent("new"));
    it.it.discard();
}

#[test]
fn a_place_to_wait_at_a_worker_is_no_free_slot() {
    let mut it = Hedged::with(hedging, 1);
    let (other, _) = it.it.worker_of(WorkerHello { prefetch: 4, ..worker_hello("w1", 1) });
    it.workers.push(other);
    it.send(urgent("new"));
    it.send(urgent("new"));
    assert_eq!(it.all_routed().len(), 2);
    it.it.advance(SLOW_MS);
    it.it.expect_nothing();
    assert_eq!(it.hedges(), (0, 0, 2));
    it.it.discard();
}

#[test]
fn a_hedge_goes_to_no_worker_that_is_left_out() {
    let change = |config: &mut CoreConfig| {
        hedging(config);
        config.rules.breaker.failures = 1;
    };
    let mut it = Hedged::with(change, 2);
    it.send(task("new"));
    let (worker, route) = it.routed();
    let error = ErrorInfo::new(ErrorCode::HandlerPanic, "it panicked");
    let error = Some(Box::new(error));
    let result = TaskResult { error, ..failed_result(route.attempt_id) };
    it.it.give(worker, Message::Result(result));
    it.it.discard();
    it.send(urgent("new"));
    assert_ne!(it.routed().0, worker);
    it.it.advance(SLOW_MS);
    it.it.expect_nothing();
    assert_eq!(it.hedges(), (0, 0, 1));
}

#[test]
fn a_hedge_goes_only_where_its_task_may() {
    let mut it = Hedged::with(hedging, 2);
    let labelled = WorkerHello {
        labels: mcp_proto::Labels([("gpu".into(), "a100".into())].into()),
        ..worker_hello("w2", 1)
    };
    let (worker, _) = it.it.worker_of(labelled);
    it.workers.push(worker);
    let required_labels = mcp_proto::Labels([("gpu".into(), "a100".into())].into());
    it.send(Task { required_labels, ..urgent("new") });
    it.routed();
    it.it.advance(SLOW_MS);
    it.it.expect_nothing();
    assert_eq!(it.hedges(), (0, 0, 1));
    it.it.discard();
}

#[test]
fn what_may_not_run_twice_or_is_in_no_hurry_is_never_hedged() {
    let never = [
        Task { priority: Priority::Normal, ..urgent("new") },
        Task { priority: Priority::Low, ..urgent("new") },
        Task { idempotent: false, ..urgent("new") },
        Task { priority: Priority::Urgent, ..task("new") },
        Task { delivery: Delivery::Durable, ..urgent("new") },
    ];
    for task in never {
        let mut it = Hedged::with(
            |config| {
                hedging(config);
                config.is_durable = true;
            },
            2,
        );
        it.send(task);
        it.routed();
        it.it.advance(450);
        it.it.expect_nothing();
        assert_eq!(it.hedges(), (0, 0, 0));
    }
    let mut it = Hedged::new();
    it.hedged(Task { priority: Priority::Urgent, ..urgent("new") });
}

#[test]
fn what_comes_in_parts_is_never_hedged() {
    let mut it = Hedged::new();
    it.it.send_in_parts(it.client, urgent("streamed"), 60_000, 1_000);
    it.routed();
    let send = Send {
        input_follows: Some(InputLength::Unknown),
        ..Send::new(urgent("upload").encode(), 60_000)
    };
    it.it.give_body(it.client, Message::Send(send), "input");
    it.it.discard();
    it.it.worker("w2", 1);
    it.it.advance(450);
    it.it.expect_nothing();
    assert_eq!(it.hedges(), (0, 0, 0));
}

#[test]
fn one_that_sends_chunks_that_nobody_takes_is_ended_alone() {
    let mut it = Hedged::new();
    let (id, first, second) = it.hedged(urgent("new"));
    let of = Subject::Attempt(first.1.attempt_id);
    it.it.give_body(first.0, Message::Chunk(Chunk::new(of, 0)), "part");
    it.it.expect_cancel(first.0, first.1.attempt_id);
    it.it.result(second.0, second.1.attempt_id);
    assert_eq!(it.end(&id).outcome, Outcome::Ok);
}

#[test]
fn a_task_that_waits_for_its_children_is_not_hedged() {
    for is_parked in [false, true] {
        let mut it = Hedged::with(hedging, 3);
        let id = it.send(urgent("new"));
        let (worker, route) = it.routed();
        if is_parked {
            it.it.park(worker, route.attempt_id, true);
        } else {
            it.it.send_task(it.client, child_of(&id, "child"), 60_000);
            it.routed();
        }
        it.it.advance(300);
        it.it.expect_nothing();
        assert_eq!(it.hedges(), (0, 0, 0));
    }
}

#[test]
fn those_who_join_a_hedged_task_get_its_one_outcome() {
    let mut it = Hedged::new();
    let (id, first, second) = it.hedged(urgent("new"));
    let other = it.it.client();
    it.it.send_task(other, urgent(&id), 60_000);
    it.it.give(other, Message::Fetch(task_id(&id)));
    assert_eq!(it.it.expect_status(other, &id), TaskState::Running);
    it.it.result(second.0, second.1.attempt_id);
    it.it.expect_cancel(first.0, first.1.attempt_id);
    it.end(&id);
    assert_eq!(it.it.expect_end(other, &id).0, Outcome::Ok);
}

#[test]
fn a_worker_whose_slow_attempts_lose_is_known_to_be_slow() {
    let change = |config: &mut CoreConfig| {
        let mut rule = rule(100, 20);
        rule.min_delay_ms = 400;
        config.rules.hedge = Some(rule);
        config.rules.policy = Policy::P2c;
    };
    let mut it = Hedged::with(change, 2);
    let id = it.send(urgent("new"));
    let first = it.routed();
    it.it.advance(400);
    let second = it.routed();
    it.it.advance(USUAL_MS / 2);
    it.it.result(second.0, second.1.attempt_id);
    it.it.expect_cancel(first.0, first.1.attempt_id);
    it.end(&id);
    it.it.result(first.0, first.1.attempt_id);
    for _ in 0..10 {
        let id = it.send(task("new"));
        let (worker, route) = it.routed();
        assert_eq!(worker, second.0);
        it.it.advance(USUAL_MS);
        it.it.result(worker, route.attempt_id);
        it.end(&id);
    }
}

#[test]
fn the_rule_can_change_while_tasks_run() {
    let mut it = Hedged::with(|_| {}, 2);
    let work = || ActionName::try_from("work").unwrap();
    let mut rules = ActionRules::default();
    it.send(urgent("new"));
    it.routed();
    it.it.advance(300);
    it.it.expect_nothing();
    it.it.discard();

    let mut it = Hedged::new();
    it.send(urgent("new"));
    let (worker, route) = it.routed();
    it.it.core.set_rules(it.it.now, work(), rules.clone());
    it.it.advance(300);
    it.it.expect_nothing();
    it.it.result(worker, route.attempt_id);
    it.it.discard();
    rules.hedge = Some(rule(100, 20));
    it.it.core.set_rules(it.it.now, work(), rules.clone());
    it.usual(20);
    let (id, first, second) = it.hedged(urgent("new"));
    // None of 0 %.
    rules.hedge = Some(rule(0, 1));
    it.it.core.set_rules(it.it.now, work(), rules);
    it.it.result(second.0, second.1.attempt_id);
    it.it.expect_cancel(first.0, first.1.attempt_id);
    it.it.result(first.0, first.1.attempt_id);
    it.end(&id);
    it.usual(1);
    it.send(urgent("new"));
    it.routed();
    it.it.advance(300);
    it.it.expect_nothing();
}

#[test]
fn nothing_is_hedged_sooner_than_it_is_worth() {
    let mut rule = rule(100, 20);
    rule.min_delay_ms = 300;
    let mut it = Hedged::with(move |config| config.rules.hedge = Some(rule), 2);
    it.send(urgent("new"));
    it.routed();
    it.it.advance(299);
    it.it.expect_nothing();
    it.it.advance(1);
    it.routed();
}
