//! The lines of a file, read by a thread of their own and a bounded number ahead.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::thread;

use mcp_proto::json::MAX_JSON_BYTES;
use tokio::sync::mpsc;

/// Lines read ahead of those asked for.
const READ_AHEAD: usize = 64;

/// One line of the file.
pub(super) struct Line {
    /// 1 for the first.
    pub(super) number: u64,
    /// Its bytes in the file, the line end included.
    pub(super) bytes: u64,
    /// What it says, without its line end, or why it can't be read.
    pub(super) text: Result<Vec<u8>, String>,
}

/// The lines that are not empty.
pub(super) struct Lines {
    receiver: mpsc::Receiver<Line>,
    /// The length of the file in bytes, if it is a plain file.
    pub(super) total_bytes: Option<u64>,
}

impl Lines {
    /// Begins to read `path`; `-` is stdin.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if path.as_os_str() == "-" {
            return Self::read(io::stdin(), None);
        }
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Self::read(file, metadata.is_file().then_some(metadata.len()))
    }

    fn read(from: impl Read + Send + 'static, total_bytes: Option<u64>) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel(READ_AHEAD);
        let read = move || read_lines(BufReader::with_capacity(64 * 1024, from), &sender);
        thread::Builder::new().name("lines".to_owned()).spawn(read)?;
        Ok(Self { receiver, total_bytes })
    }

    /// The next line; `None` after the last one. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Line> {
        self.receiver.recv().await
    }
}

fn read_lines(mut from: impl BufRead, to: &mpsc::Sender<Line>) {
    for number in 1.. {
        let (bytes, text, is_last) = match read_line(&mut from) {
            Ok((0, _)) => return,
            Ok((bytes, text)) => (bytes, text, false),
            Err(error) => (0, Err(format!("cannot be read: {error}")), true),
        };
        if text.as_ref().is_ok_and(|text| text.trim_ascii().is_empty()) {
            continue;
        }
        if to.blocking_send(Line { number, bytes, text }).is_err() || is_last {
            return;
        }
    }
}

/// Reads up to the next line end. Of a line over the limit only its length is kept.
fn read_line(from: &mut impl BufRead) -> io::Result<(u64, Result<Vec<u8>, String>)> {
    let mut text = Vec::new();
    let limit = MAX_JSON_BYTES as u64 + 1;
    let mut bytes = from.by_ref().take(limit).read_until(b'\n', &mut text)? as u64;
    if text.last() == Some(&b'\n') {
        text.pop();
    } else if bytes == limit {
        bytes += from.skip_until(b'\n')? as u64;
        return Ok((
            bytes,
            Err(format!("has {bytes} bytes; at most {MAX_JSON_BYTES} are allowed")),
        ));
    }
    Ok((bytes, Ok(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(text: &'static [u8]) -> Vec<(u64, u64, Result<Vec<u8>, String>)> {
        let mut lines = Lines::read(text, None).unwrap();
        let mut all = Vec::new();
        while let Some(line) = lines.next().await {
            all.push((line.number, line.bytes, line.text));
        }
        all
    }

    #[tokio::test]
    async fn empty_lines_are_counted_and_left_out() {
        let all = lines(b"one\n\n  \r\ntwo\r\nlast").await;
        let ok = |text: &[u8]| Ok(text.to_vec());
        assert_eq!(all, [(1, 4, ok(b"one")), (4, 5, ok(b"two\r")), (5, 4, ok(b"last"))]);
    }

    #[tokio::test]
    async fn a_line_over_the_limit_is_skipped_and_the_rest_goes_on() {
        let mut text = vec![b'x'; 3 * MAX_JSON_BYTES];
        text.extend_from_slice(b"\nnext\n");
        let all = lines(text.leak()).await;
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].1, 3 * MAX_JSON_BYTES as u64 + 1);
        assert!(all[0].2.as_ref().is_err_and(|error| error.contains("at most")));
        assert_eq!(all[1].2, Ok(b"next".to_vec()));
    }
}
