//! A client with inputs that are longer than a body, against a broker that takes them as it should, and
//! as it should not.

#![allow(clippy::unwrap_used)]

mod support;

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use mcp_client::{Client, ErrorCode, Executed, Outcome, TaskHandle};
use mcp_proto::limits::{CHUNK_OVERHEAD_BYTES, INPUT_WINDOW_BYTES, MAX_BODY_BYTES};
use mcp_proto::{
    Cancel, Chunk, Credit, Frame, InputLength, Message, Send, Subject, TaskId, TaskState,
};
use support::{FakeBroker, Peer, soon};
use tokio::sync::mpsc;

/// Bytes that are all different from their neighbours.
fn bytes(count: usize) -> Bytes {
    (0..count).map(|at| (at % 251) as u8).collect::<Vec<_>>().into()
}

async fn recv_send(peer: &mut Peer) -> (TaskId, Option<InputLength>, Bytes) {
    match peer.recv().await {
        Frame { message: Message::Send(Send { task, input_follows, .. }), body } => {
            (task.decode().unwrap().id, input_follows, body)
        }
        other => panic!("{other:?}"),
    }
}

/// Chunks until `all` is as long as this, or the last one came.
async fn recv_chunks(peer: &mut Peer, next: &mut u32, all: &mut Vec<u8>, up_to: usize) -> bool {
    while all.len() < up_to {
        match peer.recv().await {
            Frame { message: Message::Chunk(Chunk { of, seq, gap: None, last }), body } => {
                assert!(matches!(of, Subject::Task(..)));
                assert_eq!(seq, *next);
                *next += 1;
                all.extend_from_slice(&body);
                if last {
                    return true;
                }
            }
            Frame { message: Message::Ping(ping), .. } => {
                peer.send(Message::Pong(ping.seq), "").await;
            }
            other => panic!("{other:?}"),
        }
    }
    false
}

async fn credit(peer: &mut Peer, id: &TaskId, next_seq: u32, limit_bytes: u64) {
    let of = Subject::Task(id.clone(), 0);
    peer.send(Message::Credit(Credit { of, next_seq, limit_bytes }), "").await;
}

/// What the chunks count that fit the first window, without it.
fn first_bytes() -> usize {
    INPUT_WINDOW_BYTES as usize - 4 * CHUNK_OVERHEAD_BYTES as usize
}

async fn send(client: &Client, body: Bytes, idempotent: bool) -> TaskHandle {
    soon(client.task("upper").body(body).idempotent(idempotent).send()).await.unwrap()
}

#[tokio::test]
async fn a_long_body_goes_in_chunks_as_there_is_credit() {
    let broker = FakeBroker::start();
    let (client, mut peer) = broker.client().await;
    let input = bytes(300_000);
    let handle = send(&client, input.clone(), false).await;
    let (id, length, body) = recv_send(&mut peer).await;
    assert_eq!((length, body.len()), (Some(InputLength::Bytes(300_000)), MAX_BODY_BYTES));
    let (mut next, mut all) = (0, body.to_vec());
    let first = MAX_BODY_BYTES + first_bytes();
    assert!(!recv_chunks(&mut peer, &mut next, &mut all, first).await);
    assert_eq!(all.len(), first);
    // Nothing else comes before there is credit: another task is sent, and is next.
    let other = soon(client.task("upper").send()).await.unwrap();
    let (other_id, length, _) = recv_send(&mut peer).await;
    assert_eq!(length, None);
    credit(&mut peer, &id, next, 1_000_000).await;
    assert!(recv_chunks(&mut peer, &mut next, &mut all, usize::MAX).await);
    assert_eq!(all, input);
    peer.deliver_ok(&id, "done").await;
    peer.deliver_ok(&other_id, "").await;
    assert_eq!(soon(handle).await.body, "done");
    soon(other).await;
}

#[tokio::test]
async fn a_stream_goes_as_it_comes_and_no_further_than_its_task() {
    let broker = FakeBroker::start();
    let (client, mut peer) = broker.client().await;
    let (parts, receiver) = mpsc::channel::<Result<Bytes, Infallible>>(1);
    let input =
        stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    let task = client.task("upper").body("once ").input(input);
    let handle = soon(task.send()).await.unwrap();
    let (id, length, body) = recv_send(&mut peer).await;
    assert_eq!((length, &body[..]), (Some(InputLength::Unknown), &b"once "[..]));
    let (mut next, mut all) = (0, Vec::new());
    for part in ["upon ", "", "a time"] {
        parts.send(Ok(part.into())).await.unwrap();
        let up_to = all.len() + part.len();
        recv_chunks(&mut peer, &mut next, &mut all, up_to).await;
    }
    assert_eq!(all, b"upon a time");
    // Its handler has heard enough: the stream is dropped.
    peer.deliver_ok(&id, "done").await;
    assert_eq!(soon(handle).await.outcome, Outcome::Ok);
    soon(parts.closed()).await;
}

#[tokio::test]
async fn a_dropped_handle_drops_the_stream_and_cancels() {
    let broker = FakeBroker::start();
    let (client, mut peer) = broker.client().await;
    let (parts, receiver) = mpsc::channel::<Result<Bytes, Infallible>>(1);
    let input =
        stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    let handle = soon(client.task("upper").input(input).send()).await.unwrap();
    let (id, ..) = recv_send(&mut peer).await;
    drop(handle);
    soon(parts.closed()).await;
    let message = peer.recv().await.message;
    assert_eq!(message, Message::Cancel(Cancel::Task(id)));
}

#[tokio::test]
async fn a_stream_that_fails_or_is_too_short_cancels_its_task_and_tells_why() {
    let broker = FakeBroker::start();
    let (client, mut peer) = broker.client().await;
    for (input, bytes, why) in [
        (vec![Ok(Bytes::from_static(b"part")), Err("no disk")], None, "no disk"),
        (vec![Ok(Bytes::from_static(b"part"))], Some(5), "ended"),
    ] {
        let task = client.task("upper").input(stream::iter(input));
        let task = bytes.into_iter().fold(task, |task, bytes| task.input_bytes(bytes));
        let handle = soon(task.send()).await.unwrap();
        let end = soon(handle).await;
        assert_eq!((end.outcome, end.executed), (Outcome::Cancelled, Executed::Maybe));
        let error = end.error.unwrap();
        assert!(error.code == ErrorCode::Cancelled && error.message.contains(why), "{error}");
        let (id, ..) = recv_send(&mut peer).await;
        let (mut next, mut all) = (0, Vec::new());
        recv_chunks(&mut peer, &mut next, &mut all, 4).await;
        assert_eq!(peer.recv().await.message, Message::Cancel(Cancel::Task(id)));
    }
}

/// A connected client with a long body on its way, of which a part has come and is told to have.
async fn on_its_way(broker: &FakeBroker, idempotent: bool) -> (Client, TaskHandle, TaskId, u32) {
    let (client, mut peer) = broker.client().await;
    let handle = send(&client, bytes(300_000), idempotent).await;
    let (id, ..) = recv_send(&mut peer).await;
    let (mut next, mut all) = (0, Vec::new());
    recv_chunks(&mut peer, &mut next, &mut all, first_bytes()).await;
    credit(&mut peer, &id, next, 150_000).await;
    recv_chunks(&mut peer, &mut next, &mut all, 100_000).await;
    peer.close(ErrorCode::Internal as u32);
    (client, handle, id, next)
}

#[tokio::test]
async fn after_a_break_it_goes_on_where_the_broker_says() {
    let broker = FakeBroker::start();
    let (_client, handle, id, came) = on_its_way(&broker, false).await;
    let mut peer = broker.accept_open().await;
    assert_eq!(peer.recv().await.message, Message::Fetch(id.clone()));
    peer.send(Message::Status(id.clone(), TaskState::Queued), "").await;
    // The last one did not arrive.
    credit(&mut peer, &id, came - 1, 1_000_000).await;
    let (mut next, mut rest) = (came - 1, Vec::new());
    assert!(recv_chunks(&mut peer, &mut next, &mut rest, usize::MAX).await);
    assert!(bytes(300_000).ends_with(&rest) && rest.len() < 300_000 - 100_000);
    peer.deliver_ok(&id, "done").await;
    assert_eq!(soon(handle).await.body, "done");
}

#[tokio::test]
async fn a_broker_that_forgot_gets_all_of_what_is_still_there() {
    let broker = FakeBroker::start();
    let (_client, handle, id, _) = on_its_way(&broker, true).await;
    let mut peer = broker.accept_open().await;
    assert_eq!(peer.recv().await.message, Message::Fetch(id.clone()));
    peer.send(Message::Status(id.clone(), TaskState::Unknown), "").await;
    let (again, _, body) = recv_send(&mut peer).await;
    assert_eq!(again, id);
    let (mut next, mut all) = (0, body.to_vec());
    recv_chunks(&mut peer, &mut next, &mut all, MAX_BODY_BYTES + first_bytes()).await;
    credit(&mut peer, &id, next, 1_000_000).await;
    assert!(recv_chunks(&mut peer, &mut next, &mut all, usize::MAX).await);
    assert_eq!(all, bytes(300_000));
    peer.deliver_ok(&id, "done").await;
    assert_eq!(soon(handle).await.body, "done");
}

#[tokio::test]
async fn a_stream_that_is_partly_forgotten_is_lost_with_its_broker() {
    let broker = FakeBroker::start();
    let (client, mut peer) = broker.client().await;
    let parts = [Ok::<_, Infallible>("once "), Ok("upon ")];
    let input = futures_util::StreamExt::chain(stream::iter(parts), stream::pending());
    let task = client.task("upper").idempotent(true).input(input);
    let handle = soon(task.send()).await.unwrap();
    let (id, ..) = recv_send(&mut peer).await;
    let (mut next, mut all) = (0, Vec::new());
    recv_chunks(&mut peer, &mut next, &mut all, 10).await;
    credit(&mut peer, &id, 1, 100_000).await;
    // Arrived, once this is answered.
    let agents = client.task("upper").call();
    let serve = async {
        let (id, ..) = recv_send(&mut peer).await;
        peer.deliver_ok(&id, "").await;
    };
    tokio::join!(async { soon(agents).await.unwrap() }, serve);
    peer.close(ErrorCode::Internal as u32);
    let mut peer = broker.accept_open().await;
    assert_eq!(peer.recv().await.message, Message::Fetch(id.clone()));
    peer.send(Message::Status(id.clone(), TaskState::Unknown), "").await;
    let end = soon(handle).await;
    assert_eq!((end.outcome, end.executed), (Outcome::Lost, Executed::Maybe));
    assert!(end.error.unwrap().message.contains("input"));
}
