//! Peers that do what they must not. Each is told what was wrong and closed, or survives where the
//! protocol says so, and nobody else notices.

use mcp_broker::Broker;
use mcp_proto::{Cancel, ErrorCode, Executed, Goaway, Message, Outcome, Ping, Readiness, TaskId};
use quinn::VarInt;

use crate::support::{Flow, RawPeer, broker, hello, result, send, unique, until, worker_hello};

/// A broker that carries a steady flow while `act` misbehaves.
async fn beside_a_flow(act: impl AsyncFnOnce(&Broker)) {
    let broker = broker(|config| config.timing.hello_timeout_ms = 1000).await;
    let flow = Flow::start(&broker).await;
    act(&broker).await;
    flow.finish().await;
    broker.shutdown().await;
}

/// An orderly end, which the broker has seen when this returns.
async fn leave(broker: &Broker, worker: RawPeer, agent: &str) {
    worker.close();
    until("it to be gone", || {
        broker.agents(true).iter().all(|view| view.agent_id.as_str() != agent)
    })
    .await;
}

/// SplitMix64.
fn random_bytes(mut seed: u64, count: usize) -> Vec<u8> {
    let mut next = || {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as u8
    };
    (0..count).map(|_| next()).collect()
}

async fn random_bytes_are_refused(broker: &Broker) {
    for seed in 0..10 {
        let mut peer = RawPeer::connect(broker).await;
        let mut bytes = random_bytes(seed, 3000);
        // A length beyond every limit, or a header beyond its frame: never one that waits for more.
        bytes[0] |= 1;
        peer.send_bytes(&bytes).await;
        peer.expect_refusal(ErrorCode::FrameTooLarge).await;
    }
    for seed in 10..20 {
        let mut peer = RawPeer::connect(broker).await;
        let mut bytes = random_bytes(seed, 3000);
        // A frame of right lengths whose header is no protobuf: field 0 does not exist.
        bytes[..7].copy_from_slice(&[0, 0, 0, 100, 0, 50, 0]);
        peer.send_bytes(&bytes).await;
        peer.expect_refusal(ErrorCode::Malformed).await;
    }
}

async fn a_length_of_4_gib_is_refused(broker: &Broker) {
    let mut peer = RawPeer::connect(broker).await;
    peer.send_bytes(&[0xff; 4]).await;
    let message = peer.expect_refusal(ErrorCode::FrameTooLarge).await;
    assert!(message.contains("4294967295"), "{message}");
}

async fn a_header_longer_than_its_frame_is_refused(broker: &Broker) {
    let mut peer = RawPeer::client(broker).await;
    peer.send_bytes(&[0, 0, 0, 4, 0, 3, 1, 1]).await;
    peer.expect_refusal(ErrorCode::Malformed).await;
}

async fn a_frame_before_hello_is_refused(broker: &Broker) {
    for message in [send(&unique("t"), "flow"), Message::Ping(Ping::probe(1))] {
        let mut peer = RawPeer::connect(broker).await;
        peer.send(message, "").await;
        let message = peer.expect_refusal(ErrorCode::UnexpectedFrame).await;
        assert!(message.contains("before HELLO"), "{message}");
    }
}

async fn an_unknown_frame_kind_is_survived(broker: &Broker) {
    let mut peer = RawPeer::client(broker).await;
    // Field 100, length-delimited, empty.
    peer.send_bytes(&[0, 0, 0, 5, 0, 3, 0xa2, 0x06, 0x00]).await;
    let error = peer.receive_error().await;
    assert_eq!(error.code, ErrorCode::UnknownFrame);
    peer.expect_alive().await;
}

async fn a_second_hello_is_refused(broker: &Broker) {
    let mut peer = RawPeer::client(broker).await;
    peer.send(Message::Hello(Box::new(hello())), "").await;
    peer.expect_refusal(ErrorCode::UnexpectedFrame).await;
}

async fn a_wrong_version_is_refused_and_the_right_one_named(broker: &Broker) {
    let mut peer = RawPeer::connect(broker).await;
    let mut hello = hello();
    hello.mcp_version = "2.0".into();
    peer.send(Message::Hello(Box::new(hello)), "").await;
    let message = peer.expect_refusal(ErrorCode::UnsupportedVersion).await;
    assert!(message.contains(mcp_proto::MCP_VERSION), "{message}");
}

async fn a_result_for_somebody_elses_task_has_no_effect(broker: &Broker) {
    let mut worker = RawPeer::worker(broker, "honest", "mine", 1).await;
    let mut thief = RawPeer::worker(broker, "thief", "other", 1).await;
    let mut client = RawPeer::client(broker).await;
    client.send(send(&unique("t"), "mine"), "").await;
    let (route, _) = worker.receive_route().await;
    thief.send(result(&route), "stolen").await;
    assert_eq!(thief.receive_error().await.code, ErrorCode::UnknownAttempt);
    thief.expect_alive().await;
    worker.send(result(&route), "mine").await;
    assert_eq!(client.receive_deliver().await.1, "mine");
    // Nor has one for a task that has ended.
    worker.send(result(&route), "again").await;
    assert_eq!(worker.receive_error().await.code, ErrorCode::UnknownAttempt);
    client.expect_alive().await;
    leave(broker, worker, "honest").await;
    leave(broker, thief, "thief").await;
}

async fn a_body_over_the_limit_ends_its_task_only(broker: &Broker) {
    let mut worker = RawPeer::worker(broker, "big", "big", 1).await;
    let mut client = RawPeer::client(broker).await;
    client.send(send(&unique("t"), "big"), vec![0; 64 * 1024 + 1]).await;
    assert_eq!(
        client.receive_failure().await,
        (Outcome::Rejected, ErrorCode::BodyTooLarge, Executed::No)
    );
    client.send(send(&unique("t"), "big"), "").await;
    let (route, _) = worker.receive_route().await;
    worker.send(result(&route), vec![0; 1024 * 1024]).await;
    assert_eq!(
        client.receive_failure().await,
        (Outcome::Failed, ErrorCode::BodyTooLarge, Executed::Yes)
    );
    client.expect_alive().await;
    worker.expect_alive().await;
    leave(broker, worker, "big").await;
}

async fn no_hello_in_time_is_refused(broker: &Broker) {
    // With a lane, and half a frame on it.
    let mut peer = RawPeer::connect(broker).await;
    peer.send_bytes(&[0, 0, 0]).await;
    peer.expect_refusal(ErrorCode::HelloTimeout).await;
    // Without one.
    let mut peer = RawPeer::connect(broker).await;
    peer.expect_close(ErrorCode::HelloTimeout).await;
}

async fn frames_of_the_other_role_or_side_are_refused(broker: &Broker) {
    let mut peer = RawPeer::worker(broker, "confused", "confused", 1).await;
    peer.send(send(&unique("t"), "flow"), "").await;
    peer.expect_refusal(ErrorCode::UnexpectedFrame).await;
    for message in [
        Message::Goaway(Goaway {
            code: ErrorCode::ShuttingDown,
            message: String::new(),
            reconnect: true,
        }),
        Message::Accepted(TaskId::try_from("t").unwrap()),
    ] {
        let mut peer = RawPeer::client(broker).await;
        peer.send(message, "").await;
        peer.expect_refusal(ErrorCode::UnexpectedFrame).await;
    }
}

async fn a_hello_with_a_wrong_field_is_refused_and_the_field_named(broker: &Broker) {
    let mut peer = RawPeer::connect(broker).await;
    peer.send(Message::Hello(Box::new(worker_hello("w", "a", 0))), "").await;
    let message = peer.expect_refusal(ErrorCode::InvalidMessage).await;
    assert!(message.contains("slots"), "{message}");
}

async fn a_task_with_a_wrong_field_is_rejected_and_the_field_named(broker: &Broker) {
    let mut peer = RawPeer::client(broker).await;
    let Message::Send(mut it) = send(&unique("t"), "flow") else { unreachable!() };
    it.ttl_ms = 0;
    peer.send(Message::Send(it), "").await;
    let (deliver, _) = peer.receive_deliver().await;
    let error = deliver.error.unwrap();
    assert_eq!((deliver.outcome, error.code), (Outcome::Rejected, ErrorCode::InvalidTask));
    assert!(error.message.contains("ttl_ms"), "{error}");
    peer.expect_alive().await;
}

async fn a_lane_that_is_reset_or_stopped_ends_its_connection(broker: &Broker) {
    let mut peer = RawPeer::client(broker).await;
    peer.lane.reset(VarInt::from_u32(7)).unwrap();
    peer.expect_close(ErrorCode::Malformed).await;

    let mut peer = RawPeer::client(broker).await;
    peer.stop_reading();
    // It is noticed when the broker has something to say.
    peer.send(Message::Ping(Ping::probe(1)), "").await;
    peer.expect_closed(ErrorCode::Malformed).await;
}

async fn leaks_of_slots_by_lies_in_ping_do_not_happen(broker: &Broker) {
    let mut worker = RawPeer::worker(broker, "liar", "lie", 1).await;
    let lie = Ping {
        seq: 1,
        readiness: Some(Readiness::Ready),
        routes_received: u64::MAX,
        held: vec![mcp_proto::AttemptId(1), mcp_proto::AttemptId(u64::MAX)],
    };
    worker.send(Message::Ping(lie), "").await;
    assert_eq!(worker.receive().await.message, Message::Pong(1));
    let mut client = RawPeer::client(broker).await;
    client.send(send(&unique("t"), "lie"), "").await;
    let (route, _) = worker.receive_route().await;
    worker.send(result(&route), "").await;
    assert_eq!(client.receive_deliver().await.0.outcome, Outcome::Ok);
    // A client may name any task in CANCEL.
    client.send(Message::Cancel(Cancel::Task(TaskId::try_from("none").unwrap())), "").await;
    client.expect_alive().await;
    leave(broker, worker, "liar").await;
}

macro_rules! each_beside_a_flow {
    ($($name:ident)*) => {
        mod each {
            $(
                #[tokio::test]
                async fn $name() {
                    super::beside_a_flow(super::$name).await;
                }
            )*
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn all_of_them_at_once_and_again() {
            beside_a_flow(async |broker| {
                for _ in 0..3 {
                    tokio::join!($($name(broker)),*);
                }
            })
            .await;
        }
    };
}

each_beside_a_flow! {
    random_bytes_are_refused
    a_length_of_4_gib_is_refused
    a_header_longer_than_its_frame_is_refused
    a_frame_before_hello_is_refused
    an_unknown_frame_kind_is_survived
    a_second_hello_is_refused
    a_wrong_version_is_refused_and_the_right_one_named
    a_result_for_somebody_elses_task_has_no_effect
    a_body_over_the_limit_ends_its_task_only
    no_hello_in_time_is_refused
    frames_of_the_other_role_or_side_are_refused
    a_hello_with_a_wrong_field_is_refused_and_the_field_named
    a_task_with_a_wrong_field_is_rejected_and_the_field_named
    a_lane_that_is_reset_or_stopped_ends_its_connection
    leaks_of_slots_by_lies_in_ping_do_not_happen
}
