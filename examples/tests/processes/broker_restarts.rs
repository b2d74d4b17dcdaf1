//! A broker that is stopped, or killed, under load.

use std::time::Duration;

use mcp_client::{ErrorCode, Executed, Outcome};

use crate::support::{
    BrokerProcess, Ledger, counting_worker, ends_of, send_many, until, until_listed, within,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_and_started_again_it_is_only_an_interruption() {
    let mut broker = BrokerProcess::start().await;
    let client = broker.client().await;
    let ledger = Ledger::default();
    let takes = Duration::from_millis(20);
    let _workers = [
        counting_worker(broker.endpoint(), "one", 4, takes, &ledger).await,
        counting_worker(broker.endpoint(), "two", 4, takes, &ledger).await,
    ];
    let handles = send_many(&client, 500, false).await;
    until("a part of the tasks is done", || async { client.pending() < 400 }).await;

    broker.terminate();
    assert_eq!(broker.ended().await.code(), Some(0));
    let broker = broker.start_again().await;
    until_listed(&client, &["one", "two"]).await;

    // What ran was let finish, what waited was told so and sent again by the SDK.
    let ends = ends_of(handles).await;
    let not_ok: Vec<_> = ends.iter().filter(|end| end.outcome != Outcome::Ok).collect();
    assert!(not_ok.is_empty(), "{not_ok:?}");
    assert_eq!((ledger.runs(), ledger.most_runs_of_a_task()), (500, 1));
    drop(broker);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_it_leaves_no_task_without_an_outcome() {
    let mut broker = BrokerProcess::start().await;
    let client = broker.client().await;
    let ledger = Ledger::default();
    let takes = Duration::from_millis(20);
    let _worker = counting_worker(broker.endpoint(), "w", 8, takes, &ledger).await;
    let handles = send_many(&client, 500, true).await;
    until("a part of the tasks is done", || async { client.pending() < 400 }).await;

    broker.kill();
    broker.ended().await;
    let broker = broker.start_again().await;
    until_listed(&client, &["w"]).await;

    let ends = ends_of(handles).await;
    for (number, end) in ends.iter().enumerate() {
        let code = end.error.as_ref().map(|error| error.code);
        match end.outcome {
            Outcome::Ok => assert_eq!(end.body, number.to_string()),
            Outcome::Lost => {
                assert_eq!((code, end.executed), (Some(ErrorCode::BrokerLost), Executed::Maybe));
                assert!(number % 2 == 1, "an idempotent task was not sent again: {end:?}");
            }
            other => panic!("{other}: {end:?}"),
        }
    }
    let reply = within("the client goes on", client.task("work").body("again").call()).await;
    assert_eq!(reply.unwrap().body, "again");
    drop(broker);
}
