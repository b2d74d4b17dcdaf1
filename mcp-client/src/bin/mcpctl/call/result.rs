//! The result of a call as it comes: written at once, or put together.

use std::io::{self, IsTerminal, Write};

use mcp_client::{Outcome, PartsError, StreamEvent, TaskEnd, TaskStream};
use tokio_util::sync::CancellationToken;

use crate::exit::{Exit, Failure};
use crate::report;

/// Most of a result that is put together in memory.
const MAX_WHOLE_BYTES: usize = 1024 * 1024 * 1024;

/// What is done with the parts of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parts {
    /// Written to stdout as they come.
    Written,
    /// Put before the body of the end.
    Collected,
}

/// Reads a result to its end. `interrupted` cancels the task.
pub(super) async fn read(
    mut stream: TaskStream,
    parts: Parts,
    interrupted: &CancellationToken,
) -> Result<TaskEnd, Failure> {
    let mut to = Reader { parts, whole: Vec::new(), written: 0, last: None, is_noted: false };
    let mut is_cancelled = false;
    loop {
        let event = tokio::select! {
            event = stream.next() => event,
            () = interrupted.cancelled(), if !is_cancelled => {
                stream.cancel();
                is_cancelled = true;
                continue;
            }
        };
        let Some(event) = event else { break };
        to.take(event)?;
    }
    let mut end = stream.outcome().await;
    to.clear_note()?;
    match parts {
        Parts::Written => {
            if end.outcome == Outcome::Ok {
                to.write(&end.body)?;
            }
            to.end_line()?;
        }
        // What a handler gave out before it failed is no result.
        Parts::Collected if end.outcome == Outcome::Ok && !to.whole.is_empty() => {
            to.whole.extend_from_slice(&end.body);
            end.body = to.whole.into();
        }
        Parts::Collected => {}
    }
    Ok(end)
}

struct Reader {
    parts: Parts,
    whole: Vec<u8>,
    written: usize,
    /// What was written last.
    last: Option<u8>,
    /// A note on progress is on the terminal.
    is_noted: bool,
}

impl Reader {
    fn take(&mut self, event: StreamEvent) -> Result<(), Failure> {
        match event {
            StreamEvent::Part(part) if self.parts == Parts::Written => {
                self.clear_note()?;
                self.write(&part)?;
                self.written += part.len();
            }
            StreamEvent::Part(part) => {
                if part.len() > MAX_WHOLE_BYTES - self.whole.len() {
                    let problem = format!("the result has more than {MAX_WHOLE_BYTES} bytes");
                    return Err(Failure::new(Exit::Failed, problem));
                }
                self.whole.extend_from_slice(&part);
            }
            StreamEvent::Restarted => self.restart()?,
            StreamEvent::Gap => {
                return Err(Failure::new(Exit::Failed, PartsError::Missing));
            }
            StreamEvent::Progress { fraction, message } => self.note(fraction, &message)?,
            _ => {}
        }
        Ok(())
    }

    /// What was written can't be taken back: a person is told, a pipe is not given two results.
    fn restart(&mut self) -> Result<(), Failure> {
        self.whole.clear();
        if std::mem::take(&mut self.written) == 0 {
            return Ok(());
        }
        if !io::stdout().is_terminal() {
            let problem = "an attempt was lost or failed and the task runs again, but a part of \
                           the result was written already\nthe result is put together first with \
                           --no-stream";
            return Err(Failure::new(Exit::Failed, problem));
        }
        self.end_line()?;
        writeln!(
            io::stderr(),
            "--- that attempt was lost or failed; again from the beginning: ---"
        )?;
        Ok(())
    }

    fn write(&mut self, part: &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(part)?;
        self.last = part.last().copied().or(self.last);
        stdout.flush()
    }

    fn end_line(&mut self) -> io::Result<()> {
        report::end_line(&mut io::stdout().lock(), self.last.take().as_slice())
    }

    /// Shows how far the handler is, where that does not get in the way.
    fn note(&mut self, fraction: Option<f32>, message: &str) -> io::Result<()> {
        let mut stderr = io::stderr().lock();
        let is_in_a_line = self.last.is_some_and(|byte| byte != b'\n');
        if !stderr.is_terminal() || is_in_a_line {
            return Ok(());
        }
        self.is_noted = true;
        // The text is a peer's: nothing of it shall steer the terminal.
        let message: String = message.chars().filter(|it| !it.is_control()).take(60).collect();
        match fraction {
            Some(fraction) => write!(stderr, "\r\x1b[K{:3.0} % {message}", fraction * 100.0)?,
            None => write!(stderr, "\r\x1b[K{message}")?,
        }
        stderr.flush()
    }

    fn clear_note(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.is_noted) {
            write!(io::stderr(), "\r\x1b[K")?;
        }
        Ok(())
    }
}
