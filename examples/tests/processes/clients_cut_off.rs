//! A client that is cut off from the broker in the middle of its tasks.

use std::time::Duration;

use mcp_client::{Client, Outcome};
use tokio::time::{Instant, sleep_until};

use crate::proxy::Proxy;
use crate::support::{BrokerProcess, Ledger, counting_worker, ends_of, send_many, until};

/// Cuts the client off for 5 s; `silence` is how long it waits before it dials again.
async fn all_results_arrive_once(silence: Duration) {
    let broker = BrokerProcess::start().await;
    let proxy = Proxy::start(&broker.address).await;
    let ledger = Ledger::default();
    let takes = Duration::from_millis(20);
    let _worker = counting_worker(broker.endpoint(), "w", 8, takes, &ledger).await;
    let client = Client::builder(broker.endpoint_at(proxy.address))
        .silence_timeout(silence)
        .connect()
        .await
        .unwrap();

    let handles = send_many(&client, 1_000, false).await;
    until("a part of the tasks is done", || async { client.pending() < 800 }).await;
    let mended = Instant::now() + Duration::from_secs(5);
    proxy.cut();
    sleep_until(mended).await;
    proxy.mend();

    let ends = ends_of(handles).await;
    for (number, end) in ends.iter().enumerate() {
        assert_eq!(end.outcome, Outcome::Ok, "{end:?}");
        assert_eq!(end.body, number.to_string());
    }
    assert_eq!((ledger.runs(), ledger.most_runs_of_a_task()), (1_000, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_results_arrive_once_over_the_same_connection() {
    all_results_arrive_once(Duration::from_secs(60)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_results_arrive_once_over_a_new_connection() {
    all_results_arrive_once(Duration::from_secs(1)).await;
}
