//! Real processes that end with the test, and waiting for what shall come true.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use mcp_client::{
    AgentFilter, Client, Endpoint, HandlerError, Job, TaskEnd, TaskHandle, TaskId, Worker,
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

/// Longer than anything here takes, on a machine that is busy with something else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const CONFIG_FILE: &str = "broker.toml";

const LOG_FILE: &str = "log";

/// A program of this workspace, built when it is not.
pub(crate) fn program(name: &str) -> PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    let dir = DIR.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let dir = test.parent().unwrap().parent().unwrap().to_owned();
        let mut build = std::process::Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--workspace", "--bins"]);
        if dir.ends_with("release") {
            build.arg("--release");
        }
        build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        build.env("CARGO_TARGET_DIR", dir.parent().unwrap());
        assert!(build.status().unwrap().success());
        dir
    });
    dir.join(name)
}

/// A process that is killed when it goes out of scope.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self { child: command.kill_on_drop(true).spawn().unwrap() }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().unwrap() as i32).unwrap();
        kill_process(pid, signal).unwrap();
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        within("the process ends", self.child.wait()).await.unwrap()
    }

    /// All that it writes to stdout, which must be piped.
    pub(crate) async fn stdout(&mut self) -> String {
        let mut text = String::new();
        let mut stdout = self.child.stdout.take().unwrap();
        within("its output ends", stdout.read_to_string(&mut text)).await.unwrap();
        text
    }

    /// Waits for a line with this in it, and returns it. What follows is read and dropped.
    async fn line<R: AsyncRead + Unpin + Send + 'static>(of: R, with: &str) -> String {
        let mut lines = BufReader::new(of).lines();
        let found = within(with, async {
            loop {
                let line = lines.next_line().await.unwrap();
                let line = line.unwrap_or_else(|| panic!("it ended without saying {with:?}"));
                if line.contains(with) {
                    return line;
                }
            }
        })
        .await;
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        found
    }
}

/// `mcp-broker serve --dev`, and its state directory.
pub(crate) struct BrokerProcess {
    process: Process,
    pub(crate) address: String,
    state: Arc<TempDir>,
}

impl BrokerProcess {
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    /// With a configuration file.
    pub(crate) async fn start_with(config: &str) -> Self {
        let state = tempfile::tempdir().unwrap();
        std::fs::write(state.path().join(CONFIG_FILE), config).unwrap();
        Self::start_in(Arc::new(state), "127.0.0.1:0").await
    }

    async fn start_in(state: Arc<TempDir>, listen: &str) -> Self {
        let mut command = Command::new(program("mcp-broker"));
        command.args(["serve", "--dev", "--listen", listen, "--state"]).arg(state.path());
        command.arg("--config").arg(state.path().join(CONFIG_FILE));
        Self::serving(command, state).await
    }

    /// A command that is a broker, in this directory.
    pub(crate) async fn serving(mut command: Command, state: Arc<TempDir>) -> Self {
        let log = OpenOptions::new().append(true).create(true).open(state.path().join(LOG_FILE));
        command.stdout(Stdio::piped()).stderr(log.unwrap());
        let mut process = Process::start(&mut command);
        let stdout = process.child.stdout.take().unwrap();
        let line = Process::line(stdout, "listening on ").await;
        let address = line.trim_start_matches("listening on ").to_owned();
        Self { process, address, state }
    }

    /// Starts it again, where it was.
    pub(crate) async fn start_again(self) -> Self {
        Self::start_in(self.state.clone(), &self.address).await
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.child.id().unwrap()
    }

    pub(crate) fn state(&self) -> &Path {
        self.state.path()
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::from_state_dir(self.state()).unwrap()
    }

    /// The broker behind another address.
    pub(crate) fn endpoint_at(&self, address: impl ToString) -> Endpoint {
        let ca = self.state().join("ca.pem");
        Endpoint::new(address.to_string()).server_name("localhost").ca_file(ca).unwrap()
    }

    pub(crate) async fn client(&self) -> Client {
        Client::builder(self.endpoint()).connect().await.unwrap()
    }

    pub(crate) fn kill(&self) {
        self.process.signal(Signal::KILL);
    }

    /// Its configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.state().join(CONFIG_FILE)
    }

    /// Has it load its configuration again.
    pub(crate) fn reload(&self) {
        self.process.signal(Signal::HUP);
    }

    pub(crate) fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        self.process.ended().await
    }

    /// What it wrote to stderr.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.state().join(LOG_FILE)).unwrap()
    }

    /// `mcpctl` for this broker.
    pub(crate) fn mcpctl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("mcpctl"));
        command.arg("--state").arg(self.state()).args(arguments);
        command
    }

    /// `mcpctl worker`, registered.
    pub(crate) async fn worker(&self, agent_id: &str, slots: u32, exec: &[&str]) -> Process {
        let slots = slots.to_string();
        let mut command = self.mcpctl(&["worker", "--action", "work", "--agent-id", agent_id]);
        command.args(["--slots", &slots, "--exec"]).args(exec);
        self.registered(command).await
    }

    /// A command that is a worker, registered.
    pub(crate) async fn registered(&self, mut command: Command) -> Process {
        let mut process = Process::start(command.stderr(Stdio::piped()));
        let stderr = process.child.stderr.take().unwrap();
        Process::line(stderr, "registered").await;
        process
    }
}

/// How often each task was run, as the workers counted.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<HashMap<String, u32>>>);

impl Ledger {
    pub(crate) fn note(&self, job: &Job) {
        *self.0.lock().unwrap().entry(job.task.id.to_string()).or_default() += 1;
    }

    pub(crate) fn runs(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub(crate) fn runs_of(&self, task: &TaskId) -> u32 {
        self.0.lock().unwrap().get(task.as_str()).copied().unwrap_or(0)
    }

    pub(crate) fn most_runs_of_a_task(&self) -> u32 {
        self.0.lock().unwrap().values().copied().max().unwrap_or(0)
    }
}

/// A worker in this process that takes its time and notes what it runs.
pub(crate) async fn counting_worker(
    endpoint: Endpoint,
    agent_id: &str,
    slots: u32,
    takes: Duration,
    ledger: &Ledger,
) -> Worker {
    let ledger = ledger.clone();
    Worker::builder(endpoint)
        .agent_id(agent_id)
        .slots(slots)
        .handler("work", move |job: Job| {
            let ledger = ledger.clone();
            async move {
                ledger.note(&job);
                tokio::time::sleep(takes).await;
                Ok::<_, HandlerError>(job.body)
            }
        })
        .start()
        .await
        .unwrap()
}

/// Sends `count` tasks; those with an even number are idempotent when `some_idempotent`.
pub(crate) async fn send_many(
    client: &Client,
    count: usize,
    some_idempotent: bool,
) -> Vec<TaskHandle> {
    let mut handles = Vec::new();
    for number in 0..count {
        let task = client.task("work").body(number.to_string()).ttl(PATIENCE);
        let is_idempotent = some_idempotent && number % 2 == 0;
        handles.push(task.idempotent(is_idempotent).send().await.unwrap());
    }
    handles
}

pub(crate) async fn ends_of(handles: Vec<TaskHandle>) -> Vec<TaskEnd> {
    let mut ends = Vec::new();
    for handle in handles {
        ends.push(within("every task ends", handle).await);
    }
    ends
}

/// Waits for a future, but not for ever.
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    let limit = 2 * PATIENCE;
    match tokio::time::timeout(limit, future).await {
        Ok(output) => output,
        Err(_) => panic!("not within {limit:?}: {what}"),
    }
}

/// Waits until a condition holds.
pub(crate) async fn until<Fut: Future<Output = bool>>(what: &str, holds: impl Fn() -> Fut) {
    within(what, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Waits until the broker lists these agents, and no others.
pub(crate) async fn until_listed(client: &Client, names: &[&str]) {
    until("the list of agents is as expected", || async {
        // While the broker is away, the question itself can be lost.
        let Ok(list) = client.all_agents(&AgentFilter::online()).await else { return false };
        let mut listed: Vec<_> =
            list.agents.iter().map(|agent| agent.agent_id.to_string()).collect();
        listed.sort();
        listed == names
    })
    .await;
}
