//! Earlier answers: which is found, and what is kept.

use mcp_broker::broker::{CachedBy, Disconnect, Identity};
use mcp_proto::{Chunk, ErrorCode, Message, Outcome, Send, Subject, Task};

use super::{
    answer, cached, default, deliver, give_answer, name, refusal, rules, send_body, small, step,
    with, with_rules, worker_of,
};
use crate::fixture::{Fixture, client_hello, ok_result, task};

#[test]
fn an_answer_is_for_the_same_question_of_the_same_identity_and_tenant() {
    let mut it = with(&[cached(CachedBy::Body)]);
    let hello = |it: &mut Fixture, who: &str| {
        let id = it.connect_as(Identity::new(who));
        it.give(id, Message::Hello(Box::new(client_hello(None))));
        it.expect_ack(id);
        id
    };
    let (client, stranger) = (hello(&mut it, "a"), hello(&mut it, "b"));
    let worker = it.worker("w", 1);
    let of = |id: &str, tenant: &'static str| Task { tenant: tenant.into(), ..task(id) };
    send_body(&mut it, client, of("t-1", "x"), "question");
    give_answer(&mut it, worker, "answer");
    assert_eq!(answer(&mut it, client), ("".into(), "answer".into()));
    it.disconnect(worker, Disconnect::Orderly);
    send_body(&mut it, client, of("t-2", "x"), "question");
    assert_eq!(answer(&mut it, client), ("cached".into(), "answer".into()));
    send_body(&mut it, client, of("t-3", "x"), "another");
    send_body(&mut it, client, of("t-4", "y"), "question");
    send_body(&mut it, stranger, of("t-5", "x"), "question");
    it.expect_nothing();
    it.advance(5_000);
    for peer in [client, client, stranger] {
        assert_eq!(refusal(&mut it, peer), (Outcome::Rejected, ErrorCode::NoWorker));
    }
}

#[test]
fn answers_are_found_by_affinity_key_or_for_all_of_the_action() {
    let mut it = Fixture::with(|config| {
        with_rules(config, "work", rules(&[cached(CachedBy::Affinity)]));
        with_rules(config, "all", rules(&[cached(CachedBy::Action), default("none")]));
    });
    let client = it.client();
    let (worker, all) = (it.worker("w", 1), worker_of(&mut it, "a", "all", 1));
    let of = |id: &str, key: &'static str| Task { affinity_key: key.into(), ..task(id) };
    for (id, key, body) in [("t-1", "k", "of k"), ("t-2", "", "of none")] {
        send_body(&mut it, client, of(id, key), "question");
        give_answer(&mut it, worker, body);
        answer(&mut it, client);
    }
    send_body(&mut it, client, Task { action: name("all"), ..task("t-3") }, "question");
    give_answer(&mut it, all, "of all");
    answer(&mut it, client);
    it.disconnect(worker, Disconnect::Orderly);
    it.disconnect(all, Disconnect::Orderly);
    send_body(&mut it, client, of("t-4", "k"), "another");
    assert_eq!(answer(&mut it, client), ("cached".into(), "of k".into()));
    send_body(&mut it, client, Task { action: name("all"), ..task("t-5") }, "another");
    assert_eq!(answer(&mut it, client), ("cached".into(), "of all".into()));
    send_body(&mut it, client, of("t-6", ""), "question");
    send_body(&mut it, client, of("t-7", "l"), "question");
    it.expect_nothing();
    it.advance(5_000);
    it.discard();
}

#[test]
fn an_answer_is_the_last_one_and_not_too_old() {
    let mut it = with(&[cached(CachedBy::Body), default("default")]);
    let client = it.client();
    let worker = it.worker("w", 1);
    for (id, body) in [("t-1", "old"), ("t-2", "new")] {
        it.send(client, id);
        give_answer(&mut it, worker, body);
        answer(&mut it, client);
    }
    it.disconnect(worker, Disconnect::Orderly);
    it.advance(10_000);
    it.send(client, "t-3");
    assert_eq!(answer(&mut it, client), ("cached".into(), "new".into()));
    it.advance(1);
    it.send(client, "t-4");
    assert_eq!(answer(&mut it, client), ("default".into(), "default".into()));
}

#[test]
fn what_is_kept_is_bounded_and_good() {
    let mut it = Fixture::with(|config| {
        config.cached_answers = 2;
        with_rules(config, "work", rules(&[cached(CachedBy::Body), small(), default("none")]));
    });
    let client = it.client();
    let worker = it.worker("w", 1);
    for (id, body) in [("t-1", "a"), ("t-2", "b"), ("t-3", "c")] {
        send_body(&mut it, client, task(id), body);
        give_answer(&mut it, worker, body);
        answer(&mut it, client);
    }
    // A failure takes nothing away, and a result in parts is not kept.
    send_body(&mut it, client, task("fails"), "b");
    let Some((Message::Route(route), _)) = it.next_for(worker) else { panic!() };
    it.fail(worker, route.attempt_id);
    deliver(&mut it, client);
    let parts = Send { stream_window_bytes: 1_000, ..Send::new(task("parts").encode(), 1_000) };
    it.give_body(client, Message::Send(parts), "d");
    let Some((Message::Route(route), _)) = it.next_for(worker) else { panic!() };
    let part = Chunk::new(Subject::Attempt(route.attempt_id), 0);
    it.give_body(worker, Message::Chunk(part), "part");
    let result = mcp_proto::TaskResult { chunks: 1, ..ok_result(route.attempt_id) };
    it.give_body(worker, Message::Result(result), "rest");
    it.next_for(client).unwrap();
    deliver(&mut it, client);
    it.disconnect(worker, Disconnect::Orderly);
    // Another action's answer is none of this one's.
    let other = worker_of(&mut it, "s", "small", 1);
    send_body(&mut it, client, task("small"), "e");
    give_answer(&mut it, other, "of small");
    assert_eq!(step(&mut it, client), "action:small");
    it.disconnect(other, Disconnect::Orderly);
    for (id, body, found) in [
        ("1", "a", "none"),
        ("2", "b", "b"),
        ("3", "c", "c"),
        ("4", "d", "none"),
        ("5", "e", "none"),
    ] {
        send_body(&mut it, client, task(id), body);
        assert_eq!(answer(&mut it, client).1, found);
    }
    it.discard();
}
