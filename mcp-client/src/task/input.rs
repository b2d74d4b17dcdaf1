//! What follows the body of a task, before it is sent.

use std::fmt;
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use futures_util::future::{BoxFuture, FutureExt, ready};
use futures_util::stream::{BoxStream, Stream, StreamExt};
use tokio::fs::File;
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use crate::client::{Draft, Source};
use crate::error::InvalidTask;

/// What is read at once.
const READ_BYTES: usize = 16 * 1024;

type Parts = BoxStream<'static, Result<Bytes, String>>;

/// The input of a task that is being put together.
pub(super) enum Input {
    /// Follows the body as it comes.
    Live(Parts),
    /// Is read as far as a body goes, first.
    Read(BoxFuture<'static, Result<Source, InvalidTask>>),
}

impl Input {
    pub(super) fn live<S, B, E>(parts: S) -> Self
    where
        S: Stream<Item = Result<B, E>> + Send + 'static,
        B: Into<Bytes> + 'static,
        E: fmt::Display + 'static,
    {
        Input::Live(parts.map(told).boxed())
    }

    pub(super) fn reader(reader: impl AsyncRead + Send + 'static) -> Self {
        Input::Read(ready(Ok(source(reader, None))).boxed())
    }

    pub(super) fn file(path: PathBuf) -> Self {
        let open = async move {
            let problem =
                |error| InvalidTask::new("input", format_args!("can't be opened: {error}"));
            let file = File::open(path).await.map_err(problem)?;
            let about = file.metadata().await.map_err(problem)?;
            // Of a pipe, and of what the system makes up as it is read, it says nothing.
            let bytes = Some(about.len()).filter(|bytes| about.is_file() && *bytes > 0);
            Ok(source(file, bytes))
        };
        Input::Read(open.boxed())
    }

    /// Puts it into a task.
    pub(super) async fn complete(
        self,
        mut draft: Draft,
        input_bytes: Option<u64>,
        max_body_bytes: usize,
    ) -> Result<Draft, InvalidTask> {
        let source = match self {
            Input::Live(parts) => Source { parts, bytes: None, is_in_memory: false },
            Input::Read(open) => {
                let mut source = open.await?;
                if input_bytes.is_some() {
                    source.bytes = input_bytes;
                }
                let (body, rest) = begin(source, max_body_bytes).await?;
                draft.body = body;
                match rest {
                    Some(rest) => rest,
                    None => return Ok(draft),
                }
            }
        };
        let bytes = match input_bytes {
            Some(bytes) => Some(bytes.checked_sub(draft.body.len() as u64).ok_or_else(|| {
                InvalidTask::new("input_bytes", "is less than the body alone has")
            })?),
            None => source.bytes,
        };
        draft.source = Some(Box::new(Source { bytes, ..source }));
        Ok(draft)
    }
}

fn source(reader: impl AsyncRead + Send + 'static, bytes: Option<u64>) -> Source {
    let parts = ReaderStream::with_capacity(reader, READ_BYTES).map(told).boxed();
    Source { parts, bytes, is_in_memory: false }
}

fn told<B: Into<Bytes>, E: fmt::Display>(part: Result<B, E>) -> Result<Bytes, String> {
    part.map(Into::into).map_err(|error| error.to_string())
}

/// Reads what fits a body. Returns it, and what follows it if that was not all.
async fn begin(
    source: Source,
    max_body_bytes: usize,
) -> Result<(Bytes, Option<Source>), InvalidTask> {
    let Source { mut parts, bytes, is_in_memory } = source;
    let mut body = BytesMut::new();
    while body.len() <= max_body_bytes {
        match parts.next().await {
            Some(Ok(part)) => body.extend_from_slice(&part),
            Some(Err(error)) => {
                return Err(InvalidTask::new("input", format_args!("can't be read: {error}")));
            }
            None => return Ok((body.freeze(), None)),
        }
    }
    let mut body = body.freeze();
    let over = body.split_off(max_body_bytes);
    let bytes = bytes.map(|bytes| bytes.saturating_sub((body.len() + over.len()) as u64));
    Ok((body, Some(Source { parts, bytes, is_in_memory }.after(over))))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn begun(bytes: usize) -> (usize, Option<(usize, Option<u64>)>) {
        let reader = std::io::Cursor::new(vec![7; bytes]);
        let source = source(reader, Some(bytes as u64));
        let (body, rest) = begin(source, 50_000).await.unwrap();
        let Some(rest) = rest else { return (body.len(), None) };
        let bytes = rest.bytes;
        let rest: Vec<_> = rest.parts.collect().await;
        let rest = rest.into_iter().map(|part| part.unwrap().len()).sum();
        (body.len(), Some((rest, bytes)))
    }

    #[tokio::test]
    async fn what_fits_a_body_is_read_first() {
        assert_eq!(begun(0).await, (0, None));
        assert_eq!(begun(50_000).await, (50_000, None));
        assert_eq!(begun(50_001).await, (50_000, Some((1, Some(1)))));
        assert_eq!(begun(200_000).await, (50_000, Some((150_000, Some(150_000)))));
    }
}
