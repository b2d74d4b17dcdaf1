//! Handlers that send tasks, over QUIC: a broker, workers and clients in one process.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mcp_broker::Broker;
use mcp_client::{
    CallError, Client, ContextTrace, Endpoint, HandlerError, Job, Outcome, Reply, Worker,
};
use tokio::sync::mpsc;

/// Long enough for any machine; nothing waits for as long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(60);

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

async fn start() -> (Broker, Endpoint) {
    let broker = Broker::builder().start().await.unwrap();
    let endpoint = Endpoint::new(broker.local_addr().to_string()).ca_pem(broker.ca_pem().unwrap());
    (broker, endpoint)
}

/// A worker with one slot, whose handler calls its own action as often as its body says. It parks
/// while it waits, or not.
async fn nesting(broker: &Endpoint, parks: bool) -> Worker {
    let client = Client::builder(broker.clone()).connect().await.unwrap();
    let running = Arc::new(AtomicU32::new(0));
    let nest = move |job: Job| {
        let (client, running) = (client.clone(), running.clone());
        async move {
            let _one = OnlyOne::new(&running);
            let below: u32 = String::from_utf8(job.body.to_vec())?.parse()?;
            if below == 0 {
                return Ok::<_, HandlerError>("0".to_owned());
            }
            let child = client.task("nest").body((below - 1).to_string()).child_of(&job).call();
            let reply = if parks {
                drop(_one);
                let reply = job.wait_for(child).await?;
                let _again = OnlyOne::new(&running);
                reply
            } else {
                child.await?
            };
            Ok(format!("{below}{}", String::from_utf8_lossy(&reply.body)))
        }
    };
    Worker::builder(broker.clone()).handler("nest", nest).start().await.unwrap()
}

/// Held by a handler that takes the one slot.
struct OnlyOne(Arc<AtomicU32>);

impl OnlyOne {
    fn new(running: &Arc<AtomicU32>) -> Self {
        assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "two handlers run in one slot");
        Self(running.clone())
    }
}

impl Drop for OnlyOne {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn call(client: &Client, depth: u32, ttl: Duration) -> Result<Reply, CallError> {
    soon(client.task("nest").body(depth.to_string()).ttl(ttl).call()).await
}

fn depth(trace: &ContextTrace) -> usize {
    trace.children.iter().map(|child| 1 + depth(&child.trace)).max().unwrap_or(0)
}

async fn a_worker_with_one_slot_calls_itself() {
    let (_broker, endpoint) = start().await;
    let client = Client::builder(endpoint.clone()).connect().await.unwrap();
    let worker = nesting(&endpoint, true).await;
    let calls = (0..8).map(|_| call(&client, 3, PATIENCE));
    for reply in futures_util::future::join_all(calls).await {
        let reply = reply.unwrap();
        assert_eq!(reply.body, "3210");
        assert_eq!(depth(&reply.trace.decode()), 3);
        let trace = reply.trace.decode();
        let child = &trace.children[0];
        assert_eq!((child.action.as_str(), child.outcome), ("nest", Outcome::Ok));
        assert!(child.sent_us + child.trace.total_us <= trace.total_us);
    }
    let stats = worker.stats();
    assert_eq!((stats.running, stats.parked, stats.nacked), (0, 0, 0));
}

#[tokio::test]
async fn a_worker_with_one_slot_calls_itself_in_one_thread() {
    a_worker_with_one_slot_calls_itself().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_with_one_slot_calls_itself_in_two_threads() {
    a_worker_with_one_slot_calls_itself().await;
}

/// What the test above is about: the child waits for the slot that its parent waits in.
#[tokio::test]
async fn without_parking_it_waits_until_its_time_is_over() {
    let (_broker, endpoint) = start().await;
    let client = Client::builder(endpoint.clone()).connect().await.unwrap();
    let _worker = nesting(&endpoint, false).await;
    // Or failed, when the child's end reached the handler first.
    let error = call(&client, 1, Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, CallError::Expired(_) | CallError::Failed(_)), "{error}");
    assert!(error.to_string().contains("time to live"), "{error}");
}

#[tokio::test]
async fn cancelling_a_task_stops_the_handlers_of_all_below_it() {
    let (_broker, endpoint) = start().await;
    let client = Client::builder(endpoint.clone()).connect().await.unwrap();
    let (stopped, mut stops) = mpsc::unbounded_channel();
    let (begun, mut begins) = mpsc::unbounded_channel();
    let chain = client.clone();
    let handler = move |job: Job| {
        let (client, stopped, begun) = (chain.clone(), stopped.clone(), begun.clone());
        async move {
            let _tells = TellsDrop(job.task.depth, stopped);
            begun.send(job.task.depth)?;
            if job.task.depth == 2 {
                std::future::pending::<()>().await;
            }
            // Detached: nobody but the broker ends it.
            let child = client.task("chain").child_of(&job).send().await?;
            child.detach();
            job.wait_for(std::future::pending::<Result<(), HandlerError>>()).await
        }
    };
    let worker = Worker::builder(endpoint).slots(1).handler("chain", handler).start();
    let worker = worker.await.unwrap();
    let mut root = client.task("chain").ttl(PATIENCE).send().await.unwrap();
    for depth in 0..3 {
        assert_eq!(soon(begins.recv()).await, Some(depth));
    }
    root.cancel();
    let end = soon(root.outcome()).await;
    assert_eq!(end.outcome, Outcome::Cancelled);
    assert_eq!(depth(&end.trace.decode()), 2);
    let mut depths = Vec::new();
    for _ in 0..3 {
        depths.push(soon(stops.recv()).await.unwrap());
    }
    depths.sort_unstable();
    assert_eq!(depths, [0, 1, 2]);
    drop(worker);
}

struct TellsDrop(u8, mpsc::UnboundedSender<u8>);

impl Drop for TellsDrop {
    fn drop(&mut self) {
        let _ = self.1.send(self.0);
    }
}

#[tokio::test]
async fn a_wait_that_is_dropped_has_its_slot_again() {
    let (_broker, endpoint) = start().await;
    let client = Client::builder(endpoint.clone()).connect().await.unwrap();
    let handler = |job: Job| async move {
        let never = job.wait_for(std::future::pending::<()>());
        let waited = tokio::time::timeout(Duration::from_millis(1), never).await;
        Ok::<_, HandlerError>(if waited.is_err() { "went on" } else { "" })
    };
    let worker = Worker::builder(endpoint).handler("wait", handler).start().await.unwrap();
    for _ in 0..3 {
        assert_eq!(soon(client.task("wait").call()).await.unwrap().body, "went on");
    }
    let stats = worker.stats();
    assert_eq!((stats.running, stats.parked, stats.nacked), (0, 0, 0));
}
