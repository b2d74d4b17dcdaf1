//! `mcpctl worker`: a worker whose handler is a program or a server.

mod backend;

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use mcp_client::telemetry::Exporter;
use mcp_client::{ActionName, AgentId, Endpoint, Worker, WorkerExit, WorkerStatus};
use tokio::time::timeout;
use uuid::Uuid;

use crate::exit::{Exit, Failure};
use crate::global::{Global, cannot_connect};
use crate::{parse, signals};
use backend::{Backend, BackendArgs};

/// The name of this program in logs and traces.
pub(crate) const SERVICE_NAME: &str = "mcp-worker";

/// The option of a worker that gets shadow tasks, after others.
pub(crate) const SHADOW_WORKER: &str = " --label shadow=true";

/// How long a worker that is told to stop at once may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  mcpctl worker --action upper --exec tr a-z A-Z
  mcpctl worker --action resize --slots 4 --label gpu=a100 --exec ./resize.sh --width 800
  mcpctl worker --action say --exec sh -c 'echo \"hello, $(cat)\"'
  mcpctl worker --action render --slots 8 --http http://127.0.0.1:3000/render
  mcpctl worker --action generate --slots 4 --openai http://127.0.0.1:8000/v1 --model smollm2
  mcpctl worker --action classify --kserve http://127.0.0.1:8000 --model bert
  mcpctl worker --action ping --echo";

const EXIT_HELP: &str = "\
Exit status:
    0  drained
    1  another process took over the agent id
    2  wrong arguments, or there is no such program, file or URL
    4  the broker refuses the worker
    5  cannot connect
  130  stopped by a second signal";

/// Serve an action, by a program or a server that does the work
///
/// Exactly one backend is chosen. When a task is cancelled or its time is over, the program that
/// runs for it is killed, or its request is closed.
///
/// --exec: the program gets the task's input on stdin, and what it writes to stdout is the result.
/// It need not read its input. If it exits with anything but 0, the task fails with the end of its
/// stderr. In its environment it finds MCP_TASK_ID, MCP_ACTION, MCP_ATTEMPT, MCP_CONTENT_TYPE,
/// MCP_TTL_MS, TRACEPARENT and TRACESTATE, those that the task has.
///
/// --http: the task's input is posted with its content type, and what is answered is the result. A
/// status of 300 and above fails the task; 429 and 503 with Retry-After say that it may be tried
/// again. So it is with the other servers. https trusts what this machine trusts, or the
/// certificates in SSL_CERT_FILE.
///
/// --openai: chat completions, streamed. The input is a prompt, or JSON: {"prompt": "...",
/// "context": {"history": [{"role": "user", "content": "..."}]}}, or a request of that API, with
/// "messages". The model's text is the result.
///
/// --kserve: inference over HTTP. The input is an inference request, JSON with "inputs", or a text,
/// which becomes the tensor text_input. The inference response is the result.
///
/// Ctrl-C or SIGTERM drains the worker: it finishes what it holds and takes nothing new. A second
/// one ends it at once, with all that runs.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", EXIT_HELP))]
pub(crate) struct WorkerArgs {
    /// An action to serve; may be repeated
    #[arg(long = "action", value_name = "NAME", required = true)]
    actions: Vec<ActionName>,

    /// Tasks that may run at once
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    slots: u32,

    /// The agent's own stable name; another process with the same one takes its place. Made of the
    /// action and a random part when not given
    #[arg(long, value_name = "ID")]
    agent_id: Option<AgentId>,

    /// A label that tasks can require; may be repeated. With shadow=true, the worker gets shadow tasks
    /// only: load tests, and copies of real ones
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::key_value)]
    label: Vec<(String, String)>,

    /// How long a drain waits for the tasks that run
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse::duration)]
    drain_timeout: Duration,

    #[command(flatten)]
    backend: BackendArgs,
}

impl WorkerArgs {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let notes = Notes { are_json: global.logs_json() };
        let exporter = global.exporter(SERVICE_NAME);
        let backend = self.backend.backend()?;
        let endpoint = global.endpoint()?;
        let [drain, stop] = signals::tokens()?;
        let drain_timeout = self.drain_timeout;
        let about = self.about();
        let worker = tokio::select! {
            worker = self.start(endpoint, backend, exporter) => worker?,
            () = drain.cancelled() => return Err(Failure::cancelled()),
        };
        notes.tell(&worker, format_args!("registered as {} ({about})", worker.node_id()));

        let exit = tokio::select! {
            exit = closed(&worker, &notes) => exit,
            () = drain.cancelled() => {
                let running = worker.stats().running;
                notes.tell(&worker, format_args!("drains: {running} running"));
                tokio::select! {
                    exit = worker.drain(drain_timeout) => exit,
                    () = stop.cancelled() => {
                        // Ends what runs; whether the broker hears of it is not waited for.
                        let _ = timeout(STOP_TIMEOUT, worker.drain(Duration::ZERO)).await;
                        return Ok(Exit::Cancelled);
                    }
                }
            }
        };
        match exit {
            WorkerExit::Drained => {
                notes.tell(&worker, format_args!("drained"));
                Ok(Exit::Ok)
            }
            WorkerExit::Replaced => Err(Failure::new(
                Exit::Failed,
                format_args!(
                    "another process registered as {} and took over\n\
                     give each worker an --agent-id of its own",
                    worker.agent_id()
                ),
            )),
            WorkerExit::Refused(info) => Err(Failure::new(Exit::Rejected, info)),
            exit => Err(Failure::new(Exit::Failed, format_args!("stopped: {exit:?}"))),
        }
    }

    #[cfg(test)]
    pub(crate) fn exec(&self) -> &[std::ffi::OsString] {
        self.backend.exec()
    }

    fn about(&self) -> String {
        let actions: Vec<_> = self.actions.iter().map(ActionName::as_str).collect();
        format!("actions: {}, slots: {}", actions.join(", "), self.slots)
    }

    async fn start(
        self,
        endpoint: Endpoint,
        backend: Backend,
        exporter: Option<Exporter>,
    ) -> Result<Worker, Failure> {
        let mut builder = Worker::builder(endpoint.clone()).slots(self.slots);
        builder = match self.agent_id {
            Some(id) => builder.agent_id(id),
            None => builder.agent_id(new_agent_id(self.actions[0].as_str())),
        };
        if let Some(exporter) = exporter {
            builder = builder.telemetry(exporter);
        }
        for (key, value) in self.label {
            builder = builder.label(key, value);
        }
        for action in self.actions {
            builder = builder.handler(action, backend.clone());
        }
        builder.start().await.map_err(|error| cannot_connect(Some(&endpoint), &error))
    }
}

/// A name that says what the agent does and that no other process has.
fn new_agent_id(action: &str) -> String {
    let random = Uuid::now_v7().as_u128() as u32;
    format!("{}-{random:08x}", &action[..action.len().min(100)])
}

/// Tells when the connection breaks and when it is back, until the worker has stopped.
async fn closed(worker: &Worker, notes: &Notes) -> WorkerExit {
    let mut status = worker.status();
    while status.changed().await.is_ok() {
        // Not borrowed while it is told, which may block.
        let now = status.borrow_and_update().clone();
        match now {
            WorkerStatus::Connected => {
                notes.tell(worker, format_args!("reconnected as {}", worker.node_id()));
            }
            WorkerStatus::Disconnected => {
                notes.tell(
                    worker,
                    format_args!("disconnected; tries again until the broker answers"),
                );
            }
            _ => break,
        }
    }
    worker.closed().await
}

/// What is told on the way.
struct Notes {
    are_json: bool,
}

impl Notes {
    fn tell(&self, worker: &Worker, what: std::fmt::Arguments<'_>) {
        let agent_id = worker.agent_id().as_str();
        if self.are_json {
            return tracing::info!(agent_id, "{what}");
        }
        // Nobody may be reading any more; the worker works on.
        let _ = writeln!(io::stderr(), "worker {agent_id} {what}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_names_are_valid_and_differ() {
        let action = "a".repeat(128);
        let id = new_agent_id(&action);
        assert!(AgentId::try_from(id.as_str()).is_ok());
        assert_ne!(id, new_agent_id(&action));
    }
}
