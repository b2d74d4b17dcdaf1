//! Durable tasks, results and inputs in parts, families: answered like any other; and how it shows.

use mcp_broker::broker::{CachedBy, Disconnect, EndedTask, Record};
use mcp_proto::{Chunk, Delivery, InputLength, Message, Outcome, Send, Subject, Task};
use serde_json::{Value, json};

use super::{
    answer, cached, default, deliver, give_answer, name, rules, send_body, small, step, with,
    with_rules, worker_of,
};
use crate::fixture::{Fixture, child_of, idempotent, task, task_id};

#[test]
fn a_durable_answer_is_journalled_first() {
    let mut it = Fixture::with(|config| {
        config.is_durable = true;
        with_rules(config, "work", rules(&[default("output")]));
    });
    let client = it.client();
    it.send_task(client, Task { delivery: Delivery::Durable, ..task("t") }, 60_000);
    it.expect_nothing();
    let [(_, Record::Accepted(..)), (last, Record::Ended(_, EndedTask { deliver, body, .. }))] =
        &it.records[..]
    else {
        panic!("{:?}", it.records)
    };
    assert_eq!((deliver.fallback.as_deref(), &body[..]), (Some("default"), &b"output"[..]));
    let last = *last;
    it.core.journal_synced(it.now, last);
    it.collect();
    assert!(matches!(it.next_for(client), Some((Message::Accepted(_), _))));
    assert_eq!(step(&mut it, client), "default");
}

#[test]
fn who_reads_in_parts_gets_an_answer_as_a_whole_and_what_came_before_is_void() {
    let mut it = with(&[default("output")]);
    let client = it.client();
    it.send_in_parts(client, task("none"), 60_000, 1_000);
    let end = it.expect_deliver(client, "none");
    assert_eq!((end.chunks, end.attempt, end.fallback.as_deref()), (0, 0, Some("default")));

    let worker = it.worker("w", 1);
    it.send_in_parts(client, idempotent("some"), 60_000, 1_000);
    let attempt = it.expect_route(worker).attempt_id;
    it.give_body(worker, Message::Chunk(Chunk::new(Subject::Attempt(attempt), 0)), "part");
    assert!(matches!(it.next_for(client), Some((Message::Chunk(_), _))));
    it.disconnect(worker, Disconnect::Orderly);
    let end = it.expect_deliver(client, "some");
    assert_eq!((end.chunks, end.attempt, end.fallback.as_deref()), (0, 2, Some("default")));
    let stats = it.core.stats();
    assert_eq!((stats.streams, stats.stream_bytes), (0, 0));
}

#[test]
fn an_input_in_chunks_goes_the_same_ways_but_for_answers_by_body() {
    let mut it = with(&[cached(CachedBy::Body), small(), default("output")]);
    let client = it.client();
    let send = |it: &mut Fixture, id: &str| {
        let send = Send::new(task(id).encode(), 60_000);
        let send = Send { input_follows: Some(InputLength::Unknown), ..send };
        it.give_body(client, Message::Send(send), "input");
        // Credit may come, for more than a client may send at first.
        while let Some((message, body)) = it.next_for(client) {
            match message {
                Message::Credit(_) => {}
                Message::Deliver(deliver) => return Some((*deliver, body)),
                other => panic!("{other:?}"),
            }
        }
        None
    };
    let worker = it.worker("w", 1);
    send_body(&mut it, client, task("t-1"), "input");
    give_answer(&mut it, worker, "answer");
    answer(&mut it, client);
    it.disconnect(worker, Disconnect::Orderly);
    let (end, _) = send(&mut it, "t-2").unwrap();
    assert_eq!(end.fallback.as_deref(), Some("default"));
    assert_eq!((it.core.stats().uploads, it.core.stats().upload_bytes), (0, 0));
    let other = worker_of(&mut it, "s", "small", 1);
    assert!(send(&mut it, "t-3").is_none());
    let route = it.expect_route(other);
    assert_eq!(route.input_follows, Some(InputLength::Unknown));
    let last = Chunk { last: true, ..Chunk::new(Subject::Task(task_id("t-3"), 0), 0) };
    it.give_body(client, Message::Chunk(last), "more");
    assert!(matches!(it.next_for(other), Some((Message::Chunk(_), _))));
    it.result(other, route.attempt_id);
    assert_eq!(step(&mut it, client), "action:small");
    assert_eq!(it.core.stats().upload_bytes, 0);
}

#[test]
fn an_answer_is_told_again_and_seen_by_operators_as_what_it_is() {
    let mut it = with(&[small(), default("output")]);
    let client = it.client();
    let other = worker_of(&mut it, "s", "small", 1);
    it.send(client, "t-1");
    it.send(client, "t-2");
    let route = it.expect_route(other);
    let show = |it: &mut Fixture, id: &str| {
        let operator = it.client();
        let ask = Task { action: name("mcp.admin.tasks.show"), ..task("ask") };
        let body = json!({ "task_id": id }).to_string();
        it.give_body(operator, Message::Send(Send::new(ask.encode(), 1_000)), body);
        let (_, body) = deliver(it, operator);
        it.disconnect(operator, Disconnect::Orderly);
        let it: Value = serde_json::from_slice(&body).unwrap();
        ["action", "status", "fallback"].map(|key| it[key].as_str().unwrap_or("-").to_owned())
    };
    assert_eq!(show(&mut it, "t-1"), ["work", "running", "action:small"]);
    assert_eq!(show(&mut it, "t-2"), ["work", "queued", "action:small"]);
    it.result(other, route.attempt_id);
    assert_eq!(step(&mut it, client), "action:small");
    assert_eq!(show(&mut it, "t-1"), ["work", "ok", "action:small"]);
    it.send(client, "t-1");
    assert_eq!(step(&mut it, client), "action:small");
    let metrics = it.core.metrics(it.now);
    let of = |action: &str| metrics.actions.iter().find(|it| it.action == action).unwrap();
    let counts: Vec<_> = of("work").counts.degraded().collect();
    assert_eq!(counts, [("cached", 0), ("action", 1), ("default", 0)]);
    assert_eq!(of("work").counts.ended().next(), Some((Outcome::Ok, 1)));
    assert_eq!(of("small").counts.ended().next(), Some((Outcome::Ok, 0)));
    // Where it is, is another matter.
    assert_eq!((of("work").running, of("small").running), (0, 1));
    it.discard();
}

#[test]
fn a_child_is_a_child_whoever_answers_it() {
    let mut it = with(&[small()]);
    let client = it.client();
    let other = worker_of(&mut it, "s", "small", 2);
    it.send(client, "parent");
    let parent = it.expect_route(other);
    it.send_task(client, child_of("parent", "child"), 60_000);
    let child = it.expect_route(other);
    it.result(other, child.attempt_id);
    assert_eq!(step(&mut it, client), "action:small");
    it.result(other, parent.attempt_id);
    let end = it.expect_deliver(client, "parent");
    let trace = end.trace.decode();
    assert_eq!((trace.children.len(), &trace.children[0].action), (1, &name("work")));
}
