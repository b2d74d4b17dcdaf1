//! Durable tasks, against a broker that accepts them, goes, and comes back; and outcomes asked for by
//! id.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, SystemTime};

use mcp_client::{Client, Delivery, ErrorCode, Executed, Fetched, Outcome, TaskBuilder, TaskId};
use mcp_proto::{Cancel, Message, TaskState};
use support::{FakeBroker, Peer, deliver, soon};

fn durable(client: &Client, id: &str) -> TaskBuilder {
    client.task("upper").id(id).body("hello").delivery(Delivery::Durable)
}

fn id(name: &str) -> TaskId {
    TaskId::try_from(name).unwrap()
}

/// The next frame, as "SEND t".
async fn recv(peer: &mut Peer) -> String {
    match peer.recv().await.message {
        Message::Send(send) => format!("SEND {}", send.task.decode().unwrap().id),
        Message::Fetch(id) => format!("FETCH {id}"),
        Message::Settle(id) => format!("SETTLE {id}"),
        Message::Cancel(Cancel::Task(id)) => format!("CANCEL {id}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn its_handle_tells_that_it_was_accepted_and_settles_it_at_its_end() {
    let broker = FakeBroker::start();
    let (client, mut peer) = broker.client().await;
    let mut handle = durable(&client, "t").send().await.unwrap();
    assert_eq!(recv(&mut peer).await, "SEND t");
    peer.send(Message::Accepted(id("t")), "").await;
    soon(handle.accepted()).await.unwrap();
    soon(handle.accepted()).await.unwrap();
    peer.deliver_ok(&id("t"), "HELLO").await;
    assert_eq!(soon(handle.outcome()).await.body, "HELLO");
    assert_eq!(recv(&mut peer).await, "SETTLE t");
    // What was pushed last has to arrive, too.
    let stay = durable(&client, "u").send().await.unwrap();
    assert_eq!(recv(&mut peer).await, "SEND u");
    peer.deliver_ok(&id("u"), "").await;
    soon(stay).await;
    let closing = tokio::spawn(async move { client.close().await });
    let (_, frames) = peer.until_closed().await;
    assert_eq!(frames, [Message::Settle(id("u"))]);
    soon(closing).await.unwrap();
}

#[tokio::test]
async fn an_end_that_came_instead_is_told_and_still_to_be_had() {
    let broker = FakeBroker::start();
    let (client, mut peer) = broker.client().await;
    let mut handle = durable(&client, "t").send().await.unwrap();
    recv(&mut peer).await;
    let code = Some(ErrorCode::DurableUnavailable);
    peer.send(deliver(&id("t"), Outcome::Rejected, Executed::No, code), "").await;
    let error = soon(handle.accepted()).await.unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), (code, false));
    assert_eq!(soon(handle).await.outcome, Outcome::Rejected);

    // One that the broker has the outcome of already.
    let mut handle = durable(&client, "u").send().await.unwrap();
    assert_eq!(recv(&mut peer).await, "SEND u", "what was refused is not settled");
    peer.deliver_ok(&id("u"), "").await;
    soon(handle.accepted()).await.unwrap();
    drop(handle);
    // Dropped before it was taken, it is kept.
    for (name, code, expected) in [
        ("v", ErrorCode::Degraded, "SETTLE v"),
        // Of another task with this id.
        ("w", ErrorCode::DuplicateMismatch, "SEND x"),
    ] {
        let mut handle = durable(&client, name).send().await.unwrap();
        assert_eq!(recv(&mut peer).await, format!("SEND {name}"));
        peer.send(Message::Accepted(id(name)), "").await;
        peer.send(deliver(&id(name), Outcome::Rejected, Executed::No, Some(code)), "").await;
        soon(handle.outcome()).await;
        if name == "w" {
            durable(&client, "x").send().await.unwrap().detach();
        }
        assert_eq!(recv(&mut peer).await, expected);
    }
}

#[tokio::test]
async fn it_is_sent_again_until_it_is_accepted_and_then_asked_for() {
    let broker = FakeBroker::start();
    let (client, mut peer) = broker.client().await;
    let mut handle = durable(&client, "t").send().await.unwrap();
    assert_eq!(recv(&mut peer).await, "SEND t");
    peer.close(14);
    let mut peer = broker.accept_open().await;
    assert_eq!(recv(&mut peer).await, "SEND t");
    peer.send(Message::Accepted(id("t")), "").await;
    soon(handle.accepted()).await.unwrap();
    peer.close(14);
    let mut peer = broker.accept_open().await;
    assert_eq!(recv(&mut peer).await, "FETCH t");
    // Another broker, or one that has lost its journal.
    peer.send(Message::Status(id("t"), TaskState::Unknown), "").await;
    assert_eq!(recv(&mut peer).await, "SEND t");
    peer.deliver_ok(&id("t"), "HELLO").await;
    assert_eq!(soon(handle).await.body, "HELLO");
    assert_eq!(recv(&mut peer).await, "SETTLE t");
}

#[tokio::test]
async fn dropped_it_goes_on_and_told_to_it_is_cancelled() {
    let broker = FakeBroker::start();
    let (client, mut peer) = broker.client().await;
    drop(durable(&client, "t").send().await.unwrap());
    let handle = durable(&client, "u").send().await.unwrap();
    handle.cancel();
    for expected in ["SEND t", "SEND u", "CANCEL u"] {
        assert_eq!(recv(&mut peer).await, expected);
    }
}

#[tokio::test]
async fn settled_manually_its_outcome_is_kept_until_then() {
    let broker = FakeBroker::start();
    let (client, mut peer) = broker.client().await;
    let call = durable(&client, "t").settle_manually().call();
    let serve = async {
        recv(&mut peer).await;
        peer.deliver_ok(&id("t"), "HELLO").await;
    };
    assert_eq!(tokio::join!(soon(call), serve).0.unwrap().body, "HELLO");
    peer.close(14);
    while client.is_connected() {
        tokio::task::yield_now().await;
    }
    client.settle(&id("t"));
    let mut peer = broker.accept_open().await;
    assert_eq!(recv(&mut peer).await, "SETTLE t");
}

#[tokio::test]
async fn another_process_asks_for_the_outcome_by_id() {
    let broker = FakeBroker::start();
    let (client, mut peer) = broker.client().await;
    let (t, asking) = (id("t"), client.clone());
    let waits = tokio::spawn(async move { asking.result(&t).await });
    assert_eq!(recv(&mut peer).await, "FETCH t");
    peer.send(Message::Status(id("t"), TaskState::Running), "").await;
    peer.close(14);
    let mut peer = broker.accept_open().await;
    assert_eq!(recv(&mut peer).await, "FETCH t");

    for (state, expected) in [
        (TaskState::Queued, Fetched::Queued),
        (TaskState::Running, Fetched::Running),
        (TaskState::Unknown, Fetched::Unknown),
    ] {
        let serve = async {
            assert_eq!(recv(&mut peer).await, "FETCH u");
            peer.send(Message::Status(id("u"), state), "").await;
        };
        let u = id("u");
        let (fetched, ()) = tokio::join!(soon(client.try_result(&u)), serve);
        assert_eq!(fetched.unwrap(), expected);
    }
    peer.deliver_ok(&id("t"), "HELLO").await;
    let end = soon(waits).await.unwrap().unwrap().unwrap();
    assert_eq!((end.outcome, &end.body[..]), (Outcome::Ok, &b"HELLO"[..]));
    client.settle(&id("t"));
    assert_eq!(recv(&mut peer).await, "SETTLE t");

    let serve = async {
        assert_eq!(recv(&mut peer).await, "FETCH v");
        peer.send(Message::Status(id("v"), TaskState::Unknown), "").await;
    };
    let v = id("v");
    assert_eq!(tokio::join!(soon(client.result(&v)), serve).0.unwrap(), None);
}

#[tokio::test]
async fn a_client_that_is_closed_answers_nobody() {
    let broker = FakeBroker::start();
    let (client, mut peer) = broker.client().await;
    let t = id("t");
    let asked = client.result(&t);
    let serve = async {
        recv(&mut peer).await;
        let closing = tokio::spawn(peer.until_closed());
        client.close().await;
        closing.await.unwrap();
    };
    assert!(tokio::join!(soon(asked), serve).0.is_err());
    assert!(client.try_result(&t).await.is_err());
}

#[tokio::test]
async fn a_delay_is_told_and_is_less_than_the_time_to_live() {
    let broker = FakeBroker::start();
    let (client, mut peer) = broker.client().await;
    let hour = Duration::from_secs(3600);
    let task = || client.task("upper");
    for (builder, delays_ms, ttl_ms) in [
        (task().delay(hour), 3_590_000..=3_600_000, 3_630_000),
        (
            task().not_before(SystemTime::now() + hour).ttl(2 * hour),
            3_590_000..=3_600_000,
            7_200_000,
        ),
        (task().not_before(SystemTime::now() - hour), 0..=0, 30_000),
        (task(), 0..=0, 30_000),
    ] {
        let handle = builder.send().await.unwrap();
        match peer.recv().await.message {
            Message::Send(send) => {
                assert!(delays_ms.contains(&send.delay_ms), "{}", send.delay_ms);
                assert!(send.ttl_ms <= ttl_ms && send.ttl_ms > ttl_ms - 10_000, "{}", send.ttl_ms);
            }
            other => panic!("{other:?}"),
        }
        handle.detach();
    }
    let error = task().delay(hour).ttl(hour).send().await.unwrap_err();
    assert!(error.to_string().contains("delay is 3600s"), "{error}");
}

#[tokio::test]
async fn its_input_goes_in_one_frame_or_not_at_all() {
    let broker = FakeBroker::start();
    let (client, mut peer) = broker.client().await;
    let parts = || futures_util::stream::iter([Ok::<_, String>("part")]);
    for builder in [
        durable(&client, "t").body(vec![7; 70_000]),
        durable(&client, "t").input(parts()),
        durable(&client, "t").input_reader(std::io::Cursor::new(vec![7; 70_000])),
    ] {
        let error = builder.send().await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::Unsupported), "{error}");
    }
    let read = durable(&client, "u").input_reader(std::io::Cursor::new(vec![7; 60_000]));
    read.send().await.unwrap().detach();
    assert_eq!(peer.recv_task().await.2.len(), 60_000);
    // Its result comes whole.
    let stream = durable(&client, "v").stream().await.unwrap();
    match peer.recv().await.message {
        Message::Send(send) => assert_eq!(send.stream_window_bytes, 0),
        other => panic!("{other:?}"),
    }
    peer.deliver_ok(&id("v"), "whole").await;
    assert_eq!(soon(stream.collect(100)).await.unwrap().body, "whole");
    assert_eq!(recv(&mut peer).await, "SETTLE v");
}
