//! What a peer may say, and when.

use mcp_broker::broker::Disconnect;
use mcp_proto::{DecodeError, ErrorCode, Executed, Hello, Incoming, Message, Outcome, Roles, Send};

use crate::fixture::{Fixture, client_hello, hello_of, ok_result, task, worker_hello};

#[test]
fn frames_before_hello_are_refused() {
    let mut it = Fixture::new();
    let peer = it.connect();
    it.send(peer, "t");
    assert_eq!(it.expect_refusal(peer).code, ErrorCode::UnexpectedFrame);
    it.send(peer, "t");
    let peer = it.connect();
    it.give_incoming(peer, Incoming::Unknown { kind: 99 });
    assert_eq!(it.expect_refusal(peer).code, ErrorCode::UnexpectedFrame);
}

#[test]
fn hello_comes_once_and_in_time() {
    let mut it = Fixture::new();
    let twice = it.client();
    it.give(twice, Message::Hello(Box::new(client_hello(None))));
    assert_eq!(it.expect_refusal(twice).code, ErrorCode::UnexpectedFrame);
    let silent = it.connect();
    it.advance(3_000);
    assert_eq!(it.expect_refusal(silent).code, ErrorCode::HelloTimeout);
}

#[test]
fn another_major_version_is_refused_and_another_minor_is_not() {
    let mut it = Fixture::new();
    for (version, is_spoken) in [("1.7", true), ("2.0", false), ("0.9", false), ("x", false)] {
        let peer = it.connect();
        let hello = Hello { mcp_version: version.into(), ..client_hello(None) };
        it.give(peer, Message::Hello(Box::new(hello)));
        if is_spoken {
            it.expect_ack(peer);
        } else {
            let error = it.expect_refusal(peer);
            assert_eq!(error.code, ErrorCode::UnsupportedVersion);
            assert!(error.message.contains("1.0"), "{error}");
        }
    }
}

#[test]
fn a_role_has_its_frames_only() {
    let mut it = Fixture::new();
    let worker = it.worker("w", 1);
    it.send(worker, "t");
    assert_eq!(it.expect_refusal(worker).code, ErrorCode::UnexpectedFrame);
    let client = it.client();
    it.give(client, Message::Result(ok_result(mcp_proto::AttemptId(1))));
    assert_eq!(it.expect_refusal(client).code, ErrorCode::UnexpectedFrame);
}

#[test]
fn one_connection_can_have_both_roles() {
    let mut it = Fixture::new();
    let peer = it.connect();
    let Message::Hello(hello) = hello_of(worker_hello("w", 1)) else { unreachable!() };
    let hello = Hello { client: true, ..*hello };
    assert_eq!(hello.roles(), Roles { client: true, worker: true });
    it.give(peer, Message::Hello(Box::new(hello)));
    let ack = it.expect_ack(peer);
    assert!(ack.node_id.is_some() && ack.session_id.is_some());
    it.send(peer, "t");
    let route = it.expect_route(peer);
    it.result(peer, route.attempt_id);
    assert_eq!(it.expect_end(peer, "t").0, Outcome::Ok);
}

#[test]
fn an_unknown_kind_is_answered_and_survived() {
    let mut it = Fixture::new();
    let client = it.client();
    it.give_incoming(client, Incoming::Unknown { kind: 99 });
    let error = it.expect_error(client);
    assert_eq!(error.code, ErrorCode::UnknownFrame);
    assert!(error.message.contains("99"));
    it.send(client, "t");
    assert_eq!(it.core.stats().queued, 1);
}

#[test]
fn a_task_whose_id_cannot_be_read_is_answered_with_an_error() {
    let mut it = Fixture::new();
    let client = it.client();
    let encoded = mcp_proto::EncodedTask(b"\x0a\x00".as_slice().into());
    it.give(client, Message::Send(Send::new(encoded, 1_000)));
    let error = it.expect_error(client);
    assert_eq!(error.code, ErrorCode::InvalidMessage);
    assert!(error.message.contains("task_id"), "{error}");
}

#[test]
fn a_body_over_the_limit_ends_its_task_only() {
    let mut it = Fixture::new();
    let client = it.client();
    let worker = it.worker("w", 1);
    let message = Message::Send(Send::new(task("large").encode(), 1_000));
    it.give_incoming(client, Incoming::BodyTooLarge { message, body_bytes: 100_000 });
    let end = it.expect_end(client, "large");
    assert_eq!(end, (Outcome::Rejected, Executed::No, Some(ErrorCode::BodyTooLarge)));
    it.send(client, "t");
    let route = it.expect_route(worker);
    let message = Message::Result(ok_result(route.attempt_id));
    it.give_incoming(worker, Incoming::BodyTooLarge { message, body_bytes: 100_000 });
    let end = it.expect_end(client, "t");
    assert_eq!(end, (Outcome::Failed, Executed::Yes, Some(ErrorCode::BodyTooLarge)));
    assert_eq!(it.in_flight("w"), 0);
}

#[test]
fn garbage_closes_the_connection_with_its_code() {
    let mut it = Fixture::new();
    let client = it.client();
    let error = DecodeError::FrameTooLarge { len: usize::MAX, max: 1 };
    it.core.handle_malformed(it.now, client, &error);
    it.collect();
    assert_eq!(it.expect_refusal(client).code, ErrorCode::FrameTooLarge);
    // What happens to the connection afterwards no longer matters.
    it.disconnect(client, Disconnect::Broken);
    it.send(client, "t");
}

#[test]
fn who_does_not_read_is_closed() {
    let mut it = Fixture::new();
    let client = it.client();
    it.core.handle_overflow(it.now, client);
    it.collect();
    assert_eq!(it.expect_refusal(client).code, ErrorCode::SlowConsumer);
}

#[test]
fn the_numbers_of_agents_and_sessions_are_limited() {
    let mut it = Fixture::with(|config| {
        config.max_agents = 1;
        config.max_sessions = 1;
    });
    it.worker("w", 1);
    it.client();
    let peer = it.connect();
    it.give(peer, hello_of(worker_hello("x", 1)));
    assert_eq!(it.expect_refusal(peer).code, ErrorCode::LimitExceeded);
    let peer = it.connect();
    it.give(peer, Message::Hello(Box::new(client_hello(None))));
    assert_eq!(it.expect_refusal(peer).code, ErrorCode::LimitExceeded);
}

#[test]
fn a_refused_second_role_leaves_nothing_of_the_first() {
    let mut it = Fixture::with(|config| config.max_sessions = 0);
    let peer = it.connect();
    let Message::Hello(hello) = hello_of(worker_hello("w", 1)) else { unreachable!() };
    it.give(peer, Message::Hello(Box::new(Hello { client: true, ..*hello })));
    assert_eq!(it.expect_refusal(peer).code, ErrorCode::LimitExceeded);
    assert!(it.online().is_empty());
    it.advance(10_000);
    assert!(it.core.agents(it.now, true).is_empty());
}

#[test]
fn the_broker_answers_its_own_actions() {
    let mut it = Fixture::new();
    let client = it.client();
    it.worker("w", 3);
    let ask = |it: &mut Fixture, action: &str, body: &'static str| {
        let mut task = task("ask");
        task.action = action.try_into().unwrap();
        it.give_body(client, Message::Send(Send::new(task.encode(), 1)), body);
        match it.next_for(client) {
            Some((Message::Deliver(deliver), body)) => (deliver.outcome, body),
            other => panic!("{other:?}"),
        }
    };
    let (outcome, body) = ask(&mut it, "mcp.admin.agents.list", "");
    assert_eq!(outcome, Outcome::Ok);
    let agents: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let agent = &agents["agents"][0];
    assert_eq!(agent["agent_id"], "w");
    assert_eq!((&agent["presence"], &agent["slots"]), (&"online".into(), &3.into()));
    assert_eq!(ask(&mut it, "mcp.admin.agents.list", "{\"al\":1}").0, Outcome::Failed);
    assert_eq!(ask(&mut it, "mcp.admin.nonsense", "").0, Outcome::Failed);
}
