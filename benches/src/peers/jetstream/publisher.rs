//! Storing messages in a stream.

use anyhow::{Context as _, Result};
use async_nats::jetstream::Context;
use async_nats::{HeaderMap, HeaderValue};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;

/// The most that a batch may have by the server's default, 1000, and a little less.
const MAX_BATCH: usize = 512;

/// Stores messages, and says when each is stored.
///
/// With a sync for each write, a message alone is synced alone, whoever else waits: some hundred a
/// second. What an atomic batch holds is synced together, so all that came while one was stored are
/// the next one: 5 times as fast with 64 in flight, 20 times with 1024; more batches at once are
/// slower. Without syncs a batch is slower by its own files, 8 times with 64 in flight, and messages
/// go one by one, none waiting for the one before.
#[derive(Clone)]
pub(super) struct Publisher {
    context: Context,
    batches: Option<mpsc::UnboundedSender<Waiting>>,
}

/// A message, and whom to tell that it is stored.
struct Waiting {
    subject: String,
    payload: Bytes,
    stored: oneshot::Sender<()>,
}

impl Publisher {
    pub(super) fn new(context: Context, is_synced: bool) -> Self {
        let batches = is_synced.then(|| {
            let (batches, waiting) = mpsc::unbounded_channel();
            spawn_local(store_batches(context.clone(), waiting));
            batches
        });
        Self { context, batches }
    }

    /// Stores a message.
    pub(super) async fn store(&self, subject: String, payload: Bytes) -> Result<()> {
        let Some(batches) = &self.batches else {
            self.context.publish(subject, payload).await?.await?;
            return Ok(());
        };
        let (stored, is_stored) = oneshot::channel();
        batches
            .send(Waiting { subject, payload, stored })
            .ok()
            .context("the connection is gone")?;
        is_stored.await.context("it is not stored")
    }
}

/// Stores what waits, a batch after the other.
async fn store_batches(context: Context, mut waiting: mpsc::UnboundedReceiver<Waiting>) {
    let mut batch = Vec::with_capacity(MAX_BATCH);
    for number in 0u64.. {
        if waiting.recv_many(&mut batch, MAX_BATCH).await == 0 {
            return;
        }
        match store_batch(&context, number, &mut batch).await {
            Ok(stored) => {
                for stored in stored {
                    let _ = stored.send(());
                }
            }
            // Those who wait are told by dropping.
            Err(error) => eprintln!("{error:#}"),
        }
    }
}

async fn store_batch(
    context: &Context,
    number: u64,
    batch: &mut Vec<Waiting>,
) -> Result<Vec<oneshot::Sender<()>>> {
    let count = batch.len();
    let id = HeaderValue::from(format!("{}-{number}", std::process::id()));
    let mut stored = Vec::with_capacity(count);
    for (sequence, message) in (1..).zip(batch.drain(..)) {
        let Waiting { subject, payload, stored: to_tell } = message;
        stored.push(to_tell);
        let mut headers = HeaderMap::new();
        if count > 1 {
            headers.insert("Nats-Batch-Id", id.clone());
            headers.insert("Nats-Batch-Sequence", HeaderValue::from(sequence));
        }
        if sequence < count {
            context.client().publish_with_headers(subject, headers, payload).await?;
        } else {
            if count > 1 {
                headers.insert("Nats-Batch-Commit", "1");
            }
            context.publish_with_headers(subject, headers, payload).await?.await?;
        }
    }
    Ok(stored)
}
