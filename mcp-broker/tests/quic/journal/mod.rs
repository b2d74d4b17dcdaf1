//! The journal of a state directory: what it brings back, and what it is like to lose it.

mod disk;
mod restart;

use std::net::SocketAddr;
use std::path::Path;

use mcp_broker::broker::Record;
use mcp_broker::journal::{Directory, SegmentJournal};
use mcp_broker::{Broker, Config, StartError};
use mcp_proto::{Delivery, ErrorCode, Executed, Message, Outcome, Send, Task, TaskId};

use crate::admin::{get, metrics};
use crate::durable::gated_admin;
use crate::support::{RawPeer, result, send};

/// SEND of a durable task.
fn durable(id: &str) -> Message {
    let mut task = Task::new(id.try_into().unwrap(), "a".try_into().unwrap());
    task.delivery = Delivery::Durable;
    Message::Send(Send::new(task.encode(), 600_000))
}

async fn start(state: &Path) -> Result<Broker, StartError> {
    Broker::builder().state_dir(state).start().await
}

async fn expect_accepted(client: &mut RawPeer, expected: &str) {
    let message = client.receive().await.message;
    assert!(matches!(&message, Message::Accepted(id) if id.as_str() == expected), "{message:?}");
}

/// A directory with a task that was accepted.
async fn with_a_task() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await.unwrap();
    let mut client = RawPeer::client(&broker).await;
    client.send(durable("t"), "input").await;
    expect_accepted(&mut client, "t").await;
    broker.shutdown().await;
    dir
}

#[tokio::test]
async fn what_was_accepted_goes_on_after_a_restart_and_so_does_its_outcome() {
    let dir = with_a_task().await;
    let broker = start(dir.path()).await.unwrap();
    let mut worker = RawPeer::worker(&broker, "w", "a", 1).await;
    let (route, body) = worker.receive_route().await;
    assert_eq!(&body[..], b"input");
    worker.send(result(&route), "output").await;
    let mut client = RawPeer::client(&broker).await;
    client.send(durable("t"), "input").await;
    let outcome = loop {
        let frame = client.receive().await;
        match frame.message {
            Message::Accepted(_) => {}
            Message::Deliver(deliver) => break (deliver.outcome, frame.body),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(outcome, (Outcome::Ok, "output".into()));
    broker.shutdown().await;

    let broker = start(dir.path()).await.unwrap();
    let mut client = RawPeer::client(&broker).await;
    client.send(Message::Fetch(TaskId::try_from("t").unwrap()), "").await;
    let (deliver, body) = client.receive_deliver().await;
    assert_eq!((deliver.outcome, &body[..]), (Outcome::Ok, &b"output"[..]));
    broker.shutdown().await;
}

#[tokio::test]
async fn a_journal_can_lie_elsewhere_and_serves_one_broker() {
    let [state, other, journal] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let config = || {
        let mut config = Config::default();
        config.listen.set_port(0);
        config.durable.dir = Some(journal.path().to_owned());
        config
    };
    let start = |state: &Path| Broker::builder().config(config()).state_dir(state).start();
    let broker = start(state.path()).await.unwrap();
    assert!(journal.path().join("0000000000000001.seg").exists());
    assert!(!state.path().join("journal").exists());
    let refused = start(other.path()).await.unwrap_err();
    assert!(matches!(refused, StartError::JournalInUse { .. }), "{refused}");
    broker.shutdown().await;
    start(other.path()).await.unwrap();

    let refused = Broker::builder().config(config()).start().await.unwrap_err();
    assert!(refused.to_string().starts_with("durable.dir needs a state_dir"), "{refused}");
}

#[tokio::test]
async fn without_a_journal_it_is_ready_for_all_but_durable_tasks() {
    let state = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.listen.set_port(0);
    config.admin = Some("0".parse().unwrap());
    config.durable.enabled = false;
    let broker = Broker::builder().config(config).state_dir(state.path()).start().await.unwrap();
    assert!(!state.path().join("journal").exists());
    let address = broker.admin_addr().unwrap();
    assert_eq!(get(address, "/readyz").await.body, "{\"ready\":true}\n");
    let refused = get(address, "/readyz?require=durable").await;
    assert_eq!(refused.status, 503);
    assert!(refused.body.contains("keeps no journal"), "{}", refused.body);
    let unknown = get(address, "/readyz?require=peace").await;
    assert_eq!(unknown.status, 400);
    assert!(unknown.body.contains("?require=durable"), "{}", unknown.body);
    assert!(!metrics(address).await.contains_key("mcp_journal_up"));
}

#[tokio::test]
async fn a_journal_that_fails_is_told_and_fast_tasks_go_on() {
    let (broker, syncs, address) = gated_admin().await;
    assert_eq!(get(address, "/readyz?require=durable").await.status, 200);
    assert_eq!(metrics(address).await["mcp_journal_up"], 1.0);
    let mut client = RawPeer::client(&broker).await;
    client.send(durable("t-1"), "").await;
    syncs.send(Ok(())).unwrap();
    expect_accepted(&mut client, "t-1").await;
    client.send(durable("t-2"), "").await;
    client.expect_alive().await;
    syncs.send(Err(std::io::Error::other("no space left"))).unwrap();
    let unavailable = (Outcome::Rejected, ErrorCode::DurableUnavailable, Executed::Maybe);
    assert_eq!(client.receive_failure().await, unavailable);

    expect_refusals(&broker, &mut client, address, "no space left").await;
    let metrics = metrics(address).await;
    assert_eq!((metrics["mcp_journal_up"], metrics["mcp_journal_records_total"]), (0.0, 1.0));
    assert_eq!(metrics["mcp_journal_sync_seconds_count"], 1.0);
}

/// Durable tasks are refused and told why; fast ones are not.
async fn expect_refusals(
    broker: &impl crate::support::Dialled,
    client: &mut RawPeer,
    admin: SocketAddr,
    why: &str,
) {
    let ready = get(admin, "/readyz").await;
    assert_eq!(ready.status, 200);
    assert!(
        ready.body.starts_with("{\"durable\":false,\"ready\":true,\"reason\":"),
        "{}",
        ready.body
    );
    assert!(ready.body.contains(why), "{}", ready.body);
    let unready = get(admin, "/readyz?require=durable").await;
    assert_eq!(unready.status, 503);
    assert!(unready.body.contains(why), "{}", unready.body);

    client.send(durable("refused"), "").await;
    let (deliver, _) = client.receive_deliver().await;
    let error = deliver.error.unwrap();
    assert_eq!((deliver.executed, error.code), (Executed::No, ErrorCode::DurableUnavailable));
    assert!(error.message.contains(why), "{error}");
    let mut worker = RawPeer::worker(broker, "fast", "fast", 1).await;
    client.send(send("fast", "fast"), "").await;
    let (route, _) = worker.receive_route().await;
    worker.send(result(&route), "").await;
    assert_eq!(client.receive_deliver().await.0.outcome, Outcome::Ok);
}

#[tokio::test]
async fn the_journals_own_is_measured() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = SegmentJournal::open(Directory::open(dir.path()).unwrap()).unwrap();
    drop(journal);
    let mut config = Config::default();
    config.listen.set_port(0);
    config.admin = Some("0".parse().unwrap());
    let broker = Broker::builder().config(config).state_dir(dir.path()).start().await.unwrap();
    let address = broker.admin_addr().unwrap();
    let mut client = RawPeer::client(&broker).await;
    let before = metrics(address).await["mcp_journal_bytes"];
    client.send(durable("t"), vec![7; 10_000]).await;
    expect_accepted(&mut client, "t").await;
    let after = metrics(address).await;
    assert!(
        after["mcp_journal_bytes"] > before + 10_000.0,
        "{before} {}",
        after["mcp_journal_bytes"]
    );
    assert_eq!((after["mcp_journal_up"], after["mcp_journal_records_total"]), (1.0, 1.0));
}

#[tokio::test]
async fn a_damaged_journal_is_refused_with_its_place_and_left_as_it_is() {
    let dir = with_a_task().await;
    // So that something follows.
    start(dir.path()).await.unwrap().shutdown().await;
    let file = dir.path().join("journal/0000000000000001.seg");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[60] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let error = start(dir.path()).await.unwrap_err();
    assert!(matches!(error, StartError::Journal { .. }), "{error:?}");
    let message = error.to_string();
    let path = dir.path().join("journal").display().to_string();
    for part in [
        "segment 0000000000000001 is damaged",
        "from byte 28 on",
        "Nothing was changed",
        &format!("mcp-broker journal export {path}"),
    ] {
        assert!(message.contains(part), "{part:?} is not in {message}");
    }
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
}

#[tokio::test]
async fn a_journal_of_a_later_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("journal");
    std::fs::create_dir(&journal).unwrap();
    let mut header = b"MCPJRNL\n\x09\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    let crc = crc32fast::hash(&header);
    header.extend_from_slice(&crc.to_le_bytes());
    std::fs::write(journal.join("0000000000000001.seg"), header).unwrap();
    let message = start(dir.path()).await.unwrap_err().to_string();
    for part in ["later version (schema 9", "up to 2)", "Start that version again"] {
        assert!(message.contains(part), "{part:?} is not in {message}");
    }
}

/// Puts accepted tasks into a journal.
fn write(journal: &Path, records: impl Iterator<Item = Record>) {
    use mcp_broker::broker::Journal as _;
    let directory = Directory::open(journal).unwrap();
    let (mut journal, _) = SegmentJournal::open(directory).unwrap();
    records.for_each(|record| journal.append(&record).unwrap());
    journal.sync().unwrap();
}
