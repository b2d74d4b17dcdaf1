//! What operators see of dead letters, and what becomes of one that is replayed or dropped.

use bytes::Bytes;
use mcp_broker::broker::{ConnectionId, Disconnect, Event, Identity, Record};
use mcp_proto::limits::MAX_BODY_BYTES;
use mcp_proto::{ErrorCode, Frame, Incoming, Message, Outcome, Send, Task, TaskState};
use serde_json::{Value, json};

use super::restarts::{restarted, restarted_with};
use super::{durable, expect_accepted, sync, with};
use crate::fixture::{Fixture, client_hello, task_id};
use crate::operator::Operator;

const LIST: &str = "mcp.admin.dead_letters.list";
const SHOW: &str = "mcp.admin.dead_letters.show";
const REPLAY: &str = "mcp.admin.dead_letters.replay";
const DROP: &str = "mcp.admin.dead_letters.drop";

/// Sends a task, has it fail, and gets its outcome.
fn failed(
    it: &mut Fixture,
    client: ConnectionId,
    worker: ConnectionId,
    task: Task,
    body: impl Into<Bytes>,
) {
    let id = task.id.to_string();
    let message = Message::Send(Send::new(task.encode(), 60_000));
    it.give_incoming(client, Incoming::Frame(Frame { message, body: body.into() }));
    match it.next_for(worker) {
        Some((Message::Route(route), _)) => it.fail(worker, route.attempt_id),
        other => panic!("{other:?}"),
    }
    sync(it);
    expect_accepted(it, client, &id);
    assert_eq!(it.expect_end(client, &id).0, Outcome::Failed);
}

fn ids(list: &Value) -> Vec<&str> {
    let rows = list["dead_letters"].as_array().unwrap();
    rows.iter().map(|row| row["task_id"].as_str().unwrap()).collect()
}

fn named(id: &str) -> Value {
    json!({ "task_id": id })
}

#[test]
fn they_are_listed_newest_first_and_in_parts() {
    let mut it = with(|_| {});
    let (client, worker) = (it.client(), it.worker("w", 1));
    let operator = Operator::new(&mut it);
    for id in ["a", "b", "c"] {
        failed(&mut it, client, worker, durable(id), "input");
        it.advance(1_000);
    }
    let list = operator.answer(&mut it, LIST, &json!({}));
    assert_eq!((ids(&list), &list["more"]), (vec!["c", "b", "a"], &json!(false)));
    let row = &list["dead_letters"][1];
    let expected = json!({
        "number": row["number"], "task_id": "b", "identity": "anonymous", "action": "work",
        "outcome": "failed", "error_code": "HANDLER_FAILED", "attempts": 1, "age_ms": 2_000,
        "body_bytes": 5,
    });
    assert_eq!(*row, expected);
    let list = operator.answer(&mut it, LIST, &json!({ "limit": 2 }));
    assert_eq!((ids(&list), &list["more"]), (vec!["c", "b"], &json!(true)));
    let before = &list["dead_letters"][1]["number"];
    let list = operator.answer(&mut it, LIST, &json!({ "before": before }));
    assert_eq!((ids(&list), &list["more"]), (vec!["a"], &json!(false)));
    let list = operator.answer(&mut it, LIST, &json!({ "action": "other" }));
    assert!(ids(&list).is_empty());
    assert!(operator.refused(&mut it, LIST, &json!({ "limit": 0 })).contains("1 to 1000"));
}

#[test]
fn one_is_shown_with_its_input_and_why_it_died() {
    let mut it = with(|_| {});
    let (client, worker) = (it.client(), it.worker("w", 1));
    let operator = Operator::new(&mut it);
    let headers = [("h".to_owned(), "v".to_owned())].into();
    let task = Task { content_type: "text/plain".into(), headers, ..durable("t") };
    failed(&mut it, client, worker, task, "say \"hello\"");
    let shown = operator.answer(&mut it, SHOW, &named("t"));
    assert_eq!((&shown["body"], &shown["body_cut"]), (&json!("say \"hello\""), &json!(false)));
    assert_eq!(
        (&shown["content_type"], &shown["headers"]["h"]),
        (&json!("text/plain"), &json!("v"))
    );
    assert_eq!((&shown["executed"], &shown["ttl_ms"]), (&json!("yes"), &json!(60_000)));
    assert_eq!(shown["error"]["code"], "HANDLER_FAILED");
    assert_eq!(shown["context_trace"]["hops"][0]["event"], "completed");
    assert_eq!(shown["died_wall_ms"], it.now.wall_ms);

    assert_eq!(operator.answer(&mut it, SHOW, &named("u")), Value::Null);
    assert!(operator.refused(&mut it, SHOW, &named("")).contains("task_id"));
}

#[test]
fn an_input_is_cut_to_what_a_frame_has_room_for() {
    let mut it = with(|_| {});
    let (client, worker) = (it.client(), it.worker("w", 1));
    let operator = Operator::new(&mut it);
    // Each byte becomes six; the last character has three.
    let text = format!("{}€", "\u{1}".repeat(MAX_BODY_BYTES - 3));
    failed(&mut it, client, worker, durable("text"), text);
    failed(&mut it, client, worker, durable("binary"), vec![0xff; MAX_BODY_BYTES]);
    for (id, field, least) in [("text", "body", 10_000), ("binary", "body_base64", 60_000)] {
        let shown = operator.answer(&mut it, SHOW, &named(id));
        let told = shown[field].as_str().unwrap();
        assert!(told.len() > least, "{id}: {}", told.len());
        assert_eq!(
            (&shown["body_cut"], &shown["body_bytes"]),
            (&json!(true), &json!(MAX_BODY_BYTES))
        );
    }
}

#[test]
fn replayed_it_is_a_new_task_of_the_same_id() {
    let mut it = with(|_| {});
    let (client, worker) = (it.client(), it.worker("w", 1));
    let operator = Operator::new(&mut it);
    failed(&mut it, client, worker, durable("t"), "input");
    let replayed = operator.answer(&mut it, REPLAY, &json!({ "task_id": "t", "ttl_ms": 9_000 }));
    assert_eq!(replayed, json!({ "task_id": "t", "replayed": true }));
    assert!(matches!(it.events.last(), Some(Event::DeadLetterReplayed { .. })), "{:?}", it.events);
    let route = it.expect_route(worker);
    assert_eq!((route.ttl_ms, it.core.stats().durable.dead_letters), (9_000, 0));
    it.give(client, Message::Fetch(task_id("t")));
    assert_eq!(it.expect_status(client, "t"), TaskState::Running);
    it.result(worker, route.attempt_id);
    sync(&mut it);
    expect_accepted(&mut it, client, "t");
    assert_eq!(it.expect_end(client, "t").0, Outcome::Ok);
    assert_eq!(operator.answer(&mut it, REPLAY, &named("t")), Value::Null);
}

#[test]
fn who_was_not_told_before_it_was_replayed_is_told_how_it_ends_then() {
    let mut it = with(|_| {});
    let ((client, ack), worker) = (it.client_of(None), it.worker("w", 1));
    let operator = Operator::new(&mut it);
    it.send_task(client, durable("t"), 60_000);
    let route = it.expect_route(worker);
    sync(&mut it);
    expect_accepted(&mut it, client, "t");
    it.disconnect(client, Disconnect::Broken);
    it.fail(worker, route.attempt_id);
    sync(&mut it);
    operator.answer(&mut it, REPLAY, &named("t"));
    let route = it.expect_route(worker);
    let session = ack.session_id.unwrap();
    let (client, _) = it.client_of(Some(session.as_str()));
    it.expect_nothing();
    sync(&mut it);
    expect_accepted(&mut it, client, "t");
    it.result(worker, route.attempt_id);
    sync(&mut it);
    assert_eq!(it.expect_end(client, "t").0, Outcome::Ok);
    it.expect_nothing();
}

#[test]
fn one_that_can_not_be_replayed_stays_a_dead_letter() {
    let mut it =
        with(|config| (config.kept_results, config.durable.settled_retention_ms) = (0, 1_000));
    let (client, worker) = (it.client(), it.worker("w", 1));
    let operator = Operator::new(&mut it);
    failed(&mut it, client, worker, durable("t"), "input");
    let refused = operator.refused(&mut it, REPLAY, &json!({ "task_id": "t", "ttl_ms": 0 }));
    assert!(refused.contains("ttl_ms is 0"), "{refused}");
    // Its client has sent it again.
    it.give(client, Message::Settle(task_id("t")));
    it.advance(1_001);
    it.send_task(client, durable("t"), 60_000);
    it.discard();
    let refused = operator.refused(&mut it, REPLAY, &named("t"));
    assert!(refused.contains("is in flight"), "{refused}");
    it.core.journal_failed(it.now, "no space left");
    it.discard();
    let (deliver, _) = operator.ask(&mut it, REPLAY, &named("t"));
    assert_eq!(deliver.error.unwrap().code, ErrorCode::DurableUnavailable);
    assert_eq!(it.core.stats().durable.dead_letters, 1);
}

#[test]
fn however_much_of_a_replay_is_on_disk_the_task_is_not_lost() {
    let mut it = with(|_| {});
    let (client, worker) = (it.client(), it.worker("w", 1));
    let operator = Operator::new(&mut it);
    failed(&mut it, client, worker, durable("t"), "input");
    let before = it.records.len();
    operator.answer(&mut it, REPLAY, &named("t"));
    let after = it.records.len();
    assert!(it.records[before..].iter().any(|(_, it)| matches!(it, Record::DeadForgotten(_))));
    for on_disk in before..=after {
        let (_, restored) = restarted_with(&mut it, on_disk, 0, |_| {});
        assert_eq!(restored.tasks + restored.dead_letters, 1, "{on_disk} records");
    }
}

#[test]
fn dropped_it_is_gone_also_after_a_restart() {
    let mut it = with(|_| {});
    let (client, worker) = (it.client(), it.worker("w", 1));
    let operator = Operator::new(&mut it);
    failed(&mut it, client, worker, durable("t"), "input");
    let dropped = operator.answer(&mut it, DROP, &named("t"));
    assert_eq!(dropped, json!({ "task_id": "t", "dropped": true }));
    assert!(matches!(it.events.last(), Some(Event::DeadLetterDropped { .. })), "{:?}", it.events);
    assert_eq!(operator.answer(&mut it, DROP, &named("t")), Value::Null);
    let (_, restored) = restarted(&mut it);
    // What its client was told is another thing.
    assert_eq!((restored.dead_letters, restored.outcomes), (0, 1));
}

#[test]
fn of_two_identities_with_one_of_the_same_id_it_is_said_which() {
    let mut it = with(|_| {});
    let worker = it.worker("w", 1);
    let operator = Operator::new(&mut it);
    for identity in ["ann", "bob"] {
        let client = it.connect_as(Identity::new(identity));
        it.give(client, Message::Hello(Box::new(client_hello(None))));
        it.expect_ack(client);
        failed(&mut it, client, worker, durable("t"), "input");
    }
    for action in [SHOW, REPLAY, DROP] {
        let refused = operator.refused(&mut it, action, &named("t"));
        assert!(
            refused.starts_with("2 identities have a dead letter t") && refused.contains("ann")
        );
    }
    let bobs = json!({ "task_id": "t", "identity": "bob" });
    assert_eq!(operator.answer(&mut it, SHOW, &bobs)["identity"], "bob");
    operator.answer(&mut it, DROP, &bobs);
    let list = operator.answer(&mut it, LIST, &json!({}));
    assert_eq!(list["dead_letters"][0]["identity"], "ann");
}
