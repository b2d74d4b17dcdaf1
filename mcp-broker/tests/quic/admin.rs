//! The admin listener: what it says, and that nobody can trouble the broker through it.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use mcp_broker::{Broker, StartError};
use mcp_proto::{
    ErrorCode, ErrorInfo, Executed, Message, Nack, Outcome, Retry, Send, Task, TaskResult,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Flow, RawPeer, broker, result, send, until, within};

/// More than are served at once.
const MANY: usize = 40;

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// One GET.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    ask(address, request.as_bytes()).await
}

/// Sends these bytes, and reads until the broker closes.
pub(crate) async fn ask(address: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    answer(stream).await
}

async fn answer(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // A reset after the answer is an end as good as any.
    let _ = within("the answer", stream.read_to_end(&mut bytes)).await;
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|it| it.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

pub(crate) async fn admin_broker() -> (Broker, SocketAddr) {
    let broker = broker(|config| config.admin = Some("0".parse().unwrap())).await;
    let address = broker.admin_addr().unwrap();
    (broker, address)
}

/// The samples by name and labels. Fails on a line that is not of the format.
fn samples(text: &str) -> HashMap<String, f64> {
    let mut kinds = BTreeMap::new();
    let mut helped = Vec::new();
    let mut samples = HashMap::new();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!((lines.last(), text.ends_with('\n')), (Some(&"# EOF"), true));
    for line in &lines[..lines.len() - 1] {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let (what, name, text) =
                (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            match what {
                "HELP" => helped.push(name),
                "TYPE" => assert_eq!(kinds.insert(name, text), None, "{name} is there twice"),
                "UNIT" => assert!(name.ends_with(&format!("_{text}")), "{line}"),
                _ => panic!("{line}"),
            }
            assert!(name.starts_with("mcp_") || name.starts_with("process_"), "{line}");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
        assert!(name.chars().all(is_name), "{line}");
        // After its own HELP and TYPE, with the suffix of its type.
        let (family, kind) =
            kinds.iter().find(|(family, _)| **family == *helped.last().unwrap()).unwrap();
        let suffixes: &[&str] = match *kind {
            "counter" => &["_total"],
            "gauge" => &[""],
            "histogram" => &["_bucket", "_count", "_sum"],
            other => panic!("{other} in {line}"),
        };
        let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} in {family}"));
        assert!(suffixes.contains(&suffix), "{line}");
        if let Some(labels) = series.strip_prefix(name).filter(|it| !it.is_empty()) {
            let labels = labels.strip_prefix('{').and_then(|it| it.strip_suffix('}')).unwrap();
            for label in labels.split(',') {
                let (key, text) = label.split_once('=').unwrap();
                assert!(key.chars().all(is_name), "{line}");
                assert!(text.len() >= 2 && text.starts_with('"') && text.ends_with('"'), "{line}");
            }
        }
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(value >= 0.0, "{line}");
        assert_eq!(samples.insert(series.to_owned(), value), None, "{series} is there twice");
    }
    samples
}

pub(crate) async fn metrics(address: SocketAddr) -> HashMap<String, f64> {
    let answer = get(address, "/metrics").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.head.contains("content-type: application/openmetrics-text; version=1.0.0"));
    samples(&answer.body)
}

#[tokio::test]
async fn a_broker_that_runs_is_live_and_ready() {
    let (_broker, address) = admin_broker().await;
    let (live, ready) = (get(address, "/livez").await, get(address, "/readyz").await);
    assert_eq!((live.status, live.body.as_str()), (200, "ok\n"));
    assert_eq!((ready.status, ready.body.as_str()), (200, "{\"ready\":true}\n"));
    let unknown = get(address, "/status").await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.body.contains("/metrics"), "{}", unknown.body);
}

#[tokio::test]
async fn without_being_asked_for_there_is_no_listener() {
    assert_eq!(broker(|_| {}).await.admin_addr(), None);
    assert_eq!(Broker::builder().start().await.unwrap().admin_addr(), None);
}

#[tokio::test]
async fn an_address_in_use_is_told() {
    let (_broker, address) = admin_broker().await;
    match Broker::builder().admin(address).start().await {
        Err(StartError::AddressInUse { address: told }) => assert_eq!(told, address),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn while_it_drains_it_is_live_and_not_ready() {
    let (broker, address) = admin_broker().await;
    let mut worker = RawPeer::worker(&broker, "w", "slow", 1).await;
    let mut client = RawPeer::client(&broker).await;
    client.send(send("t", "slow"), "").await;
    let (route, _) = worker.receive_route().await;
    // A kept connection, and one that says nothing, do not hold up the end.
    let mut kept = TcpStream::connect(address).await.unwrap();
    kept.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let _silent = TcpStream::connect(address).await.unwrap();

    let shutdown = tokio::spawn(broker.shutdown());
    worker.receive().await;
    let ready = get(address, "/readyz").await;
    assert_eq!(ready.status, 503);
    assert_eq!(ready.body, "{\"ready\":false,\"reason\":\"draining\"}\n");
    assert_eq!(get(address, "/livez").await.status, 200);
    assert_eq!(metrics(address).await["mcp_tasks_running{action=\"slow\"}"], 1.0);
    worker.send(result(&route), "").await;
    within("the shutdown", shutdown).await.unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "it still listens");
}

#[tokio::test]
async fn the_metrics_are_well_formed_and_move_with_a_task() {
    let (broker, address) = admin_broker().await;
    let mut worker = RawPeer::worker(&broker, "w", "up.per/v1:x", 3).await;
    let mut client = RawPeer::client(&broker).await;
    let before = metrics(address).await;
    let of = |name: &str| format!("mcp_{name}{{action=\"up.per/v1:x\"}}");
    let ok = "mcp_tasks_ended_total{action=\"up.per/v1:x\",outcome=\"ok\"}";
    assert_eq!((before[ok], before[&of("workers_ready")]), (0.0, 1.0));
    assert_eq!(before["mcp_agents{presence=\"online\"}"], 1.0);
    assert_eq!((before["mcp_worker_slots"], before["mcp_connections"]), (3.0, 2.0));

    client.send(send("t", "up.per/v1:x"), "body").await;
    let (route, _) = worker.receive_route().await;
    assert_eq!(metrics(address).await[&of("tasks_running")], 1.0);
    worker.send(result(&route), "").await;
    client.receive_deliver().await;
    let after = metrics(address).await;
    assert_eq!((after[ok], after[&of("tasks_running")]), (1.0, 0.0));
    for name in ["task_duration", "task_queue", "task_work"] {
        assert_eq!(after[&of(&format!("{name}_seconds_count"))], 1.0, "{name}");
        let bucket =
            |le| format!("mcp_{name}_seconds_bucket{{le=\"{le}\",action=\"up.per/v1:x\"}}");
        assert_eq!(after[&bucket("+Inf")], 1.0, "{name}");
        assert!(after.contains_key(&bucket("0.0001")) && after.contains_key(&bucket("104.8576")));
    }
    assert!(before.keys().all(|series| after.contains_key(series)), "series come, and stay");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn it_waits_awake_for_packets_unless_it_may_not() {
    for (busy_poll_us, waits) in [(1_000, true), (0, false)] {
        let broker = broker(|config| {
            config.admin = Some("0".parse().unwrap());
            config.busy_poll_us = busy_poll_us;
        });
        let broker = broker.await;
        RawPeer::worker(&broker, "w", "a", 1).await;
        let waited = metrics(broker.admin_addr().unwrap()).await["mcp_busy_poll_seconds_total"];
        assert_eq!(waited > 0.0, waits, "{waited} s");
    }
}

#[tokio::test]
async fn a_task_that_was_put_off_joined_and_tried_again_is_seen_in_the_metrics() {
    let (broker, address) = admin_broker().await;
    let mut worker = RawPeer::worker(&broker, "w", "flaky", 1).await;
    let mut client = RawPeer::client(&broker).await;
    let retry = Retry { max_attempts: 2, initial_ms: 1, ..Retry::default() };
    let task = Task::new("t".try_into().unwrap(), "flaky".try_into().unwrap());
    let task = Task { idempotent: true, retry: Some(retry), ..task };
    let send = Message::Send(Send::new(task.encode(), 30_000));
    client.send(send.clone(), "").await;

    let (first, _) = worker.receive_route().await;
    let error = ErrorInfo::new(ErrorCode::AllBusy, "warming up").retry_after_ms(1);
    let nack = Nack { attempt_id: first.attempt_id, error: Some(Box::new(error)) };
    worker.send(Message::Nack(nack), "").await;
    let (second, _) = worker.receive_route().await;
    client.send(send, "").await;
    client.expect_alive().await;
    let failed = TaskResult::new(second.attempt_id, Outcome::Failed, Executed::Yes);
    worker.send(Message::Result(failed), "").await;
    let (third, _) = worker.receive_route().await;
    assert_eq!(third.attempt, 3);
    worker.send(result(&third), "").await;
    let (deliver, _) = client.receive_deliver().await;
    assert_eq!(deliver.outcome, Outcome::Ok);

    let metrics = metrics(address).await;
    let of = |name: &str| metrics[&format!("mcp_{name}")];
    assert_eq!((of("attempts_put_off_total"), of("attempts_nacked_total")), (1.0, 1.0));
    assert_eq!((of("retries_total"), of("retries_refused_total")), (1.0, 0.0));
    assert_eq!((of("tasks_joined_total"), of("tasks_duplicate_total")), (1.0, 1.0));
    assert_eq!((of("attempts_total"), of("attempts_timed_out_total")), (3.0, 0.0));
    assert_eq!((of("results_late_total"), of("results_refused_total")), (0.0, 0.0));
    assert_eq!(of("tasks_delayed{action=\"flaky\"}"), 0.0);
}

#[tokio::test]
async fn what_is_not_a_request_is_refused_and_tasks_go_on() {
    let (broker, address) = admin_broker().await;
    let flow = Flow::start(&broker).await;
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000));
    let many = format!("GET /livez HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(1_000));
    // 0: closed without an answer, or while there was still something to read.
    for (request, statuses) in [
        (&b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03"[..], &[400][..]),
        (b"\0\0\0\0\0\0\0\0\r\n\r\n", &[400]),
        (b"GET /livez HTTP/9.9\r\n\r\n", &[400, 505]),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[400, 505, 0]),
        (long.as_bytes(), &[414, 431, 0]),
        (many.as_bytes(), &[431, 0]),
        (b"POST /livez HTTP/1.1\r\nConnection: close\r\n\r\n", &[405]),
        (b"GET /livez HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", &[413]),
        (b"GET /livez HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", &[413]),
    ] {
        let status = ask(address, request).await.status;
        let shown = String::from_utf8_lossy(&request[..request.len().min(40)]);
        assert!(statuses.contains(&status), "{shown:?}: {status}");
    }
    assert_eq!(get(address, "/livez").await.status, 200);
    flow.finish().await;
}

#[tokio::test]
async fn who_does_not_finish_a_request_is_closed() {
    let (_broker, address) = admin_broker().await;
    let slow = ask(address, b"GET /livez HTTP/1.1\r\nHost:").await;
    assert!([408, 0].contains(&slow.status), "{}", slow.head);
    assert_eq!(get(address, "/livez").await.status, 200);
}

#[tokio::test]
async fn with_too_many_connections_the_next_waits_its_turn_and_tasks_go_on() {
    let (broker, address) = admin_broker().await;
    let flow = Flow::start(&broker).await;
    let mut idle = Vec::new();
    for _ in 0..MANY {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    let asked = tokio::spawn(async move { get(address, "/livez").await });
    flow.goes_on().await;
    drop(idle);
    assert_eq!(within("its turn", asked).await.unwrap().status, 200);
    flow.finish().await;
}

#[tokio::test]
async fn its_address_is_free_afterwards() {
    let (first, address) = admin_broker().await;
    get(address, "/livez").await;
    first.shutdown().await;
    let second = Broker::builder().admin(address).start().await.unwrap();
    drop(second);
    until("it no longer listens", || std::net::TcpStream::connect(address).is_err()).await;
}
