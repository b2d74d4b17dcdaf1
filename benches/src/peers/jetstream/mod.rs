//! NATS JetStream: tasks in one stream on disk, results in another. A worker takes tasks by a pull
//! consumer, stores a result, and acknowledges the task once that is acknowledged; a client takes its
//! results in the same way. So both are delivered again until they have come to their end.
//!
//! What was seen to be the fastest that keeps this (1 KiB, nats-server 2.15):
//!
//! - Streams that keep what is acknowledged, up to [`MAX_AGE`], rather than work queues, which remove
//!   it one by one: 1.1 to 2 times as fast with a sync for each write, up to 1.3 times without.
//! - Acknowledgements of what was delivered are not waited for: one that is lost has it delivered
//!   again, which the guarantee allows.
//! - How messages are stored: see [`Publisher`].

mod publisher;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Error, Result};
use async_nats::jetstream;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::stream::{Config, StorageType};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::task::spawn_local;

use super::item::{self, Pending};
use super::nats;
use publisher::Publisher;

const TASKS: &str = "tasks";
const RESULTS: &str = "results";

/// How long a message is kept: the time to live of tasks and results.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// Messages asked for at once. What limits a worker is how many it has not acknowledged.
const BATCH: usize = 1024;

/// With so many tasks waiting for a disk, the last one's acknowledgement may be late.
const ACK_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) async fn work(
    address: SocketAddr,
    is_synced: bool,
    slots: u32,
    ready: impl FnOnce(),
) -> Result<()> {
    let context = connect(address).await?;
    for (name, subject) in [(TASKS, TASKS.to_owned()), (RESULTS, format!("{RESULTS}.*"))] {
        let stream = Config {
            name: name.to_owned(),
            subjects: vec![subject],
            storage: StorageType::File,
            max_age: MAX_AGE,
            allow_atomic_publish: is_synced,
            ..Config::default()
        };
        context.create_stream(stream).await?;
    }
    let tasks = consumer(&context, TASKS, TASKS.to_owned(), slots.into()).await?;
    let publisher = Publisher::new(context, is_synced);
    let mut tasks = tasks.stream().max_messages_per_batch(BATCH).messages().await?;
    ready();
    while let Some(task) = tasks.next().await {
        let (task, publisher) = (task?, publisher.clone());
        spawn_local(async move {
            // What fails is delivered again.
            if let Err(error) = echo(&publisher, task).await {
                eprintln!("{error:#}");
            }
        });
    }
    anyhow::bail!("the subscription ended")
}

async fn echo(publisher: &Publisher, task: jetstream::Message) -> Result<()> {
    let subject = format!("{RESULTS}.{}", item::client(&task.payload)?);
    publisher.store(subject, task.payload.clone()).await?;
    task.ack().await.map_err(Error::from_boxed)
}

pub(super) struct Caller {
    publisher: Publisher,
    pending: Rc<Pending>,
}

impl Caller {
    pub(super) async fn connect(address: SocketAddr, is_synced: bool) -> Result<Self> {
        let client = u64::from(std::process::id());
        let context = connect(address).await?;
        let results = consumer(&context, RESULTS, format!("{RESULTS}.{client}"), -1).await?;
        let pending = Rc::new(Pending::of(client));
        spawn_local(receive(results, pending.clone()));
        Ok(Self { publisher: Publisher::new(context, is_synced), pending })
    }
}

impl crate::load::Caller for Caller {
    async fn call(&self, body: Bytes) -> Result<Bytes> {
        let (item, result) = self.pending.begin(&body);
        self.publisher.store(TASKS.to_owned(), item.into()).await?;
        Ok(result.await?)
    }
}

async fn receive(results: PullConsumer, pending: Rc<Pending>) -> Result<()> {
    let mut results = results.stream().max_messages_per_batch(BATCH).messages().await?;
    while let Some(result) = results.next().await {
        let result = result?;
        pending.end(result.payload.clone())?;
        result.ack().await.map_err(Error::from_boxed)?;
    }
    Ok(())
}

async fn connect(address: SocketAddr) -> Result<jetstream::Context> {
    let client = nats::connect(address, None).await?;
    Ok(ContextBuilder::new().timeout(ACK_TIMEOUT).build(client))
}

/// Of what comes to `subject`; at most so many messages wait for their acknowledgement, or -1.
async fn consumer(
    context: &jetstream::Context,
    stream: &str,
    subject: String,
    max_ack_pending: i64,
) -> Result<PullConsumer> {
    let config = pull::Config {
        ack_policy: AckPolicy::Explicit,
        filter_subject: subject,
        max_ack_pending,
        ..pull::Config::default()
    };
    Ok(context.get_stream(stream).await?.create_consumer(config).await?)
}
