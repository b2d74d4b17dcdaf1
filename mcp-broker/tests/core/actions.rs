//! What operators see of actions, and how they change their rules while tasks wait and run.

use std::collections::BTreeMap;

use mcp_broker::broker::{ActionRules, Event, Policy};
use mcp_proto::limits::MAX_BODY_BYTES;
use mcp_proto::{ActionName, Labels, Message, Outcome, Task, WorkerHello};
use serde_json::{Value, json};

use crate::fixture::{Fixture, task, worker_hello};
use crate::operator::Operator;

const LIST: &str = "mcp.admin.actions.list";
const SHOW: &str = "mcp.admin.actions.show";
const SET: &str = "mcp.admin.actions.set";
const RESET: &str = "mcp.admin.actions.reset";

fn action(name: &str) -> ActionName {
    ActionName::try_from(name).unwrap()
}

fn of_action(id: &str, name: &str) -> Task {
    Task { action: action(name), ..task(id) }
}

fn rules(policy: Policy) -> ActionRules {
    let mut rules = ActionRules::default();
    rules.policy = policy;
    rules
}

impl Operator {
    fn set(&self, it: &mut Fixture, rules: Value) -> Value {
        self.answer(it, SET, &json!({ "action": "work", "rules": rules }))
    }

    fn show_action(&self, it: &mut Fixture, name: &str) -> Value {
        self.answer(it, SHOW, &json!({ "action": name }))
    }

    fn listed(&self, it: &mut Fixture, filter: &Value) -> (Vec<String>, bool) {
        let answer = self.answer(it, LIST, filter);
        let rows = answer["actions"].as_array().unwrap();
        let names = rows.iter().map(|row| row["action"].as_str().unwrap().to_owned()).collect();
        (names, answer["more"].as_bool().unwrap())
    }
}

#[test]
fn a_list_has_actions_with_workers_tasks_or_rules_by_name() {
    let mut it = Fixture::with(|config| {
        config.actions.insert(action("ruled"), rules(Policy::RoundRobin));
    });
    let (client, operator) = (it.client(), Operator::new(&mut it));
    let w = it.worker_of(WorkerHello { prefetch: 1, ..worker_hello("w", 2) }).0;
    for id in ["1", "2", "3", "4"] {
        it.send(client, id);
    }
    it.send_task(client, of_action("other", "asked"), 60_000);
    let answer = operator.answer(&mut it, LIST, &json!({}));
    let row = |action, workers, running, queued, policy, rules_from| {
        json!({
            "action": action, "workers": workers, "ready": workers, "slots": 2 * workers,
            "running": running, "queued": queued, "delayed": 0, "policy": policy,
            "rules_from": rules_from, "breakers": {"closed": workers, "half_open": 0, "open": 0},
            "shadow_workers": 0, "shadow_tasks": 0,
        })
    };
    let expected = json!({"more": false, "actions": [
        row("asked", 0, 0, 1, "least_loaded", "common"),
        row("ruled", 0, 0, 0, "round_robin", "file"),
        row("work", 1, 3, 1, "least_loaded", "common"),
    ]});
    assert_eq!(answer, expected);
    let names = |it: &mut Fixture, filter| operator.listed(it, &filter);
    assert_eq!(names(&mut it, json!({"prefix": "w"})), (vec!["work".to_owned()], false));
    assert_eq!(names(&mut it, json!({"limit": 1})), (vec!["asked".to_owned()], true));
    operator.refused(&mut it, LIST, &json!({"limit": 0}));
    (0..3).for_each(|_| drop(it.expect_route(w)));
}

#[test]
fn a_list_is_as_long_as_a_frame_carries() {
    let mut it = Fixture::new();
    let (client, operator) = (it.client(), Operator::new(&mut it));
    for number in 0..1_200 {
        it.send_task(client, of_action(&number.to_string(), &format!("{number:0100}")), 60_000);
    }
    let (deliver, body) = operator.ask(&mut it, LIST, &json!({"limit": 1000}));
    assert_eq!(deliver.outcome, Outcome::Ok);
    assert!(body.len() <= MAX_BODY_BYTES && body.len() > MAX_BODY_BYTES - 500, "{}", body.len());
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer["more"], true);
    it.discard();
}

#[test]
fn an_action_is_shown_with_its_rules_and_queues() {
    let mut it = Fixture::new();
    let (client, operator) = (it.client(), Operator::new(&mut it));
    assert_eq!(operator.show_action(&mut it, "work"), Value::Null);
    let labels = Labels([("gpu".to_owned(), "a100".to_owned())].into());
    let w = it.worker_of(WorkerHello { labels: labels.clone(), ..worker_hello("w", 1) }).0;
    assert!(operator.show_action(&mut it, "work").get("service_us").is_none());
    it.send(client, "t");
    let attempt = it.expect_route(w).attempt_id;
    it.send_task(client, Task { required_labels: labels, ..task("u") }, 60_000);
    it.advance(3);
    it.result(w, attempt);
    it.expect_end(client, "t");
    it.expect_route(w);
    let shown = operator.show_action(&mut it, "work");
    assert_eq!(shown["rules"], serde_json::to_value(ActionRules::default()).unwrap());
    assert_eq!(shown["service_us"], 3_000);
    let queue = |labels| json!({"required_labels": labels, "queued": 0, "workers": 1, "ready": 1, "with_room": 0});
    assert_eq!(shown["queues"], json!([queue(json!({})), queue(json!({"gpu": "a100"}))]));
}

#[test]
fn rules_change_while_tasks_wait_and_run() {
    let mut it = Fixture::with(|config| config.rules.policy = Policy::LeastLoaded);
    let (client, operator) = (it.client(), Operator::new(&mut it));
    let workers = ["a", "b", "c"].map(|name| it.worker(name, 2));
    for number in 0..9 {
        it.send(client, &number.to_string());
    }
    // Six run, three wait.
    let answer = operator.set(&mut it, json!({"policy": "round_robin"}));
    assert_eq!(answer["rules"]["policy"], "round_robin");
    assert_eq!(answer["rules_from"], "operator");
    assert_eq!(answer["toml"], "[actions.work]\npolicy = \"round_robin\"\n");
    let told = it.events.pop();
    assert_eq!(
        told.map(|event| event.to_string()).as_deref(),
        Some(
            "the rules of work were changed by an operator, anonymous: {\"policy\":\"round_robin\"}"
        )
    );
    let mut policies = BTreeMap::new();
    while it.core.stats().running > 0 {
        for worker in workers {
            while let Some((message, _)) = it.next_for(worker) {
                let Message::Route(route) = message else { panic!("{message:?}") };
                it.result(worker, route.attempt_id);
                let id = route.task.decode().unwrap().id.to_string();
                let hop = it.expect_deliver(client, &id).trace.into_decoded().hops.remove(0);
                policies.insert(id, hop.policy.to_string());
            }
        }
    }
    // Each by the policy that was there when it went.
    let expected = |number| if number < 6 { "least_loaded" } else { "round_robin" };
    let expected: BTreeMap<_, _> =
        (0..9).map(|number| (number.to_string(), expected(number).to_owned())).collect();
    assert_eq!(policies, expected);
    let turns: Vec<_> = (0..6)
        .map(|number| {
            it.send(client, &format!("later-{number}"));
            workers.iter().position(|worker| it.next_for(*worker).is_some()).unwrap()
        })
        .collect();
    assert_eq!(turns[..3], turns[3..]);
    assert_eq!(turns[..3].iter().sum::<usize>(), 3, "each in turn: {turns:?}");
}

#[test]
fn a_change_is_a_part_and_is_checked_before_anything_changes() {
    let mut it = Fixture::new();
    let operator = Operator::new(&mut it);
    for (rules, named) in [
        (json!({"policy": "dice"}), "dice"),
        (json!({"polcy": "round_robin"}), "polcy"),
        (json!({"policy": ["round_robin"]}), "policy"),
    ] {
        let body = json!({"action": "work", "rules": rules});
        let message = operator.refused(&mut it, SET, &body);
        assert!(message.contains(named) || message.contains("invalid type"), "{message}");
    }
    for wrong in [json!({}), json!({"action": "work"}), json!({"action": "work", "rules": 1})] {
        operator.refused(&mut it, SET, &wrong);
    }
    assert!(it.events.is_empty());
    assert_eq!(operator.show_action(&mut it, "work"), Value::Null);
    operator.set(&mut it, json!({"policy": "round_robin"}));
    let unchanged = operator.set(&mut it, json!({}));
    assert_eq!(unchanged["rules"]["policy"], "round_robin");
    let default = operator.set(&mut it, json!({"policy": null}));
    assert_eq!(default["rules"], serde_json::to_value(ActionRules::default()).unwrap());
}

#[test]
fn a_reset_gives_an_action_the_rules_of_the_configuration() {
    let mut it = Fixture::with(|config| {
        config.rules.policy = Policy::RoundRobin;
        config.actions.insert(action("own"), rules(Policy::LeastLoaded));
    });
    let operator = Operator::new(&mut it);
    for (name, configured, from) in
        [("own", "least_loaded", "file"), ("work", "round_robin", "common")]
    {
        let other = if name == "own" { "round_robin" } else { "least_loaded" };
        let set = json!({"action": name, "rules": {"policy": other}});
        assert_eq!(operator.answer(&mut it, SET, &set)["rules"]["policy"], other);
        let reset = operator.answer(&mut it, RESET, &json!({ "action": name }));
        let rules = serde_json::to_value(it.core.rules(name).as_ref()).unwrap();
        assert_eq!(reset, json!({"action": name, "rules": rules, "rules_from": from}));
        assert_eq!(rules["policy"], configured);
    }
    let resets =
        it.events.iter().filter(|it| matches!(it, Event::RulesChanged { change: None, .. }));
    assert_eq!(resets.count(), 2);
    assert_eq!(operator.listed(&mut it, &json!({})).0, ["own"]);
}
