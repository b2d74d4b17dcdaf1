//! The worker against a broker that behaves as it should, and as it should not.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::{Arc, Barrier};
use std::time::Duration;

use mcp_client::{
    EmitError, ErrorCode, Executed, HandlerError, Job, Outcome, Worker, WorkerExit, WorkerStatus,
};
use mcp_proto::{
    Ack, AttemptId, Cancel, CancelReason, Message, Readiness, Route, RoutesReceived, Subject, Task,
};
use support::{FakeBroker, Peer, ack, close_code, soon};
use tokio::sync::Semaphore;

const TTL_MS: u64 = 60_000;

/// A worker with one slot: `upper` answers, `gate` waits until `gate` has a permit, `panic` panics.
async fn start(broker: &FakeBroker, gate: &'static Semaphore) -> (Worker, Peer) {
    let starting = Worker::builder(broker.endpoint())
        .agent_id("agent")
        .handler("upper", |job: Job| async move {
            let text = String::from_utf8(job.body.to_vec())?;
            Ok::<_, HandlerError>(text.to_uppercase())
        })
        .handler("gate", move |job: Job| async move {
            gate.acquire().await?.forget();
            Ok::<_, HandlerError>(job.body)
        })
        .handler("panic", |_: Job| async { panic!("for a test") as Result<(), HandlerError> })
        .start();
    let (worker, peer) = tokio::join!(soon(starting), broker.accept_open());
    (worker.unwrap(), peer)
}

fn gate() -> &'static Semaphore {
    Box::leak(Box::new(Semaphore::new(0)))
}

async fn until_running(worker: &Worker) {
    soon(async {
        while worker.stats().running == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_not_valid_is_told_before_connecting() {
    let broker = FakeBroker::start();
    let builder = || {
        Worker::builder(broker.endpoint())
            .handler("a", |_: Job| async { Ok::<_, HandlerError>(()) })
    };
    for (named, worker) in [
        ("handlers", Worker::builder(broker.endpoint())),
        ("slots", builder().slots(0)),
        ("slots", builder().slots(4096).prefetch(1)),
        ("labels", builder().label("", "v")),
        ("labels", builder().label("k", "v".repeat(1025))),
        ("agent_id", builder().agent_id("a b")),
    ] {
        let error = soon(worker.start()).await.unwrap_err().to_string();
        assert!(error.starts_with(named), "{error}");
    }
}

#[tokio::test]
async fn it_registers_and_answers_each_attempt() {
    let broker = FakeBroker::start();
    let (worker, mut peer) = start(&broker, gate()).await;
    let hello = peer.hello().worker.clone().unwrap();
    assert_eq!((hello.agent_id.as_str(), hello.slots, hello.prefetch), ("agent", 1, 0));
    let actions: Vec<_> = hello.actions.iter().map(|it| it.as_str()).collect();
    assert_eq!(actions, ["gate", "panic", "upper"]);
    assert_eq!(worker.node_id().as_str(), "node-1");

    peer.route(1, "upper", TTL_MS, "hello").await;
    let (result, body) = peer.recv_result().await;
    assert_eq!(
        (result.attempt_id, result.outcome, &body[..]),
        (AttemptId(1), Outcome::Ok, &b"HELLO"[..])
    );
    peer.route(2, "panic", TTL_MS, "").await;
    let (result, _) = peer.recv_result().await;
    assert_eq!(
        (result.outcome, result.error.unwrap().code),
        (Outcome::Failed, ErrorCode::HandlerPanic)
    );
    peer.route(3, "unknown", TTL_MS, "").await;
    let Message::Nack(nack) = peer.recv().await.message else { panic!() };
    assert_eq!(nack.error.unwrap().code, ErrorCode::UnknownAction);
    peer.route(4, "gate", TTL_MS, "").await;
    until_running(&worker).await;
    peer.route(5, "upper", TTL_MS, "").await;
    let Message::Nack(nack) = peer.recv().await.message else { panic!() };
    assert_eq!(nack.error.unwrap().code, ErrorCode::AllBusy);
    let cancel = Cancel::Attempt(AttemptId(4), CancelReason::Client);
    peer.send(Message::Cancel(cancel), "").await;
    let (result, _) = peer.recv_result().await;
    assert_eq!((result.outcome, result.executed), (Outcome::Cancelled, Executed::Yes));
    // At its deadline it stops by itself.
    peer.route(6, "gate", 20, "").await;
    assert_eq!(peer.recv_result().await.0.outcome, Outcome::Expired);
}

/// Also from a thread of its own, as where a handler has blocking work.
#[tokio::test]
async fn a_handler_tells_how_far_it_is() {
    let broker = FakeBroker::start();
    let starting = Worker::builder(broker.endpoint())
        .handler("work", |job: Job| async move {
            job.progress(f32::NAN, "is not sent");
            job.progress(0.25, "a");
            let work = move || {
                job.progress(7.0, "all");
                job.refresh();
                job.body
            };
            Ok::<_, HandlerError>(tokio::task::spawn_blocking(work).await?)
        })
        .handler("busy", |_: Job| async {
            Err::<(), _>(HandlerError::busy("warming up", Duration::from_secs(2)))
        })
        .handler("never", |_: Job| async { Err::<(), _>(HandlerError::permanent("no")) })
        .start();
    let (worker, mut peer) = tokio::join!(soon(starting), broker.accept_open());
    let _worker = worker.unwrap();

    peer.route_task(1, |task| task.attempt_timeout_ms = 5_000, "work").await;
    assert_eq!(peer.recv().await.message, Message::Started(AttemptId(1)));
    let Message::Progress(first) = peer.recv().await.message else { panic!() };
    assert_eq!((first.of, first.permille), (Subject::Attempt(AttemptId(1)), Some(250)));
    assert_eq!(first.message, "a");
    // The second may be sent before the result, or be too late.
    let result = loop {
        match peer.recv().await.message {
            Message::Progress(progress) => assert_eq!(progress.permille, Some(1000)),
            Message::Result(result) => break result,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(result.outcome, Outcome::Ok);

    peer.route(2, "busy", TTL_MS, "").await;
    let Message::Nack(nack) = peer.recv().await.message else { panic!() };
    let error = nack.error.unwrap();
    assert_eq!((error.code, error.retry_after_ms), (ErrorCode::AllBusy, Some(2_000)));
    peer.route(3, "never", TTL_MS, "").await;
    let (result, _) = peer.recv_result().await;
    assert_eq!((result.outcome, result.permanent), (Outcome::Failed, true));
}

#[tokio::test]
async fn over_a_broken_connection_it_goes_on_and_tells_what_was_not_confirmed() {
    let broker = FakeBroker::start();
    let gate = gate();
    let (worker, mut peer) = start(&broker, gate).await;
    let mut status = worker.status();
    assert_eq!(*status.borrow_and_update(), WorkerStatus::Connected);
    peer.route(1, "upper", TTL_MS, "hello").await;
    peer.recv_result().await;
    peer.route(2, "gate", TTL_MS, "two").await;
    until_running(&worker).await;
    peer.close(ErrorCode::Internal as u32);
    soon(status.wait_for(|it| *it == WorkerStatus::Disconnected)).await.unwrap();

    let mut peer = broker.accept().await;
    let hello = peer.hello().worker.clone().unwrap();
    let mut held: Vec<_> = hello.held.iter().map(|id| id.0).collect();
    held.sort_unstable();
    assert_eq!(held, [1, 2]);
    let mut answer = ack();
    let Ack { epoch, generation, .. } = answer;
    assert_eq!(hello.received, Some(RoutesReceived { epoch, generation, routes: 2 }));
    answer.keep = hello.held;
    peer.ack(answer).await;
    let (result, body) = peer.recv_result().await;
    assert_eq!((result.attempt_id.0, &body[..]), (1, &b"HELLO"[..]));
    gate.add_permits(1);
    let (result, body) = peer.recv_result().await;
    assert_eq!((result.attempt_id.0, &body[..]), (2, &b"two"[..]));
    assert_eq!(*status.borrow_and_update(), WorkerStatus::Connected);
}

#[tokio::test]
async fn drained_it_finishes_what_it_holds_and_hands_the_rest_back() {
    let broker = FakeBroker::start();
    let gate = gate();
    let (worker, mut peer) = start(&broker, gate).await;
    peer.route(1, "gate", TTL_MS, "one").await;
    until_running(&worker).await;
    let serve = async {
        let report = peer.recv_report().await;
        assert_eq!(report.readiness, Some(Readiness::Draining));
        assert_eq!(report.held, [AttemptId(1)]);
        // On its way before the broker knew.
        peer.route(2, "upper", TTL_MS, "").await;
        let Message::Nack(nack) = peer.recv().await.message else { panic!() };
        assert_eq!((nack.attempt_id.0, nack.error.unwrap().code), (2, ErrorCode::ShuttingDown));
        gate.add_permits(1);
        assert_eq!(peer.recv_result().await.0.outcome, Outcome::Ok);
        peer.until_closed().await
    };
    let (exit, (end, others)) = tokio::join!(soon(worker.drain(Duration::from_secs(60))), serve);
    assert_eq!((exit, close_code(&end)), (WorkerExit::Drained, Some(0)));
    assert!(others.is_empty(), "{others:?}");
    assert_eq!(*worker.status().borrow(), WorkerStatus::Stopped(WorkerExit::Drained));
}

#[tokio::test]
async fn an_idle_worker_leaves_only_when_the_broker_knows_that_it_takes_nothing_more() {
    let broker = FakeBroker::start();
    let (worker, mut peer) = start(&broker, gate()).await;
    let serve = async {
        let Message::Ping(report) = peer.recv().await.message else { panic!() };
        assert_eq!(report.readiness, Some(Readiness::Draining));
        peer.route(1, "upper", TTL_MS, "").await;
        peer.send(Message::Pong(report.seq), "").await;
        let (end, others) = peer.until_closed().await;
        assert!(
            matches!(&others[..], [Message::Nack(nack)] if nack.attempt_id.0 == 1),
            "{others:?}"
        );
        end
    };
    let (exit, end) = tokio::join!(soon(worker.drain(Duration::from_secs(60))), serve);
    assert_eq!((exit, close_code(&end)), (WorkerExit::Drained, Some(0)));
}

#[tokio::test]
async fn dropped_it_stops_its_handlers_and_gives_their_attempts_up() {
    let broker = FakeBroker::start();
    let (worker, mut peer) = start(&broker, gate()).await;
    peer.route(1, "gate", TTL_MS, "").await;
    until_running(&worker).await;
    drop(worker);
    peer.recv_report().await;
    let (result, _) = peer.recv_result().await;
    assert_eq!(
        (result.outcome, result.error.unwrap().code),
        (Outcome::Cancelled, ErrorCode::ShuttingDown)
    );
    let (end, _) = peer.until_closed().await;
    assert_eq!(close_code(&end), Some(0));
}

#[tokio::test]
async fn what_the_broker_gave_to_others_is_stopped() {
    let broker = FakeBroker::start();
    let (worker, mut peer) = start(&broker, gate()).await;
    peer.route(1, "gate", TTL_MS, "").await;
    until_running(&worker).await;
    peer.close(ErrorCode::Internal as u32);
    let mut peer = broker.accept_open().await;
    // Its slot is free again, and nobody hears of the first.
    soon(async {
        while worker.stats().running > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    peer.route(2, "upper", TTL_MS, "a").await;
    assert_eq!(peer.recv_result().await.0.attempt_id.0, 2);
    assert_eq!(worker.stats().abandoned, 1);
}

#[tokio::test]
async fn replaced_or_refused_it_does_not_come_back() {
    let broker = FakeBroker::start();
    let (worker, mut peer) = start(&broker, gate()).await;
    peer.route(1, "gate", TTL_MS, "").await;
    until_running(&worker).await;
    peer.goaway(ErrorCode::Replaced, false).await;
    peer.close(ErrorCode::Replaced as u32);
    assert_eq!(soon(worker.closed()).await, WorkerExit::Replaced);

    let (worker, peer) = start(&broker, gate()).await;
    peer.close(ErrorCode::IdentityMismatch as u32);
    let WorkerExit::Refused(info) = soon(worker.closed()).await else { panic!() };
    assert_eq!(info.code, ErrorCode::IdentityMismatch);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_several_threads_handlers_that_block_theirs_run_in_parallel() {
    let broker = FakeBroker::start();
    let both = Arc::new(Barrier::new(2));
    let starting = Worker::builder(broker.endpoint())
        .slots(2)
        .handler("meet", move |_: Job| {
            let both = both.clone();
            async move {
                both.wait();
                Ok::<_, HandlerError>("met")
            }
        })
        .handler("panic", |_: Job| async { panic!("for a test") as Result<(), HandlerError> })
        .start();
    let (worker, mut peer) = tokio::join!(soon(starting), broker.accept_open());
    let _worker = worker.unwrap();
    for id in 1..=2 {
        peer.route(id, "meet", TTL_MS, "").await;
    }
    for _ in 1..=2 {
        assert_eq!(peer.recv_result().await.0.outcome, Outcome::Ok);
    }
    peer.route(3, "panic", TTL_MS, "").await;
    let (result, _) = peer.recv_result().await;
    assert_eq!(result.error.unwrap().code, ErrorCode::HandlerPanic);
}

#[tokio::test]
async fn with_one_thread_handlers_that_block_it_all_have_their_turn() {
    const TASKS: u64 = 20;
    let broker = FakeBroker::start();
    let starting = Worker::builder(broker.endpoint())
        .slots(TASKS as u32 / 2)
        .prefetch(TASKS as u32 / 2)
        .handler("block", |_: Job| async {
            // Longer than handlers may take in place.
            std::thread::sleep(Duration::from_millis(2));
            Ok::<_, HandlerError>(())
        })
        .start();
    let (worker, mut peer) = tokio::join!(soon(starting), broker.accept_open());
    let _worker = worker.unwrap();
    for id in 1..=TASKS {
        peer.route(id, "block", TTL_MS, "").await;
    }
    let mut ended = std::collections::BTreeSet::new();
    while ended.len() < TASKS as usize {
        let (result, _) = peer.recv_result().await;
        assert_eq!(result.outcome, Outcome::Ok);
        assert!(ended.insert(result.attempt_id));
    }
}

#[tokio::test]
async fn what_a_handler_left_behind_does_not_wait_for_credit_for_ever() {
    let broker = FakeBroker::start();
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let gate = gate();
    let starting = Worker::builder(broker.endpoint())
        .handler("leave", move |job: Job| {
            let tell = tell.clone();
            async move {
                let emitting = job.clone();
                tokio::spawn(async move { tell.send(emitting.emit("12345678").await).await });
                gate.acquire().await?.forget();
                Ok::<_, HandlerError>(())
            }
        })
        .start();
    let (worker, mut peer) = tokio::join!(soon(starting), broker.accept_open());
    let _worker = worker.unwrap();
    let task = Task::new("t".try_into().unwrap(), "leave".try_into().unwrap()).encode();
    // Room for half of it.
    let (attempt_id, stream_window_bytes) = (AttemptId(1), 64 + 4);
    let route = Route {
        attempt_id,
        attempt: 1,
        ttl_ms: TTL_MS,
        task,
        stream_window_bytes,
        input_follows: None,
        span_id: None,
    };
    peer.send(Message::Route(route), "").await;
    assert_eq!(peer.recv().await.body, "1234");
    gate.add_permits(1);
    assert_eq!(peer.recv_result().await.0.chunks, 1);
    assert_eq!(soon(told.recv()).await, Some(Err(EmitError::Over)));
}
