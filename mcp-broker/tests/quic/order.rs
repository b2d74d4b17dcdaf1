//! The core's order is the order on every wire, whichever connection's reader wrote the frames.

use std::collections::HashSet;

use bytes::BytesMut;
use mcp_proto::{Cancel, Frame, FrameCodec, Message, Outcome, TaskId};

use crate::support::{RawPeer, broker, result, send, within};

const CLIENTS: usize = 3;
const ROUNDS: usize = 40;
const TASKS: usize = 64;
const SLOTS: u32 = 32;
/// Makes what one batch of results sets off take long, compared with what a CANCEL does.
const BODY_BYTES: usize = 7000;

/// A task's ROUTE is written by the worker's own reader, when a slot becomes free, and its CANCEL
/// by its client's reader, at about the same time on another thread. The worker must see them in
/// this order, and no ROUTE twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cancel_never_overtakes_its_route() {
    let broker = broker(|_| {}).await;
    let mut worker = RawPeer::worker(&broker, "w", "a", SLOTS).await;
    let mut clients = Vec::new();
    for n in 0..CLIENTS {
        let client = RawPeer::client(&broker).await;
        clients.push(tokio::spawn(call(n, client)));
    }
    let serve = async {
        let mut seen = HashSet::new();
        let mut results = BytesMut::new();
        loop {
            match worker.receive().await.message {
                Message::Route(route) => {
                    assert!(seen.insert(route.attempt_id), "a ROUTE came twice");
                    let body = vec![0; BODY_BYTES].into();
                    FrameCodec::encode(&Frame { message: result(&route), body }, &mut results);
                    // Many slots become free at once, and many tasks take them.
                    if seen.len() % SLOTS as usize / 2 == 0 {
                        worker.send_bytes(&results.split()).await;
                    }
                }
                Message::Cancel(Cancel::Attempt(id, _)) => {
                    assert!(seen.contains(&id), "a CANCEL came before its ROUTE");
                }
                other => panic!("{other:?}"),
            }
        }
    };
    let calls = async {
        let mut cancelled = 0;
        for client in clients {
            cancelled += within("a client", client).await.unwrap();
        }
        assert!(cancelled > 0, "no task was cancelled, so nothing was tried");
    };
    tokio::select! { () = serve => {}, () = calls => {} }
}

/// Sends tasks, cancels them, and counts those for which that was in time.
async fn call(n: usize, mut client: RawPeer) -> usize {
    let mut cancelled = 0;
    for round in 0..ROUNDS {
        let ids: Vec<_> = (0..TASKS).map(|task| format!("{n}-{round}-{task}")).collect();
        for id in &ids {
            client.send(send(id, "a"), vec![0; BODY_BYTES]).await;
        }
        for id in &ids {
            let id = TaskId::try_from(id.as_str()).unwrap();
            client.send(Message::Cancel(Cancel::Task(id)), "").await;
        }
        for _ in &ids {
            match client.receive_deliver().await.0.outcome {
                Outcome::Ok => {}
                Outcome::Cancelled => cancelled += 1,
                other => panic!("{other}"),
            }
        }
    }
    cancelled
}
