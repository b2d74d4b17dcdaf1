//! What the core tells for an audit log.

use mcp_broker::broker::{Act, Identity};
use mcp_proto::{ErrorCode, Message};
use serde_json::json;

use crate::fixture::{Fixture, client_hello, hello_of, worker_hello};
use crate::operator::Operator;

#[test]
fn who_is_let_in_is_told_and_who_is_not() {
    let mut it = Fixture::new();
    let alice = it.connect_as(Identity::new("alice"));
    it.give(alice, hello_of(worker_hello("w", 1)));
    it.expect_ack(alice);
    let worker = Act::Connected {
        connection: alice,
        identity: Identity::new("alice"),
        is_client: false,
        agent_id: Some("w".try_into().unwrap()),
    };
    let bob = it.connect_as(Identity::new("bob"));
    it.give(bob, Message::Hello(Box::new(client_hello(None))));
    it.expect_ack(bob);
    let client = Act::Connected {
        connection: bob,
        identity: Identity::new("bob"),
        is_client: true,
        agent_id: None,
    };
    assert_eq!(it.acts, [worker, client]);

    let eve = it.connect_as(Identity::new("eve"));
    it.give(eve, Message::Pong(1));
    let Some(Act::Refused { connection, identity, code, .. }) = it.acts.last() else {
        panic!("{:?}", it.acts)
    };
    assert_eq!((*connection, identity.as_str()), (eve, "eve"));
    assert_eq!(*code, ErrorCode::UnexpectedFrame);
    it.expect_refusal(eve);
}

#[test]
fn what_operators_change_is_told_with_who_and_how_it_went_and_what_they_look_at_is_not() {
    let mut it = Fixture::new();
    let root = it.connect_as(Identity::new("root"));
    it.give(root, Message::Hello(Box::new(client_hello(None))));
    it.expect_ack(root);
    let operator = Operator(root);
    it.acts.clear();
    for (action, body) in [
        ("mcp.admin.agents.list", json!({})),
        ("mcp.admin.actions.show", json!({"action": "a"})),
        ("mcp.admin.stats", json!({})),
        ("mcp.admin.explain", json!({"action": "a"})),
        ("mcp.admin.nonsense", json!({})),
    ] {
        operator.ask(&mut it, action, &body);
    }
    assert_eq!(it.acts, []);

    let degrade = json!({"action": "a", "why": "it is slow"});
    for (function, body, expected) in [
        ("mcp.admin.actions.degrade", degrade, None),
        ("mcp.admin.actions.restore", json!({"action": "a"}), None),
        ("mcp.admin.tasks.cancel", json!({"task_id": "gone"}), None),
        ("mcp.admin.actions.set", json!({"action": "a"}), Some(ErrorCode::InvalidTask)),
        ("mcp.admin.actions.degrade", json!("x".repeat(5_000)), Some(ErrorCode::InvalidTask)),
    ] {
        operator.ask(&mut it, function, &body);
        let Some(Act::Operated { connection, identity, function: told, arguments, error }) =
            it.acts.pop()
        else {
            panic!("{function} is not told")
        };
        assert_eq!(connection, Some(operator.0));
        assert_eq!((identity.as_str(), told.as_str()), ("root", function));
        let long = body.to_string().len() > 4_096;
        assert_eq!(arguments, if long { "5002 bytes".to_owned() } else { body.to_string() });
        assert_eq!(error.map(|it| it.code), expected, "{function}");
    }
    assert_eq!(it.acts, []);
}
