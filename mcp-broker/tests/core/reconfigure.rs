//! Another configuration while tasks wait and run.

use mcp_broker::broker::{ActionRules, CoreConfig, Policy};
use mcp_proto::{ErrorCode, Message, Outcome, Readiness};
use serde_json::json;

use crate::fixture::{Fixture, report, worker_hello};
use crate::operator::Operator;

impl Fixture {
    /// Changes what is configured, and returns the actions that go on by an operator's rules.
    fn reconfigure(&mut self, change: impl FnOnce(&mut CoreConfig)) -> Vec<String> {
        let mut config = self.core.config().clone();
        change(&mut config);
        let kept = self.core.reconfigure(self.now, config);
        self.collect();
        kept.iter().map(ToString::to_string).collect()
    }
}

#[test]
fn what_runs_and_waits_goes_on_and_new_bounds_hold_for_what_comes() {
    let mut it = Fixture::new();
    let (client, worker) = (it.client(), it.worker("w", 1));
    it.send(client, "runs");
    let runs = it.expect_route(worker);
    for id in ["waits-1", "waits-2"] {
        it.send(client, id);
    }
    it.reconfigure(|config| config.max_queue_tasks = 1);
    it.send(client, "late");
    let refused = it.expect_deliver(client, "late");
    assert_eq!(refused.error.map(|it| it.code), Some(ErrorCode::QueueFull));
    let mut attempt = runs.attempt_id;
    for (id, is_last) in [("runs", false), ("waits-1", false), ("waits-2", true)] {
        it.result(worker, attempt);
        assert_eq!(it.expect_deliver(client, id).outcome, Outcome::Ok);
        if !is_last {
            attempt = it.expect_route(worker).attempt_id;
        }
    }
    it.expect_nothing();
}

#[test]
fn rules_of_the_configuration_change_and_those_of_operators_hold_until_they_are_reset() {
    let mut it = Fixture::new();
    let operator = Operator::new(&mut it);
    let _worker = it.worker("w", 1);
    let set = json!({"action": "mine", "rules": {"policy": "p2c"}});
    operator.answer(&mut it, "mcp.admin.actions.set", &set);
    let kept = it.reconfigure(|config| {
        config.rules = ActionRules::default();
        config.rules.policy = Policy::RoundRobin;
        let mut own = ActionRules::default();
        own.max_running = 7;
        config.actions.insert("own".try_into().unwrap(), own.clone());
        config.actions.insert("mine".try_into().unwrap(), own);
    });
    assert_eq!(kept, ["mine"]);
    assert_eq!(it.core.rules("work").policy, Policy::RoundRobin);
    assert_eq!(it.core.rules("own").max_running, 7);
    assert_eq!(it.core.rules("mine").policy, Policy::P2c);
    let reset = json!({"action": "mine"});
    let answer = operator.answer(&mut it, "mcp.admin.actions.reset", &reset);
    assert_eq!(answer["rules_from"], "file");
    assert_eq!(it.core.rules("mine").max_running, 7);
    assert_eq!(it.reconfigure(|config| config.actions.clear()), [""; 0]);
    assert_eq!(it.core.rules("mine").policy, Policy::RoundRobin);
}

#[test]
fn more_may_run_at_once_when_the_rules_say_so() {
    let mut it = Fixture::with(|config| config.rules.max_running = 1);
    let (client, worker) = (it.client(), it.worker("w", 4));
    for id in ["a", "b", "c"] {
        it.send(client, id);
    }
    let mut running = vec![it.expect_route(worker)];
    it.reconfigure(|config| config.rules.max_running = 0);
    running.extend([it.expect_route(worker), it.expect_route(worker)]);
    for (route, id) in running.into_iter().zip(["a", "b", "c"]) {
        it.result(worker, route.attempt_id);
        it.expect_end(client, id);
    }
}

#[test]
fn a_worker_keeps_its_lease_until_it_says_hello_again() {
    let mut it = Fixture::new();
    let first = it.worker("first", 1);
    it.reconfigure(|config| (config.lease_ms, config.ping_interval_ms) = (3_000, 1_000));
    let (second, ack) = it.worker_of(worker_hello("second", 1));
    assert_eq!((ack.lease_ms, ack.ping_interval_ms), (3_000, 1_000));
    it.advance(20_000);
    assert_eq!(it.online(), ["first"]);
    assert_eq!(it.expect_refusal(second).code, ErrorCode::LeaseExpired);
    it.give(first, report(0, &[], Readiness::Ready));
    it.expect_pong(first);
    it.advance(29_000);
    assert_eq!(it.online(), ["first"]);
}

#[test]
fn what_is_kept_shrinks_to_its_new_bound() {
    let mut it = Fixture::new();
    let (client, worker) = (it.client(), it.worker("w", 1));
    for id in ["a", "b", "c"] {
        it.send(client, id);
        let attempt = it.expect_route(worker).attempt_id;
        it.result(worker, attempt);
        it.expect_end(client, id);
    }
    it.reconfigure(|config| config.kept_results = 1);
    it.give(client, Message::Fetch("c".try_into().unwrap()));
    it.expect_end(client, "c");
    it.give(client, Message::Fetch("a".try_into().unwrap()));
    it.expect_status(client, "a");
    it.reconfigure(|config| config.kept_results = 0);
    it.give(client, Message::Fetch("c".try_into().unwrap()));
    it.expect_status(client, "c");
}
