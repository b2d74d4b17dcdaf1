//! What answers when there is no worker: fallback chains, by themselves and by an operator's act, and
//! who goes first when the broker runs full.

mod cached;
mod experiments;
mod kinds;
mod operator;
mod shedding;
mod steps;
mod triggers;

use bytes::Bytes;
use mcp_broker::broker::{
    ActionRules, CachedBy, ConnectionId, CoreConfig, Disconnect, FallbackStep,
};
use mcp_proto::{ActionName, Deliver, ErrorCode, Message, Outcome, Route, Send, Task, WorkerHello};
use serde_json::{Value, json};

use crate::fixture::{Fixture, ok_result, task, worker_hello};

pub(super) fn name(action: &str) -> ActionName {
    ActionName::try_from(action).unwrap()
}

pub(super) fn cached(by: CachedBy) -> FallbackStep {
    FallbackStep::Cached { max_age_ms: 10_000, by }
}

pub(super) fn small() -> FallbackStep {
    FallbackStep::Action(name("small"))
}

pub(super) fn default(body: &str) -> FallbackStep {
    FallbackStep::Default { body: body.into(), content_type: "text/plain".into() }
}

pub(super) fn rules(fallback: &[FallbackStep]) -> ActionRules {
    let mut rules = ActionRules::default();
    rules.fallback = fallback.to_vec();
    rules
}

pub(super) fn with_rules(config: &mut CoreConfig, action: &str, rules: ActionRules) {
    config.actions.insert(name(action), rules);
}

/// A broker whose action `work` has this chain.
pub(super) fn with(chain: &[FallbackStep]) -> Fixture {
    Fixture::with(|config| with_rules(config, "work", rules(chain)))
}

pub(super) fn worker_of(it: &mut Fixture, agent: &str, action: &str, slots: u32) -> ConnectionId {
    it.worker_of(WorkerHello { actions: vec![name(action)], ..worker_hello(agent, slots) }).0
}

pub(super) fn deliver(it: &mut Fixture, client: ConnectionId) -> (Deliver, Bytes) {
    match it.next_for(client) {
        Some((Message::Deliver(deliver), body)) => (*deliver, body),
        other => panic!("DELIVER expected, got {other:?}"),
    }
}

/// Of an outcome ok: the step that it is of, and its body.
pub(super) fn answer(it: &mut Fixture, client: ConnectionId) -> (String, String) {
    let (deliver, body) = deliver(it, client);
    assert_eq!(deliver.outcome, Outcome::Ok, "{deliver:?}");
    assert!(deliver.error.is_none());
    let step = deliver.fallback.as_deref().unwrap_or("").to_owned();
    (step, String::from_utf8(body.to_vec()).unwrap())
}

pub(super) fn step(it: &mut Fixture, client: ConnectionId) -> String {
    answer(it, client).0
}

/// Why a task ended otherwise.
pub(super) fn refusal(it: &mut Fixture, client: ConnectionId) -> (Outcome, ErrorCode) {
    let (deliver, _) = deliver(it, client);
    assert_eq!(deliver.fallback, None);
    (deliver.outcome, deliver.error.unwrap().code)
}

pub(super) fn routed(route: &Route) -> Task {
    route.task.decode().unwrap()
}

pub(super) fn send_body(it: &mut Fixture, client: ConnectionId, task: Task, body: &'static str) {
    it.give_body(client, Message::Send(Send::new(task.encode(), 60_000)), body);
}

pub(super) fn give_answer(it: &mut Fixture, worker: ConnectionId, body: &'static str) {
    let Some((Message::Route(route), _)) = it.next_for(worker) else { panic!("no ROUTE") };
    it.give_body(worker, Message::Result(ok_result(route.attempt_id)), body);
}

pub(super) fn ask(it: &mut Fixture, action: &str, body: &Value) -> (Deliver, Value) {
    let operator = it.client();
    let mut task = task("ask");
    task.action = name(&format!("mcp.admin.actions.{action}"));
    it.give_body(operator, Message::Send(Send::new(task.encode(), 1_000)), body.to_string());
    let (deliver, body) = loop {
        match it.next_for(operator) {
            Some((Message::Deliver(deliver), body)) => break (*deliver, body),
            Some(_) => {}
            None => panic!("no answer"),
        }
    };
    it.disconnect(operator, Disconnect::Orderly);
    (deliver, serde_json::from_slice(&body).unwrap_or_default())
}

pub(super) fn degrade(it: &mut Fixture, action: &str) -> Value {
    ask(it, "degrade", &json!({ "action": action, "why": "a bad model" })).1
}

pub(super) fn restore(it: &mut Fixture, action: &str) -> Value {
    ask(it, "restore", &json!({ "action": action })).1
}

pub(super) fn waits_and_runs(it: &Fixture) -> (u64, u64) {
    let stats = it.core.stats();
    (stats.queued + stats.delayed, stats.running)
}
