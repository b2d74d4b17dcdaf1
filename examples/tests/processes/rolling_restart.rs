//! Workers that are replaced one by one, under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mcp_client::{Client, Outcome, TaskEnd, WorkerExit};

use crate::support::{
    BrokerProcess, Ledger, PATIENCE, counting_worker, until, until_listed, within,
};

const WORKERS: [&str; 4] = ["a", "b", "c", "d"];
const IN_FLIGHT: usize = 64;

/// Each handler waits, so that there are always some to be finished or handed back.
const TAKES: Duration = Duration::from_millis(5);

/// Keeps tasks in flight until told to stop; none may run twice. Returns how they ended.
async fn load(client: Client, stop: Arc<AtomicBool>, sent: Arc<AtomicUsize>) -> Vec<TaskEnd> {
    let mut ends = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        sent.fetch_add(1, Ordering::Relaxed);
        let handle = client.task("work").ttl(PATIENCE).send().await.unwrap();
        ends.push(within("it ends", handle).await);
    }
    ends
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_loses_and_doubles_nothing() {
    let broker = BrokerProcess::start().await;
    let client = broker.client().await;
    let ledger = Ledger::default();
    let mut workers = Vec::new();
    for name in WORKERS {
        workers.push(counting_worker(broker.endpoint(), name, 16, TAKES, &ledger).await);
    }
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let loads: Vec<_> = (0..IN_FLIGHT)
        .map(|_| tokio::spawn(load(client.clone(), stop.clone(), sent.clone())))
        .collect();

    for (worker, name) in workers.iter_mut().zip(WORKERS) {
        let before = sent.load(Ordering::Relaxed);
        until("it has work", || async { sent.load(Ordering::Relaxed) > before + 200 }).await;
        assert_eq!(within("it drains", worker.drain(PATIENCE)).await, WorkerExit::Drained);
        *worker = counting_worker(broker.endpoint(), name, 16, TAKES, &ledger).await;
    }
    until_listed(&client, &WORKERS).await;
    stop.store(true, Ordering::Relaxed);

    let mut count = 0;
    for load in loads {
        for end in within("the load ends", load).await.unwrap() {
            assert_eq!(end.outcome, Outcome::Ok, "{end:?}");
            count += 1;
        }
    }
    assert_eq!(count, sent.load(Ordering::Relaxed));
    assert_eq!((ledger.runs(), ledger.most_runs_of_a_task()), (count, 1));
}
