//! A broker with much in its journal.

use std::path::Path;

use bytes::BytesMut;
use mcp_broker::Broker;
use mcp_broker::broker::{AcceptedTask, Identity, Record, TaskName};
use mcp_proto::{Delivery, Payload, Task, TaskId};

use super::write;
use crate::support::{RawPeer, until};

/// 2100: none of them expires here.
const FAR_WALL_MS: u64 = 4_102_444_800_000;

fn pending(count: u32) -> impl Iterator<Item = Record> {
    let mut scratch = BytesMut::new();
    (0..count).map(move |index| {
        let task_id = TaskId::try_from(format!("0198c0de-0000-7000-8000-{index:012}")).unwrap();
        let mut task = Task::new(task_id.clone(), "a".try_into().unwrap());
        task.delivery = Delivery::Durable;
        let payload = Payload::new(&task.encode(), vec![7; 1024].into(), &mut scratch);
        let name = TaskName { identity: Identity::anonymous(), task_id };
        let task = AcceptedTask {
            payload,
            received_wall_ms: 1_700_000_000_000,
            start_wall_ms: 1_700_000_000_000,
            deadline_wall_ms: FAR_WALL_MS,
        };
        Record::Accepted(name, task)
    })
}

async fn all_go_on(state: &Path, count: u32) {
    let broker = Broker::builder().state_dir(state).start().await.unwrap();
    assert_eq!(broker.stats().durable.in_flight, u64::from(count));
    let mut worker = RawPeer::worker(&broker, "w", "a", 4).await;
    for _ in 0..4 {
        worker.receive_route().await;
    }
    until("its slots", || broker.stats().in_flight == 4).await;
    broker.shutdown().await;
}

#[tokio::test]
async fn all_that_was_pending_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("journal"), pending(2_000));
    all_go_on(dir.path(), 2_000).await;
    all_go_on(dir.path(), 2_000).await;
}

/// `cargo test --release -p mcp-broker --test quic -- --ignored --nocapture how_long_a_restart`
#[tokio::test]
#[ignore = "a measurement: a start with 100,000 pending tasks of 1 KiB"]
#[allow(clippy::disallowed_methods, reason = "it measures")]
async fn how_long_a_restart_takes() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("journal"), pending(100_000));
    let mut took = Vec::new();
    for _ in 0..7 {
        let start = std::time::Instant::now();
        let broker = Broker::builder().state_dir(dir.path()).start().await.unwrap();
        took.push(start.elapsed());
        assert_eq!(broker.stats().durable.in_flight, 100_000);
        drop(broker);
        // Its thread ends a little later.
        let journal = dir.path().join("journal");
        until("the end", || {
            mcp_broker::journal::Directory::look(&journal).is_in_use().is_ok_and(|it| !it)
        })
        .await;
    }
    took.sort();
    println!("from nothing to ready, 100,000 pending: median {:?} of {took:?}", took[3]);
}
