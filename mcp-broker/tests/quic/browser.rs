//! The console in a browser. What drives it is in `tests/browser`; it needs Chromium, Node, and what
//! `npm ci` brings there, so that `.ci/run` has them run.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use mcp_broker::Broker;
use mcp_proto::{
    Delivery, ErrorCode, ErrorInfo, Executed, Labels, Message, Outcome, Readiness, Retry, Send,
    Task, TaskId, TaskResult,
};
use quinn::VarInt;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::console::{TOKEN, token_file};
use crate::support::{RawPeer, broker, result, unique, worker_hello};

/// More than there are in a fleet that is looked at one by one.
const MANY: usize = 5_000;

/// What the handler of a worker makes of a task.
#[derive(Debug, Clone, Copy)]
enum Handler {
    Takes(Duration),
    Fails,
}

async fn console_broker(state: &Path) -> (Broker, String) {
    let broker = broker(|config| {
        config.admin = Some("0".parse().unwrap());
        config.state_dir = Some(state.to_owned());
        // Workers here say nothing of themselves, and one that is lost stays so.
        config.timing.lease_ms = 3_600_000;
        config.timing.resume_grace_ms = 3_600_000;
    });
    let broker = broker.await;
    let url = format!("http://{}", broker.admin_addr().unwrap());
    (broker, url)
}

/// Runs the script, whose lines are shown.
async fn drive(arguments: &[&str]) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    let mut node = Command::new("node");
    node.arg(directory.join("run.mjs")).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let status = node.status().await.expect("node, and npm ci in tests/browser");
    assert!(status.success(), "{status}");
}

/// One task after another.
async fn serve(mut worker: RawPeer, handler: Handler) {
    loop {
        let (route, _) = worker.receive_route().await;
        match handler {
            Handler::Takes(time) => {
                sleep(time).await;
                let Message::Result(result) = result(&route) else { unreachable!() };
                let work_us = time.as_micros() as u64;
                worker.send(Message::Result(TaskResult { work_us, ..result }), "").await;
            }
            Handler::Fails => {
                let failed = TaskResult::new(route.attempt_id, Outcome::Failed, Executed::Yes);
                let error = ErrorInfo::new(ErrorCode::HandlerFailed, "the card was declined");
                let failed = TaskResult { work_us: 900, error: Some(Box::new(error)), ..failed };
                worker.send(Message::Result(failed), "").await;
            }
        }
    }
}

/// Sends a task when the one before has ended, and some time has passed.
async fn ask(mut client: RawPeer, action: &'static str, pause: Duration) {
    loop {
        let id = unique(action);
        client.send(crate::support::send(&id, action), "a text").await;
        while !matches!(client.receive().await.message, Message::Deliver(_)) {}
        sleep(pause).await;
    }
}

fn durable(id: &str, action: &str) -> Message {
    let task = Task::new(TaskId::try_from(id).unwrap(), action.try_into().unwrap());
    let retry = Some(Retry { max_attempts: 3, initial_ms: 20, ..Retry::default() });
    let task = Task { delivery: Delivery::Durable, retry, ..task };
    Message::Send(Send::new(task.encode(), 600_000))
}

/// Workers and clients, until this is dropped.
struct Fleet {
    _tasks: JoinSet<()>,
    _idle: Vec<RawPeer>,
}

/// A fleet that has something of everything.
async fn fleet(broker: &Broker) -> Fleet {
    let ms = Duration::from_millis;
    let mut tasks = JoinSet::new();
    for (action, workers, slots, takes) in
        [("summarize", 3, 4, ms(80)), ("embed", 2, 16, ms(4)), ("review", 1, 1, ms(400))]
    {
        for number in 1..=workers {
            let name = format!("{action}-{number}");
            let worker = RawPeer::worker(broker, &name, action, slots).await;
            tasks.spawn(serve(worker, Handler::Takes(takes)));
        }
    }
    let lost = RawPeer::worker(broker, "embed-3", "embed", 16).await;
    lost.quic.close(VarInt::from_u32(7), b"");
    let fails = RawPeer::worker(broker, "charge-1", "charge", 2).await;
    tasks.spawn(serve(fails, Handler::Fails));
    for (action, clients, pause) in
        [("summarize", 4, ms(20)), ("embed", 6, ms(15)), ("review", 7, ms(5))]
    {
        for _ in 0..clients {
            tasks.spawn(ask(RawPeer::client(broker).await, action, pause));
        }
    }
    let mut client = RawPeer::client(broker).await;
    for number in 1..=6 {
        client.send(durable(&format!("charge-{number}"), "charge"), "{\"amount\": 12}").await;
        while !matches!(client.receive().await.message, Message::Deliver(_)) {}
    }
    for number in 1..=3 {
        client.send(durable(&format!("audio-{number}"), "transcribe"), "audio").await;
    }
    let mut hostile = RawPeer::connect(broker).await;
    let mut hello = worker_hello("<img/src=x/onerror=alert(1)>", "embed", 4);
    if let Some(worker) = &mut hello.worker {
        worker.readiness = Readiness::Standby;
        worker.labels = Labels([("note".to_owned(), "<b>bold</b>".to_owned())].into());
    }
    hostile.open(hello).await;
    tasks.spawn(ask(client, "charge", ms(1_500)));
    Fleet { _tasks: tasks, _idle: vec![hostile] }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Chromium and Node"]
async fn the_console_in_a_browser() {
    let state = tempfile::tempdir().unwrap();
    let (broker, url) = console_broker(state.path()).await;
    let _fleet = fleet(&broker).await;
    let shots = std::env::var("CONSOLE_SHOTS").unwrap_or_default();
    let mut arguments = vec![url.as_str(), "pages"];
    arguments.extend((!shots.is_empty()).then_some(shots.as_str()));
    drive(&arguments).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Chromium and Node"]
async fn the_console_lists_thousands_of_agents() {
    let state = tempfile::tempdir().unwrap();
    let (broker, url) = console_broker(state.path()).await;
    let mut agents = Vec::with_capacity(MANY);
    for number in 0..MANY {
        let name = format!("agent-{number:05}");
        agents.push(RawPeer::worker(&broker, &name, "embed", 4).await);
    }
    drive(&[&url, "many", &MANY.to_string()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Chromium and Node"]
async fn the_console_asks_for_the_token() {
    let (_dir, path) = token_file(TOKEN, 0o600);
    let broker = broker(|config| {
        config.admin = Some("0".parse().unwrap());
        config.console.token_file = Some(path);
    });
    let broker = broker.await;
    drive(&[&format!("http://{}", broker.admin_addr().unwrap()), "token", TOKEN]).await;
}
