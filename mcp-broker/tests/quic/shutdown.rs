//! The orderly end: every peer is told, and no task is without an outcome.

use mcp_proto::{Cancel, CancelReason, ErrorCode, Executed, Message, Outcome};
use tokio::task::JoinHandle;

use crate::support::{RawPeer, broker, result, send, until, within};

/// GOAWAY with the right words.
async fn expect_goaway(peer: &mut RawPeer) {
    match peer.receive().await.message {
        Message::Goaway(goaway) => {
            assert_eq!((goaway.code, goaway.reconnect), (ErrorCode::ShuttingDown, true));
        }
        other => panic!("not a GOAWAY: {other:?}"),
    }
}

async fn ends(shutdown: JoinHandle<()>) {
    within("the shutdown", shutdown).await.unwrap();
}

#[tokio::test]
async fn running_tasks_finish_and_the_others_are_rejected() {
    let broker = broker(|_| {}).await;
    let mut worker = RawPeer::worker(&broker, "w", "slow", 1).await;
    let mut client = RawPeer::client(&broker).await;
    client.send(send("running", "slow"), "").await;
    let (route, _) = worker.receive_route().await;
    client.send(send("queued", "slow"), "").await;
    until("it to be queued", || broker.stats().queued == 1).await;
    let idle = RawPeer::connect(&broker).await;

    let shutdown = tokio::spawn(broker.shutdown());
    expect_goaway(&mut worker).await;
    let rejected = (Outcome::Rejected, ErrorCode::ShuttingDown, Executed::No);
    // GOAWAY and the queued task's end, in whatever order.
    let mut seen_goaway = false;
    for _ in 0..2 {
        match client.receive().await.message {
            Message::Goaway(goaway) => {
                assert!(goaway.reconnect);
                seen_goaway = true;
            }
            Message::Deliver(it) => {
                assert_eq!(it.task_id.as_str(), "queued");
                assert_eq!((it.outcome, it.error.unwrap().code, it.executed), rejected);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(seen_goaway);
    client.send(send("new", "slow"), "").await;
    assert_eq!(client.receive_failure().await, rejected);
    assert!(!shutdown.is_finished());

    worker.send(result(&route), "done").await;
    let (deliver, body) = client.receive_deliver().await;
    assert_eq!((deliver.outcome, &body[..]), (Outcome::Ok, &b"done"[..]));
    for mut peer in [client, worker] {
        peer.expect_close(ErrorCode::ShuttingDown).await;
    }
    within("the close", idle.quic.closed()).await;
    ends(shutdown).await;
}

#[tokio::test]
async fn what_runs_longer_than_the_drain_time_fails_and_its_worker_is_told() {
    let broker = broker(|config| config.timing.drain_ms = 300).await;
    let mut worker = RawPeer::worker(&broker, "w", "slow", 1).await;
    let mut client = RawPeer::client(&broker).await;
    client.send(send("running", "slow"), "").await;
    let (route, _) = worker.receive_route().await;

    let shutdown = tokio::spawn(broker.shutdown());
    expect_goaway(&mut worker).await;
    expect_goaway(&mut client).await;
    assert_eq!(
        client.receive_failure().await,
        (Outcome::Failed, ErrorCode::ShuttingDown, Executed::Maybe)
    );
    client.expect_close(ErrorCode::ShuttingDown).await;
    assert_eq!(
        worker.receive().await.message,
        Message::Cancel(Cancel::Attempt(route.attempt_id, CancelReason::Shutdown))
    );
    worker.expect_close(ErrorCode::ShuttingDown).await;
    ends(shutdown).await;
}

#[tokio::test]
async fn the_address_is_free_afterwards() {
    let first = broker(|_| {}).await;
    let address = first.local_addr();
    let peers = [RawPeer::client(&first).await, RawPeer::worker(&first, "w", "a", 1).await];
    first.shutdown().await;
    let second = broker(|config| config.listen = address).await;
    assert_eq!(second.local_addr(), address);
    drop(peers);
}

#[tokio::test]
async fn a_broker_that_is_dropped_closes_its_connections() {
    let broker = broker(|_| {}).await;
    let mut client = RawPeer::client(&broker).await;
    drop(broker);
    client.expect_close(ErrorCode::ShuttingDown).await;
}
