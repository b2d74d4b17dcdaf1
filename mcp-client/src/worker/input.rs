//! What follows of a task's input, for its handler.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use mcp_proto::{ErrorCode, ErrorInfo, InputLength};
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

use super::handler::HandlerError;
use super::job::Job;
use super::line::Line;

/// Why there is no more of an input. The handler should end with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// The attempt is over: cancelled, or its time to live ran out.
    #[error("the attempt is over")]
    Over,
    /// It is more than the handler takes.
    #[error("the input has more than {max_bytes} bytes, the most that is taken here")]
    TooLong {
        /// What the handler takes.
        max_bytes: usize,
    },
    /// The broker left out a part, or sent more than it may.
    #[error("the broker did not send the input in order")]
    Broken,
}

impl From<InputError> for io::Error {
    fn from(error: InputError) -> Self {
        io::Error::other(error)
    }
}

impl Job {
    /// What follows the [`body`](Self::body) of an input that is longer than 64 KiB: nothing for most
    /// tasks. The client is given credit as it is read: what the handler does not read stays there, but
    /// for 256 KiB here and at the broker.
    ///
    /// To be read by one at a time; a second reader goes on where the one before was. A handler may end
    /// without having read all. One that never asked for it, though, can't have meant to work on the
    /// beginning only: what it returns is dropped, and the task ends failed(BODY_TOO_LARGE).
    pub fn input(&self) -> Input {
        if let Some(inlet) = self.line.inlet() {
            inlet.want();
        }
        Input(self.line.clone())
    }

    /// How long the whole input is, if that is known.
    pub fn input_bytes(&self) -> Option<u64> {
        match self.line.inlet().map(|inlet| inlet.length()) {
            None => Some(self.body.len() as u64),
            Some(InputLength::Bytes(bytes)) => Some(bytes),
            Some(InputLength::Unknown) => None,
        }
    }

    /// The whole input: the body, and what follows it.
    ///
    /// # Errors
    /// When it is longer than `max_bytes`, which is noticed before more than that is held; or when the
    /// attempt is over.
    pub async fn read_all(&self, max_bytes: usize) -> Result<Bytes, InputError> {
        let too_long = InputError::TooLong { max_bytes };
        if self.body.len() > max_bytes
            || self.input_bytes().is_some_and(|bytes| bytes > max_bytes as u64)
        {
            return Err(too_long);
        }
        let mut input = self.input();
        let Some(first) = input.next().await.transpose()? else { return Ok(self.body.clone()) };
        let mut all = BytesMut::from(&self.body[..]);
        let mut next = Some(first);
        while let Some(part) = next {
            if part.len() > max_bytes - all.len() {
                return Err(too_long);
            }
            all.extend_from_slice(&part);
            next = input.next().await.transpose()?;
        }
        Ok(all.freeze())
    }
}

/// What follows of an input, part by part. See [`Job::input`].
pub struct Input(Line);

impl Input {
    /// The next part, never empty; none at the end. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<Bytes, InputError>> {
        std::future::poll_fn(|cx| self.poll_part(cx)).await
    }

    /// The same, to be read as bytes.
    pub fn into_async_read(self) -> impl AsyncRead + Send + Unpin {
        StreamReader::new(self)
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, InputError>>> {
        let Some(inlet) = self.0.inlet() else { return Poll::Ready(None) };
        let (part, told) = inlet.poll(cx);
        if let Some(told) = told {
            self.0.credit_input(told);
        }
        part
    }
}

impl Stream for Input {
    type Item = Result<Bytes, InputError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_part(cx)
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").finish_non_exhaustive()
    }
}

/// How the attempt of a handler ends that knows of the input's beginning only.
pub(super) fn unread() -> HandlerError {
    let message = "the input is longer than 64 KiB, and its handler takes none so long: it read only \
                   the beginning (Job::input and Job::read_all give the rest)";
    HandlerError::permanent_info(ErrorInfo::new(ErrorCode::BodyTooLarge, message))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use futures_util::FutureExt;
    use mcp_proto::{ActionName, Task, TaskId};
    use tokio::io::AsyncReadExt;

    use super::*;

    fn job(line: Line) -> Job {
        let id = TaskId::try_from("t").unwrap();
        let task = Task::new(id, ActionName::try_from("upper").unwrap());
        let deadline = Instant::now() + Duration::from_secs(60);
        Job { task: Box::new(task), body: Bytes::from_static(b"once "), deadline, attempt: 1, line }
    }

    fn long_job() -> Job {
        let job = job(Line::dead_with_input(InputLength::Unknown));
        let inlet = job.line.inlet().unwrap();
        inlet.chunk(0, false, Bytes::from_static(b"upon "));
        inlet.chunk(1, true, Bytes::from_static(b"a time"));
        job
    }

    #[test]
    fn the_whole_is_the_body_and_what_follows() {
        let all = |job: &Job, max| job.read_all(max).now_or_never().unwrap();
        let short = job(Line::dead());
        assert_eq!(all(&short, 5).unwrap(), "once ");
        assert_eq!(all(&short, 4), Err(InputError::TooLong { max_bytes: 4 }));
        assert_eq!((short.input_bytes(), long_job().input_bytes()), (Some(5), None));
        assert_eq!(all(&long_job(), 16).unwrap(), "once upon a time");
        assert_eq!(all(&long_job(), 15), Err(InputError::TooLong { max_bytes: 15 }));
        let over = long_job();
        over.line.end();
        assert_eq!(all(&over, 100), Err(InputError::Over));
    }

    #[test]
    fn what_follows_can_be_read_as_bytes() {
        let mut text = String::new();
        let mut input = long_job().input().into_async_read();
        input.read_to_string(&mut text).now_or_never().unwrap().unwrap();
        assert_eq!(text, "upon a time");
    }

    #[test]
    fn a_handler_that_never_asked_for_the_rest_is_told() {
        let job = long_job();
        assert!(job.line.inlet().unwrap().is_unwanted());
        drop(job.input());
        assert!(!job.line.inlet().unwrap().is_unwanted());
        assert_eq!(unread().info().code, ErrorCode::BodyTooLarge);
    }
}
