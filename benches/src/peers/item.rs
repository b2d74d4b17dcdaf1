//! Tasks on their way through a server that knows none: an item is the number of its client, the
//! number of its task, and the body.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::sync::oneshot;

/// Of an item: two numbers.
const HEADER_BYTES: usize = 16;

/// The number of the client whose task it is.
pub(super) fn client(item: &[u8]) -> Result<u64> {
    number(item, 0)
}

fn number(item: &[u8], at: usize) -> Result<u64> {
    let bytes = item.get(at..).and_then(|rest| rest.first_chunk()).context("an item is cut")?;
    Ok(u64::from_be_bytes(*bytes))
}

/// A client's tasks that have not come back.
pub(super) struct Pending {
    client: u64,
    next_task: Cell<u64>,
    results: RefCell<HashMap<u64, oneshot::Sender<Bytes>>>,
}

impl Pending {
    /// Of a client with this number.
    pub(super) fn of(client: u64) -> Self {
        Self { client, next_task: Cell::default(), results: RefCell::default() }
    }

    /// A new task, and where its result comes.
    pub(super) fn begin(&self, body: &[u8]) -> (Vec<u8>, oneshot::Receiver<Bytes>) {
        let task = self.next_task.replace(self.next_task.get() + 1);
        let mut item = Vec::with_capacity(HEADER_BYTES + body.len());
        item.extend_from_slice(&self.client.to_be_bytes());
        item.extend_from_slice(&task.to_be_bytes());
        item.extend_from_slice(body);
        let (done, result) = oneshot::channel();
        self.results.borrow_mut().insert(task, done);
        (item, result)
    }

    /// A task has come back; one that did before is ignored.
    pub(super) fn end(&self, item: Bytes) -> Result<()> {
        let done = self.results.borrow_mut().remove(&number(&item, 8)?);
        if let Some(done) = done {
            let _ = done.send(item.slice(HEADER_BYTES..));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_comes_back_to_its_task() {
        let pending = Pending::of(7);
        let (first, mut first_result) = pending.begin(b"1");
        let (second, mut second_result) = pending.begin(b"2");
        assert_eq!(client(&second).unwrap(), 7);
        pending.end(second.clone().into()).unwrap();
        pending.end(second.into()).unwrap();
        pending.end(first.into()).unwrap();
        assert_eq!(first_result.try_recv().unwrap(), "1");
        assert_eq!(second_result.try_recv().unwrap(), "2");
        assert!(pending.end(Bytes::from_static(b"cut")).is_err());
    }
}
