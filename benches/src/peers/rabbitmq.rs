//! RabbitMQ: tasks in one durable queue, results in one of each client, all messages persistent and
//! confirmed. A worker acknowledges a task once its result is confirmed, so a task is never gone
//! without its result being there; a client ends its results in the same way.
//!
//! The queues are quorum queues, whose log is synced before anything is confirmed. Classic queues (version
//! 1, which sync too) were 1.4 times as fast with 64 in flight, but quorum queues, on two connections, 1.5 times with 1024.

use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer};
use tokio::task::spawn_local;

use super::item::{self, Pending};

const TASKS: &str = "tasks";

/// Of a message that is to outlive the server.
const PERSISTENT: u8 = 2;

/// No limit on what is delivered and not acknowledged.
const UNLIMITED: u16 = 0;

/// The most that is acknowledged at once.
const BATCH: usize = 512;

pub(super) async fn work(address: SocketAddr, slots: u32, ready: impl FnOnce()) -> Result<()> {
    let connection = connect(address).await?;
    let tasks = consume(&connection, TASKS, u16::try_from(slots)?).await?;
    let publisher = Publisher::open(address).await?;
    ready();
    let echo = async |task: lapin::Result<Delivery>| {
        let task = task?;
        let queue = result_queue(item::client(&task.data)?);
        publisher.store(&queue, &task.data).await?;
        Ok(task)
    };
    acknowledge(tasks.map(echo).buffered(slots as usize), |_| Ok(())).await
}

pub(super) struct Caller {
    publisher: Publisher,
    pending: Rc<Pending>,
}

impl Caller {
    pub(super) async fn connect(address: SocketAddr) -> Result<Self> {
        let client = u64::from(std::process::id());
        let connection = connect(address).await?;
        let results = consume(&connection, &result_queue(client), UNLIMITED).await?;
        let pending = Rc::new(Pending::of(client));
        let ended = pending.clone();
        spawn_local(acknowledge(results.map(|it| Ok(it?)), move |item| ended.end(item)));
        Ok(Self { publisher: Publisher::open(address).await?, pending })
    }
}

impl crate::load::Caller for Caller {
    async fn call(&self, body: Bytes) -> Result<Bytes> {
        let (item, result) = self.pending.begin(&body);
        self.publisher.store(TASKS, &item).await?;
        Ok(result.await?)
    }
}

/// Stores messages, none waiting for the one before; the server confirms many at once. It has a connection
/// of its own, as RabbitMQ advises: faster where few are in flight.
struct Publisher(Channel);

impl Publisher {
    async fn open(address: SocketAddr) -> Result<Self> {
        let channel = connect(address).await?.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Self(channel))
    }

    /// Stores a message.
    async fn store(&self, queue: &str, item: &[u8]) -> Result<()> {
        // Else what has no queue is confirmed all the same.
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        let stored = self.0.basic_publish("".into(), queue.into(), options, item, properties);
        match stored.await?.await? {
            Confirmation::Ack(None) => Ok(()),
            other => bail!("it is not stored: {other:?}"),
        }
    }
}

/// Takes what comes, and acknowledges what there is of it in one frame. Ends with the connection.
async fn acknowledge(
    deliveries: impl Stream<Item = Result<Delivery>>,
    mut take: impl FnMut(Bytes) -> Result<()>,
) -> Result<()> {
    let mut batches = std::pin::pin!(deliveries.ready_chunks(BATCH));
    while let Some(batch) = batches.next().await {
        let mut last = None;
        for delivery in batch {
            let delivery = delivery?;
            take(delivery.data.into())?;
            last = Some(delivery.acker);
        }
        let last = last.context("an empty batch")?;
        last.ack(BasicAckOptions { multiple: true }).await?;
    }
    bail!("the subscription ended")
}

async fn connect(address: SocketAddr) -> Result<Connection> {
    let url = format!("amqp://guest:guest@{address}/%2f");
    Ok(Connection::connect(&url, ConnectionProperties::default()).await?)
}

/// Makes a queue and takes its messages, so many before they are acknowledged.
async fn consume(connection: &Connection, queue: &str, prefetch: u16) -> Result<Consumer> {
    let channel = connection.create_channel().await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments).await?;
    channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    Ok(channel.basic_consume(queue.into(), "".into(), options, arguments).await?)
}

fn result_queue(client: u64) -> String {
    format!("results:{client}")
}
