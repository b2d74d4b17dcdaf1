//! Tasks over a network that loses, doubles, delays and reorders packets, is silent for a while, and
//! gives its peers other addresses. The same things happen whenever a test runs, if not at the same
//! packets.

use std::sync::Arc;
use std::time::Duration;

use mcp_client::{Client, Executed, HandlerError, Job, Outcome, TaskEnd, TaskHandle, Worker};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::proxy::{Proxy, Weather};
use crate::streams::{count, numbers, rest, stream};
use crate::support::{BrokerProcess, Ledger, PATIENCE, ends_of, send_many, until, within};
use crate::uploads::{Checksum, input, permits, sum};

/// Longer than a silent worker is waited for, shorter than the SDK waits for its broker.
const BLACK_OUT: Duration = Duration::from_secs(3);
/// Shorter than a black-out.
const IMPATIENT: Duration = Duration::from_secs(1);
/// More often than a peer connects in a black-out, and far less than without its waits.
const FEW: usize = 10;
/// For peers whose addresses change: tasks wait for a worker that is away, and a worker, which alone can
/// tell where it is now, says something often.
const ROAMING: &str = "[timing]\nping_interval_ms = 1000\nno_worker_wait_ms = 60000\n";

const TASKS: usize = 300;
const STREAMS: usize = 3;
const NUMBERS: u32 = 200;
const LARGE_TASKS: usize = 100;
const LARGE_BYTES: usize = 30_000;
const ETHERNET_UDP_PAYLOAD_BYTES: usize = 1472;
const INPUTS: usize = 2;
const INPUT_BYTES: usize = 150_000;

/// A client and a worker, each behind a bad network of its own.
struct World {
    _broker: BrokerProcess,
    to_client: Proxy,
    to_worker: Proxy,
    client: Client,
    _worker: Worker,
    ledger: Ledger,
}

impl World {
    async fn start(seed: u64, silence: Duration) -> Self {
        Self::start_with("", Weather::BAD, seed, silence).await
    }

    /// With a configuration of the broker.
    async fn start_with(config: &str, weather: Weather, seed: u64, silence: Duration) -> Self {
        let broker = BrokerProcess::start_with(config).await;
        let to_client = Proxy::start_in(&broker.address, weather, seed).await;
        let to_worker = Proxy::start_in(&broker.address, weather, !seed).await;
        let ledger = Ledger::default();
        let worker = worker(&broker, &to_worker, &ledger, silence).await;
        let client = Client::builder(broker.endpoint_at(to_client.address))
            .silence_timeout(silence)
            .connect()
            .await
            .unwrap();
        Self { _broker: broker, to_client, to_worker, client, _worker: worker, ledger }
    }

    /// All kinds of tasks; `act` is called when a part of them is done.
    async fn does_all_while(&self, act: impl AsyncFnOnce(&Self)) {
        let work = Work::begin(&self.client).await;
        let begun = self.client.pending();
        until("a part of it is done", || async { self.client.pending() < begun - TASKS / 10 })
            .await;
        act(self).await;
        work.comes_to_its_end(&self.ledger).await;
        for proxy in [&self.to_client, &self.to_worker] {
            assert!(proxy.did_its_worst(), "the network was better than it should be");
        }
    }

    /// The same, where connections may end and begin: small tasks, of which every other one may run
    /// twice. The others may also end in one of these ways, as nobody can say whether they ran.
    async fn survives(&self, unsure: &[Outcome], act: impl AsyncFnOnce(&Self)) {
        let handles = send_many(&self.client, TASKS, true).await;
        let ids: Vec<_> = handles.iter().map(|handle| handle.id().clone()).collect();
        until("a part is done", || async { self.client.pending() < TASKS * 9 / 10 }).await;
        act(self).await;
        for (number, (end, id)) in ends_of(handles).await.iter().zip(ids).enumerate() {
            let is_idempotent = number % 2 == 0;
            if end.outcome == Outcome::Ok {
                assert_eq!(end.body, number.to_string());
            } else {
                assert!(!is_idempotent && unsure.contains(&end.outcome), "{end:?}");
                assert_eq!(end.executed, Executed::Maybe, "{end:?}");
            }
            assert!(is_idempotent || self.ledger.runs_of(&id) <= 1, "{end:?}");
        }
    }

    fn cut(&self) {
        self.to_client.cut();
        self.to_worker.cut();
    }

    fn mend(&self) {
        self.to_client.mend();
        self.to_worker.mend();
    }

    fn rebind(&self) {
        self.to_client.rebind(false);
        self.to_worker.rebind(false);
    }

    async fn black_out(&self) {
        let mended = Instant::now() + BLACK_OUT;
        self.cut();
        sleep_until(mended).await;
        self.mend();
    }

    /// Nobody had to connect again.
    fn stayed_connected(&self) {
        assert_eq!((self.to_client.dialled(), self.to_worker.dialled()), (1, 1));
    }
}

async fn worker(
    broker: &BrokerProcess,
    proxy: &Proxy,
    ledger: &Ledger,
    silence: Duration,
) -> Worker {
    let ledger = ledger.clone();
    let work = move |job: Job| {
        ledger.note(&job);
        async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok::<_, HandlerError>(job.body)
        }
    };
    let permits = permits(usize::MAX >> 3);
    let for_sum = permits.clone();
    Worker::builder(broker.endpoint_at(proxy.address))
        .agent_id("w")
        .slots(16)
        .silence_timeout(silence)
        .handler("work", work)
        .handler("count", move |job: Job| count(job, permits.clone()))
        .handler("sum", move |job: Job| sum(job, for_sum.clone()))
        .start()
        .await
        .unwrap()
}

/// Tasks of which none may run twice: small ones, results in parts, and inputs in parts.
struct Work {
    small: Vec<TaskHandle>,
    streams: Vec<JoinHandle<(String, TaskEnd)>>,
    inputs: Vec<TaskHandle>,
}

impl Work {
    async fn begin(client: &Client) -> Self {
        let mut streams = Vec::new();
        for _ in 0..STREAMS {
            let mut stream = stream(client, "count", NUMBERS, false).await;
            streams.push(tokio::spawn(
                async move { (rest(&mut stream).await, stream.outcome().await) },
            ));
        }
        let mut inputs = Vec::new();
        for _ in 0..INPUTS {
            let input = input(INPUT_BYTES, &Arc::default());
            inputs.push(client.task("sum").input(input).ttl(PATIENCE).send().await.unwrap());
        }
        Self { small: send_many(client, TASKS, false).await, streams, inputs }
    }

    async fn comes_to_its_end(self, ledger: &Ledger) {
        for (number, end) in ends_of(self.small).await.iter().enumerate() {
            assert_eq!(end.outcome, Outcome::Ok, "{end:?}");
            assert_eq!(end.body, number.to_string());
        }
        assert_eq!((ledger.runs(), ledger.most_runs_of_a_task()), (TASKS, 1));
        for stream in self.streams {
            let (text, end) = within("the stream ends", stream).await.unwrap();
            assert_eq!((end.outcome, text), (Outcome::Ok, numbers(0..NUMBERS)), "{end:?}");
        }
        for end in ends_of(self.inputs).await {
            assert_eq!(end.body, Checksum::of(INPUT_BYTES), "{end:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loss_doubles_and_disorder_cost_nothing_but_time() {
    let world = World::start(1, PATIENCE).await;
    world.does_all_while(async |_| ()).await;
    world.stayed_connected();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_out_is_sat_out() {
    let world = World::start(2, PATIENCE).await;
    world.does_all_while(World::black_out).await;
    world.stayed_connected();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_out_brings_no_storm_of_reconnects() {
    let world = World::start(3, IMPATIENT).await;
    // Its SEND, or all about it, was in what the black-out took.
    world.survives(&[Outcome::Lost], World::black_out).await;
    let dialled = (world.to_client.dialled(), world.to_worker.dialled());
    assert!((2..FEW).contains(&dialled.0) && dialled.1 < FEW, "{dialled:?}");
}

/// What asks a peer whether its new address is its own, or the answer, may be lost. QUIC does not
/// ask again soon, and the connection may end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_addresses_on_a_bad_network_break_no_promise() {
    let world = World::start_with(ROAMING, Weather::BAD, 8, IMPATIENT).await;
    // Or its worker was lost, or came back and did not know whether its ROUTE had arrived.
    world
        .survives(&[Outcome::Lost, Outcome::Failed], async |world| {
            world.black_out().await;
            world.rebind();
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_with_new_addresses_go_on_where_they_were() {
    let world = World::start_with(ROAMING, Weather::LOSSLESS, 4, PATIENCE).await;
    world
        .does_all_while(async |world| {
            for proxy in [&world.to_client, &world.to_worker, &world.to_client, &world.to_worker] {
                let pending = world.client.pending();
                proxy.rebind(false);
                until("more is done", || async {
                    world.client.pending() < pending.saturating_sub(TASKS / 10).max(1)
                })
                .await;
            }
        })
        .await;
    world.stayed_connected();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_with_new_addresses_after_a_black_out_go_on_where_they_were() {
    let world = World::start_with(ROAMING, Weather::LOSSLESS, 5, PATIENCE).await;
    world
        .does_all_while(async |world| {
            world.black_out().await;
            world.rebind();
        })
        .await;
    world.stayed_connected();
}

/// A tunnel, say, of which one end is on this machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_way_that_carries_less_than_it_seems_to_costs_nothing_but_time() {
    let broker = BrokerProcess::start().await;
    let weather = Weather {
        most_bytes: Some(ETHERNET_UDP_PAYLOAD_BYTES),
        seems_local: true,
        ..Weather::default()
    };
    let to_client = Proxy::start_in(&broker.address, weather, 6).await;
    let to_worker = Proxy::start_in(&broker.address, weather, 7).await;
    let ledger = Ledger::default();
    let _worker = worker(&broker, &to_worker, &ledger, PATIENCE).await;
    let endpoint = broker.endpoint_at(to_client.address);
    let client = Client::builder(endpoint).silence_timeout(PATIENCE).connect().await.unwrap();
    let mut handles = Vec::new();
    for _ in 0..LARGE_TASKS {
        let task = client.task("work").body(vec![7; LARGE_BYTES]).ttl(PATIENCE);
        handles.push(task.send().await.unwrap());
    }
    for end in ends_of(handles).await {
        assert_eq!((end.outcome, end.body.len()), (Outcome::Ok, LARGE_BYTES), "{end:?}");
    }
    assert_eq!(ledger.most_runs_of_a_task(), 1);
    for proxy in [to_client, to_worker] {
        let (dialled, lost) = (proxy.dialled(), proxy.lost());
        assert!(dialled == 1 && lost > 0, "{dialled} dialled, {lost} lost");
    }
}

/// The host says that nobody listens at its old address: that is not the end of the worker.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_old_address_is_closed_is_not_lost() {
    let patient = "[timing]\nprobe_after_ms = 1000\nlost_after_ms = 3600000\nlease_ms = 3600000\n";
    let broker = BrokerProcess::start_with(patient).await;
    let proxy = Proxy::start(&broker.address).await;
    let ledger = Ledger::default();
    let _worker = worker(&broker, &proxy, &ledger, PATIENCE).await;
    let client = broker.client().await;
    let handles = send_many(&client, TASKS, false).await;
    for done in 1..10 {
        until("a part is done", || async { client.pending() < TASKS - done * TASKS / 10 }).await;
        proxy.rebind(true);
    }
    let ends = ends_of(handles).await;
    let not_ok: Vec<_> = ends.iter().filter(|end| end.outcome != Outcome::Ok).collect();
    assert!(not_ok.is_empty(), "{not_ok:?}");
    assert_eq!(ledger.most_runs_of_a_task(), 1);
    let stats = client.task("mcp.admin.stats").call().await.unwrap();
    let stats: serde_json::Value = serde_json::from_slice(&stats.body).unwrap();
    assert_eq!((&stats["agents_lost"], proxy.dialled()), (&0.into(), 1));
}
