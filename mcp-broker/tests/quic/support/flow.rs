//! 200 tasks a second between a well-behaved client and worker, beside what a test does to the
//! same broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mcp_broker::Broker;
use mcp_proto::{Message, Outcome};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::{RawPeer, result, send, until, within};

const ACTION: &str = "flow";
const EVERY: Duration = Duration::from_millis(5);

/// A flow that runs until [`Flow::finish`].
pub(crate) struct Flow {
    counts: Arc<Counts>,
    worker: JoinHandle<()>,
    client: JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    ok: AtomicU64,
    is_stopping: AtomicBool,
}

impl Flow {
    pub(crate) async fn start(broker: &Broker) -> Self {
        let counts = Arc::new(Counts::default());
        let worker = RawPeer::worker(broker, "flow-worker", ACTION, 64).await;
        let client = RawPeer::client(broker).await;
        let flow = Self {
            worker: tokio::spawn(serve(worker)),
            client: tokio::spawn(call(client, counts.clone())),
            counts,
        };
        flow.goes_on().await;
        flow
    }

    /// Waits until tasks that were sent from now on have come back.
    pub(crate) async fn goes_on(&self) {
        let from = self.counts.sent.load(Ordering::SeqCst);
        until("the flow to go on", || {
            self.counts.ok.load(Ordering::SeqCst) >= from + 20 || self.client.is_finished()
        })
        .await;
    }

    /// Stops sending, and checks that each task sent ended ok, and returns how many there were.
    pub(crate) async fn finish(self) -> u64 {
        self.goes_on().await;
        self.counts.is_stopping.store(true, Ordering::SeqCst);
        within("the flow's client", self.client).await.unwrap();
        self.worker.abort();
        let (sent, ok) =
            (self.counts.sent.load(Ordering::SeqCst), self.counts.ok.load(Ordering::SeqCst));
        assert_eq!(sent, ok, "tasks of the flow that did not end ok");
        ok
    }
}

async fn serve(mut worker: RawPeer) {
    loop {
        let (route, body) = worker.receive_route().await;
        worker.send(result(&route), body).await;
    }
}

async fn call(mut client: RawPeer, counts: Arc<Counts>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let (sent, ok) = (counts.sent.load(Ordering::SeqCst), counts.ok.load(Ordering::SeqCst));
        let is_stopping = counts.is_stopping.load(Ordering::SeqCst);
        if is_stopping && sent == ok {
            return;
        }
        tokio::select! {
            _ = ticks.tick(), if !is_stopping => {
                counts.sent.fetch_add(1, Ordering::SeqCst);
                client.send(send(&format!("flow-{sent}"), ACTION), format!("body {sent}")).await;
            }
            frame = client.next() => {
                let frame = frame.expect("the flow's connection stays");
                let Message::Deliver(deliver) = &frame.message else {
                    panic!("the flow got {frame:?}");
                };
                assert_eq!(deliver.outcome, Outcome::Ok, "{deliver:?}");
                let number = deliver.task_id.as_str().strip_prefix("flow-").unwrap();
                assert_eq!(frame.body, format!("body {number}"));
                counts.ok.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}
