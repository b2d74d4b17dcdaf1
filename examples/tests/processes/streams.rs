//! Results in parts, over real connections that are cut, and with processes that are killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mcp_client::{
    AgentFilter, CallError, Client, Endpoint, ErrorCode, Executed, HandlerError, HandlerReply, Job,
    Outcome, StreamEvent, TaskStream, Worker,
};
use rustix::process::Signal;
use tokio::sync::Semaphore;

use crate::proxy::Proxy;
use crate::support::{BrokerProcess, PATIENCE, Process, ends_of, send_many, until, within};

/// Counts: one number a line, as far as the body says, one for each permit.
pub(crate) async fn count(job: Job, permits: Arc<Semaphore>) -> Result<HandlerReply, HandlerError> {
    let up_to: u32 = String::from_utf8_lossy(&job.body).parse()?;
    for number in 0..up_to {
        permits.acquire().await?.forget();
        job.emit(format!("{number}\n")).await?;
    }
    Ok(HandlerReply::new("end").header("numbers", up_to.to_string()))
}

/// A worker whose handler counts.
async fn counter(endpoint: Endpoint, agent_id: &str, permits: &Arc<Semaphore>) -> Worker {
    let permits = permits.clone();
    let count = move |job: Job| count(job, permits.clone());
    Worker::builder(endpoint).agent_id(agent_id).handler("count", count).start().await.unwrap()
}

pub(crate) async fn stream(
    client: &Client,
    action: &str,
    body: impl ToString,
    idempotent: bool,
) -> TaskStream {
    let task = client.task(action).body(body.to_string()).ttl(PATIENCE).idempotent(idempotent);
    task.stream().await.unwrap()
}

async fn next(stream: &mut TaskStream) -> Option<StreamEvent> {
    within("the next part comes", stream.next()).await
}

async fn next_part(stream: &mut TaskStream) -> String {
    match next(stream).await {
        Some(StreamEvent::Part(part)) => String::from_utf8(part.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn numbers(range: std::ops::Range<u32>) -> String {
    range.map(|number| format!("{number}\n")).collect()
}

/// All parts that come until the end, which nothing may interrupt.
pub(crate) async fn rest(stream: &mut TaskStream) -> String {
    let mut text = String::new();
    while let Some(event) = next(stream).await {
        match event {
            StreamEvent::Part(part) => text.push_str(std::str::from_utf8(&part).unwrap()),
            other => panic!("{other:?}"),
        }
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_come_while_the_handler_works() {
    let broker = BrokerProcess::start().await;
    let client = broker.client().await;
    let permits = Arc::new(Semaphore::new(0));
    let _worker = counter(broker.endpoint(), "w", &permits).await;
    let mut stream = stream(&client, "count", 3, false).await;
    for number in 0..3 {
        // Not before the one before it was read.
        permits.add_permits(1);
        assert_eq!(next_part(&mut stream).await, format!("{number}\n"));
    }
    assert_eq!(next(&mut stream).await, None);
    let end = stream.outcome().await;
    assert_eq!((end.outcome, &end.body[..]), (Outcome::Ok, &b"end"[..]));
    assert_eq!(end.headers["numbers"], "3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_no_parts_gets_the_whole_and_who_collects_gets_any_size() {
    let broker = BrokerProcess::start().await;
    let client = broker.client().await;
    let permits = Arc::new(Semaphore::new(1_000));
    let _worker = counter(broker.endpoint(), "w", &permits).await;
    let reply = client.task("count").body("20").call().await.unwrap();
    assert_eq!(reply.body, numbers(0..20) + "end");

    const BYTES: usize = 20_000_000;
    let large = |_: Job| async { Ok::<_, HandlerError>(vec![7_u8; BYTES]) };
    let _large = Worker::builder(broker.endpoint()).handler("large", large).start().await.unwrap();
    let task = || client.task("large").ttl(PATIENCE);
    let whole = within("it comes", task().stream().await.unwrap().collect(BYTES)).await.unwrap();
    assert!(whole.body.len() == BYTES && whole.body.iter().all(|byte| *byte == 7));
    let error = within("it comes", task().stream().await.unwrap().collect(BYTES - 1)).await;
    assert!(matches!(error, Err(CallError::Parts(_))), "{error:?}");
    let error = task().call().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::BodyTooLarge));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_stalls_its_own_task_only() {
    const PART: usize = 1_000;
    const PARTS: usize = 2_000;
    let broker = BrokerProcess::start().await;
    let client = broker.client().await;
    let emitted = Arc::new(AtomicUsize::new(0));
    let counted = emitted.clone();
    let flood = move |job: Job| {
        let counted = counted.clone();
        async move {
            for _ in 0..PARTS {
                job.emit(vec![b'x'; PART]).await?;
                counted.fetch_add(PART, Ordering::Relaxed);
            }
            Ok::<_, HandlerError>(())
        }
    };
    let echo = |job: Job| async move { Ok::<_, HandlerError>(job.body) };
    let worker = Worker::builder(broker.endpoint()).slots(4);
    let _worker = worker.handler("flood", flood).handler("work", echo).start().await.unwrap();
    let mut stalled = stream(&client, "flood", "", false).await;
    until("the handler waits", || async { emitted.load(Ordering::Relaxed) > 200_000 }).await;

    let ends = ends_of(send_many(&client, 2_000, false).await).await;
    assert!(ends.iter().all(|end| end.outcome == Outcome::Ok));
    let before = emitted.load(Ordering::Relaxed);
    assert!(before <= 256 * 1024, "{before} bytes were emitted that nobody reads");
    assert_eq!(rest(&mut stalled).await.len(), PART * PARTS);
}

/// The reader gets each number once, though `cut` is cut off in the middle.
async fn is_resumed(cut_worker: bool, silence: Duration) {
    let broker = BrokerProcess::start().await;
    let proxy = Proxy::start(&broker.address).await;
    let through = || broker.endpoint_at(proxy.address);
    let permits = Arc::new(Semaphore::new(0));
    let (worker_at, client_at) =
        if cut_worker { (through(), broker.endpoint()) } else { (broker.endpoint(), through()) };
    let worker = counter(worker_at, "w", &permits).await;
    let client = Client::builder(client_at).silence_timeout(silence).connect().await.unwrap();
    let mut stream = stream(&client, "count", 600, false).await;
    permits.add_permits(100);
    let mut text = String::new();
    while text != numbers(0..100) {
        text += &next_part(&mut stream).await;
    }
    proxy.cut();
    permits.add_permits(400);
    until("it is noticed", || async {
        if cut_worker { !worker.is_connected() } else { !client.is_connected() }
    })
    .await;
    proxy.mend();
    permits.add_permits(100);
    assert_eq!(rest(&mut stream).await, numbers(100..600));
    assert_eq!(stream.outcome().await.outcome, Outcome::Ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_was_cut_off_reads_on_where_it_was() {
    is_resumed(false, Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_was_cut_off_sends_on_where_it_was() {
    is_resumed(true, Duration::from_secs(60)).await;
}

/// `mcpctl worker` whose program writes one line, and then another after the file is there. A killed
/// worker's program goes on, but not for longer than the broker's directory is there.
async fn lines_worker(broker: &BrokerProcess, agent_id: &str, file: &str) -> Process {
    let wait = format!("[ -d {} ] && [ ! -e {file} ]", broker.state().display());
    let script = format!("echo {agent_id}; while {wait}; do sleep 0.05; done; echo done");
    broker.worker(agent_id, 1, &["sh", "-c", &script]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_restarts_what_may_run_twice_and_fails_the_rest() {
    let broker = BrokerProcess::start().await;
    let client = broker.client().await;
    let file = broker.state().join("go").display().to_string();
    for idempotent in [true, false] {
        let victim = lines_worker(&broker, "victim", &file).await;
        let mut stream = stream(&client, "work", "", idempotent).await;
        assert_eq!(next_part(&mut stream).await, "victim\n");
        victim.signal(Signal::KILL);
        if idempotent {
            let mut other = lines_worker(&broker, "other", &file).await;
            assert_eq!(next(&mut stream).await, Some(StreamEvent::Restarted));
            assert_eq!(next_part(&mut stream).await, "other\n");
            std::fs::write(&file, "").unwrap();
            assert_eq!(rest(&mut stream).await, "done\n");
            assert_eq!(stream.outcome().await.outcome, Outcome::Ok);
            std::fs::remove_file(&file).unwrap();
            // In order, so that the broker sends it nothing more.
            other.signal(Signal::TERM);
            other.ended().await;
        } else {
            assert_eq!(next(&mut stream).await, None);
            let end = stream.outcome().await;
            let code = end.error.map(|error| error.code);
            assert_eq!((end.outcome, code), (Outcome::Failed, Some(ErrorCode::WorkerLost)));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_broker_restarts_what_may_run_twice_and_loses_the_rest() {
    let mut broker = BrokerProcess::start().await;
    let client = broker.client().await;
    let permits = Arc::new(Semaphore::new(0));
    let _one = counter(broker.endpoint(), "one", &permits).await;
    let _two = counter(broker.endpoint(), "two", &permits).await;
    let mut again = stream(&client, "count", 5, true).await;
    let mut once = stream(&client, "count", 5, false).await;
    permits.add_permits(2);
    until("both have begun", || async {
        let listed = client.agents(&AgentFilter::online()).await;
        listed.is_ok_and(|list| list.agents.iter().all(|it| it.in_flight == 1))
    })
    .await;
    let (mut read, mut lost) = (String::new(), String::new());
    while read.len() + lost.len() < 4 {
        tokio::select! {
            part = next_part(&mut again) => read += &part,
            part = next_part(&mut once) => lost += &part,
        }
    }
    broker.kill();
    broker.ended().await;
    let _broker = broker.start_again().await;
    permits.add_permits(100);
    if !read.is_empty() {
        assert_eq!(next(&mut again).await, Some(StreamEvent::Restarted));
    }
    assert_eq!(rest(&mut again).await, numbers(0..5));
    assert_eq!(again.outcome().await.outcome, Outcome::Ok);
    while next(&mut once).await.is_some() {}
    let end = once.outcome().await;
    assert_eq!((end.outcome, end.executed), (Outcome::Lost, Executed::Maybe));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_stream_cancels_its_handler() {
    let broker = BrokerProcess::start().await;
    let client = broker.client().await;
    let permits = Arc::new(Semaphore::new(1));
    let worker = counter(broker.endpoint(), "w", &permits).await;
    let mut stream = stream(&client, "count", 5, false).await;
    assert_eq!(next_part(&mut stream).await, "0\n");
    drop(stream);
    until("the handler is dropped", || async { worker.stats().running == 0 }).await;
    assert_eq!(worker.stats().cancelled, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_prints_a_programs_long_output() {
    const BYTES: usize = 3_000_000;
    let broker = BrokerProcess::start().await;
    let _worker = broker.worker("w", 1, &["head", "-c", &BYTES.to_string(), "/dev/zero"]).await;
    let ttl = format!("{}s", PATIENCE.as_secs());
    for how in [None, Some("--no-stream")] {
        let mut command = broker.mcpctl(&["call", "work", "--ttl", &ttl, "--data", ""]);
        let output = within("mcpctl ends", command.args(how).output()).await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.stdout.len(), BYTES, "{said}");
    }
}
