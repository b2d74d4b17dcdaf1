//! The client against a broker that behaves as it should, and as it should not.

#![allow(clippy::unwrap_used, clippy::async_yields_async)]

mod support;

use std::time::Duration;

use bytes::Bytes;
use mcp_client::actions::ActionFilter;
use mcp_client::explain::Question;
use mcp_client::{
    ActionName, AgentFilter, CallError, Client, Decision, ErrorCode, ErrorInfo, Executed, Outcome,
    Retry, RulesFrom, TaskFilter, TaskHandle, TaskId, TaskStatus,
};
use mcp_proto::{Ack, Cancel, Limits, Message, TaskState};
use support::{FakeBroker, Peer, ack, close_code, deliver, soon};

async fn send(client: &Client, id: &str) -> TaskHandle {
    soon(client.task("upper").id(id).body("hello").send()).await.unwrap()
}

/// A task that was sent, as the broker has it.
async fn sent(client: &Client, peer: &mut Peer, id: &str) -> TaskHandle {
    let handle = send(client, id).await;
    assert_eq!(peer.recv_task().await.0.id.as_str(), id);
    handle
}

#[tokio::test]
async fn a_call_goes_there_and_back() {
    let broker = FakeBroker::start();
    let (client, mut peer) = broker.client().await;
    let call = client
        .task("upper")
        .body("hello")
        .ttl(Duration::from_secs(7))
        .content_type("text/plain")
        .label("gpu", "a100")
        .header("h", "v")
        .tenant("acme")
        .affinity_key("k")
        .traceparent("00-a-b-01")
        .retry(Retry { max_attempts: 7, ..Retry::default() })
        .attempt_timeout(Duration::from_micros(1_500))
        .cancel_on_disconnect(true)
        .explain(true)
        .call();
    let serve = async {
        let (task, ttl_ms, body) = peer.recv_task().await;
        assert_eq!(task.action.as_str(), "upper");
        assert!(ttl_ms > 6000 && ttl_ms <= 7000, "{ttl_ms}");
        assert_eq!(body, "hello");
        assert_eq!(task.content_type, "text/plain");
        assert_eq!(task.required_labels.0["gpu"], "a100");
        assert_eq!(task.headers["h"], "v");
        assert_eq!((&*task.tenant, &*task.affinity_key), ("acme", "k"));
        assert_eq!(task.traceparent, "00-a-b-01");
        assert_eq!(task.retry.map(|retry| retry.max_attempts), Some(7));
        assert_eq!((task.attempt_timeout_ms, task.cancel_on_disconnect), (2, true));
        assert!(task.explain);
        assert_eq!(task.id.as_str().len(), 36);
        peer.deliver_ok(&task.id, "HELLO").await;
    };
    let (reply, ()) = tokio::join!(soon(call), serve);
    let reply = reply.unwrap();
    assert_eq!(reply.body, "HELLO");
    assert_eq!(reply.content_type, "text/plain");
    assert_eq!(reply.trace.decode().total_us, 7);
    assert_eq!(client.pending(), 0);
}

#[tokio::test]
async fn many_tasks_are_in_flight_and_end_in_any_order() {
    const TASKS: usize = 1000;
    let broker = FakeBroker::start();
    let (client, mut peer) = broker.client().await;
    let mut handles = Vec::new();
    for number in 0..TASKS {
        handles.push(send(&client, &number.to_string()).await);
    }
    let mut ids = Vec::new();
    for _ in 0..TASKS {
        ids.push(peer.recv_task().await.0.id);
    }
    for id in ids.iter().rev() {
        peer.deliver_ok(id, id.as_str().to_owned()).await;
    }
    for (number, handle) in handles.into_iter().enumerate() {
        assert_eq!(soon(handle).await.body, number.to_string());
    }
}

#[tokio::test]
async fn each_outcome_is_an_error_of_its_kind() {
    let broker = FakeBroker::start();
    let (client, mut peer) = broker.client().await;
    let cases = [
        (Outcome::Failed, Executed::Yes, ErrorCode::HandlerFailed, false),
        (Outcome::Expired, Executed::Maybe, ErrorCode::Expired, false),
        (Outcome::Cancelled, Executed::No, ErrorCode::Cancelled, false),
        (Outcome::Rejected, Executed::No, ErrorCode::NoWorker, true),
        (Outcome::Rejected, Executed::No, ErrorCode::DurableUnavailable, false),
        (Outcome::Rejected, Executed::No, ErrorCode::Settled, false),
    ];
    for (outcome, executed, code, is_retryable) in cases {
        let serve = async {
            let (task, ..) = peer.recv_task().await;
            peer.send(deliver(&task.id, outcome, executed, Some(code)), "").await;
        };
        let (error, ()) = tokio::join!(soon(client.task("upper").call()), serve);
        let error = error.unwrap_err();
        assert_eq!(error.outcome(), Some(outcome));
        assert_eq!(error.executed(), executed);
        assert_eq!(error.code(), Some(code));
        assert_eq!(error.is_retryable(), is_retryable, "{error}");
        assert!(error.to_string().contains(code.name()), "{error}");
    }
}

#[tokio::test]
async fn what_is_not_valid_is_not_sent() {
    let broker = FakeBroker::start();
    let limits = Limits { max_input_bytes: 100_000, ..Limits::default() };
    let accept = async {
        let mut peer = broker.accept().await;
        peer.ack(Ack { limits, ..ack() }).await;
        peer
    };
    let (client, peer) = tokio::join!(Client::builder(broker.endpoint()).connect(), accept);
    let client = client.unwrap();
    let long = "x".repeat(1025);
    let invalid = [
        ("action", client.task("no such name")),
        ("task_id", client.task("upper").id("a b")),
        ("ttl", client.task("upper").ttl(Duration::ZERO)),
        ("ttl", client.task("upper").ttl(Duration::MAX)),
        ("tenant", client.task("upper").tenant(long.as_str())),
        (
            "retry.coefficient_percent",
            client.task("upper").retry(Retry { coefficient_percent: 50, ..Retry::default() }),
        ),
        ("attempt_timeout", client.task("upper").attempt_timeout(Duration::from_millis(3_600_001))),
        ("attempt_timeout", client.task("upper").attempt_timeout(Duration::MAX)),
        ("headers", client.task("upper").header("h", long)),
        ("headers", client.task("upper").header("", "v")),
        (
            "required_labels",
            (0..65).fold(client.task("upper"), |it, n| it.label(n.to_string(), "v")),
        ),
        (
            "task",
            (0..64).fold(client.task("upper"), |it, n| it.header(n.to_string(), "x".repeat(1024))),
        ),
    ];
    for (field, task) in invalid {
        match soon(task.call()).await.unwrap_err() {
            CallError::Invalid(invalid) => assert_eq!(invalid.field, field),
            other => panic!("{field}: {other:?}"),
        }
    }
    let error = soon(client.task("upper").body(vec![0; 100_001]).call()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::BodyTooLarge));
    assert_eq!((error.outcome(), error.executed()), (Some(Outcome::Rejected), Executed::No));
    let none = client.task("upper").input_file("/no/such/file");
    let error = soon(none.call()).await.unwrap_err();
    assert!(matches!(&error, CallError::Invalid(it) if it.field == "input"), "{error}");
    drop(client);
    let (end, others) = peer.until_closed().await;
    assert_eq!(close_code(&end), Some(0));
    assert!(others.is_empty(), "{others:?}");
}

#[tokio::test]
async fn a_dropped_future_cancels_its_task() {
    let broker = FakeBroker::start();
    let (client, mut peer) = broker.client().await;
    let handle = sent(&client, &mut peer, "dropped").await;
    drop(handle);
    let mut call = Box::pin(client.task("upper").id("call").call());
    tokio::select! {
        biased;
        _ = &mut call => unreachable!(),
        frame = peer.recv() => {
            let id = "dropped".try_into().unwrap();
            assert_eq!(frame.message, Message::Cancel(Cancel::Task(id)));
        }
    }
    assert_eq!(peer.recv_task().await.0.id.as_str(), "call");
    drop(call);
    let id = "call".try_into().unwrap();
    assert_eq!(peer.recv().await.message, Message::Cancel(Cancel::Task(id)));

    // A detached one is not; an explicit cancel is answered by the broker.
    sent(&client, &mut peer, "detached").await.detach();
    let mut handle = sent(&client, &mut peer, "cancelled").await;
    handle.cancel();
    let Message::Cancel(Cancel::Task(id)) = peer.recv().await.message else { panic!() };
    assert_eq!(id.as_str(), "cancelled");
    let code = Some(ErrorCode::Cancelled);
    peer.send(deliver(&id, Outcome::Cancelled, Executed::Maybe, code), "").await;
    assert_eq!(soon(handle.outcome()).await.outcome, Outcome::Cancelled);
}

#[tokio::test]
async fn after_a_broken_connection_tasks_are_asked_for() {
    let broker = FakeBroker::start();
    let (client, mut peer) = broker.client().await;
    let kept = sent(&client, &mut peer, "kept").await;
    let running = sent(&client, &mut peer, "running").await;
    peer.close(ErrorCode::Internal as u32);
    let mut peer = broker.accept().await;
    assert_eq!(peer.hello().session_id.as_ref().unwrap().as_str(), "session-1");
    let mut answer = ack();
    answer.resumed = true;
    peer.ack(answer).await;
    for _ in 0..2 {
        match peer.recv().await.message {
            Message::Fetch(id) if id.as_str() == "kept" => peer.deliver_ok(&id, "1").await,
            Message::Fetch(id) => {
                peer.send(Message::Status(id.clone(), TaskState::Running), "").await;
                peer.deliver_ok(&id, "2").await;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(soon(kept).await.body, "1");
    assert_eq!(soon(running).await.body, "2");
}

#[tokio::test]
async fn a_broker_that_forgot_gets_only_idempotent_tasks_again() {
    let broker = FakeBroker::start();
    let (client, mut peer) = broker.client().await;
    let once = sent(&client, &mut peer, "once").await;
    let any = client.task("upper").id("any").idempotent(true).body("hello").send().await.unwrap();
    peer.recv_task().await;
    peer.close(ErrorCode::Internal as u32);
    let mut peer = broker.accept().await;
    let mut answer = ack();
    answer.epoch = 2;
    peer.ack(answer).await;
    for _ in 0..2 {
        let Message::Fetch(id) = peer.recv().await.message else { panic!() };
        peer.send(Message::Status(id, TaskState::Unknown), "").await;
    }
    let end = soon(once).await;
    assert_eq!((end.outcome, end.executed), (Outcome::Lost, Executed::Maybe));
    assert_eq!(end.error.unwrap().code, ErrorCode::BrokerLost);
    let (task, _, body) = peer.recv_task().await;
    assert_eq!((task.id.as_str(), &*body), ("any", &b"hello"[..]));
    peer.deliver_ok(&task.id, "").await;
    assert_eq!(soon(any).await.outcome, Outcome::Ok);
}

#[tokio::test]
async fn a_broker_that_never_answers_does_not_hang_anything() {
    let broker = FakeBroker::start();
    let (client, _peer) = broker.client().await;
    let ttl = Duration::from_millis(100);
    let end = soon(client.task("upper").ttl(ttl).send().await.unwrap()).await;
    assert_eq!((end.outcome, end.executed), (Outcome::Lost, Executed::Maybe));
}

#[tokio::test]
async fn without_a_connection_a_task_waits_for_one_within_its_time() {
    let broker = FakeBroker::start();
    let (client, peer) = broker.client().await;
    peer.close(ErrorCode::Internal as u32);
    soon(async {
        while client.is_connected() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let ttl = Duration::from_millis(50);
    let late = client.task("upper").ttl(ttl).send().await.unwrap();
    let waiting = send(&client, "waiting").await;
    let end = soon(late).await;
    assert_eq!((end.outcome, end.executed), (Outcome::Expired, Executed::No));
    let mut peer = broker.accept_open().await;
    let (task, ..) = peer.recv_task().await;
    assert_eq!(task.id.as_str(), "waiting");
    peer.deliver_ok(&task.id, "").await;
    assert_eq!(soon(waiting).await.outcome, Outcome::Ok);
}

#[tokio::test]
async fn a_stopping_broker_refuses_and_the_next_one_takes_over() {
    let broker = FakeBroker::start();
    let (client, mut peer) = broker.client().await;
    let first = sent(&client, &mut peer, "first").await;
    let running = sent(&client, &mut peer, "running").await;
    peer.goaway(ErrorCode::ShuttingDown, true).await;
    let code = Some(ErrorCode::ShuttingDown);
    peer.send(deliver(first.id(), Outcome::Rejected, Executed::No, code), "").await;
    // The running one may end here; then nothing keeps the client.
    peer.deliver_ok(running.id(), "").await;
    assert_eq!(soon(running).await.outcome, Outcome::Ok);
    let (end, others) = peer.until_closed().await;
    assert_eq!(close_code(&end), Some(0));
    assert!(others.is_empty(), "{others:?}");
    let mut peer = broker.accept_open().await;
    let (task, ..) = peer.recv_task().await;
    assert_eq!(task.id.as_str(), "first");
    peer.deliver_ok(&task.id, "").await;
    assert_eq!(soon(first).await.outcome, Outcome::Ok);
}

#[tokio::test]
async fn a_replaced_session_does_not_come_back() {
    let broker = FakeBroker::start();
    let (client, mut peer) = broker.client().await;
    let handle = sent(&client, &mut peer, "t").await;
    peer.goaway(ErrorCode::Replaced, false).await;
    peer.close(ErrorCode::Replaced as u32);
    let end = soon(handle).await;
    assert_eq!((end.outcome, end.executed), (Outcome::Lost, Executed::Maybe));
    assert!(client.is_closed());
    let error = soon(client.task("upper").call()).await.unwrap_err();
    assert!(matches!(error, CallError::Connect(_)), "{error:?}");
    assert_eq!((error.code(), error.executed()), (Some(ErrorCode::Replaced), Executed::No));
}

#[tokio::test]
async fn a_client_that_is_refused_for_good_does_not_come_back() {
    let broker = FakeBroker::start();
    for code in [ErrorCode::UnsupportedVersion, ErrorCode::IdentityMismatch] {
        let (client, peer) = broker.client().await;
        let handle = send(&client, "t").await;
        peer.close(ErrorCode::Internal as u32);
        let mut peer = broker.accept().await;
        peer.send(Message::Error(Box::new(ErrorInfo::new(code, "for a test"))), "").await;
        assert_eq!(soon(handle).await.outcome, Outcome::Lost);
        let error = soon(client.task("upper").call()).await.unwrap_err();
        assert_eq!(error.code(), Some(code), "{error:?}");
    }
}

/// With one thread: a task that only spins would keep everything else from running.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_waits_for_room_on_a_connection_that_breaks_is_sent_on_the_next() {
    let broker = FakeBroker::start();
    let (client, peer) = broker.client().await;
    let big = |id: &str, ttl| client.task("upper").id(id).body(vec![7; 64 * 1024]).ttl(ttl).send();
    let mut handles = Vec::new();
    while let Ok(handle) = soon(big(&handles.len().to_string(), Duration::from_millis(300))).await {
        handles.push(handle);
    }
    let waiting = big("waiting", Duration::from_secs(60));
    let waiting = tokio::spawn(waiting);
    peer.close(ErrorCode::Internal as u32);
    let mut peer = broker.accept_open().await;
    let sent = async {
        loop {
            match peer.recv().await.message {
                Message::Send(sent) => return sent.task.decode().unwrap().id,
                // It found room before.
                Message::Fetch(id) if id.as_str() == "waiting" => return id,
                _ => {}
            }
        }
    };
    assert_eq!(soon(sent).await.as_str(), "waiting");
    soon(waiting).await.unwrap().unwrap().detach();
}

#[tokio::test]
async fn without_reconnecting_a_broken_connection_ends_everything() {
    let broker = FakeBroker::start();
    let connecting = Client::builder(broker.endpoint()).reconnect(false).connect();
    let (client, mut peer) = tokio::join!(connecting, broker.accept_open());
    let client = client.unwrap();
    let handle = sent(&client, &mut peer, "t").await;
    peer.close(ErrorCode::Internal as u32);
    assert_eq!(soon(handle).await.outcome, Outcome::Lost);
    let error = soon(client.task("upper").call()).await.unwrap_err();
    assert!(matches!(error, CallError::Connect(_)), "{error:?}");
}

#[tokio::test]
async fn the_sessions_limit_of_tasks_makes_the_next_one_wait() {
    let broker = FakeBroker::start();
    let connecting = Client::builder(broker.endpoint()).connect();
    let serve = async {
        let mut peer = broker.accept().await;
        let mut answer = ack();
        answer.limits.max_session_tasks = 1;
        peer.ack(answer).await;
        peer
    };
    let (client, mut peer) = tokio::join!(connecting, serve);
    let client = client.unwrap();
    let first = sent(&client, &mut peer, "first").await;
    let error = soon(client.task("upper").ttl(Duration::from_millis(50)).send()).await.unwrap_err();
    assert!(matches!(error, CallError::Expired(_)), "{error:?}");
    assert_eq!(error.executed(), Executed::No);
    let (second, end) = tokio::join!(send(&client, "second"), async {
        peer.deliver_ok(first.id(), "").await;
        soon(first).await
    });
    assert_eq!(end.outcome, Outcome::Ok);
    let (task, ..) = peer.recv_task().await;
    assert_eq!(task.id, *second.id());
}

#[tokio::test]
async fn a_broker_that_does_not_read_holds_up_sending_but_not_receiving() {
    let broker = FakeBroker::start();
    let (client, mut peer) = broker.client().await;
    let first = sent(&client, &mut peer, "first").await;
    let body = Bytes::from(vec![7; 64 * 1024]);
    let ttl = Duration::from_millis(300);
    let mut handles = Vec::new();
    let error = loop {
        match soon(client.task("upper").body(body.clone()).ttl(ttl).send()).await {
            Ok(handle) => handles.push(handle),
            Err(error) => break error,
        }
        assert!(handles.len() < 1000, "nothing holds it up");
    };
    assert!(matches!(error, CallError::Expired(_)), "{error:?}");
    assert_eq!(error.executed(), Executed::No);
    peer.deliver_ok(first.id(), "").await;
    assert_eq!(soon(first).await.outcome, Outcome::Ok);
    // When it reads again, everything comes.
    for _ in 0..handles.len() {
        peer.recv_task().await;
    }
}

#[tokio::test]
async fn closing_waits_until_what_was_sent_has_arrived() {
    let broker = FakeBroker::start();
    let (client, mut peer) = broker.client().await;
    let mut handles = Vec::new();
    for number in 0..100 {
        handles.push(send(&client, &number.to_string()).await);
    }
    let serve = async {
        for _ in 0..100 {
            peer.recv_task().await;
        }
        peer.until_closed().await
    };
    let ((), (end, others)) = tokio::join!(soon(client.close()), serve);
    assert_eq!(close_code(&end), Some(0));
    assert!(others.is_empty(), "{others:?}");
    for handle in handles {
        assert_eq!(soon(handle).await.outcome, Outcome::Lost);
    }
    let error = soon(client.task("upper").call()).await.unwrap_err();
    assert!(matches!(error, CallError::Connect(_)), "{error:?}");
}

#[tokio::test]
async fn the_last_one_to_go_closes_the_connection() {
    let broker = FakeBroker::start();
    let (client, mut peer) = broker.client().await;
    let clone = client.clone();
    drop(client);
    let handle = send(&clone, "t").await;
    drop(clone);
    // The handle keeps it.
    let (task, ..) = peer.recv_task().await;
    peer.deliver_ok(&task.id, "done").await;
    assert_eq!(soon(handle).await.body, "done");
    let (end, _) = peer.until_closed().await;
    assert_eq!(close_code(&end), Some(0));
}

#[tokio::test]
async fn closing_does_not_wait_for_a_broker_that_is_gone() {
    let broker = FakeBroker::start();
    let (client, peer) = broker.client().await;
    peer.close(ErrorCode::Internal as u32);
    drop(broker);
    soon(client.close()).await;
    assert!(client.is_closed());
}

/// Its silence would not be noticed for an hour, nor by QUIC within the time that this waits.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_host_of_a_killed_broker_tells_that_it_is_gone() {
    let broker = FakeBroker::start();
    let patient = Client::builder(broker.endpoint())
        .reconnect(false)
        .silence_timeout(Duration::from_secs(3600))
        .connect();
    let (client, mut peer) = tokio::join!(soon(patient), broker.accept_open());
    let client = client.unwrap();
    let handle = sent(&client, &mut peer, "t").await;
    broker.vanish();
    // What is sent now is refused by the host.
    let other = send(&client, "u").await;
    assert_eq!(soon(handle).await.outcome, Outcome::Lost);
    assert_eq!(soon(other).await.outcome, Outcome::Lost);
}

#[tokio::test]
async fn garbage_from_the_broker_is_answered_and_the_connection_made_again() {
    let broker = FakeBroker::start();
    let (client, mut peer) = broker.client().await;
    for (bytes, code) in [
        (&[0, 0, 0, 4, 0, 9, 1, 1][..], ErrorCode::Malformed),
        (&[0xff; 8][..], ErrorCode::FrameTooLarge),
        // A HELLO.
        (&[0, 0, 0, 4, 0, 2, 0x0a, 0][..], ErrorCode::InvalidMessage),
    ] {
        peer.send_bytes(bytes).await;
        let Message::Error(info) = peer.recv().await.message else { panic!() };
        assert_eq!(info.code, code);
        if code != ErrorCode::InvalidMessage {
            let (end, _) = peer.until_closed().await;
            assert_eq!(close_code(&end), Some(code as u64));
            peer = broker.accept_open().await;
        }
    }
    // Frames for others end the connection, too.
    peer.route(1, "upper", 1000, "").await;
    let Message::Error(info) = peer.recv().await.message else { panic!() };
    assert_eq!(info.code, ErrorCode::UnexpectedFrame);
    let mut peer = broker.accept_open().await;
    let handle = sent(&client, &mut peer, "t").await;
    peer.deliver_ok(handle.id(), "").await;
    assert_eq!(soon(handle).await.outcome, Outcome::Ok);
}

#[tokio::test]
async fn odd_frames_are_survived() {
    let broker = FakeBroker::start();
    let (client, mut peer) = broker.client().await;
    let handle = sent(&client, &mut peer, "t").await;
    // Kind 100; DELIVERs that nobody asked for; an ERROR; ACCEPTED; PING.
    peer.send_bytes(&[0, 0, 0, 5, 0, 3, 0xa2, 0x06, 0x00]).await;
    peer.deliver_ok(&"other".try_into().unwrap(), "").await;
    let info = ErrorInfo::new(ErrorCode::UnknownFrame, "for a test");
    peer.send(Message::Error(Box::new(info)), "").await;
    peer.send(Message::Accepted(handle.id().clone()), "").await;
    peer.send(Message::Ping(mcp_proto::Ping::probe(5)), "").await;
    let Message::Error(info) = peer.recv().await.message else { panic!() };
    assert_eq!(info.code, ErrorCode::UnknownFrame);
    assert_eq!(peer.recv().await.message, Message::Pong(5));
    // A result over the limit ends its task only.
    peer.deliver_ok(handle.id(), vec![0; 64 * 1024 + 1]).await;
    let end = soon(handle).await;
    assert_eq!((end.outcome, end.executed), (Outcome::Failed, Executed::Yes));
    assert_eq!(end.error.unwrap().code, ErrorCode::BodyTooLarge);
    assert!(client.is_connected());
}

#[tokio::test]
async fn a_silent_broker_is_asked_and_then_left() {
    let broker = FakeBroker::start();
    let connecting =
        Client::builder(broker.endpoint()).silence_timeout(Duration::from_millis(300)).connect();
    let (client, mut peer) = tokio::join!(connecting, broker.accept_open());
    let client = client.unwrap();
    let handle = sent(&client, &mut peer, "t").await;
    assert!(matches!(peer.recv().await.message, Message::Ping(_)));
    let end = peer.try_recv().await.unwrap_err();
    // Not an orderly end: the session shall live on.
    assert_eq!(close_code(&end), Some(ErrorCode::LeaseExpired as u64));
    let mut peer = broker.accept_open().await;
    let Message::Fetch(id) = peer.recv().await.message else { panic!() };
    peer.deliver_ok(&id, "").await;
    assert_eq!(soon(handle).await.outcome, Outcome::Ok);
}

#[tokio::test]
async fn when_its_runtime_ends_nothing_hangs() {
    let broker = FakeBroker::start();
    let endpoint = broker.endpoint();
    let other = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = Client::builder(endpoint).connect().await.unwrap();
            client.task("upper").send().await.unwrap()
        })
    });
    let _peer = broker.accept_open().await;
    let handle = tokio::task::spawn_blocking(|| other.join().unwrap()).await.unwrap();
    assert_eq!(soon(handle).await.outcome, Outcome::Lost);
}

#[tokio::test]
async fn agents_are_listed_shown_drained_and_resumed() {
    let broker = FakeBroker::start();
    let (client, mut peer) = broker.client().await;
    let agent = |name: &str| {
        format!(
            r#""node_id":"n-1","agent_id":"{name}","state":"ejected","presence":"online",
            "readiness":"ready","health":"breaker open",
            "unwell":[{{"action":"upper","health":"breaker open","for_ms":9}}],
            "actions":["upper"],"labels":{{"gpu":"a100"}},"slots":4,"in_flight":1,
            "last_seen_ms":12,"later":true"#
        )
    };
    let page = |name: &str, next: &str| {
        format!(r#"{{"agents":[{{{}}}],"next":{next},"matching":2,"total":3}}"#, agent(name))
    };
    let drained = r#"{"by":"ann","why":"disk","since_wall_ms":5}"#;
    let changed =
        |drained| format!(r#"{{"agent_id":"a","changed":true,"drained":{drained},"held":1}}"#);
    let shown = format!(
        r#"{{{},"sdk":"s","serves":[],"holds":[],"more_held":false,"recent":[],
        "more_recent":false,"outcomes":{{"ok":1}}}}"#,
        agent("a")
    );
    let serves = [
        ("list", r#"{"state":"online","text":"a","limit":1000}"#, page("a", r#""a""#)),
        ("list", r#"{"state":"online","text":"a","after":"a","limit":1000}"#, page("b", "null")),
        ("list", r#"{"limit":1}"#, page("a", r#""a""#)),
        ("show", r#"{"agent":"a"}"#, shown),
        ("drain", r#"{"agent":"a","why":"disk"}"#, changed(drained)),
        ("resume", r#"{"agent":"a"}"#, changed("null")),
        ("resume", r#"{"agent":"nobody"}"#, "null".to_owned()),
        ("list", "{}", "no json".to_owned()),
    ];
    let serve = async {
        for (action, arguments, answer) in serves {
            let (task, _, body) = peer.recv_task().await;
            assert_eq!(task.action.as_str(), format!("mcp.admin.agents.{action}"));
            assert_eq!(body, arguments);
            peer.deliver_ok(&task.id, answer).await;
        }
    };
    let calls = async {
        let filter = AgentFilter { text: "a".to_owned(), ..AgentFilter::online() };
        let all = client.all_agents(&filter).await.unwrap();
        let names: Vec<_> = all.agents.iter().map(|it| it.agent_id.as_str()).collect();
        assert_eq!((names, all.next, all.matching), (vec!["a", "b"], None, 2));
        let unwell = &all.agents[0].unwell[0];
        assert_eq!((unwell.health.as_str(), unwell.for_ms), ("breaker open", Some(9)));
        let one = AgentFilter { limit: Some(1), ..AgentFilter::default() };
        let one = client.all_agents(&one).await.unwrap();
        assert_eq!((one.agents.len(), one.next.unwrap().as_str()), (1, "a"));
        let shown = client.agent_info("a").await.unwrap().unwrap();
        assert_eq!((shown.agent, shown.sdk.as_deref()), (all.agents[0].clone(), Some("s")));
        let done = client.drain_agent("a", Some("disk")).await.unwrap().unwrap();
        assert_eq!((done.held, done.drained.unwrap().to_string()), (1, "by ann: disk".to_owned()));
        assert_eq!(client.resume_agent("a").await.unwrap().unwrap().drained, None);
        assert_eq!(client.resume_agent("nobody").await.unwrap(), None);
        let broken = client.agents(&AgentFilter::default()).await.unwrap_err();
        assert_eq!(broken.code(), Some(ErrorCode::InvalidMessage));
    };
    soon(async { tokio::join!(calls, serve) }).await;
}

#[tokio::test]
async fn tasks_are_listed_shown_and_cancelled() {
    let broker = FakeBroker::start();
    let (client, mut peer) = broker.client().await;
    let summary = r#""task_id":"t","identity":"anonymous","action":"upper","status":"failed",
        "priority":"high","age_ms":5,"status_ms":4,"attempts":1,"node_id":"n-1",
        "error_code":"WORKER_LOST","later":true"#;
    let info = format!(
        r#"{{{summary},"chunks":2,"executed":"maybe",
        "error":{{"code":"WORKER_LOST","message":"gone"}},
        "context_trace":{{"total_us":7,"queue_us":0,"truncated":false,"hops":[
        {{"node_id":"n-1","event":"worker_lost","attempt":1,"queue_us":1,"network_us":6,
        "worker_queue_us":0,"work_us":0,"policy":"p2c","candidates":2}},{{"event":"later"}}]}}}}"#
    );
    let expected = [
        ("list", r#"{"action":"upper","status":"failed","limit":7}"#),
        ("list", "{}"),
        ("show", r#"{"task_id":"t"}"#),
        ("show", r#"{"task_id":"t","identity":"alice"}"#),
        ("cancel", r#"{"task_id":"t"}"#),
    ];
    let answers = [
        format!(r#"{{"tasks":[{{{summary}}}],"more":true}}"#),
        r#"{"tasks":[],"more":false}"#.to_owned(),
        info,
        "null".to_owned(),
        r#"{"task_id":"t","cancelled":false,"status":"later"}"#.to_owned(),
    ];
    let serve = async {
        for ((action, arguments), answer) in expected.into_iter().zip(answers) {
            let (task, _, body) = peer.recv_task().await;
            assert_eq!(task.action.as_str(), format!("mcp.admin.tasks.{action}"));
            assert_eq!(body, arguments);
            peer.deliver_ok(&task.id, answer).await;
        }
    };
    let calls = async {
        let id = TaskId::try_from("t").unwrap();
        let filter = TaskFilter {
            action: Some("upper".try_into().unwrap()),
            status: Some(TaskStatus::Failed),
            limit: Some(7),
            ..TaskFilter::default()
        };
        let list = client.tasks(&filter).await.unwrap();
        assert!(list.more && list.tasks.len() == 1);
        assert_eq!(list.tasks[0].error_code, Some(ErrorCode::WorkerLost));
        assert!(client.tasks(&TaskFilter::default()).await.unwrap().tasks.is_empty());
        let info = client.task_info(&id, None).await.unwrap().unwrap();
        assert_eq!((&info.summary, info.chunks), (&list.tasks[0], 2));
        assert_eq!(info.error.unwrap().message, "gone");
        // A hop of a later version is left out.
        assert_eq!(info.context_trace.hops.len(), 1);
        assert_eq!(client.task_info(&id, Some("alice")).await.unwrap(), None);
        let done = client.cancel_task(&id, None).await.unwrap().unwrap();
        assert_eq!((done.cancelled, done.status), (false, TaskStatus::Unknown));
    };
    soon(async { tokio::join!(calls, serve) }).await;
}

#[tokio::test]
async fn actions_are_listed_shown_changed_and_explained() {
    let broker = FakeBroker::start();
    let (client, mut peer) = broker.client().await;
    let summary = r#""action":"upper","workers":3,"ready":2,"slots":8,"running":1,"queued":0,
        "delayed":0,"policy":"dice","rules_from":"moon","later":true"#;
    let expected = [
        ("actions.list", r#"{"prefix":"up","limit":7}"#),
        ("actions.show", r#"{"action":"upper"}"#),
        ("actions.show", r#"{"action":"upper"}"#),
        ("actions.set", r#"{"action":"upper","rules":{"policy":"dice"}}"#),
        ("actions.reset", r#"{"action":"upper"}"#),
        ("explain", r#"{"action":"upper","labels":{"gpu":"a100"}}"#),
    ];
    let queue = r#"{"required_labels":{},"queued":0,"workers":3,"ready":2,"with_room":1}"#;
    let rules = r#""action":"upper","rules":{"policy":"dice"}"#;
    let answers = [
        format!(r#"{{"actions":[{{{summary}}}],"more":true}}"#),
        format!(
            r#"{{{summary},"rules":{{"a":{{"b":1}}}},"queues":[{queue}],"more_queues":false}}"#
        ),
        "null".to_owned(),
        format!(r#"{{{rules},"rules_from":"operator","toml":"[actions]"}}"#),
        format!(r#"{{{rules},"rules_from":"file"}}"#),
        r#"{"decision":"wait","why":"w","error_code":"NO_WORKER"}"#.to_owned(),
    ];
    let serve = async {
        for ((action, arguments), answer) in expected.into_iter().zip(answers) {
            let (task, _, body) = peer.recv_task().await;
            assert_eq!(task.action.as_str(), format!("mcp.admin.{action}"));
            assert_eq!(body, arguments);
            peer.deliver_ok(&task.id, answer).await;
        }
    };
    let calls = async {
        let action = ActionName::try_from("upper").unwrap();
        let filter = ActionFilter { prefix: "up".to_owned(), limit: Some(7) };
        let list = client.actions(&filter).await.unwrap();
        assert!(list.more && list.actions[0].rules_from == RulesFrom::Unknown);
        let info = client.action_info(&action).await.unwrap().unwrap();
        assert_eq!((&info.summary, info.queues.len()), (&list.actions[0], 1));
        assert_eq!(info.rules["a"]["b"], 1);
        assert_eq!(client.action_info(&action).await.unwrap(), None);
        let rules = [("policy".to_owned(), "dice".into())].into_iter().collect();
        let changed = client.set_action_rules(&action, &rules).await.unwrap();
        assert_eq!((changed.rules, changed.toml.as_deref()), (rules, Some("[actions]")));
        let reset = client.reset_action_rules(&action).await.unwrap();
        assert_eq!((reset.rules_from, reset.toml), (RulesFrom::File, None));
        let mut question = Question::new(action);
        question.labels.insert("gpu".to_owned(), "a100".to_owned());
        let explanation = client.explain(&question).await.unwrap();
        assert_eq!(explanation.decision, Decision::Wait);
        assert_eq!(explanation.error_code, Some(ErrorCode::NoWorker));
    };
    soon(async { tokio::join!(calls, serve) }).await;
}
