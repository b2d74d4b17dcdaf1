//! The journal's thread: nothing is acknowledged before it is synced, and a journal that failed is
//! told to everyone.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};

use mcp_broker::Broker;
use mcp_broker::broker::{Journal, Record};
use mcp_proto::{Delivery, ErrorCode, Executed, Message, Outcome, Send, Task};

use crate::support::{RawPeer, result, until};

/// A journal whose every sync ends as the test says, when the test says it.
struct Gated {
    syncs: Receiver<io::Result<()>>,
}

impl Journal for Gated {
    fn append(&mut self, _record: &Record) -> io::Result<()> {
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        // The test is over: whatever it was.
        self.syncs.recv().unwrap_or(Ok(()))
    }

    fn is_durable(&self) -> bool {
        true
    }

    fn load(&mut self) -> io::Result<Vec<Record>> {
        Ok(Vec::new())
    }
}

async fn gated() -> (Broker, Sender<io::Result<()>>) {
    let (ends, syncs) = channel();
    let journal = Gated { syncs };
    (Broker::builder().journal(journal).start().await.unwrap(), ends)
}

/// The same with an admin listener.
pub(crate) async fn gated_admin() -> (Broker, Sender<io::Result<()>>, SocketAddr) {
    let (ends, syncs) = channel();
    let builder = Broker::builder().admin("127.0.0.1:0".parse().unwrap());
    let broker = builder.journal(Gated { syncs }).start().await.unwrap();
    let address = broker.admin_addr().unwrap();
    (broker, ends, address)
}

fn durable(id: &str) -> Message {
    let mut task = Task::new(id.try_into().unwrap(), "a".try_into().unwrap());
    task.delivery = Delivery::Durable;
    Message::Send(Send::new(task.encode(), 30_000))
}

#[tokio::test]
async fn accepted_and_deliver_wait_for_the_sync_and_route_does_not() {
    let (broker, syncs) = gated().await;
    let mut worker = RawPeer::worker(&broker, "w", "a", 1).await;
    let mut client = RawPeer::client(&broker).await;
    client.send(durable("t-1"), "").await;
    let (route, _) = worker.receive_route().await;
    // Had it been acknowledged, ACCEPTED would come before this.
    client.expect_alive().await;
    syncs.send(Ok(())).unwrap();
    assert!(
        matches!(client.receive().await.message, Message::Accepted(id) if id.as_str() == "t-1")
    );

    worker.send(result(&route), "kept").await;
    until("the result", || broker.stats().in_flight == 0).await;
    client.expect_alive().await;
    syncs.send(Ok(())).unwrap();
    let (deliver, body) = client.receive_deliver().await;
    assert_eq!((deliver.outcome, &body[..]), (Outcome::Ok, &b"kept"[..]));
    broker.shutdown().await;
}

#[tokio::test]
async fn all_that_a_sync_brought_to_disk_is_acknowledged_in_order() {
    const TASKS: usize = 500;
    let (broker, syncs) = gated().await;
    let mut client = RawPeer::client(&broker).await;
    for number in 0..TASKS {
        client.send(durable(&format!("t-{number}")), "").await;
    }
    client.expect_alive().await;
    // The first sync is of what had come when it began, and the second of all that gathered meanwhile.
    for _ in 0..2 {
        syncs.send(Ok(())).unwrap();
    }
    for number in 0..TASKS {
        let message = client.receive().await.message;
        assert!(
            matches!(&message, Message::Accepted(id) if *id.as_str() == format!("t-{number}")),
            "{number}: {message:?}"
        );
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn a_failed_sync_refuses_what_waits_for_it_and_what_comes_later() {
    let (broker, syncs) = gated().await;
    let mut client = RawPeer::client(&broker).await;
    client.send(durable("t-1"), "").await;
    client.expect_alive().await;
    syncs.send(Err(io::Error::other("no space left"))).unwrap();
    let (deliver, _) = client.receive_deliver().await;
    let error = deliver.error.unwrap();
    assert_eq!((deliver.outcome, error.code), (Outcome::Rejected, ErrorCode::DurableUnavailable));
    assert!(error.message.contains("no space left"), "{error}");

    client.send(durable("t-2"), "").await;
    assert_eq!(
        client.receive_failure().await,
        (Outcome::Rejected, ErrorCode::DurableUnavailable, Executed::No)
    );
    broker.shutdown().await;
}

#[tokio::test]
async fn a_broker_that_keeps_nothing_refuses_durable_tasks() {
    let broker = Broker::builder().start().await.unwrap();
    let mut client = RawPeer::client(&broker).await;
    client.send(durable("t-1"), "").await;
    assert_eq!(
        client.receive_failure().await,
        (Outcome::Rejected, ErrorCode::DurableUnavailable, Executed::No)
    );
}
