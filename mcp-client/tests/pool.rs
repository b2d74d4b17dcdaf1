//! The pool over real connections: sharing, waiting, giving back.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use mcp_client::{ErrorCode, ErrorInfo, Pool, PoolConfig, PoolError};
use mcp_proto::Message;
use support::{FakeBroker, Peer, close_code, soon};

fn pool(max_open: usize) -> Pool {
    Pool::new(PoolConfig { max_open, ..PoolConfig::default() })
}

/// Opens all sessions that come.
fn open_all(broker: FakeBroker) -> mcp_client::Endpoint {
    let endpoint = broker.endpoint();
    tokio::spawn(async move {
        let mut peers: Vec<Peer> = Vec::new();
        loop {
            peers.push(broker.accept_open().await);
        }
    });
    endpoint
}

#[tokio::test]
async fn all_who_want_a_broker_share_its_connection_and_its_failure() {
    let broker = FakeBroker::start();
    let endpoint = broker.endpoint();
    let pool = pool(1);
    let all = || async {
        soon(async {
            tokio::join!(pool.client(&endpoint), pool.client(&endpoint), pool.client(&endpoint))
        })
        .await
    };
    let refuse = async {
        let mut peer = broker.accept().await;
        let info = ErrorInfo::new(ErrorCode::IdentityMismatch, "for a test");
        peer.send(Message::Error(Box::new(info)), "").await;
        // The client is the one to go.
        peer.until_closed().await
    };
    let ((one, two, three), _) = tokio::join!(all(), refuse);
    for error in [one.unwrap_err(), two.unwrap_err(), three.unwrap_err()] {
        let PoolError::Connect(error) = error else { panic!("{error:?}") };
        assert_eq!(error.code(), Some(ErrorCode::IdentityMismatch));
    }
    assert_eq!(pool.open(), 0);

    let ((one, two, three), peer) = tokio::join!(all(), broker.accept_open());
    let clients = [one.unwrap(), two.unwrap(), three.unwrap()];
    assert!(clients.iter().all(|client| client.is_connected()));
    assert_eq!((pool.open(), pool.idle()), (1, 0));
    drop(clients);
    assert_eq!((pool.open(), pool.idle()), (1, 1));
    let ((), (end, _)) = tokio::join!(soon(pool.close()), peer.until_closed());
    assert_eq!(close_code(&end), Some(0));
    assert!(matches!(pool.client(&endpoint).await, Err(PoolError::Closed)));
}

#[tokio::test]
async fn a_place_that_one_who_waited_does_not_need_goes_to_the_next() {
    let [a, b, c, d] = [(); 4].map(|()| open_all(FakeBroker::start()));
    let pool = pool(2);
    let held = [soon(pool.client(&a)).await.unwrap(), soon(pool.client(&b)).await.unwrap()];
    // Both of the first two are given a place, and one is enough for them.
    let waiting = async { tokio::join!(pool.client(&c), pool.client(&c), pool.client(&d)) };
    let give_back = async { drop(held) };
    let ((one, two, other), ()) = soon(async { tokio::join!(waiting, give_back) }).await;
    let _all = (one.unwrap(), two.unwrap(), other.unwrap());
    assert_eq!(pool.open(), 2);
}

#[tokio::test]
async fn waiting_for_a_place_has_an_end() {
    let [a, b] = [(); 2].map(|()| open_all(FakeBroker::start()));
    let wait_timeout = Duration::from_millis(50);
    let pool = Pool::new(PoolConfig { max_open: 1, wait_timeout, ..PoolConfig::default() });
    let held = soon(pool.client(&a)).await.unwrap();
    let error = soon(pool.client(&b)).await.unwrap_err();
    assert!(matches!(error, PoolError::Timeout { max_open: 1, .. }), "{error:?}");
    assert!(error.to_string().contains("max_open"), "{error}");
    drop(held);
    assert!(soon(pool.client(&b)).await.unwrap().is_connected());
}

#[tokio::test]
async fn a_connection_that_nobody_uses_is_closed_after_a_while() {
    let broker = FakeBroker::start();
    let idle_timeout = Duration::from_millis(50);
    let pool = Pool::new(PoolConfig { idle_timeout, ..PoolConfig::default() });
    let endpoint = broker.endpoint();
    let (client, peer) = tokio::join!(pool.client(&endpoint), broker.accept_open());
    drop(client.unwrap());
    let (end, _) = peer.until_closed().await;
    assert_eq!((close_code(&end), pool.open()), (Some(0), 0));
}
