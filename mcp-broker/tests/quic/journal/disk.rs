//! Disks that are full or read-only: real ones, in a mount namespace of their own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use mcp_proto::{ErrorCode, Executed, Outcome};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::{durable, expect_accepted, expect_refusals};
use crate::admin::{get, metrics};
use crate::process::Served;
use crate::support::{RawPeer, result, within};

/// A file system of 2 MiB that only processes in its namespace see.
struct SmallDisk {
    /// Holds the namespace; ends when its stdin does.
    _holder: Child,
    /// A command in the namespace.
    enter: Vec<String>,
    path: PathBuf,
}

impl SmallDisk {
    /// None where the kernel forbids it, which is told.
    async fn mount(path: &Path) -> Option<Self> {
        let mount = format!(
            "mount -t tmpfs -o size=2m none '{0}' && echo mounted && read _",
            path.display()
        );
        let as_root = (&["--mount"][..], &["--mount"][..]);
        let as_other = (
            &["--map-root-user", "--mount"][..],
            &["--user", "--preserve-credentials", "--mount"][..],
        );
        for (unshare, nsenter) in [as_root, as_other] {
            let mut holder = Command::new("unshare")
                .args(unshare)
                .args(["sh", "-c", &mount])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            let mut stdout = BufReader::new(holder.stdout.take().unwrap()).lines();
            if within("the mount", stdout.next_line()).await.unwrap().is_some() {
                let pid = holder.id().unwrap().to_string();
                let mut enter = vec!["nsenter".to_owned(), "--target".to_owned(), pid];
                enter.extend(nsenter.iter().map(|it| (*it).to_owned()));
                return Some(Self { _holder: holder, enter, path: path.to_owned() });
            }
        }
        eprintln!("SKIPPED: file systems can't be mounted here, not even in a namespace");
        None
    }

    /// A broker whose journal is on it.
    async fn broker(&self, state: &Path) -> (Served, SocketAddr) {
        let config = state.with_extension("toml");
        let text = format!("[durable]\ndir = '{}'\n", self.path.display());
        std::fs::write(&config, text).unwrap();
        let more = ["--config", config.to_str().unwrap(), "--admin", ":0"];
        let mut served = Served::start_in(&self.enter, "127.0.0.1:0", state, &more).await;
        let admin = served.admin().await;
        (served, admin)
    }

    async fn sh(&self, script: &str) {
        let (program, args) = self.enter.split_first().unwrap();
        let mut sh = Command::new(program);
        sh.args(args).args(["sh", "-c", script]).stderr(Stdio::null());
        within("the shell", sh.status()).await.unwrap();
    }
}

/// What a directory in which nothing can be made any more does at the start.
async fn expect_it_starts_and_goes_on(disk: &SmallDisk, state: &Path, why: &str) {
    let (broker, admin) = disk.broker(state).await;
    let mut client = RawPeer::client(&broker).await;
    expect_refusals(&broker, &mut client, admin, why).await;
    assert_eq!(metrics(admin).await["mcp_journal_up"], 0.0);
    let mut worker = RawPeer::worker(&broker, "w", "a", 1).await;
    let (route, _) = worker.receive_route().await;
    worker.send(result(&route), "").await;
    worker.receive_route().await;
    broker.stop("-KILL").await;
}

#[tokio::test]
async fn a_full_disk_refuses_durable_tasks_and_leaves_the_rest_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (state, path) = (dir.path().join("state"), dir.path().join("disk"));
    std::fs::create_dir(&path).unwrap();
    let Some(disk) = SmallDisk::mount(&path).await else { return };
    let (broker, admin) = disk.broker(&state).await;
    let mut client = RawPeer::client(&broker).await;
    let body = vec![7; 60_000];
    let mut accepted = 0;
    let refused = loop {
        client.send(durable(&format!("t-{accepted}")), body.clone()).await;
        match client.receive().await.message {
            mcp_proto::Message::Accepted(_) => accepted += 1,
            mcp_proto::Message::Deliver(deliver) => break deliver,
            other => panic!("{other:?}"),
        }
    };
    assert!((20..40).contains(&accepted), "{accepted}");
    let error = refused.error.unwrap();
    let told = (refused.outcome, refused.executed, error.code);
    assert_eq!(told, (Outcome::Rejected, Executed::Maybe, ErrorCode::DurableUnavailable));
    expect_refusals(&broker, &mut client, admin, "No space left on device").await;
    assert_eq!(metrics(admin).await["mcp_journal_up"], 0.0);
    broker.stop("-KILL").await;

    // All that was accepted is there, and what was refused is not.
    let (broker, admin) = disk.broker(&state).await;
    assert_eq!(metrics(admin).await["mcp_durable_tasks"], f64::from(accepted));
    assert_eq!(get(admin, "/readyz?require=durable").await.status, 200);
    let mut client = RawPeer::client(&broker).await;
    client.send(durable("small"), "").await;
    expect_accepted(&mut client, "small").await;
    broker.stop("-KILL").await;

    // Bounded, and by its whole path: should it not be in the namespace, it must not fill the host's disk.
    let fill = path.join("fill").display().to_string();
    disk.sh(&format!("head -c 4000000 /dev/zero > '{fill}'")).await;
    expect_it_starts_and_goes_on(&disk, &state, "No space left on device").await;
    // With room again, nothing is lost.
    disk.sh(&format!("rm '{fill}'")).await;
    let (broker, admin) = disk.broker(&state).await;
    assert_eq!(metrics(admin).await["mcp_durable_tasks"], f64::from(accepted + 1));
    broker.stop("-KILL").await;
}

#[tokio::test]
async fn a_read_only_disk_refuses_durable_tasks_and_leaves_the_rest_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (state, path) = (dir.path().join("state"), dir.path().join("disk"));
    std::fs::create_dir(&path).unwrap();
    let Some(disk) = SmallDisk::mount(&path).await else { return };
    let (broker, _) = disk.broker(&state).await;
    let mut client = RawPeer::client(&broker).await;
    for id in ["t-1", "t-2"] {
        client.send(durable(id), "").await;
        expect_accepted(&mut client, id).await;
    }
    broker.stop("-KILL").await;
    disk.sh(&format!("mount -o remount,ro '{}'", path.display())).await;
    expect_it_starts_and_goes_on(&disk, &state, "Read-only file system").await;
}
