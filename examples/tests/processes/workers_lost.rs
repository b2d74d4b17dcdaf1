//! Workers that are killed, or cut off from the broker.

use std::collections::HashMap;
use std::time::Duration;

use mcp_client::{AgentFilter, ErrorCode, Executed, Outcome};
use rustix::process::Signal;
use tokio::time::{Instant, sleep_until};

use crate::proxy::Proxy;
use crate::support::{
    BrokerProcess, Ledger, PATIENCE, counting_worker, ends_of, send_many, until, until_listed,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_workers_share_the_tasks_equally() {
    let broker = BrokerProcess::start().await;
    let client = broker.client().await;
    let ledger = Ledger::default();
    let takes = Duration::from_millis(2);
    let one = counting_worker(broker.endpoint(), "one", 8, takes, &ledger).await;
    let _two = counting_worker(broker.endpoint(), "two", 8, takes, &ledger).await;
    let ends = ends_of(send_many(&client, 1_000, false).await).await;
    assert!(ends.iter().all(|end| end.outcome == Outcome::Ok));
    let by_one =
        ends.iter().filter(|end| end.trace.decode().hops[0].node_id == one.node_id()).count();
    assert!((400..=600).contains(&by_one), "one of two equal workers had {by_one} of 1000 tasks");
    assert_eq!((ledger.runs(), ledger.most_runs_of_a_task()), (1_000, 1));
}

/// Here its silence would not be noticed for an hour: its host tells.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_host_of_a_killed_worker_tells_that_it_is_gone() {
    let patient = "[timing]\nprobe_after_ms = 1000\nlost_after_ms = 3600000\nlease_ms = 3600000\n";
    let broker = BrokerProcess::start_with(patient).await;
    let client = broker.client().await;
    let victim = broker.worker("victim", 1, &["sleep", "60"]).await;
    let handle = client.task("work").ttl(PATIENCE).idempotent(true).send().await.unwrap();
    until("the task runs", || async {
        let listed = client.agents(&AgentFilter::online()).await;
        listed.is_ok_and(|list| list.agents[0].in_flight == 1)
    })
    .await;
    victim.signal(Signal::KILL);
    until_listed(&client, &[]).await;
    let _other = broker.worker("other", 1, &["echo", "done"]).await;
    assert_eq!(ends_of(vec![handle]).await[0].outcome, Outcome::Ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_costs_at_most_what_it_held() {
    const SLOTS: u32 = 8;
    let broker = BrokerProcess::start().await;
    let client = broker.client().await;
    let exec = ["sh", "-c", "cat; sleep 0.03"];
    let victim = broker.worker("victim", SLOTS, &exec).await;
    let _survivor = broker.worker("survivor", SLOTS, &exec).await;
    until_listed(&client, &["survivor", "victim"]).await;

    let handles = send_many(&client, 1_000, true).await;
    until("a part of the tasks is done", || async { client.pending() < 800 }).await;
    victim.signal(Signal::KILL);
    until_listed(&client, &["survivor"]).await;

    let ends = ends_of(handles).await;
    let mut outcomes: HashMap<_, u32> = HashMap::new();
    for (number, end) in ends.iter().enumerate() {
        let code = end.error.as_ref().map(|error| error.code);
        *outcomes.entry((end.outcome, code)).or_default() += 1;
        match end.outcome {
            Outcome::Ok => assert_eq!(end.body, number.to_string()),
            Outcome::Failed => {
                assert_eq!((code, end.executed), (Some(ErrorCode::WorkerLost), Executed::Maybe));
                assert!(number % 2 == 1, "an idempotent task failed: {end:?}");
            }
            other => panic!("{other}: {end:?}"),
        }
    }
    let lost = outcomes.get(&(Outcome::Failed, Some(ErrorCode::WorkerLost))).copied();
    assert!(lost.unwrap_or(0) <= SLOTS, "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_was_cut_off_goes_on_where_it_was() {
    let broker = BrokerProcess::start().await;
    let client = broker.client().await;
    let proxy = Proxy::start(&broker.address).await;
    let ledger = Ledger::default();
    let takes = Duration::from_millis(20);
    let endpoint = broker.endpoint_at(proxy.address);
    let _worker = counting_worker(endpoint, "w", 8, takes, &ledger).await;

    let handles = send_many(&client, 1_000, false).await;
    until("a part of the tasks is done", || async { client.pending() < 800 }).await;
    let mended = Instant::now() + Duration::from_secs(5);
    proxy.cut();
    until_listed(&client, &[]).await;
    sleep_until(mended).await;
    proxy.mend();
    until_listed(&client, &["w"]).await;

    let ends = ends_of(handles).await;
    let not_ok: Vec<_> = ends.iter().filter(|end| end.outcome != Outcome::Ok).collect();
    assert!(not_ok.is_empty(), "{not_ok:?}");
    assert_eq!((ledger.runs(), ledger.most_runs_of_a_task()), (1_000, 1));
}
