//! Peers that do not read.

use mcp_proto::{ErrorCode, Outcome};
use tokio::time::{Duration, timeout};

use crate::support::{Flow, How, RawPeer, broker, result, send, unique, until};

const BODY_BYTES: usize = 60_000;
/// Its own side takes little without reading.
const DEAF: How = How { window_bytes: 64 * 1024, ..How::USUAL };

#[tokio::test]
async fn a_client_that_never_reads_is_closed_and_nobody_else_notices() {
    const TASKS: usize = 200;
    let broker = broker(|config| {
        config.limits.outgoing_soft_bytes = 1024 * 1024;
        config.limits.outgoing_hard_bytes = 4 * 1024 * 1024;
    })
    .await;
    let flow = Flow::start(&broker).await;
    let mut worker = RawPeer::worker(&broker, "w", "big", TASKS as u32).await;
    let mut client = RawPeer::connect_as(&broker, DEAF).await;
    client.open(crate::support::hello()).await;
    let mut routes = Vec::new();
    for _ in 0..TASKS {
        client.send(send(&unique("t"), "big"), "").await;
        routes.push(worker.receive_route().await.0);
    }
    // 12 MB of results for it, all at once.
    for route in &routes {
        worker.send(result(route), vec![1; BODY_BYTES]).await;
    }
    client.expect_closed(ErrorCode::SlowConsumer).await;
    worker.expect_alive().await;
    flow.finish().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_its_results_may_not_send_more_tasks() {
    const TASKS: u64 = 1000;
    let broker = broker(|config| config.limits.outgoing_soft_bytes = 1024 * 1024).await;
    let mut worker = RawPeer::worker(&broker, "w", "echo", 1).await;
    let echo = tokio::spawn(async move {
        loop {
            let (route, body) = worker.receive_route().await;
            worker.send(result(&route), body).await;
        }
    });
    let mut client = RawPeer::connect_as(&broker, DEAF).await;
    client.open(crate::support::hello()).await;

    // One after the other, so that only results add up. Read by the broker to the end, they would
    // be 60 MB for this client, and it would be closed.
    let mut sent = 0;
    while sent < TASKS {
        client.send(send(&unique("t"), "echo"), vec![1; BODY_BYTES]).await;
        sent += 1;
        let ended = until("its end", || broker.stats().ok == sent);
        if timeout(Duration::from_secs(2), ended).await.is_err() {
            break;
        }
    }
    assert!(sent < TASKS, "the broker went on reading");
    assert!(client.quic.close_reason().is_none());

    // It reads at last, and nothing was lost.
    for _ in 0..sent {
        let (deliver, body) = client.receive_deliver().await;
        assert_eq!((deliver.outcome, body.len()), (Outcome::Ok, BODY_BYTES));
    }
    echo.abort();
}

#[tokio::test]
async fn a_worker_may_be_behind_with_as_many_tasks_as_it_has_slots() {
    const SLOTS: u32 = 100;
    let broker = broker(|config| {
        config.limits.outgoing_soft_bytes = 1024 * 1024;
        config.limits.outgoing_hard_bytes = 1024 * 1024;
        config.limits.outgoing_bytes = 1024 * 1024;
    })
    .await;
    let mut worker = RawPeer::connect_as(&broker, DEAF).await;
    worker.open(crate::support::worker_hello("w", "big", SLOTS)).await;
    let mut client = RawPeer::client(&broker).await;
    // 6 MB for it, all at once.
    for _ in 0..SLOTS {
        client.send(send(&unique("t"), "big"), vec![1; BODY_BYTES]).await;
    }
    until("all to be routed", || broker.stats().running == u64::from(SLOTS)).await;
    for _ in 0..SLOTS {
        let (route, _) = worker.receive_route().await;
        worker.send(result(&route), "").await;
    }
    until("all to be done", || broker.stats().ok == u64::from(SLOTS)).await;
}
