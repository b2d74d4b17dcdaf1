//! What operators see of tasks, and how they end one.

use mcp_broker::broker::{ConnectionId, Disconnect, Event, Identity};
use mcp_proto::limits::MAX_BODY_BYTES;
use mcp_proto::{
    ActionName, CancelReason, Chunk, ErrorCode, Executed, Labels, Message, Outcome, Priority,
    Retry, Send, Subject, Task, TraceId,
};
use serde_json::{Value, json};

use crate::fixture::{Fixture, client_hello, idempotent, task, task_id};
use crate::operator::Operator;

const LIST: &str = "mcp.admin.tasks.list";
const SHOW: &str = "mcp.admin.tasks.show";
const CANCEL: &str = "mcp.admin.tasks.cancel";

impl Operator {
    /// The ids that are listed, and whether there are more.
    fn list(&self, it: &mut Fixture, filter: &Value) -> (Vec<String>, bool) {
        let answer = self.answer(it, LIST, filter);
        let rows = answer["tasks"].as_array().unwrap();
        let ids = rows.iter().map(|row| row["task_id"].as_str().unwrap().to_owned()).collect();
        (ids, answer["more"].as_bool().unwrap())
    }

    fn ids(&self, it: &mut Fixture, filter: &Value) -> String {
        let (ids, more) = self.list(it, filter);
        assert!(!more);
        ids.join(" ")
    }

    fn show(&self, it: &mut Fixture, id: &str) -> Value {
        self.answer(it, SHOW, &json!({ "task_id": id }))
    }

    fn cancel(&self, it: &mut Fixture, id: &str) -> Value {
        self.answer(it, CANCEL, &json!({ "task_id": id }))
    }
}

fn of_action(id: &str, action: &str) -> Task {
    Task { action: ActionName::try_from(action).unwrap(), ..task(id) }
}

/// Lets a task end ok, or fail.
fn end(it: &mut Fixture, worker: ConnectionId, client: ConnectionId, id: &str, is_ok: bool) {
    it.send(client, id);
    let attempt = it.expect_route(worker).attempt_id;
    if is_ok {
        it.result(worker, attempt)
    } else {
        it.fail(worker, attempt)
    }
    it.expect_end(client, id);
}

#[test]
fn a_list_is_in_flight_newest_first_then_ended_newest_first() {
    let mut it = Fixture::new();
    let (client, operator) = (it.client(), Operator::new(&mut it));
    let worker = it.worker("w", 1);
    for (id, is_ok) in [("ok-1", true), ("failed-1", false), ("ok-2", true)] {
        end(&mut it, worker, client, id, is_ok);
        it.advance(1);
    }
    it.send(client, "runs");
    it.expect_route(worker);
    it.advance(1);
    it.send(client, "waits-1");
    it.send_task(client, of_action("waits-2", "other"), 60_000);
    let ids = |it: &mut Fixture, filter| operator.ids(it, &filter);
    assert_eq!(ids(&mut it, json!({})), "waits-2 waits-1 runs ok-2 failed-1 ok-1");
    assert_eq!(ids(&mut it, json!({"status": "queued"})), "waits-2 waits-1");
    assert_eq!(ids(&mut it, json!({"status": "running"})), "runs");
    assert_eq!(ids(&mut it, json!({"status": "failed"})), "failed-1");
    assert_eq!(ids(&mut it, json!({"status": "ok"})), "ok-2 ok-1");
    assert_eq!(ids(&mut it, json!({"status": "expired"})), "");
    assert_eq!(ids(&mut it, json!({"action": "other"})), "waits-2");
    assert_eq!(ids(&mut it, json!({"agent": "w"})), "runs ok-2 failed-1 ok-1");
    assert_eq!(ids(&mut it, json!({"agent": "w", "status": "ok"})), "ok-2 ok-1");
    assert_eq!(ids(&mut it, json!({"agent": "nobody"})), "");
    let node = it.core.agents(it.now, true)[0].node_id.to_string();
    let all = json!({"agent": node, "action": "work", "limit": 4});
    assert_eq!(ids(&mut it, all), "runs ok-2 failed-1 ok-1");
    it.discard();
}

#[test]
fn a_list_says_when_more_matches_than_it_has() {
    let mut it = Fixture::new();
    let (client, operator) = (it.client(), Operator::new(&mut it));
    for number in 0..5 {
        it.send(client, &format!("t-{number}"));
    }
    let two = (vec!["t-4".to_owned(), "t-3".to_owned()], true);
    assert_eq!(operator.list(&mut it, &json!({"limit": 2})), two);
    assert!(!operator.list(&mut it, &json!({"limit": 5})).1);
    // As many as are asked for, but for what a frame carries.
    for number in 5..1_500 {
        it.send(client, &format!("{number:064}"));
    }
    let (deliver, body) = operator.ask(&mut it, LIST, &json!({"limit": 1000}));
    assert_eq!(deliver.outcome, Outcome::Ok);
    assert!(body.len() <= MAX_BODY_BYTES && body.len() > MAX_BODY_BYTES - 500, "{}", body.len());
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer["more"], true);
    assert_eq!(answer["tasks"][0]["task_id"], format!("{:064}", 1_499));
    it.discard();
}

#[test]
fn a_list_looks_at_so_many_and_finds_what_runs_behind_a_flood() {
    let mut it = Fixture::new();
    let (client, operator) = (it.client(), Operator::new(&mut it));
    let worker = it.worker("w", 1);
    it.send(client, "runs");
    it.expect_route(worker);
    it.send_task(client, of_action("rare", "rare"), 600_000);
    for number in 0..10_000 {
        it.send(client, &number.to_string());
    }
    assert_eq!(operator.list(&mut it, &json!({"action": "rare"})), (vec![], true));
    assert_eq!(operator.ids(&mut it, &json!({"status": "running"})), "runs");
    assert_eq!(operator.ids(&mut it, &json!({"agent": "w"})), "runs");
    it.discard();
}

#[test]
fn what_failed_is_listed_after_a_flood_of_what_went_well() {
    let mut it = Fixture::with(|config| config.kept_results = 100);
    let (client, operator) = (it.client(), Operator::new(&mut it));
    let worker = it.worker("w", 1);
    end(&mut it, worker, client, "bad", false);
    for number in 0..300 {
        it.advance(1);
        end(&mut it, worker, client, &number.to_string(), true);
    }
    assert_eq!(operator.ids(&mut it, &json!({"status": "failed"})), "bad");
    assert_eq!(operator.list(&mut it, &json!({"status": "ok"})).0.len(), 99);
}

#[test]
fn a_worker_that_left_is_found_by_its_name() {
    let mut it = Fixture::new();
    let (client, operator) = (it.client(), Operator::new(&mut it));
    let worker = it.worker("w", 1);
    it.send(client, "t");
    it.expect_route(worker);
    it.disconnect(worker, Disconnect::Orderly);
    it.expect_end(client, "t");
    let row = operator.answer(&mut it, LIST, &json!({"agent": "w"}))["tasks"][0].take();
    assert_eq!((&row["task_id"], &row["error_code"]), (&json!("t"), &json!("WORKER_LOST")));
    assert!(row["node_id"].as_str().unwrap().starts_with("n-") && row["agent_id"].is_null());
    assert_eq!(operator.ids(&mut it, &json!({"agent": row["node_id"]})), "t");
}

#[test]
fn a_task_that_waits_is_shown_with_what_it_asked_for() {
    let mut it = Fixture::new();
    let (client, operator) = (it.client(), Operator::new(&mut it));
    let labels = Labels([("gpu".to_owned(), "a100".to_owned())].into());
    let high = Task { priority: Priority::High, required_labels: labels, ..idempotent("t") };
    it.send_task(client, high, 60_000);
    it.advance(2_000);
    let shown = operator.show(&mut it, "t");
    let trace = json!({"broker_id": "broker-1", "total_us": 2_000_000, "queue_us": 2_000_000,
                       "hops": [], "truncated": false});
    let expected = json!({
        "task_id": "t", "identity": "anonymous", "action": "work", "status": "queued",
        "priority": "high", "age_ms": 2_000, "status_ms": 2_000, "ttl_left_ms": 58_000,
        "attempts": 0, "delivery": "fast", "idempotent": true, "required_labels": {"gpu": "a100"},
        "waiters": 1, "chunks": 0, "context_trace": trace,
        "trace_id": TraceId::of_task(&task_id("t")).to_string(),
    });
    assert_eq!(shown, expected);
    assert!(!shown.to_string().contains("input"));
    it.discard();
}

#[test]
fn a_task_is_shown_where_it_runs_and_where_it_was() {
    let mut it = Fixture::new();
    let (client, operator) = (it.client(), Operator::new(&mut it));
    let one = it.worker("one", 1);
    let retry = Retry { max_attempts: 2, ..Retry::default() };
    let asked = Task { retry: Some(retry), ..idempotent("t") };
    let send = Send { stream_window_bytes: 10_000, ..Send::new(asked.encode(), 60_000) };
    it.give_body(client, Message::Send(send), "input");
    let first = it.expect_route(one).attempt_id;
    it.advance(10);
    it.fail(one, first);
    assert_eq!(operator.show(&mut it, "t")["status"], "delayed");
    assert_eq!(operator.ids(&mut it, &json!({"status": "delayed"})), "t");
    let two = it.worker("two", 1);
    it.advance(500);
    let second = it.expect_route(two).attempt_id;
    let chunk = Chunk::new(Subject::Attempt(second), 0);
    it.give_body(two, Message::Chunk(chunk), "part");
    it.advance(50);
    let shown = operator.show(&mut it, "t");
    assert_eq!((&shown["status"], &shown["agent_id"]), (&json!("running"), &json!("two")));
    assert_eq!((&shown["attempts"], &shown["chunks"]), (&json!(2), &json!(1)));
    let hops = shown["context_trace"]["hops"].as_array().unwrap();
    assert_eq!((hops.len(), &hops[0]["reason"]), (1, &json!("failed; tried again")));

    it.fail(two, second);
    it.discard();
    let shown = operator.show(&mut it, "t");
    assert_eq!((&shown["status"], &shown["executed"]), (&json!("failed"), &json!("yes")));
    assert_eq!((&shown["agent_id"], &shown["attempts"]), (&json!("two"), &json!(2)));
    assert_eq!(shown["error"]["code"], "HANDLER_FAILED");
    assert_eq!(shown["error_code"], "HANDLER_FAILED");
    assert_eq!(shown["context_trace"]["hops"].as_array().unwrap().len(), 2);
    assert!(shown["ttl_left_ms"].is_null() && shown["waiters"].is_null());
}

#[test]
fn nothing_is_said_of_a_task_that_never_was() {
    let mut it = Fixture::new();
    let operator = Operator::new(&mut it);
    assert_eq!(operator.show(&mut it, "t"), Value::Null);
    assert_eq!(operator.cancel(&mut it, "t"), Value::Null);
}

#[test]
fn what_is_asked_wrongly_is_refused_with_what_is_allowed() {
    let mut it = Fixture::new();
    let operator = Operator::new(&mut it);
    for (action, body, named) in [
        (LIST, json!({"limit": 0}), "1 to 1000"),
        (LIST, json!({"limit": 1_001}), "1 to 1000"),
        (LIST, json!({"status": "lost"}), "`queued`, `delayed`, `running`, `ok`"),
        (LIST, json!({"state": "ok"}), "`status`"),
        (SHOW, json!({}), "task_id"),
        (SHOW, json!({"task_id": ""}), "task_id is empty"),
        (CANCEL, json!({"task_id": "a b"}), "0x20"),
    ] {
        let message = operator.refused(&mut it, action, &body);
        assert!(message.contains(named), "{message}");
    }
}

#[test]
fn an_operator_ends_a_task_for_all_who_wait() {
    let mut it = Fixture::new();
    let (one, two, operator) = (it.client(), it.client(), Operator::new(&mut it));
    let worker = it.worker("w", 1);
    it.send(one, "t");
    let attempt = it.expect_route(worker).attempt_id;
    it.send(two, "t");
    let cancelled = json!({"task_id": "t", "cancelled": true, "status": "cancelled"});
    assert_eq!(operator.cancel(&mut it, "t"), cancelled);
    assert_eq!(it.expect_cancel(worker, attempt), CancelReason::Client);
    for client in [one, two] {
        let deliver = it.expect_deliver(client, "t");
        assert_eq!((deliver.outcome, deliver.executed), (Outcome::Cancelled, Executed::Maybe));
        assert_eq!(deliver.error.unwrap().message, "cancelled by an operator");
        assert_eq!(deliver.trace.decode().hops[0].reason, "cancelled by an operator");
    }
    // Once more, it has ended already.
    let again = json!({"task_id": "t", "cancelled": false, "status": "cancelled"});
    assert_eq!(operator.cancel(&mut it, "t"), again);
    let is_told = |event: &&Event| matches!(event, Event::TaskCancelled { .. });
    assert_eq!(it.events.iter().filter(is_told).count(), 1);
    assert_eq!(it.core.stats().cancelled, 1);
}

#[test]
fn a_waiting_task_is_cancelled_unexecuted_and_an_ended_one_stays_as_it_is() {
    let mut it = Fixture::new();
    let (client, operator) = (it.client(), Operator::new(&mut it));
    it.send(client, "waits");
    assert_eq!(operator.cancel(&mut it, "waits")["cancelled"], true);
    let end_of_it = (Outcome::Cancelled, Executed::No, Some(ErrorCode::Cancelled));
    assert_eq!(it.expect_end(client, "waits"), end_of_it);
    let worker = it.worker("w", 1);
    end(&mut it, worker, client, "done", true);
    let done = json!({"task_id": "done", "cancelled": false, "status": "ok"});
    assert_eq!(operator.cancel(&mut it, "done"), done);
}

#[test]
fn a_durable_task_is_shown_as_it_will_end_while_that_is_journalled() {
    let mut it = Fixture::with(|config| config.is_durable = true);
    let (client, operator) = (it.client(), Operator::new(&mut it));
    let durable = Task { delivery: mcp_proto::Delivery::Durable, ..task("t") };
    it.send_task(client, durable, 60_000);
    assert_eq!(operator.show(&mut it, "t")["delivery"], "durable");
    let answer = json!({"task_id": "t", "cancelled": true, "status": "cancelled"});
    assert_eq!(operator.cancel(&mut it, "t"), answer);
    assert_eq!(operator.cancel(&mut it, "t")["cancelled"], false);
    assert_eq!(operator.show(&mut it, "t")["status"], "cancelled");
    let last = it.records.last().unwrap().0;
    it.core.journal_synced(it.now, last);
    it.collect();
    it.discard();
    assert_eq!(operator.show(&mut it, "t")["executed"], "no");
}

#[test]
fn of_two_identities_with_the_same_id_one_is_to_be_named() {
    let mut it = Fixture::new();
    let operator = Operator::new(&mut it);
    let clients = ["alice", "bob"].map(|name| {
        let client = it.connect_as(Identity::new(name));
        it.give(client, Message::Hello(Box::new(client_hello(None))));
        it.expect_ack(client);
        it.send(client, "t");
        client
    });
    let message = operator.refused(&mut it, CANCEL, &json!({"task_id": "t"}));
    assert!(message.contains("alice, bob"), "{message}");
    let bobs = json!({"task_id": "t", "identity": "bob"});
    assert_eq!(operator.answer(&mut it, CANCEL, &bobs)["cancelled"], true);
    assert_eq!(it.expect_end(clients[1], "t").0, Outcome::Cancelled);
    assert_eq!(operator.answer(&mut it, SHOW, &bobs)["status"], "cancelled");
    assert_eq!(operator.ids(&mut it, &json!({"status": "queued"})), "t");
}
