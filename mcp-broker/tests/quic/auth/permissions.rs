//! Each rule of a policy, on every kind of frame that could get around it.

use mcp_broker::{Broker, Tls};
use mcp_proto::{
    AttemptId, Cancel, Chunk, Credit, Delivery, ErrorCode, InputLength, Message, Nack, Outcome,
    Park, Progress, Resume, Send, Subject, Task, TaskId, TaskState, WorkerHello,
};

use super::{Issuer, policy_file};
use crate::support::{RawPeer, hello, result, send, until, with_token, worker_hello};

const POLICY: &str = r#"
    [roles.shop]
    members = ["shop", "rival"]
    allow = { send = ["upper", "text/*"], tenants = ["", "acme"], priority = "high" }
    deny = { send = ["text/secret"] }

    [roles.gpu]
    members = ["gpu", "other-gpu"]
    allow = { serve = ["upper"], agent_ids = ["gpu-*"] }

    [roles.operator]
    allow = { admin = ["*"] }
"#;

async fn with_policy(issuer: &Issuer) -> Broker {
    let policy = policy_file(issuer.dir.path(), POLICY);
    let state = issuer.dir.path().join("state");
    let config = |config: &mut mcp_broker::Config| {
        config.auth.policy_file = Some(policy);
        config.state_dir = Some(state);
        config.tls.dev = true;
    };
    issuer.broker(config).await
}

fn task(id: &str, action: &str) -> Task {
    Task::new(TaskId::try_from(id).unwrap(), action.try_into().unwrap())
}

fn send_of(task: &Task) -> Send {
    Send::new(task.encode(), 30_000)
}

/// Why a SEND is refused.
async fn denied(client: &mut RawPeer, send: Send) -> String {
    client.send(Message::Send(send), "x").await;
    let (deliver, _) = client.receive_deliver().await;
    let error = deliver.error.unwrap();
    assert_eq!((deliver.outcome, error.code), (Outcome::Rejected, ErrorCode::Forbidden), "{error}");
    error.message
}

#[tokio::test]
async fn no_send_gets_around_the_actions_that_may_be_sent() {
    let issuer = Issuer::new();
    let broker = with_policy(&issuer).await;
    let mut gpu = RawPeer::worker_with(&broker, &issuer.token("gpu"), "gpu-1", "upper").await;
    let mut shop = RawPeer::client_with(&broker, &issuer.token("shop")).await;
    for action in ["lower", "text/secret", "Upper", "upper2"] {
        let message = denied(&mut shop, send_of(&task("t", action))).await;
        assert!(
            message.contains(&format!("shop may not send tasks of action {action}")),
            "{message}"
        );
    }
    let lower = || task("t", "lower");
    for task in [
        Task { delivery: Delivery::Durable, ..lower() },
        Task { idempotent: true, ..lower() },
        Task { shadow: true, ..lower() },
        Task { cancel_on_disconnect: true, ..lower() },
        Task { parent: Some("parent".try_into().unwrap()), ..lower() },
    ] {
        denied(&mut shop, send_of(&task)).await;
    }
    denied(&mut shop, Send { delay_ms: 10, ..send_of(&lower()) }).await;
    denied(&mut shop, Send { stream_window_bytes: 1_000, ..send_of(&lower()) }).await;
    // Its input is not waited for, and what comes of it all the same is nobody's.
    let long = InputLength::Bytes(100_000);
    denied(&mut shop, Send { input_follows: Some(long), ..send_of(&lower()) }).await;
    let of = Subject::Task("t".try_into().unwrap(), 0);
    shop.send(Message::Chunk(Chunk { of, seq: 1, last: true, gap: None }), "x").await;
    shop.expect_alive().await;
    // Again, on another connection, and over a session that was another's.
    let mut rival = RawPeer::client_with(&broker, &issuer.token("rival")).await;
    denied(&mut rival, send_of(&lower())).await;

    // A worker's handlers send with its own permissions: none.
    let mut both = RawPeer::connect(&broker).await;
    let worker = worker_hello("gpu-2", "upper", 1).worker;
    both.open(with_token(mcp_proto::Hello { worker, ..hello() }, &issuer.token("gpu"))).await;
    denied(&mut both, send_of(&task("t", "upper"))).await;
    both.close();
    until("it to have left", || broker.agents(true).len() == 1).await;

    denied(&mut shop, send_of(&Task { tenant: "bank".into(), ..task("t", "upper") })).await;
    let urgent = Task { priority: mcp_proto::Priority::Urgent, ..task("t", "upper") };
    denied(&mut shop, send_of(&urgent)).await;
    denied(&mut shop, send_of(&Task { explain: true, ..task("t", "upper") })).await;

    // What it may do, it can.
    let fine = Task { tenant: "acme".into(), ..task("fine", "upper") };
    shop.send(Message::Send(send_of(&fine)), "x").await;
    let (route, _) = gpu.receive_route().await;
    gpu.send(result(&route), "X").await;
    assert_eq!(shop.receive_deliver().await.1, "X");
}

#[tokio::test]
async fn a_worker_is_who_it_may_be_and_serves_what_it_may() {
    let issuer = Issuer::new();
    let broker = with_policy(&issuer).await;
    let refused = async |sub: &str, worker: WorkerHello, client: bool| {
        let mut peer = RawPeer::connect(&broker).await;
        let hello = mcp_proto::Hello { client, worker: Some(worker), ..hello() };
        peer.send(Message::Hello(Box::new(with_token(hello, &issuer.token(sub)))), "").await;
        let error = peer.receive_error().await;
        peer.expect_close(error.code).await;
        (error.code, error.message)
    };
    let worker = |agent: &str, action: &str| worker_hello(agent, action, 1).worker.unwrap();
    for client in [false, true] {
        for (sub, worker, expected) in [
            ("gpu", worker("gpu-1", "lower"), "may not serve action lower"),
            ("gpu", worker("cpu-1", "upper"), "may not be agent cpu-1"),
            ("shop", worker("gpu-1", "upper"), "shop may not"),
            ("stranger", worker("gpu-1", "upper"), "it has no role in the policy"),
        ] {
            let (code, message) = refused(sub, worker, client).await;
            assert_eq!(code, ErrorCode::Forbidden, "{message}");
            assert!(message.contains(expected), "{message}");
        }
    }
    // The name is its identity's: while it is there, while it is lost, and when it has left.
    let gpu = RawPeer::worker_with(&broker, &issuer.token("gpu"), "gpu-1", "upper").await;
    let steal = async || refused("other-gpu", worker("gpu-1", "upper"), false).await.0;
    assert_eq!(steal().await, ErrorCode::IdentityMismatch);
    gpu.quic.close(quinn::VarInt::from_u32(14), b"broken");
    until("it to be lost", || broker.agents(false).is_empty()).await;
    assert_eq!(steal().await, ErrorCode::IdentityMismatch);
    let gpu = RawPeer::worker_with(&broker, &issuer.token("gpu"), "gpu-1", "upper").await;
    gpu.close();
    until("it to have left", || broker.agents(true).is_empty()).await;
    assert_eq!(steal().await, ErrorCode::IdentityMismatch);
}

#[tokio::test]
async fn only_the_worker_that_holds_an_attempt_can_say_anything_of_it() {
    let issuer = Issuer::new();
    let broker = with_policy(&issuer).await;
    let mut gpu = RawPeer::worker_with(&broker, &issuer.token("gpu"), "gpu-1", "upper").await;
    let mut shop = RawPeer::client_with(&broker, &issuer.token("shop")).await;
    shop.send(
        Message::Send(Send { stream_window_bytes: 100_000, ..send_of(&task("t", "upper")) }),
        "x",
    )
    .await;
    let (route, _) = gpu.receive_route().await;
    let id: AttemptId = route.attempt_id;
    // It serves the same action, for another identity.
    let mut thief =
        RawPeer::worker_with(&broker, &issuer.token("other-gpu"), "gpu-9", "upper").await;
    let of = || Subject::Attempt(id);
    for (message, is_told) in [
        (result(&route), true),
        (Message::Nack(Nack { attempt_id: id, error: None }), true),
        (Message::Park(Park { attempt_id: id, parked: true }), true),
        (Message::Chunk(Chunk::new(of(), 0)), true),
        (Message::Progress(Progress { of: of(), permille: Some(500), message: "".into() }), false),
        (Message::Started(id), false),
        (Message::Credit(Credit { of: of(), next_seq: 1, limit_bytes: 1 }), false),
    ] {
        let kind = message.kind();
        thief.send(message, "stolen").await;
        if is_told {
            assert_eq!(thief.receive_error().await.code, ErrorCode::UnknownAttempt, "{kind}");
        }
        thief.expect_alive().await;
    }
    // Nor by saying that it holds it, when it comes again.
    let mut again = RawPeer::connect(&broker).await;
    let worker = worker_hello("gpu-9", "upper", 1).worker.unwrap();
    let worker = Some(WorkerHello { held: vec![id], ..worker });
    let hello = mcp_proto::Hello { client: false, worker, ..hello() };
    let ack = again.open(with_token(hello, &issuer.token("other-gpu"))).await;
    assert_eq!(ack.keep, []);
    // Nobody noticed.
    gpu.send(Message::Chunk(Chunk::new(of(), 0)), "mine").await;
    gpu.send(
        Message::Result(mcp_proto::TaskResult {
            chunks: 1,
            ..mcp_proto::TaskResult::new(id, Outcome::Ok, mcp_proto::Executed::Yes)
        }),
        "",
    )
    .await;
    let chunk = shop.receive().await;
    assert_eq!(chunk.body, "mine");
    assert_eq!(shop.receive_deliver().await.0.outcome, Outcome::Ok);
}

#[tokio::test]
async fn a_task_is_nobody_elses() {
    let issuer = Issuer::new();
    let broker = with_policy(&issuer).await;
    let mut gpu = RawPeer::worker_with(&broker, &issuer.token("gpu"), "gpu-1", "upper").await;
    let mut shop = RawPeer::client_with(&broker, &issuer.token("shop")).await;
    let mut rival = RawPeer::client_with(&broker, &issuer.token("rival")).await;
    let id = || TaskId::try_from("t").unwrap();
    shop.send(
        Message::Send(Send { stream_window_bytes: 100_000, ..send_of(&task("t", "upper")) }),
        "x",
    )
    .await;
    let (route, _) = gpu.receive_route().await;

    // By frames that name a task.
    rival.send(Message::Fetch(id()), "").await;
    assert_eq!(rival.receive().await.message, Message::Status(id(), TaskState::Unknown));
    let of = || Subject::Task(id(), 1);
    for message in [
        Message::Cancel(Cancel::Task(id())),
        Message::Settle(id()),
        Message::Chunk(Chunk { of: of(), seq: 1, last: true, gap: None }),
        Message::Credit(Credit { of: of(), next_seq: 1, limit_bytes: 1_000_000 }),
        Message::Resume(Resume { task_id: id(), attempt: 1, next_seq: 0, limit_bytes: 100_000 }),
    ] {
        rival.send(message, "x").await;
    }
    rival.send(Message::Ping(mcp_proto::Ping::probe(1)), "").await;
    loop {
        match rival.receive().await.message {
            Message::Pong(1) => break,
            // Of one that it does not have.
            Message::Error(_)
            | Message::Status(_, TaskState::Unknown)
            | Message::Chunk(Chunk { gap: Some(0), .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    // By the broker's own functions.
    let named = r#"{"task_id":"t"}"#;
    let others = r#"{"task_id":"t","identity":"shop"}"#;
    for body in [named, others] {
        for function in ["tasks.show", "tasks.cancel"] {
            assert!(rival.ask(function, body).await.unwrap().is_null(), "{function}");
        }
    }
    assert_eq!(rival.ask("tasks.list", "").await.unwrap()["tasks"].as_array().unwrap().len(), 0);
    for function in ["stats", "agents.list", "actions.list"] {
        assert_eq!(rival.ask(function, "").await.unwrap_err().code, ErrorCode::Forbidden);
    }
    for function in [
        "explain",
        "actions.show",
        "actions.set",
        "actions.reset",
        "actions.degrade",
        "actions.restore",
    ] {
        let body = r#"{"action":"upper","rules":{}}"#;
        assert_eq!(
            rival.ask(function, body).await.unwrap_err().code,
            ErrorCode::Forbidden,
            "{function}"
        );
    }
    // Its own task of the same id is another one.
    rival.send(send("t", "upper"), "y").await;
    // By its session.
    let session = shop_session(&broker, &issuer).await;
    let mut thief = RawPeer::connect(&broker).await;
    let stolen = mcp_proto::Hello { session_id: Some(session), ..hello() };
    thief.send(Message::Hello(Box::new(with_token(stolen, &issuer.token("rival")))), "").await;
    assert_eq!(thief.receive_error().await.code, ErrorCode::IdentityMismatch);

    gpu.send(result(&route), "X").await;
    assert_eq!(shop.receive_deliver().await.1, "X");
    let (route, body) = gpu.receive_route().await;
    assert_eq!(body, "y");
    gpu.send(result(&route), "Y").await;
    assert_eq!(rival.receive_deliver().await.1, "Y");
    // The outcome that is kept.
    assert_eq!(rival.ask("tasks.show", others).await.unwrap(), serde_json::Value::Null);
    let mut ann = RawPeer::client_with(&broker, &issuer.token_with("ann", &["operator"])).await;
    assert_eq!(ann.ask("tasks.show", others).await.unwrap()["identity"], "shop");
    assert_eq!(ann.ask("tasks.list", "").await.unwrap()["tasks"].as_array().unwrap().len(), 2);
}

/// The name of a session of the shop's.
async fn shop_session(broker: &Broker, issuer: &Issuer) -> mcp_proto::SessionId {
    let mut peer = RawPeer::connect(broker).await;
    let ack = peer.open(with_token(hello(), &issuer.token("shop"))).await;
    let session = ack.session_id.unwrap();
    peer.quic.close(quinn::VarInt::from_u32(14), b"broken");
    session
}

#[tokio::test]
async fn dead_letters_are_nobody_elses_and_replaying_is_sending() {
    let issuer = Issuer::new();
    let broker = with_policy(&issuer).await;
    let mut gpu = RawPeer::worker_with(&broker, &issuer.token("gpu"), "gpu-1", "upper").await;
    let mut shop = RawPeer::client_with(&broker, &issuer.token("shop")).await;
    let mut rival = RawPeer::client_with(&broker, &issuer.token("rival")).await;
    let durable = Task { delivery: Delivery::Durable, ..task("t", "upper") };
    shop.send(Message::Send(send_of(&durable)), "secret").await;
    let (route, _) = gpu.receive_route().await;
    let failed =
        mcp_proto::TaskResult::new(route.attempt_id, Outcome::Failed, mcp_proto::Executed::Yes);
    gpu.send(Message::Result(mcp_proto::TaskResult { permanent: true, ..failed }), "").await;
    assert!(matches!(shop.receive().await.message, Message::Accepted(_)));
    assert_eq!(shop.receive_deliver().await.0.outcome, Outcome::Failed);

    let (named, others) = (r#"{"task_id":"t"}"#, r#"{"task_id":"t","identity":"shop"}"#);
    for body in [named, others] {
        for function in ["show", "replay", "drop"] {
            let answer = rival.ask(&format!("dead_letters.{function}"), body).await.unwrap();
            assert!(answer.is_null(), "{function}: {answer}");
        }
    }
    let list = rival.ask("dead_letters.list", "").await.unwrap();
    assert_eq!(list["dead_letters"].as_array().unwrap().len(), 0);
    rival.send(Message::Settle("t".try_into().unwrap()), "").await;
    rival.expect_alive().await;
    assert_eq!(shop.ask("dead_letters.show", named).await.unwrap()["body"], "secret");
    let mut ann = RawPeer::client_with(&broker, &issuer.token_with("ann", &["operator"])).await;
    assert_eq!(ann.ask("dead_letters.show", named).await.unwrap()["identity"], "shop");
    assert_eq!(shop.ask("dead_letters.replay", named).await.unwrap()["replayed"], true);
}

#[tokio::test]
async fn a_broken_policy_is_named_and_nothing_starts() {
    let issuer = Issuer::new();
    let mut config = mcp_broker::Config::default();
    config.listen.set_port(0);
    config.auth.policy_file = Some(policy_file(issuer.dir.path(), "[roles.a]\nallow.sned = ['*']"));
    let tls = Tls::Ephemeral { names: vec![] };
    let error = Broker::builder().config(config).tls(tls).start().await.unwrap_err().to_string();
    assert!(error.contains("policy.toml") && error.contains("sned"), "{error}");
}
