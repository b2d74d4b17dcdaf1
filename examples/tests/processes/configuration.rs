//! Another configuration for a broker that is at work.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mcp_client::Client;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::support::{BrokerProcess, Ledger, PATIENCE, counting_worker, until, within};

/// Calls, one after the other, until it is told to stop. Each has to end well.
struct Calls {
    callers: Vec<JoinHandle<()>>,
    done: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
}

impl Calls {
    fn start(client: &Client) -> Self {
        let (done, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let call = |(client, done, is_over): (Client, Arc<AtomicU64>, Arc<AtomicBool>)| async move {
            while !is_over.load(Ordering::SeqCst) {
                let number = done.load(Ordering::SeqCst).to_string();
                let reply = client.task("work").body(number.clone()).ttl(PATIENCE).call().await;
                assert_eq!(reply.unwrap().body, number.as_bytes());
                done.fetch_add(1, Ordering::SeqCst);
            }
        };
        let one = |_| tokio::spawn(call((client.clone(), done.clone(), is_over.clone())));
        Self { callers: (0..8).map(one).collect(), done, is_over }
    }

    /// Waits until some have been done from now on.
    async fn go_on(&self) {
        let from = self.done.load(Ordering::SeqCst);
        until("calls are done", || async {
            let is_one_over = self.callers.iter().any(JoinHandle::is_finished);
            is_one_over || self.done.load(Ordering::SeqCst) >= from + 20
        })
        .await;
    }

    async fn finish(self) -> u64 {
        self.go_on().await;
        self.is_over.store(true, Ordering::SeqCst);
        for caller in self.callers {
            within("the last call ends", caller).await.unwrap();
        }
        self.done.load(Ordering::SeqCst)
    }
}

/// Puts a file in the place of another.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, path).unwrap();
}

/// How the reloads of an audit log ended.
fn reloads(audit: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(audit).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |it| it.0);
    let records = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let reloads = records.filter(|it| it["kind"] == "reload");
    reloads.map(|it| it["outcome"].as_str().unwrap().to_owned()).collect()
}

async fn max_running(client: &Client) -> u64 {
    let info = client.action_info(&"work".try_into().unwrap()).await.unwrap().unwrap();
    info.rules["max_running"].as_u64().unwrap()
}

#[tokio::test]
async fn twenty_changes_under_load_good_and_broken_lose_no_task() {
    let dir = tempfile::tempdir().unwrap();
    let audit = dir.path().join("audit.log");
    let text = |rest: &str| format!("audit.file = '{}'\n{rest}", audit.display());
    let broker = BrokerProcess::start_with(&text("")).await;
    let client = broker.client().await;
    let ledger = Ledger::default();
    let worker =
        counting_worker(broker.endpoint(), "w", 4, Duration::from_millis(1), &ledger).await;
    let calls = Calls::start(&client);
    let mut expected = Vec::new();
    let mut holds = 0;
    for number in 1..=20 {
        calls.go_on().await;
        let is_good = number % 2 == 1;
        if is_good {
            holds = number;
            replace(
                &broker.config(),
                &text(&format!(
                    "limits.max_tasks = {number}000\ntiming.lease_ms = 3{number}000\n\
                     [actions.work]\nmax_running = {number}\nslow_start_ms = {number}\n"
                )),
            );
        } else {
            let broken = [
                "limits.max_tasks = 0",
                "limits.max_task = 7",
                "[limits]\nmax_tasks = ",
                "[actions.work]\nmax_running = 'many'",
                "[tls]\ncert_file = '/nowhere'\nkey_file = '/nowhere'\ndev = false",
            ];
            replace(&broker.config(), &text(broken[number / 2 % broken.len()]));
        }
        expected.push(if is_good { "ok" } else { "refused" });
        broker.reload();
        // A file that has changed may have been noticed before the signal came.
        until("it was loaded", || async {
            let seen = reloads(&audit);
            seen.last().map(String::as_str) == expected.last().copied()
        })
        .await;
        calls.go_on().await;
        assert_eq!(max_running(&client).await, holds as u64, "after change {number}");
    }
    let mut seen = reloads(&audit);
    seen.dedup();
    assert_eq!(seen, expected);
    let done = calls.finish().await;
    assert_eq!((ledger.runs() as u64, ledger.most_runs_of_a_task()), (done, 1));
    drop(worker);
}

#[tokio::test]
async fn a_file_that_changes_is_loaded_without_being_told() {
    let broker = BrokerProcess::start_with("").await;
    let client = broker.client().await;
    let worker = broker.worker("w", 1, &["cat"]).await;
    replace(&broker.config(), "[scheduling]\nmax_running = 3\n");
    until("it holds", || async { max_running(&client).await == 3 }).await;
    // As Kubernetes does it: a link to a directory that is another one now.
    let mounted: PathBuf = broker.state().join("mounted");
    for (name, number) in [("data-1", 4), ("data-2", 5)] {
        let data = broker.state().join(name);
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("it"), format!("[scheduling]\nmax_running = {number}\n")).unwrap();
        let link = broker.state().join("link");
        std::os::unix::fs::symlink(&data, &link).unwrap();
        std::fs::rename(&link, &mounted).unwrap();
        if number == 4 {
            let link = broker.state().join("link");
            std::os::unix::fs::symlink(mounted.join("it"), &link).unwrap();
            std::fs::rename(&link, broker.config()).unwrap();
        }
        until("it holds", || async { max_running(&client).await == number }).await;
    }
    drop(worker);
}

#[tokio::test]
async fn an_audit_log_that_was_moved_away_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let [audit, moved] = ["audit.log", "audit.log.1"].map(|name| dir.path().join(name));
    let broker = BrokerProcess::start_with(&format!("audit.file = '{}'", audit.display())).await;
    std::fs::rename(&audit, &moved).unwrap();
    broker.reload();
    until("there is a new one", || async { reloads(&audit) == ["ok"] }).await;
    assert_eq!(reloads(&moved), [""; 0]);
    let records = std::fs::read_to_string(&moved).unwrap();
    assert!(records.contains("\"what\":\"start\""), "{records}");
}
