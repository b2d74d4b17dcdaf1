//! The binary: what it prints, writes and returns.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use mcp_proto::{ErrorCode, Message, Outcome};

use crate::admin;
use crate::support::{Dialled, RawPeer, result, send, within};

pub(crate) struct Served {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    address: String,
    authority: String,
}

impl Dialled for Served {
    fn address(&self) -> SocketAddr {
        self.address.parse().unwrap()
    }

    fn authority(&self) -> String {
        self.authority.clone()
    }
}

fn command(args: &[&str]) -> Command {
    command_in(&[], args)
}

/// The same, run by another command.
fn command_in(outer: &[String], args: &[&str]) -> Command {
    let program = env!("CARGO_BIN_EXE_mcp-broker");
    let mut command = match outer.split_first() {
        Some((outer, first)) => {
            let mut command = Command::new(outer);
            command.args(first).arg(program);
            command
        }
        None => Command::new(program),
    };
    for name in ["MCP_STATE", "MCP_LISTEN", "MCP_ADMIN", "MCP_CONFIG", "MCP_LOG"] {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    command
}

impl Served {
    async fn start(state: &Path) -> Self {
        Self::start_at("127.0.0.1:0", state, &[]).await
    }

    async fn start_at(listen: &str, state: &Path, more: &[&str]) -> Self {
        Self::start_in(&[], listen, state, more).await
    }

    /// Started by another command, which becomes it.
    pub(crate) async fn start_in(
        outer: &[String],
        listen: &str,
        state: &Path,
        more: &[&str],
    ) -> Self {
        let dir = state.to_str().unwrap();
        let mut args = vec!["serve", "--dev", "--listen", listen, "--state", dir];
        args.extend(more);
        let mut child =
            command_in(outer, &args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = within("the first line", stdout.next_line()).await.unwrap().unwrap();
        let address = line.strip_prefix("listening on ").unwrap().to_owned();
        let authority = std::fs::read_to_string(state.join("ca.pem")).unwrap();
        Self { child, stdout, address, authority }
    }

    /// The address of its admin listener, which it tells after its own.
    pub(crate) async fn admin(&mut self) -> SocketAddr {
        let line = within("the second line", self.stdout.next_line()).await.unwrap().unwrap();
        line.strip_prefix("admin on http://").unwrap().parse().unwrap()
    }

    pub(crate) async fn signal(&self, signal: &str) {
        let id = self.child.id().unwrap().to_string();
        let sent = Command::new("kill").args([signal, &id]).status().await.unwrap();
        assert!(sent.success());
    }

    pub(crate) async fn stop(self, signal: &str) -> Option<i32> {
        self.signal(signal).await;
        self.ended().await
    }

    pub(crate) async fn ended(mut self) -> Option<i32> {
        let status = within("the end", self.child.wait()).await.unwrap();
        assert_eq!(self.stdout.next_line().await.unwrap(), None, "stdout has nothing else");
        status.code()
    }
}

/// Runs it to its end: exit code and stderr.
async fn run(args: &[&str]) -> (Option<i32>, String) {
    let mut child = command(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = String::new();
    let mut pipe = child.stderr.take().unwrap();
    within("stderr", pipe.read_to_string(&mut stderr)).await.unwrap();
    (within("the end", child.wait()).await.unwrap().code(), stderr)
}

#[tokio::test]
async fn it_serves_until_it_is_told_to_stop_and_keeps_what_it_must() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let read = |name: &str| std::fs::read_to_string(state.join(name)).unwrap();

    let first = Served::start(&state).await;
    assert_eq!(read("address").trim(), first.address);
    let (ca, epoch, id) = (read("ca.pem"), read("epoch"), read("broker_id"));
    assert_eq!(first.stop("-TERM").await, Some(0));
    assert!(!state.join("address").exists(), "nothing listens there any more");

    let second = Served::start(&state).await;
    assert_eq!((read("ca.pem"), read("broker_id")), (ca, id));
    let number = |text: &str| text.trim().parse::<u64>().unwrap();
    assert_eq!(number(&read("epoch")), number(&epoch) + 1);
    assert_eq!(second.stop("-INT").await, Some(0));
}

#[tokio::test]
async fn after_a_kill_the_next_start_tells_the_peers_of_the_former() {
    let dir = tempfile::tempdir().unwrap();
    let first = Served::start(dir.path()).await;
    let mut client = RawPeer::client(&first).await;
    let address = first.address.clone();
    assert_eq!(first.stop("-KILL").await, None);
    let second = Served::start_at(&address, dir.path(), &[]).await;
    // A packet of QUIC's own may have been answered already: then nothing can be written any more.
    let _ = within("room to write", client.lane.write_all(b"anything")).await;
    let end = within("the end of the connection", client.quic.closed()).await;
    assert_eq!(end, quinn::ConnectionError::Reset);
    second.stop("-TERM").await;
}

#[tokio::test]
async fn the_admin_listener_is_told_on_a_line_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Served::start_at("127.0.0.1:0", dir.path(), &["--admin", ":0"]).await;
    let address = broker.admin().await;
    assert!(address.ip().is_loopback());
    assert_eq!(admin::get(address, "/readyz").await.status, 200);
    assert_eq!(broker.stop("-TERM").await, Some(0));
}

#[tokio::test]
async fn its_health_is_asked_for_by_the_same_program() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("broker.toml");
    let health = async |more: &[&str]| {
        let asked = [&["health", "--config", file.to_str().unwrap()], more].concat();
        run(&asked).await
    };
    std::fs::write(&file, "").unwrap();
    let (code, stderr) = health(&[]).await;
    assert_eq!(code, Some(2));
    assert!(stderr.contains("--admin 9447"), "{stderr}");

    let state = dir.path().join("state");
    let mut broker = Served::start_at("127.0.0.1:0", &state, &["--admin", ":0"]).await;
    // As who listens on all addresses has it.
    let admin = format!("0.0.0.0:{}", broker.admin().await.port());
    std::fs::write(&file, format!("admin = \"{admin}\"\nconsole.metrics_public = true")).unwrap();
    for more in [&[][..], &["--live"], &["--durable"]] {
        assert_eq!(health(more).await, (Some(0), String::new()));
    }
    // Its task keeps it from ending.
    let (broker, _client, mut worker, route) = stop_with_a_task(broker).await;
    let (code, stderr) = health(&[]).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("draining"), "{stderr}");
    assert_eq!(health(&["--live"]).await.0, Some(0));
    worker.send(result(&route), "").await;
    assert_eq!(broker.ended().await, Some(0));
    assert_eq!(health(&["--live"]).await.0, Some(1));
}

/// A broker with a task that runs, after the first signal.
async fn stopping(state: &Path) -> (Served, RawPeer, RawPeer, mcp_proto::Route) {
    stop_with_a_task(Served::start(state).await).await
}

pub(crate) async fn stop_with_a_task(
    broker: Served,
) -> (Served, RawPeer, RawPeer, mcp_proto::Route) {
    let mut worker = RawPeer::worker(&broker, "w", "slow", 1).await;
    let mut client = RawPeer::client(&broker).await;
    client.send(send("t-1", "slow"), "").await;
    let (route, _) = worker.receive_route().await;
    broker.signal("-TERM").await;
    for peer in [&mut client, &mut worker] {
        let message = peer.receive().await.message;
        assert!(matches!(message, Message::Goaway(_)), "{message:?}");
    }
    (broker, client, worker, route)
}

#[tokio::test]
async fn a_running_task_finishes_before_it_stops() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, mut client, mut worker, route) = stopping(dir.path()).await;
    worker.send(result(&route), "done").await;
    assert_eq!(client.receive_deliver().await.0.outcome, Outcome::Ok);
    client.expect_close(ErrorCode::ShuttingDown).await;
    assert_eq!(broker.ended().await, Some(0));
}

#[tokio::test]
async fn a_second_signal_stops_it_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, mut client, _worker, _) = stopping(dir.path()).await;
    assert_eq!(broker.stop("-TERM").await, Some(143));
    // Peers are told even then.
    client.expect_close(ErrorCode::ShuttingDown).await;
}

#[tokio::test]
async fn a_directory_in_use_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let first = Served::start(dir.path()).await;
    let state = dir.path().to_str().unwrap();
    let (code, stderr) = run(&["serve", "--dev", "--listen=127.0.0.1:0", "--state", state]).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("another broker uses the state directory"), "{stderr}");
    first.stop("-TERM").await;
}

#[tokio::test]
async fn an_address_in_use_is_told() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let first = Served::start(dirs[0].path()).await;
    let state = dirs[1].path().to_str().unwrap();
    let (code, stderr) =
        run(&["serve", "--dev", "--listen", &first.address, "--state", state]).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains(&format!("{} is in use", first.address)), "{stderr}");
    first.stop("-TERM").await;
}

#[tokio::test]
async fn its_log_follows_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("broker.toml");
    // Replaced whole, since the broker may look at it at any time.
    let level = |level: &str| {
        let new = dir.path().join("new.toml");
        std::fs::write(&new, format!("log.level = {level:?}")).unwrap();
        std::fs::rename(new, &file).unwrap();
    };
    level("error");
    let state = dir.path().join("state");
    let mut serve = command(&["serve", "--dev", "--listen=127.0.0.1:0"]);
    serve.arg("--state").arg(&state).arg("--config").arg(&file);
    let mut child = serve.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
    within("the first line", stdout.next_line()).await.unwrap().unwrap();
    let pid = child.id().unwrap().to_string();
    let hup = async || {
        assert!(Command::new("kill").args(["-HUP", &pid]).status().await.unwrap().success())
    };

    // The first line that there is, so it was silent before, and not any more before it said so.
    level("info");
    hup().await;
    let line = within("a line", stderr.next_line()).await.unwrap().unwrap();
    assert!(line.contains("reloaded") && line.contains("log.level"), "{line}");

    level("a=b=c");
    let line = loop {
        hup().await;
        let line = within("a line", stderr.next_line()).await.unwrap().unwrap();
        if !line.contains(" INFO ") {
            break line;
        }
    };
    assert!(line.contains("nothing has changed: log.level is \"a=b=c\""), "{line}");

    let check = ["config", "check", file.to_str().unwrap()];
    let (code, stderr) = run(&check).await;
    assert_eq!(code, Some(2));
    assert!(stderr.contains("log.level is \"a=b=c\""), "{stderr}");
}

#[tokio::test]
async fn wrong_usage_and_configuration_are_2_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("broker.toml");
    std::fs::write(&file, "[limits]\nmax_conections = 1\n").unwrap();
    let file = file.to_str().unwrap();
    for (args, expected) in [
        (&["serve", "--config", file][..], "max_conections"),
        (&["serve", "--listen", "here"], "127.0.0.1:7447"),
        (&["serve", "--dev", "--admin", "here"], "127.0.0.1:9447"),
        (&["serve", "--dev", "--admin", "0.0.0.0:0"], "other machines"),
        (&["serve"], "--dev"),
        (&["serve", "--dev", "--state", dir.path().to_str().unwrap(), "--threads=0"], "threads"),
        (&["serve", "--dev", "--log", "a=b=c"], "--log"),
    ] {
        let (code, stderr) = run(args).await;
        assert_eq!(code, Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
    }
}
