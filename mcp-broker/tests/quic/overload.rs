//! Peers that take time, memory or turns from others: who is slow on purpose, and who never stops. Each
//! has a bound, and beside each of them a steady flow of tasks goes on.

#[cfg(target_os = "linux")]
use std::net::Ipv4Addr;

use bytes::{BufMut, BytesMut};
use mcp_broker::{Broker, Config};
use mcp_proto::limits::{MAX_BODY_BYTES, MAX_HEADER_BYTES};
use mcp_proto::{ErrorCode, Frame, FrameCodec, Message, Ping};
use quinn::{ConnectionError, TransportErrorCode};
use tokio::time::{Duration, sleep};

use crate::support::{
    Flow, How, Lie, RawPeer, broker, dial, hello, result, send, unique, until, within,
};

/// Long enough for honest peers, on whatever machine.
const SLOW_PEER_MS: u64 = 3_000;
/// Between two bytes of a slow one.
const BYTE_EVERY: Duration = Duration::from_millis(50);

async fn beside_a_flow(configure: impl FnOnce(&mut Config), act: impl AsyncFnOnce(&Broker, &Flow)) {
    let broker = broker(|config| {
        config.timing.slow_peer_ms = SLOW_PEER_MS;
        configure(config);
    })
    .await;
    let flow = Flow::start(&broker).await;
    act(&broker, &flow).await;
    flow.finish().await;
    broker.shutdown().await;
}

fn encoded(message: Message) -> BytesMut {
    let mut bytes = BytesMut::new();
    FrameCodec::encode(&message.into(), &mut bytes);
    bytes
}

/// The beginning of the longest frame that is allowed.
fn lengths_of_the_longest() -> BytesMut {
    let mut bytes = BytesMut::new();
    bytes.put_u32((2 + MAX_HEADER_BYTES + MAX_BODY_BYTES) as u32);
    bytes.put_u16(MAX_HEADER_BYTES as u16);
    bytes
}

/// Sends byte by byte, and is refused before it is done.
async fn is_refused_meanwhile(mut peer: RawPeer, bytes: &[u8], code: ErrorCode) {
    for byte in bytes.iter().cycle() {
        tokio::select! {
            frame = peer.receive() => {
                assert!(matches!(&frame.message, Message::Error(it) if it.code == code), "{frame:?}");
                return peer.expect_close(code).await;
            }
            () = sleep(BYTE_EVERY) => {
                let _ = peer.lane.write_all(&[*byte]).await;
            }
        }
    }
}

#[tokio::test]
async fn a_hello_byte_by_byte_is_late() {
    let configure = |config: &mut Config| config.timing.hello_timeout_ms = 1_000;
    beside_a_flow(configure, async |broker, _| {
        let peer = RawPeer::connect(broker).await;
        let bytes = encoded(Message::Hello(Box::new(hello())));
        is_refused_meanwhile(peer, &bytes, ErrorCode::HelloTimeout).await;
    })
    .await;
}

#[tokio::test]
async fn a_frame_byte_by_byte_is_late() {
    beside_a_flow(
        |_| {},
        async |broker, _| {
            let mut peer = RawPeer::client(broker).await;
            peer.send_bytes(&lengths_of_the_longest()).await;
            is_refused_meanwhile(peer, &[0], ErrorCode::FrameTimeout).await;
        },
    )
    .await;
}

#[tokio::test]
async fn a_frame_that_is_promised_or_not_finished_is_late() {
    beside_a_flow(
        |_| {},
        async |broker, _| {
            for bytes in [0, 1, MAX_HEADER_BYTES, MAX_HEADER_BYTES + MAX_BODY_BYTES - 1] {
                let mut peer = RawPeer::client(broker).await;
                let mut frame = lengths_of_the_longest();
                frame.put_bytes(0, bytes);
                peer.send_bytes(&frame).await;
                peer.expect_refusal(ErrorCode::FrameTimeout).await;
            }
            // Also within what is skipped, and before the lengths are told.
            let mut skipped = encoded(send(&unique("t"), "flow"));
            let length = skipped.len() as u32 - 4 + MAX_BODY_BYTES as u32 + 1;
            skipped[..4].copy_from_slice(&length.to_be_bytes());
            let mut peer = RawPeer::client(broker).await;
            peer.send_bytes(&skipped).await;
            assert_eq!(peer.receive_failure().await.1, ErrorCode::BodyTooLarge);
            peer.expect_refusal(ErrorCode::FrameTimeout).await;
            let mut peer = RawPeer::client(broker).await;
            peer.send_bytes(&[0, 0]).await;
            peer.expect_refusal(ErrorCode::FrameTimeout).await;
        },
    )
    .await;
}

#[tokio::test]
async fn a_peer_that_does_not_take_what_waits_for_it_is_closed_however_little_it_is() {
    const RESULTS: usize = 40;
    beside_a_flow(
        |_| {},
        async |broker, _| {
            let mut worker = RawPeer::worker(broker, "w", "big", RESULTS as u32).await;
            let deaf = How { window_bytes: 16 * 1024, ..How::USUAL };
            let mut client = RawPeer::connect_as(broker, deaf).await;
            client.open(hello()).await;
            // More than QUIC takes from the broker, and less than the client may be sent.
            for _ in 0..RESULTS {
                client.send(send(&unique("t"), "big"), "").await;
                let (route, _) = worker.receive_route().await;
                worker.send(result(&route), vec![1; 60_000]).await;
            }
            client.expect_closed(ErrorCode::SlowConsumer).await;
            worker.expect_alive().await;
            worker.close();
            until("it to be gone", || broker.agents(true).len() == 1).await;
        },
    )
    .await;
}

/// The flow's peers have another address.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn connections_without_hello_leave_room_for_others() {
    const PLACES: usize = 18;
    let configure = |config: &mut Config| {
        config.limits.max_handshakes = PLACES;
        config.timing.hello_timeout_ms = 60_000;
    };
    beside_a_flow(configure, async |broker, _| {
        let there = How { from: Ipv4Addr::new(127, 0, 0, 2), ..How::USUAL };
        let mut silent = Vec::new();
        let refusal = loop {
            match dial(broker, there).await {
                Ok(connected) => silent.push(connected),
                Err(refusal) => break refusal,
            }
        };
        assert!(matches!(refusal, ConnectionError::ConnectionClosed(_)), "{refusal}");
        assert_eq!(silent.len(), 16);
        RawPeer::client(broker).await.expect_alive().await;
    })
    .await;
}

#[tokio::test]
async fn a_stream_too_many_ends_its_connection() {
    let greedy = How { lie: Some(Lie::Limits), ..How::USUAL };
    beside_a_flow(
        |_| {},
        async |broker, _| {
            for is_uni in [true, false] {
                let mut peer = RawPeer::connect_as(broker, greedy).await;
                peer.open(hello()).await;
                let mut stream = match is_uni {
                    true => peer.quic.open_uni().await.unwrap(),
                    false => peer.quic.open_bi().await.unwrap().0,
                };
                stream.write_all(b"x").await.unwrap();
                peer.expect_violation(TransportErrorCode::STREAM_LIMIT_ERROR).await;
            }
        },
    )
    .await;
}

/// A client that does not read its results is not read either.
#[tokio::test]
async fn more_than_the_window_ends_its_connection() {
    let greedy = How { lie: Some(Lie::Limits), window_bytes: 16 * 1024, ..How::USUAL };
    let configure = |config: &mut Config| {
        config.timing.slow_peer_ms = 600_000;
        config.limits.outgoing_soft_bytes = 1024 * 1024;
    };
    beside_a_flow(configure, async |broker, _| {
        let mut worker = RawPeer::worker(broker, "w", "echo", 1).await;
        let echo = tokio::spawn(async move {
            loop {
                let (route, body) = worker.receive_route().await;
                worker.send(result(&route), body).await;
            }
        });
        let mut client = RawPeer::connect_as(broker, greedy).await;
        client.open(hello()).await;
        let mut task = BytesMut::new();
        loop {
            task.clear();
            let frame = Frame { body: vec![1; 60_000].into(), ..send(&unique("t"), "echo").into() };
            FrameCodec::encode(&frame, &mut task);
            if client.lane.write_all(&task).await.is_err() {
                break;
            }
        }
        client.expect_violation(TransportErrorCode::FLOW_CONTROL_ERROR).await;
        echo.abort();
    })
    .await;
}

#[tokio::test]
async fn floods_of_frames_that_do_nothing_stop_nobody() {
    // Field 100, length-delimited, empty: no kind that is known.
    let unknown = [0, 0, 0, 5, 0, 3, 0xa2, 0x06, 0x00];
    let Message::Send(mut invalid) = send("t", "flow") else { unreachable!() };
    invalid.ttl_ms = 0;
    let frames = [
        encoded(Message::Ping(Ping::probe(1))),
        encoded(Message::Pong(1)),
        BytesMut::from(&unknown[..]),
        encoded(Message::Send(invalid)),
    ];
    beside_a_flow(
        |_| {},
        async |broker, flow| {
            for frame in &frames {
                let flood = frame.repeat(16 * 1024 / frame.len());
                let mut peers = Vec::new();
                for reads in [true, false, true, false] {
                    let (peer, flood) = (RawPeer::client(broker).await, flood.clone());
                    peers.push(tokio::spawn(async move { peer.flood(&flood, reads).await }));
                }
                for _ in 0..5 {
                    flow.goes_on().await;
                }
                peers.iter().for_each(|peer| peer.abort());
            }
        },
    )
    .await;
}

#[tokio::test]
async fn handshake_after_handshake_stops_nobody() {
    beside_a_flow(
        |_| {},
        async |broker, flow| {
            let hostile = async || loop {
                let (_endpoint, quic) = dial(broker, How::USUAL).await.unwrap();
                let (mut lane, _) = quic.open_bi().await.unwrap();
                lane.write_all(&[0xff; 16]).await.unwrap();
                let closed = within("the close", quic.closed()).await;
                assert!(matches!(closed, ConnectionError::ApplicationClosed(_)), "{closed}");
            };
            let flow_goes_on = async {
                for _ in 0..5 {
                    flow.goes_on().await;
                }
            };
            tokio::select! {
                _ = async { tokio::join!(hostile(), hostile(), hostile(), hostile()) } => {}
                () = flow_goes_on => {}
            }
        },
    )
    .await;
}
