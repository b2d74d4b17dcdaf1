//! What operators see of agents, and how they keep new tasks from one.

use mcp_broker::broker::{Disconnect, Event};
use mcp_proto::{ActionName, Labels, Outcome, Readiness};
use serde_json::{Value, json};

use crate::fixture::{Fixture, panic_result, report, worker_hello};
use crate::operator::Operator;

const LIST: &str = "mcp.admin.agents.list";
const SHOW: &str = "mcp.admin.agents.show";
const DRAIN: &str = "mcp.admin.agents.drain";
const RESUME: &str = "mcp.admin.agents.resume";

impl Operator {
    fn agents(&self, it: &mut Fixture, filter: &Value) -> String {
        let answer = self.answer(it, LIST, filter);
        let names = answer["agents"].as_array().unwrap().iter();
        names.map(|row| row["agent_id"].as_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    fn agent(&self, it: &mut Fixture, name: &str) -> Value {
        self.answer(it, SHOW, &json!({ "agent": name }))
    }

    fn drain(&self, it: &mut Fixture, name: &str) -> Value {
        self.answer(it, DRAIN, &json!({"agent": name, "why": "new disk"}))
    }

    fn resume(&self, it: &mut Fixture, name: &str) -> Value {
        self.answer(it, RESUME, &json!({ "agent": name }))
    }
}

#[test]
fn a_long_list_comes_page_by_page_in_the_order_of_names() {
    let mut it = Fixture::new();
    let operator = Operator::new(&mut it);
    let names: Vec<_> = (0..1_200).map(|number| format!("agent-{number:04}")).collect();
    for name in names.iter().rev() {
        it.worker(name, 1);
    }
    // More than a frame carries are asked for.
    let (mut listed, mut after, mut pages) = (Vec::new(), Value::Null, 0);
    loop {
        let answer = operator.answer(&mut it, LIST, &json!({"limit": 1_000, "after": after}));
        assert_eq!((&answer["total"], &answer["matching"]), (&json!(1_200), &json!(1_200)));
        let rows = answer["agents"].as_array().unwrap();
        assert!(rows.len() > 100 || answer["next"].is_null(), "{}", rows.len());
        listed.extend(rows.iter().map(|row| row["agent_id"].as_str().unwrap().to_owned()));
        pages += 1;
        after = answer["next"].clone();
        if after.is_null() {
            break;
        }
        assert_eq!(after, *listed.last().unwrap());
    }
    assert!(listed == names && pages > 2, "{pages} pages");
    let answer = operator.answer(&mut it, LIST, &json!({"limit": 2, "text": "AGENT-11"}));
    assert_eq!((&answer["matching"], &answer["next"]), (&json!(100), &json!("agent-1101")));
    let last = json!({"limit": 5, "after": "agent-1194"});
    assert!(operator.answer(&mut it, LIST, &last)["next"].is_null());
    for wrong in [json!({"limit": 0}), json!({"state": "tired"}), json!({"all": true})] {
        operator.refused(&mut it, LIST, &wrong);
    }
}

#[test]
fn a_list_is_filtered_by_action_state_label_and_text() {
    let mut it = Fixture::new();
    let operator = Operator::new(&mut it);
    let labels = Labels([("gpu".to_owned(), "a100".to_owned())].into());
    it.worker("plain", 1);
    it.worker_of(mcp_proto::WorkerHello { labels, ..worker_hello("labelled", 1) });
    let standby = mcp_proto::WorkerHello {
        readiness: Readiness::Standby,
        actions: vec![ActionName::try_from("other").unwrap()],
        ..worker_hello("standby", 1)
    };
    it.worker_of(standby);
    let lost = it.worker("lost", 1);
    it.disconnect(lost, Disconnect::Broken);
    let broken = it.worker("broken", 5);
    for number in 0..5 {
        operator.drain(&mut it, "plain");
        operator.drain(&mut it, "labelled");
        let client = it.client();
        it.send(client, &format!("t-{number}"));
        let attempt = it.expect_route(broken).attempt_id;
        it.give_result(broken, panic_result(attempt));
        it.discard();
    }
    operator.resume(&mut it, "plain");
    for (filter, expected) in [
        (json!({}), "broken labelled lost plain standby"),
        (json!({"state": "online"}), "broken labelled plain standby"),
        (json!({"state": "ready"}), "plain"),
        (json!({"state": "standby"}), "standby"),
        (json!({"state": "draining"}), "labelled"),
        (json!({"state": "lost"}), "lost"),
        (json!({"state": "ejected"}), "broken"),
        (json!({"action": "other"}), "standby"),
        (json!({"action": "work", "state": "online"}), "broken labelled plain"),
        (json!({"labels": {"gpu": "a100"}}), "labelled"),
        (json!({"labels": {"gpu": "h100"}}), ""),
        (json!({"text": "LA"}), "labelled plain"),
    ] {
        assert_eq!(operator.agents(&mut it, &filter), expected, "{filter}");
    }
    let shown = operator.agent(&mut it, "broken");
    assert_eq!((&shown["state"], &shown["health"]), (&json!("ejected"), &json!("breaker open")));
    assert_eq!(operator.agents(&mut it, &json!({"text": shown["node_id"]})), "broken");
    it.discard();
}

#[test]
fn an_agent_is_shown_with_what_it_holds_and_did() {
    let mut it = Fixture::new();
    let (client, operator) = (it.client(), Operator::new(&mut it));
    let worker = it.worker("w", 2);
    it.send(client, "well");
    let attempt = it.expect_route(worker).attempt_id;
    it.advance(10);
    it.result(worker, attempt);
    it.expect_end(client, "well");
    it.advance(1);
    it.send(client, "badly");
    let attempt = it.expect_route(worker).attempt_id;
    it.fail(worker, attempt);
    it.expect_end(client, "badly");
    it.advance(5);
    it.send(client, "runs");
    it.expect_route(worker);
    let shown = operator.agent(&mut it, "w");
    let node = shown["node_id"].as_str().unwrap().to_owned();
    assert_eq!(operator.agent(&mut it, &node), shown);
    for (field, expected) in [
        ("agent_id", json!("w")),
        ("identity", json!("anonymous")),
        ("sdk", json!("test")),
        ("service_type", json!("test")),
        ("state", json!("ready")),
        ("slots", json!(2)),
        ("in_flight", json!(1)),
        ("registered_ms", json!(16)),
        ("connected_ms", json!(16)),
        ("generation", json!(1)),
        ("outcomes", json!({"ok": 1, "failed": 1, "expired": 0, "cancelled": 0, "rejected": 0})),
    ] {
        assert_eq!(shown[field], expected, "{field} of {shown}");
    }
    assert_eq!(shown["holds"][0]["task_id"], "runs");
    assert_eq!(shown["recent"][0]["task_id"], "badly");
    assert_eq!(shown["serves"][0]["action"], "work");
    assert_eq!(shown["serves"][0]["service_us"], 10_000);
    assert!(shown["drained"].is_null());
    assert_eq!(operator.agent(&mut it, "nobody"), Value::Null);
    assert_eq!(operator.drain(&mut it, "nobody"), Value::Null);
    assert_eq!(operator.resume(&mut it, "nobody"), Value::Null);
    it.discard();
}

#[test]
fn a_drained_agent_gets_no_new_tasks_and_keeps_what_it_has() {
    let mut it = Fixture::new();
    let (client, operator) = (it.client(), Operator::new(&mut it));
    let one = it.worker("one", 2);
    it.send(client, "t-1");
    let first = it.expect_route(one).attempt_id;
    let drained = operator.drain(&mut it, "one");
    let who = json!({"by": "anonymous", "why": "new disk", "since_wall_ms": it.now.wall_ms});
    let expected = json!({"agent_id": "one", "changed": true, "drained": who, "held": 1});
    assert_eq!(drained, expected);
    assert_eq!(operator.drain(&mut it, "one")["changed"], false);
    let is_drained = |event: &&Event| matches!(event, Event::AgentDrained { .. });
    assert_eq!(it.events.iter().filter(is_drained).count(), 1);
    it.send(client, "t-2");
    let explained = operator.answer(&mut it, "mcp.admin.explain", &json!({"action": "work"}));
    assert_eq!(explained["workers"][0]["ruled_out"], "drained by an operator");
    assert_eq!(explained["workers"][0]["readiness"], "draining");
    assert_eq!(operator.agent(&mut it, "one")["drained"], who);
    // What it says of itself makes no difference.
    it.give(one, report(1, &[first], Readiness::Ready));
    it.expect_pong(one);
    it.result(one, first);
    assert_eq!(it.expect_end(client, "t-1").0, Outcome::Ok);
    it.expect_nothing();
    let resumed = operator.resume(&mut it, "one");
    assert_eq!((&resumed["changed"], &resumed["drained"]), (&json!(true), &Value::Null));
    let second = it.expect_route(one).attempt_id;
    it.result(one, second);
    it.expect_end(client, "t-2");
    assert_eq!(operator.resume(&mut it, "one")["changed"], false);
}

#[test]
fn an_agent_stays_drained_whoever_comes_with_its_name() {
    let mut it = Fixture::new();
    let (client, operator) = (it.client(), Operator::new(&mut it));
    let worker = it.worker("w", 1);
    operator.drain(&mut it, "w");
    it.disconnect(worker, Disconnect::Broken);
    let worker = it.worker("w", 1);
    it.send(client, "t");
    it.expect_nothing();
    // Gone for good, it is still known to be drained.
    it.disconnect(worker, Disconnect::Orderly);
    assert_eq!(operator.agents(&mut it, &json!({})), "w");
    assert_eq!(operator.agents(&mut it, &json!({"state": "online"})), "");
    let shown = operator.agent(&mut it, "w");
    assert_eq!((&shown["state"], &shown["presence"]), (&json!("offline"), &json!("offline")));
    let other = mcp_proto::WorkerHello {
        instance_id: mcp_proto::InstanceId::try_from("another").unwrap(),
        ..worker_hello("w", 1)
    };
    let (worker, _) = it.worker_of(other);
    it.expect_nothing();
    operator.resume(&mut it, "w");
    let attempt = it.expect_route(worker).attempt_id;
    it.result(worker, attempt);
    it.expect_end(client, "t");
    it.disconnect(worker, Disconnect::Orderly);
    assert_eq!(operator.agents(&mut it, &json!({})), "");
    assert_eq!(operator.agent(&mut it, "w"), Value::Null);
}

#[test]
fn what_operators_said_holds_in_another_core() {
    let mut it = Fixture::new();
    let operator = Operator::new(&mut it);
    it.worker("w", 1);
    operator.drain(&mut it, "w");
    operator.answer(&mut it, "mcp.admin.actions.degrade", &json!({"action": "pay"}));
    let orders = it.core.orders();
    assert_eq!((orders.drained.len(), orders.degraded.len()), (1, 1));

    let mut next = Fixture::new();
    next.core.restore_orders(orders.clone());
    assert_eq!(next.core.orders(), orders);
    let (client, operator) = (next.client(), Operator::new(&mut next));
    let worker = next.worker("w", 1);
    next.send(client, "t");
    next.expect_nothing();
    assert_eq!(operator.resume(&mut next, "w")["changed"], true);
    next.expect_route(worker);
    assert!(next.core.orders().drained.is_empty());
}

#[test]
fn what_waits_for_nobody_but_a_drained_agent_goes_elsewhere() {
    let mut it = Fixture::new();
    let (client, operator) = (it.client(), Operator::new(&mut it));
    let one = it.worker("one", 1);
    it.send(client, "t-1");
    it.expect_route(one);
    it.send(client, "t-2");
    operator.drain(&mut it, "one");
    let two = it.worker("two", 1);
    assert_eq!(it.expect_route(two).attempt, 1);
    it.discard();
}
