//! Identities come and go; what is of one stays its own.

use mcp_broker::broker::{ConnectionId, Disconnect, Identity};
use mcp_proto::{Message, TaskState};

use crate::fixture::{Fixture, client_hello};

/// More than are remembered without a look at which are of use.
const MANY: u32 = 150_000;

fn client_as(it: &mut Fixture, name: &str) -> ConnectionId {
    let id = it.connect_as(Identity::new(name));
    it.give(id, Message::Hello(Box::new(client_hello(None))));
    it.expect_ack(id);
    id
}

#[test]
fn who_comes_after_many_others_has_nothing_of_theirs() {
    let mut it = Fixture::new();
    let worker = it.worker("w", 2);
    let (alice, bob) = (client_as(&mut it, "alice"), client_as(&mut it, "bob"));
    it.send(alice, "ended");
    let ended = it.expect_route(worker).attempt_id;
    it.result(worker, ended);
    it.expect_deliver(alice, "ended");
    it.disconnect(alice, Disconnect::Orderly);
    it.send(bob, "running");
    let running = it.expect_route(worker).attempt_id;

    for number in 0..MANY {
        let connection = it.connect_as(Identity::new(&format!("job-{number}")));
        it.disconnect(connection, Disconnect::Orderly);
    }

    let late = client_as(&mut it, "late");
    for id in ["ended", "running"] {
        it.give(late, Message::Fetch(id.try_into().unwrap()));
        assert_eq!(it.expect_status(late, id), TaskState::Unknown);
    }
    let alice = client_as(&mut it, "alice");
    it.give(alice, Message::Fetch("ended".try_into().unwrap()));
    assert!(it.expect_deliver(alice, "ended").error.is_none());
    it.result(worker, running);
    assert!(it.expect_deliver(bob, "running").error.is_none());
}
