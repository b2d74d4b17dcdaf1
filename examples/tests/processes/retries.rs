//! Handlers that fail, hang, and are busy.

use std::future::pending;
use std::time::Duration;

use mcp_client::{ErrorCode, Executed, HandlerError, HopEvent, Job, Outcome, Retry, Worker};
use tokio::time::sleep;

use crate::support::{BrokerProcess, PATIENCE, within};

/// Long beside what a busy machine adds to a handler's pauses, short beside its work.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_gets_over_handlers_that_fail_hang_and_are_busy() {
    let broker = BrokerProcess::start().await;
    let client = broker.client().await;
    let handler = |job: Job| async move {
        match job.attempt {
            1 => return Err(HandlerError::new("for a test")),
            2 => pending().await,
            3 => return Err(HandlerError::busy("warming up", Duration::from_millis(10))),
            _ => {}
        }
        // Longer than an attempt may be silent.
        for step in 0..40u8 {
            job.progress(f32::from(step) / 40.0, "at work");
            sleep(ATTEMPT_TIMEOUT / 30).await;
        }
        Ok("done")
    };
    let starting = Worker::builder(broker.endpoint()).handler("work", handler).start();
    let _worker = starting.await.unwrap();
    let task = client
        .task("work")
        .idempotent(true)
        .retry(Retry { max_attempts: 3, ..Retry::default() })
        .attempt_timeout(ATTEMPT_TIMEOUT)
        .ttl(PATIENCE);
    let end = within("the task ends", task.send().await.unwrap()).await;
    assert_eq!((end.outcome, &end.body[..]), (Outcome::Ok, &b"done"[..]), "{end:?}");
    let trace = end.trace.decode();
    let hops: Vec<_> = trace.hops.iter().map(|hop| (hop.event, &*hop.reason)).collect();
    assert_eq!(
        hops,
        [
            (HopEvent::Completed, "failed; tried again"),
            (HopEvent::TimedOut, "no sign of life; tried again"),
            (HopEvent::Nacked, "handed back; dispatched again"),
            (HopEvent::Completed, ""),
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_hangs_ends_a_task_that_may_not_run_twice() {
    let broker = BrokerProcess::start().await;
    let client = broker.client().await;
    let handler = |_: Job| pending::<Result<(), HandlerError>>();
    let starting = Worker::builder(broker.endpoint()).handler("work", handler).start();
    let worker = starting.await.unwrap();
    let task = client.task("work").attempt_timeout(Duration::from_millis(50)).ttl(PATIENCE);
    let end = within("the task ends", task.send().await.unwrap()).await;
    let code = end.error.as_ref().map(|error| error.code);
    let expected = (Outcome::Failed, Executed::Maybe, Some(ErrorCode::AttemptTimeout));
    assert_eq!((end.outcome, end.executed, code), expected);
    // Its handler is stopped, and its slot comes back.
    within("the slot is free", async {
        while worker.stats().running > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
