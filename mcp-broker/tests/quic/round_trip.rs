//! A task's way, by hand.

use mcp_proto::{Cancel, CancelReason, Executed, HopEvent, Message, Outcome, TaskResult};

use crate::support::{RawPeer, broker, hello, result, send, until, worker_hello};

#[tokio::test]
async fn a_task_goes_to_a_worker_and_its_result_comes_back() {
    let broker = broker(|_| {}).await;
    let mut worker = RawPeer::connect(&broker).await;
    let ack = worker.open(worker_hello("upper-1", "upper", 1)).await;
    assert!(ack.node_id.is_some() && ack.lease_ms == 30_000 && ack.ping_interval_ms == 10_000);
    let mut client = RawPeer::connect(&broker).await;
    let ack = client.open(hello()).await;
    assert!(ack.session_id.is_some() && !ack.resumed);

    client.send(send("t-1", "upper"), "hello").await;
    let (route, body) = worker.receive_route().await;
    assert_eq!(body, "hello");
    assert_eq!(route.attempt, 1);
    assert!((1..=30_000).contains(&route.ttl_ms));
    let task = route.task.decode().unwrap();
    assert_eq!((task.id.as_str(), task.action.as_str()), ("t-1", "upper"));

    worker.send(result(&route), "HELLO").await;
    let (deliver, body) = client.receive_deliver().await;
    assert_eq!(body, "HELLO");
    assert_eq!((deliver.outcome, deliver.executed), (Outcome::Ok, Executed::Yes));
    assert_eq!(deliver.content_type, "text/plain");
    let trace = deliver.trace.decode();
    let [hop] = &trace.hops[..] else { panic!("{trace:?}") };
    assert_eq!((hop.event, hop.worker_queue_us, hop.work_us), (HopEvent::Completed, 1, 2));

    let stats = broker.stats();
    assert_eq!((stats.accepted, stats.ok, stats.in_flight), (1, 1, 0));
    let agents = broker.agents(false);
    assert_eq!(agents.len(), 1);
    assert_eq!((agents[0].agent_id.as_str(), agents[0].presence), ("upper-1", "online"));
    broker.shutdown().await;
}

#[tokio::test]
async fn a_running_task_is_cancelled_at_its_worker() {
    let broker = broker(|_| {}).await;
    let mut worker = RawPeer::worker(&broker, "w", "slow", 1).await;
    let mut client = RawPeer::client(&broker).await;
    client.send(send("t-1", "slow"), "").await;
    let (route, _) = worker.receive_route().await;
    let id = route.task.decode().unwrap().id;
    client.send(Message::Cancel(Cancel::Task(id)), "").await;
    let (deliver, _) = client.receive_deliver().await;
    assert_eq!((deliver.outcome, deliver.executed), (Outcome::Cancelled, Executed::Maybe));
    assert_eq!(
        worker.receive().await.message,
        Message::Cancel(Cancel::Attempt(route.attempt_id, CancelReason::Client))
    );
    // The slot is free once the worker says so.
    assert_eq!(broker.stats().in_flight, 1);
    let Message::Result(done) = result(&route) else { unreachable!() };
    let confirmed = TaskResult { outcome: Outcome::Cancelled, ..done };
    worker.send(Message::Result(confirmed), "").await;
    until("the slot to be free", || broker.stats().in_flight == 0).await;
}

#[tokio::test]
async fn the_largest_body_and_many_small_ones_share_a_lane() {
    const TASKS: usize = 200;
    let broker = broker(|_| {}).await;
    let mut worker = RawPeer::worker(&broker, "w", "echo", 512).await;
    let mut client = RawPeer::client(&broker).await;
    let body = |n: usize| vec![n as u8; if n.is_multiple_of(10) { 64 * 1024 } else { n }];
    let sender = async {
        for n in 0..TASKS {
            client.send(send(&format!("{n}"), "echo"), body(n)).await;
        }
        let mut seen = [false; TASKS];
        for _ in 0..TASKS {
            let (deliver, got) = client.receive_deliver().await;
            let n: usize = deliver.task_id.as_str().parse().unwrap();
            assert_eq!((deliver.outcome, &got[..]), (Outcome::Ok, &body(n)[..]));
            assert!(!std::mem::replace(&mut seen[n], true), "{n} was delivered twice");
        }
    };
    let echo = async {
        for _ in 0..TASKS {
            let (route, body) = worker.receive_route().await;
            worker.send(result(&route), body).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! { () = sender => {}, () = echo => {} }
}

#[tokio::test]
async fn a_connection_closed_with_code_0_is_an_orderly_end() {
    let broker = broker(|_| {}).await;
    let worker = RawPeer::worker(&broker, "w", "echo", 1).await;
    until("the agent", || broker.agents(true).len() == 1).await;
    worker.close();
    // Not even as a lost one, which it would be for the lease.
    until("the agent to be gone", || broker.agents(true).is_empty()).await;
    assert_eq!(broker.stats().agents_lost, 0);
}

#[tokio::test]
async fn a_connection_closed_with_another_code_leaves_a_lost_agent() {
    let broker = broker(|_| {}).await;
    let worker = RawPeer::worker(&broker, "w", "echo", 1).await;
    worker.quic.close(quinn::VarInt::from_u32(14), b"crashed");
    until("the agent to be lost", || broker.stats().agents_lost == 1).await;
    assert!(broker.agents(false).is_empty());
}

#[tokio::test]
async fn who_ends_its_half_of_the_lane_still_gets_its_results() {
    let broker = broker(|_| {}).await;
    let mut worker = RawPeer::worker(&broker, "w", "echo", 1).await;
    let mut client = RawPeer::client(&broker).await;
    client.send(send("t-1", "echo"), "").await;
    client.lane.finish().unwrap();
    let (route, _) = worker.receive_route().await;
    worker.send(result(&route), "late").await;
    assert_eq!(client.receive_deliver().await.1, "late");
}
