//! Runs a program for each task.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use bytestring::ByteString;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, Command};

use crate::worker::{
    EmitError, Handler, HandlerError, HandlerFuture, HandlerReply, InputError, Job,
};

/// How much of a failed program's standard error is told.
const STDERR_TAIL_BYTES: usize = 2 * 1024;

/// Most bytes of output when not said: as much as a broker takes of an input, when not told otherwise.
const MAX_OUTPUT_BYTES: usize = 1 << 30;

/// Most bytes that are read, and emitted, at once.
const READ_BYTES: usize = 8 * 1024;

/// Once a program has ended and its process group is killed, its output is read for this long: a
/// process that left the group may hold the pipe open.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);

/// A handler that runs a program for each task: the task's input on its standard input, the result
/// from its standard output.
///
/// * An input of any size is written as it comes, and as the program reads it.
/// * What the program writes is emitted as it comes.
/// * A program that does not read its input is fine.
/// * Exit status other than 0: the task fails with the status and the last 2 KiB of its standard
///   error.
/// * More output than [`max_output_bytes`](Self::max_output_bytes): the program is killed and the
///   task fails.
/// * At cancel or deadline, and when the worker stops, the program and its children (its process
///   group) are killed. What it leaves running in its group when it ends is killed as well.
///
/// The program finds `MCP_TASK_ID`, `MCP_ACTION`, `MCP_ATTEMPT`, `MCP_CONTENT_TYPE`,
/// `MCP_TTL_MS` (what remained when it was started), `TRACEPARENT` and `TRACESTATE` in its
/// environment, those that the task has.
#[derive(Debug, Clone)]
pub struct Exec {
    program: OsString,
    args: Vec<OsString>,
    content_type: ByteString,
    max_output_bytes: usize,
}

impl Exec {
    /// Runs `program`, looked up in `PATH`, with `args`.
    pub fn new<A: Into<OsString>>(
        program: impl Into<OsString>,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        Self {
            program: program.into(),
            args: args.into_iter().map(Into::into).collect(),
            content_type: ByteString::new(),
            max_output_bytes: MAX_OUTPUT_BYTES,
        }
    }

    /// The content type of results. None when not said.
    pub fn content_type(mut self, content_type: impl Into<ByteString>) -> Self {
        self.content_type = content_type.into();
        self
    }

    /// Most bytes of output. 1 GiB when not said. Whatever it is, a client that does not take the
    /// result in parts gets no more than 64 KiB.
    pub fn max_output_bytes(mut self, bytes: usize) -> Self {
        self.max_output_bytes = bytes;
        self
    }

    fn command(&self, job: &Job) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let task = &job.task;
        let attempt = job.attempt.to_string();
        let ttl_ms = job.remaining().as_millis().to_string();
        let variables = [
            ("MCP_TASK_ID", task.id.as_str()),
            ("MCP_ACTION", task.action.as_str()),
            ("MCP_ATTEMPT", &attempt),
            ("MCP_CONTENT_TYPE", &task.content_type),
            ("MCP_TTL_MS", &ttl_ms),
            ("TRACEPARENT", &task.traceparent),
            ("TRACESTATE", &task.tracestate),
        ];
        // It proves who the worker is, which is not the program's business.
        command.env_remove("MCP_TOKEN");
        for (name, value) in variables {
            // The worker's own values are not the task's.
            command.env_remove(name);
            if !value.is_empty() && !value.contains('\0') {
                command.env(name, value);
            }
        }
        command
    }

    async fn run(self, job: Job) -> Result<HandlerReply, HandlerError> {
        let program = self.program.display();
        let failed = |what: &str, error: io::Error| {
            HandlerError::new(format!("can't {what} {program}: {error}"))
        };
        let mut child = self.command(&job).spawn().map_err(|error| failed("start", error))?;
        let mut group = Group::of(child.id());
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());

        let is_emitting = AtomicBool::new(false);
        let mut errors = Tail::default();
        let exchange = async {
            tokio::try_join!(
                feed(stdin, &job),
                emit_all(stdout, self.max_output_bytes, &job, &is_emitting),
                read_tail(stderr, &mut errors),
            )
        };
        let exchanged = {
            let mut exchange = std::pin::pin!(exchange);
            tokio::select! {
                exchanged = &mut exchange => exchanged.map(drop),
                status = child.wait() => {
                    status.map_err(|error| failed("wait for", error))?;
                    // Children that it left behind hold the other ends of its pipes.
                    group.kill();
                    loop {
                        match tokio::time::timeout(OUTPUT_GRACE, &mut exchange).await {
                            Ok(exchanged) => break exchanged.map(drop),
                            // It is not the pipe that is waited for.
                            Err(_) if is_emitting.load(Ordering::Relaxed) => {}
                            Err(_) => break Ok(()),
                        }
                    }
                }
            }
        };
        if let Err(problem) = exchanged {
            return Err(match problem {
                Problem::TooLong => HandlerError::new(format!(
                    "{program} wrote more than {} bytes of output and was killed",
                    self.max_output_bytes
                )),
                Problem::Emit(error) => error.into(),
                Problem::Input(error) => error.into(),
                Problem::Io(error) => failed("read the output of", error),
            });
        }
        // Without its pipes it may still run.
        let status = child.wait().await.map_err(|error| failed("wait for", error))?;
        group.kill();
        if !status.success() {
            return Err(HandlerError::new(failure(&program.to_string(), status, &errors.text())));
        }
        Ok(HandlerReply::default().content_type(self.content_type.clone()))
    }
}

impl Handler for Exec {
    fn call(&self, job: Job) -> HandlerFuture {
        Box::pin(self.clone().run(job))
    }
}

fn failure(program: &str, status: ExitStatus, errors: &str) -> String {
    use std::os::unix::process::ExitStatusExt;
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("{program} exited with status {code}"),
        (None, Some(signal)) => format!("{program} was killed by signal {signal}"),
        (None, None) => format!("{program} ended with {status}"),
    };
    if errors.is_empty() { how } else { format!("{how}: {errors}") }
}

/// The processes of one program; killed when dropped.
struct Group(Option<Pid>);

impl Group {
    fn of(id: Option<u32>) -> Self {
        Self(id.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    /// Once: when its leader has been waited for, the system may give its number to others.
    fn kill(&mut self) {
        if let Some(leader) = self.0.take() {
            // Fails when they are all gone.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

enum Problem {
    TooLong,
    Emit(EmitError),
    Input(InputError),
    Io(io::Error),
}

async fn feed(stdin: Option<ChildStdin>, job: &Job) -> Result<(), Problem> {
    // Also for a program that does not read it: that is its own affair.
    let mut input = job.input();
    let Some(mut stdin) = stdin else { return Ok(()) };
    let mut part = job.body.clone();
    loop {
        match stdin.write_all(&part).await {
            Ok(()) => {}
            // It does not want to read it, or not all of it.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(Problem::Io(error)),
        }
        match input.next().await {
            Some(next) => part = next.map_err(Problem::Input)?,
            None => return Ok(()),
        }
    }
}

async fn emit_all(
    stdout: Option<impl AsyncRead + Unpin>,
    max_bytes: usize,
    job: &Job,
    is_emitting: &AtomicBool,
) -> Result<(), Problem> {
    let Some(mut stdout) = stdout else { return Ok(()) };
    let mut room = max_bytes;
    loop {
        let mut chunk = BytesMut::with_capacity(READ_BYTES);
        let read = stdout.read_buf(&mut chunk).await.map_err(Problem::Io)?;
        if read == 0 {
            return Ok(());
        }
        room = room.checked_sub(read).ok_or(Problem::TooLong)?;
        is_emitting.store(true, Ordering::Relaxed);
        job.emit(chunk).await.map_err(Problem::Emit)?;
        is_emitting.store(false, Ordering::Relaxed);
    }
}

async fn read_tail(stderr: Option<impl AsyncRead + Unpin>, tail: &mut Tail) -> Result<(), Problem> {
    let Some(mut stderr) = stderr else { return Ok(()) };
    let mut buffer = [0; 1024];
    loop {
        match stderr.read(&mut buffer).await.map_err(Problem::Io)? {
            0 => return Ok(()),
            count => tail.push(&buffer[..count]),
        }
    }
}

/// The last bytes of a stream.
#[derive(Default)]
struct Tail(VecDeque<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
        self.0.drain(..self.0.len().saturating_sub(STDERR_TAIL_BYTES));
    }

    fn text(&mut self) -> String {
        String::from_utf8_lossy(self.0.make_contiguous()).trim().to_owned()
    }
}
