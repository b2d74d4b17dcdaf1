//! Inputs of any size, over real connections that are cut, and with processes that are killed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::{Stream, stream};
use mcp_client::{
    Bytes, Client, Endpoint, ErrorCode, Executed, HandlerError, HandlerReply, Job, Outcome,
    StreamEvent, Worker,
};
use rustix::process::Signal;
use tokio::sync::Semaphore;

use crate::proxy::Proxy;
use crate::support::{BrokerProcess, PATIENCE, ends_of, send_many, until, within};

const PART: usize = 10_000;

/// So many bytes, no two parts alike.
fn part(number: usize, bytes: usize) -> Bytes {
    static PATTERN: LazyLock<Vec<u8>> =
        LazyLock::new(|| (0..PART).map(|at| (at.wrapping_mul(31) >> 3) as u8).collect());
    let mut part = PATTERN[..bytes].to_vec();
    let number = &number.to_le_bytes()[..bytes.min(8)];
    part[..number.len()].copy_from_slice(number);
    part.into()
}

/// `bytes` of input in parts, counted as they are taken.
pub(crate) fn input(
    bytes: usize,
    taken: &Arc<AtomicUsize>,
) -> impl Stream<Item = Result<Bytes, String>> + use<> {
    let taken = taken.clone();
    stream::iter((0..bytes.div_ceil(PART)).map(move |number| {
        let part = part(number, PART.min(bytes - number * PART));
        taken.fetch_add(part.len(), Ordering::Relaxed);
        Ok(part)
    }))
}

/// Fletcher's, which the order matters to: byte by byte, so that it does not matter how the input is cut.
#[derive(Default)]
pub(crate) struct Checksum(u64, u64, usize);

impl Checksum {
    fn add(&mut self, part: &[u8]) {
        for byte in part {
            self.0 = self.0.wrapping_add(u64::from(*byte));
            self.1 = self.1.wrapping_add(self.0);
        }
        self.2 += part.len();
    }

    fn text(&self) -> String {
        format!("{} {:x} {:x}", self.2, self.0, self.1)
    }

    pub(crate) fn of(bytes: usize) -> String {
        let mut sum = Self::default();
        for number in 0..bytes.div_ceil(PART) {
            sum.add(&part(number, PART.min(bytes - number * PART)));
        }
        sum.text()
    }
}

/// Answers with the length and the checksum of the input, and reads a part for each permit.
pub(crate) async fn sum(job: Job, permits: Arc<Semaphore>) -> Result<HandlerReply, HandlerError> {
    let mut sum = Checksum::default();
    sum.add(&job.body);
    let mut input = job.input();
    loop {
        permits.acquire().await?.forget();
        match input.next().await {
            Some(part) => sum.add(&part?),
            None => return Ok(HandlerReply::new(sum.text())),
        }
    }
}

/// A worker that does so.
async fn summing(endpoint: Endpoint, agent_id: &str, permits: &Arc<Semaphore>) -> Worker {
    let permits = permits.clone();
    let sum = move |job: Job| sum(job, permits.clone());
    let echo = |job: Job| async move { Ok::<_, HandlerError>(job.body) };
    let worker = Worker::builder(endpoint).agent_id(agent_id).slots(4);
    worker.handler("sum", sum).handler("work", echo).start().await.unwrap()
}

pub(crate) fn permits(count: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(count))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_megabytes_arrive_as_they_were_sent() {
    const BYTES: usize = 50_000_000;
    let broker = BrokerProcess::start().await;
    let client = broker.client().await;
    let _worker = summing(broker.endpoint(), "w", &permits(usize::MAX >> 3)).await;
    let task = client.task("sum").input(input(BYTES, &Arc::default())).ttl(PATIENCE);
    let reply = within("it arrives", task.call()).await.unwrap();
    assert_eq!(reply.body, Checksum::of(BYTES));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_and_files_of_any_size_arrive() {
    let broker = BrokerProcess::start().await;
    let client = broker.client().await;
    let _worker = summing(broker.endpoint(), "w", &permits(usize::MAX >> 3)).await;
    for bytes in [0_usize, 1, 65_536, 65_537, 65_536 + 65_536, 1_000_000] {
        let body: Vec<u8> = (0..bytes.div_ceil(PART))
            .flat_map(|number| part(number, PART.min(bytes - number * PART)))
            .collect();
        let path = broker.state().join("input");
        std::fs::write(&path, &body).unwrap();
        let tasks = [
            client.task("sum").body(body.clone()),
            client.task("sum").input_file(path),
            client.task("sum").input_reader(std::io::Cursor::new(body)),
        ];
        for task in tasks {
            let reply = within("it arrives", task.ttl(PATIENCE).call()).await.unwrap();
            assert_eq!(reply.body, Checksum::of(bytes));
        }
    }
    // A handler that knows of bodies only.
    let error = client.task("work").body(vec![7; 65_537]).ttl(PATIENCE).call().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::BodyTooLarge));
}

/// The bytes of memory that a process has.
fn resident_bytes(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_stalls_its_own_task_only_and_costs_the_broker_little() {
    const BYTES: usize = 200_000_000;
    let broker = BrokerProcess::start().await;
    let client = broker.client().await;
    let permits = permits(0);
    let worker = summing(broker.endpoint(), "w", &permits).await;
    let before = resident_bytes(broker.id());
    let taken = Arc::new(AtomicUsize::new(0));
    let task = client.task("sum").input(input(BYTES, &taken)).ttl(10 * PATIENCE);
    let handle = task.send().await.unwrap();
    until("it has begun", || async { worker.stats().running == 1 }).await;
    until("a window is full", || async { taken.load(Ordering::Relaxed) > 200_000 }).await;

    let ends = ends_of(send_many(&client, 2_000, false).await).await;
    assert!(ends.iter().all(|end| end.outcome == Outcome::Ok));
    // The window, and what the stream was asked for besides.
    assert!(taken.load(Ordering::Relaxed) <= 256 * 1024 + 2 * PART);
    permits.add_permits(100);
    until("it goes on", || async { taken.load(Ordering::Relaxed) > 1_000_000 }).await;
    permits.add_permits(usize::MAX >> 4);
    until("half of it is there", || async { taken.load(Ordering::Relaxed) > BYTES / 2 }).await;
    let grown = resident_bytes(broker.id()).saturating_sub(before);
    assert!(grown < 50_000_000, "the broker grew by {grown} bytes");
    // The rest would say no more.
    drop(handle);
    until("the handler is dropped", || async { worker.stats().running == 0 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_in_the_queue_is_held_back_at_its_client() {
    const BYTES: usize = 5_000_000;
    let broker = BrokerProcess::start().await;
    let client = broker.client().await;
    let sent: Vec<_> = (0..20).map(|_| Arc::new(AtomicUsize::new(0))).collect();
    let mut handles = Vec::new();
    for taken in &sent {
        let task = client.task("sum").input(input(BYTES, taken)).ttl(PATIENCE);
        handles.push(task.send().await.unwrap());
    }
    let all = |least: usize| sent.iter().all(|taken| taken.load(Ordering::Relaxed) >= least);
    until("each has its window", || async { all(200_000) }).await;
    assert!(sent.iter().all(|taken| taken.load(Ordering::Relaxed) <= 256 * 1024 + 2 * PART));
    let _worker = summing(broker.endpoint(), "w", &permits(usize::MAX >> 3)).await;
    for end in ends_of(handles).await {
        assert_eq!(end.body, Checksum::of(BYTES));
    }
}

/// All of the input arrives, though `cut` is cut off in the middle.
async fn is_resumed(cut_worker: bool, silence: Duration) {
    const BYTES: usize = 3_000_000;
    let broker = BrokerProcess::start().await;
    let proxy = Proxy::start(&broker.address).await;
    let through = || broker.endpoint_at(proxy.address);
    let permits = permits(0);
    let (worker_at, client_at) =
        if cut_worker { (through(), broker.endpoint()) } else { (broker.endpoint(), through()) };
    let worker = summing(worker_at, "w", &permits).await;
    let client = Client::builder(client_at).silence_timeout(silence).connect().await.unwrap();
    let taken = Arc::new(AtomicUsize::new(0));
    let task = client.task("sum").input(input(BYTES, &taken)).ttl(PATIENCE);
    let handle = task.send().await.unwrap();
    permits.add_permits(100);
    until("it is on its way", || async { taken.load(Ordering::Relaxed) > 600_000 }).await;
    proxy.cut();
    permits.add_permits(10);
    until("it is noticed", || async {
        if cut_worker { !worker.is_connected() } else { !client.is_connected() }
    })
    .await;
    proxy.mend();
    permits.add_permits(usize::MAX >> 4);
    let end = within("it arrives", handle).await;
    assert_eq!(end.outcome, Outcome::Ok, "{end}");
    assert_eq!(end.body, Checksum::of(BYTES));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_was_cut_off_sends_on_where_it_was() {
    is_resumed(false, Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_was_cut_off_reads_on_where_it_was() {
    is_resumed(true, Duration::from_secs(60)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_is_replaced_while_the_broker_has_all_of_the_input() {
    let broker = BrokerProcess::start_with("timing.resume_grace_ms = 500").await;
    let client = broker.client().await;
    for (bytes, is_kept) in [(200_000, true), (2_000_000, false)] {
        let read = bytes.min(1_000_000);
        let script = format!("head -c {read} | wc -c; sleep 1000");
        let victim = broker.worker("victim", 1, &["sh", "-c", &script]).await;
        let task = client.task("work").idempotent(true).ttl(PATIENCE);
        let task = task.input(input(bytes, &Arc::default())).input_bytes(bytes as u64);
        let mut stream = task.stream().await.unwrap();
        let part = within("it reads", stream.next()).await;
        assert_eq!(part, Some(StreamEvent::Part(format!("{read}\n").into())));
        victim.signal(Signal::KILL);
        if is_kept {
            let _other = broker.worker("other", 1, &["wc", "-c"]).await;
            let reply = within("it is read again", stream.collect(100)).await.unwrap();
            assert_eq!(reply.body, format!("{bytes}\n"));
        } else {
            while within("it ends", stream.next()).await.is_some() {}
            let end = stream.outcome().await;
            assert_eq!((end.outcome, end.executed), (Outcome::Failed, Executed::Maybe));
            let error = end.error.unwrap();
            assert_eq!(error.code, ErrorCode::WorkerLost);
            assert!(error.message.contains("input"), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_in_the_middle_ends_its_task() {
    let broker = BrokerProcess::start().await;
    let client = broker.client().await;
    let worker = summing(broker.endpoint(), "w", &permits(usize::MAX >> 3)).await;
    let endless = stream::unfold((), async |()| {
        tokio::time::sleep(Duration::from_millis(5)).await;
        Some((Ok::<_, String>(part(0, PART)), ()))
    });
    let task = client.task("sum").input(endless).ttl(PATIENCE);
    task.send().await.unwrap().detach();
    until("it has begun", || async { worker.stats().running == 1 }).await;
    client.close().await;
    until("the handler is dropped", || async { worker.stats().running == 0 }).await;
    assert_eq!(worker.stats().cancelled, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_broker_gets_bodies_again_that_may_go_twice() {
    const BYTES: usize = 1_000_000;
    let mut broker = BrokerProcess::start().await;
    let client = broker.client().await;
    let permits = permits(0);
    let worker = summing(broker.endpoint(), "w", &permits).await;
    let taken = Arc::new(AtomicUsize::new(0));
    let task = client.task("sum").input(input(BYTES, &taken)).idempotent(true).ttl(PATIENCE);
    let stream = task.send().await.unwrap();
    permits.add_permits(40);
    until("some of it is forgotten", || async { taken.load(Ordering::Relaxed) > 350_000 }).await;
    let body: Vec<u8> = (0..BYTES / PART).flat_map(|number| part(number, PART)).collect();
    let task = client.task("sum").body(body).idempotent(true).ttl(PATIENCE);
    let handle = task.send().await.unwrap();
    until("both are on their way", || async { worker.stats().running == 2 }).await;
    broker.kill();
    broker.ended().await;
    let _broker = broker.start_again().await;
    permits.add_permits(usize::MAX >> 4);
    let end = within("it arrives", handle).await;
    assert_eq!(end.outcome, Outcome::Ok, "{end}");
    assert_eq!(end.body, Checksum::of(BYTES));
    let end = within("it ends", stream).await;
    assert_eq!((end.outcome, end.executed), (Outcome::Lost, Executed::Maybe));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_streams_files_and_stdin() {
    const BYTES: usize = 3_000_000;
    let broker = BrokerProcess::start().await;
    let path = broker.state().join("input");
    std::fs::write(&path, vec![b'x'; BYTES]).unwrap();
    let _worker = broker.worker("w", 1, &["wc", "-c"]).await;
    let ttl = format!("{}s", PATIENCE.as_secs());
    let mut by_name = broker.mcpctl(&["call", "work", "--ttl", &ttl, "--file"]);
    by_name.arg(&path);
    let mut by_stdin = broker.mcpctl(&["call", "work", "--ttl", &ttl, "-"]);
    by_stdin.stdin(std::fs::File::open(&path).unwrap());
    for mut command in [by_name, by_stdin] {
        let output = within("mcpctl ends", command.output()).await.unwrap();
        let counted = String::from_utf8_lossy(&output.stdout);
        assert_eq!(counted.trim(), BYTES.to_string(), "{output:?}");
    }
}
