//! Peers that do not read.

use mcp_broker::Broker;
use mcp_proto::{Cancel, ErrorCode, Message, Outcome};
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

/// A broker under which 100 tasks are 6 MB for a worker, of which 1 MB may wait for any peer, and so many
/// bytes for all.
async fn strict(outgoing_bytes: usize) -> Broker {
    broker(|config| {
        config.limits.outgoing_soft_bytes = 1024 * 1024;
        config.limits.outgoing_hard_bytes = 1024 * 1024;
        config.limits.outgoing_bytes = outgoing_bytes;
    })
    .await
}

const SLOTS: u32 = 100;

/// A worker that reads nothing by itself, and a client that sent it as many tasks as it has slots.
async fn behind(broker: &Broker) -> (RawPeer, RawPeer, Vec<Message>) {
    let mut worker = RawPeer::connect_as(broker, DEAF).await;
    worker.open(crate::support::worker_hello("w", "big", SLOTS + 1)).await;
    let mut client = RawPeer::client(broker).await;
    let tasks: Vec<_> = (0..SLOTS).map(|_| unique("t")).collect();
    for task in &tasks {
        client.send(send(task, "big"), vec![1; BODY_BYTES]).await;
    }
    let cancel = |task: &String| Message::Cancel(Cancel::Task(task.as_str().try_into().unwrap()));
    let cancels = tasks.iter().map(cancel).collect();
    (worker, client, cancels)
}

#[tokio::test]
async fn a_worker_may_be_behind_with_as_many_tasks_as_it_has_slots() {
    let broker = strict(64 * 1024 * 1024).await;
    let (mut worker, _client, _) = behind(&broker).await;
    until("all to be routed", || broker.stats().running == u64::from(SLOTS)).await;
    for _ in 0..SLOTS {
        let (route, _) = worker.receive_route().await;
        worker.send(result(&route), "").await;
    }
    until("all to be done", || broker.stats().ok == u64::from(SLOTS)).await;
}

#[tokio::test]
async fn a_worker_that_is_behind_with_more_than_its_part_is_closed() {
    // An eighth is less than what waits.
    let broker = strict(16 * 1024 * 1024).await;
    let (worker, _client, _) = behind(&broker).await;
    worker.expect_closed(ErrorCode::SlowConsumer).await;
}

#[tokio::test]
async fn a_worker_that_reads_nothing_is_closed_once_its_tasks_are_over() {
    let broker = strict(64 * 1024 * 1024).await;
    let (worker, mut client, cancels) = behind(&broker).await;
    until("all to be routed", || broker.stats().running == u64::from(SLOTS)).await;
    for cancel in cancels {
        client.send(cancel, "").await;
    }
    // What waits for it is nobody's any more, and one more frame has it looked at.
    until("all to be over", || broker.stats().cancelled == u64::from(SLOTS)).await;
    client.send(send(&unique("t"), "big"), "").await;
    worker.expect_closed(ErrorCode::SlowConsumer).await;
}
