//! NATS JetStream: tasks in one stream on disk, results in another.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::{Config, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, Context};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::task::spawn_local;

use super::item::{self, Pending};
use super::nats;

const TASKS: &str = "tasks";
const RESULTS: &str = "results";

pub(super) async fn work(address: SocketAddr, slots: u32, ready: impl FnOnce()) -> Result<()> {
    let context = connect(address).await?;
    for (name, subject) in [(TASKS, TASKS.to_owned()), (RESULTS, format!("{RESULTS}.*"))] {
        let config = Config {
            name: name.to_owned(),
            subjects: vec![subject],
            retention: RetentionPolicy::WorkQueue,
            storage: StorageType::File,
            ..Config::default()
        };
        context.create_stream(config).await?;
    }
    let consumer = consumer(&context, TASKS, TASKS, slots.into()).await?;
    let batch = (slots as usize).min(1024);
    let tasks = consumer.stream().max_messages_per_batch(batch).messages().await?;
    ready();
    tasks
        .for_each_concurrent(slots as usize, async |task| {
            if let Err(error) = echo(&context, task).await {
                eprintln!("{error:#}");
            }
        })
        .await;
    anyhow::bail!("the subscription ended")
}

async fn echo(
    context: &Context,
    task: Result<jetstream::Message, pull::MessagesError>,
) -> Result<()> {
    let task = task?;
    let subject = format!("{RESULTS}.{}", item::client(&task.payload)?);
    context.publish(subject, task.payload.clone()).await?.await?;
    task.ack().await.map_err(anyhow::Error::from_boxed)?;
    Ok(())
}

pub(super) struct Caller {
    context: Context,
    pending: Rc<Pending>,
}

impl Caller {
    pub(super) async fn connect(address: SocketAddr) -> Result<Self> {
        let client = u64::from(std::process::id());
        let context = connect(address).await?;
        let consumer = consumer(&context, RESULTS, &format!("{RESULTS}.{client}"), 100_000).await?;
        let pending = Rc::new(Pending::of(client));
        spawn_local(receive(consumer, pending.clone()));
        Ok(Self { context, pending })
    }
}

impl crate::load::Caller for Caller {
    async fn call(&self, body: Bytes) -> Result<Bytes> {
        let (item, result) = self.pending.begin(&body);
        self.context.publish(TASKS, item.into()).await?.await?;
        Ok(result.await?)
    }
}

async fn receive(consumer: PullConsumer, pending: Rc<Pending>) -> Result<()> {
    let mut results = consumer.stream().max_messages_per_batch(1024).messages().await?;
    while let Some(result) = results.next().await {
        let result = result?;
        pending.end(result.payload.clone())?;
        result.ack().await.map_err(anyhow::Error::from_boxed)?;
    }
    Ok(())
}

async fn connect(address: SocketAddr) -> Result<Context> {
    let client = nats::connect(address, None).await?;
    Ok(jetstream::context::ContextBuilder::new().timeout(Duration::from_secs(30)).build(client))
}

async fn consumer(
    context: &Context,
    stream: &str,
    subject: &str,
    max_ack_pending: i64,
) -> Result<PullConsumer> {
    let config = pull::Config {
        ack_policy: AckPolicy::Explicit,
        filter_subject: subject.to_owned(),
        max_ack_pending,
        ..pull::Config::default()
    };
    let stream = context.get_stream(stream).await.context("its stream")?;
    Ok(stream.create_consumer(config).await?)
}
