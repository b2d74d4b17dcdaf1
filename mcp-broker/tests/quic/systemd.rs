//! What systemd is told, and its unit in `contrib/systemd`.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use tokio::net::UnixDatagram;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::process::{Served, stop_with_a_task};
use crate::support::{result, within};

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../contrib/systemd/mcp-broker.service");

/// systemd's side of the socket.
struct Systemd {
    dir: TempDir,
    messages: UnboundedReceiver<Vec<String>>,
}

impl Systemd {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        let (read, messages) = unbounded_channel();
        // Always, as systemd does: a socket holds some ten messages.
        tokio::spawn(async move {
            let mut message = [0; 1024];
            loop {
                let length = socket.recv(&mut message).await.unwrap();
                let lines = std::str::from_utf8(&message[..length]).unwrap().lines();
                if read.send(lines.map(str::to_owned).collect()).is_err() {
                    return;
                }
            }
        });
        Self { dir, messages }
    }

    /// A broker that is told of the socket, and of a watchdog that allows so much.
    async fn start(&self, watchdog_us: &str) -> Served {
        let socket = self.dir.path().join("notify");
        let outer = [
            "env".to_owned(),
            format!("NOTIFY_SOCKET={}", socket.display()),
            format!("WATCHDOG_USEC={watchdog_us}"),
        ];
        Served::start_in(&outer, "127.0.0.1:0", &self.dir.path().join("state"), &[]).await
    }

    /// The next message's lines.
    async fn told(&mut self) -> Vec<String> {
        within("a message", self.messages.recv()).await.unwrap()
    }

    /// The next one that is no sign of life.
    async fn told_more(&mut self) -> Vec<String> {
        loop {
            let told = self.told().await;
            if told != ["WATCHDOG=1"] {
                return told;
            }
        }
    }

    async fn lives(&mut self) {
        while self.told().await != ["WATCHDOG=1"] {}
    }
}

fn number(line: &str, name: &str) -> u64 {
    line.strip_prefix(name).unwrap_or_else(|| panic!("{line}")).parse().unwrap()
}

#[tokio::test]
async fn ready_reloading_and_stopping_are_told_and_that_it_lives_meanwhile() {
    let mut systemd = Systemd::new();
    let broker = systemd.start("20000").await;
    let ready = systemd.told().await;
    assert_eq!(ready[0], "READY=1");
    assert!(ready[1].starts_with("STATUS=listening on 127.0.0.1:"), "{ready:?}");
    systemd.lives().await;
    systemd.lives().await;

    broker.signal("-HUP").await;
    let reloading = systemd.told_more().await;
    assert_eq!(reloading[0], "RELOADING=1");
    assert!(number(&reloading[1], "MONOTONIC_USEC=") > 0);
    assert_eq!(systemd.told_more().await, ready);
    systemd.lives().await;

    let (broker, _client, mut worker, route) = stop_with_a_task(broker).await;
    let stopping = systemd.told_more().await;
    assert_eq!(stopping[0], "STOPPING=1");
    // timing.drain_ms is 10 s.
    assert!(number(&stopping[1], "EXTEND_TIMEOUT_USEC=") > 10_000_000);
    // The task still runs.
    systemd.lives().await;
    systemd.lives().await;
    worker.send(result(&route), "").await;
    assert_eq!(broker.ended().await, Some(0));
}

#[tokio::test]
async fn without_a_watchdog_only_what_happens_is_told() {
    let mut systemd = Systemd::new();
    for off in ["0", "", "soon"] {
        let broker = systemd.start(off).await;
        assert_eq!(systemd.told().await[0], "READY=1");
        broker.signal("-HUP").await;
        assert_eq!(systemd.told().await[0], "RELOADING=1");
        assert_eq!(systemd.told().await[0], "READY=1");
        assert_eq!(broker.stop("-TERM").await, Some(0));
        assert_eq!(systemd.told().await[0], "STOPPING=1");
    }
}

fn analyze(args: &[&str], unit: &Path) -> Option<std::process::Output> {
    let analyzed = Command::new("systemd-analyze").args(args).arg(unit).output();
    analyzed.inspect_err(|_| eprintln!("NOT CHECKED: there is no systemd-analyze")).ok()
}

#[test]
fn the_unit_leaves_the_broker_few_rights() {
    // Of 10: 2.0.
    let args = ["security", "--no-pager", "--offline=true", "--threshold=20"];
    if let Some(analyzed) = analyze(&args, Path::new(UNIT)) {
        assert!(analyzed.status.success(), "{}", String::from_utf8_lossy(&analyzed.stdout));
    }
}

#[test]
fn systemd_understands_all_of_the_unit() {
    let dir = tempfile::tempdir().unwrap();
    let here: PathBuf = dir.path().join("mcp-broker.service");
    let unit = std::fs::read_to_string(UNIT).unwrap();
    // It wants the program to be there.
    let unit = unit.replace("/usr/bin/mcp-broker", env!("CARGO_BIN_EXE_mcp-broker"));
    std::fs::write(&here, unit).unwrap();
    if let Some(analyzed) = analyze(&["verify", "--man=no"], &here) {
        let said = String::from_utf8_lossy(&analyzed.stderr).into_owned();
        // Of other units of the machine there may be more to say.
        assert!(!said.contains("mcp-broker.service:"), "{said}");
        assert!(analyzed.status.success(), "{said}");
    }
}
