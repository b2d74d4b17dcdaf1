//! Redis streams: tasks in one, results in one of each client. With `appendfsync always` Redis syncs
//! before it answers, once for all commands that it took together, from whichever connection.
//!
//! Redis appends commands to its file in their order, so a crash leaves a beginning of a pipeline: a
//! task is never gone without its result being there. Hence a worker's batch is one round trip:
//! results added, their tasks acknowledged and deleted, and the next tasks asked for. XREADGROUP
//! without NOACK keeps what was read until then, as the guarantee needs.

use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::{Context, Result};
use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;

use super::item::{self, Pending};
use super::redis::connect;

const TASKS: &str = "tasks";

/// Of each stream.
const GROUP: &str = "group";

/// Entries in one round trip: each costs a sync, so more than [`super::redis`] has.
const BATCH: usize = 512;

/// Connections of a worker that has room: while Redis syncs for one, another can be served.
const WORKER_CONNECTIONS: u32 = 2;

/// An entry of a stream: its id, and its one field with its value.
type Entry = (String, (String, Vec<u8>));

/// What XREADGROUP answers: entries by stream.
type Entries = Vec<(String, Vec<Entry>)>;

pub(super) async fn work(address: SocketAddr, slots: u32, ready: impl FnOnce()) -> Result<()> {
    make(&mut connect(address).await?, TASKS).await?;
    let connections = WORKER_CONNECTIONS.min(slots);
    let batch = BATCH.min((slots / connections) as usize);
    let mut loops = tokio::task::JoinSet::new();
    for consumer in 0..connections {
        loops.spawn_local(echo(connect(address).await?, consumer, batch));
    }
    ready();
    loops.join_next().await.context("no loop")??
}

async fn echo(mut connection: MultiplexedConnection, consumer: u32, batch: usize) -> Result<()> {
    let mut tasks: Vec<Entry> = Vec::new();
    loop {
        let mut pipeline = redis::pipe();
        for (_, (_, item)) in &tasks {
            pipeline.add_command(add(&result_stream(item::client(item)?), item)).ignore();
        }
        tasks = swap(pipeline, TASKS, &tasks, consumer, batch, &mut connection).await?;
    }
}

pub(super) struct Caller {
    to_add: mpsc::UnboundedSender<Added>,
    pending: Rc<Pending>,
}

/// An item, and whom to tell that it is stored.
type Added = (Vec<u8>, oneshot::Sender<()>);

impl Caller {
    pub(super) async fn connect(address: SocketAddr) -> Result<Self> {
        let client = u64::from(std::process::id());
        let stream = result_stream(client);
        let mut connection = connect(address).await?;
        make(&mut connection, &stream).await?;
        let (to_add, added) = mpsc::unbounded_channel();
        let pending = Rc::new(Pending::of(client));
        spawn_local(send(connection, added));
        spawn_local(receive(connect(address).await?, stream, pending.clone()));
        Ok(Self { to_add, pending })
    }
}

impl crate::load::Caller for Caller {
    async fn call(&self, body: Bytes) -> Result<Bytes> {
        let (item, result) = self.pending.begin(&body);
        let (stored, is_stored) = oneshot::channel();
        self.to_add.send((item, stored)).ok().context("the connection is gone")?;
        is_stored.await.context("it is not stored")?;
        Ok(result.await?)
    }
}

/// Adds tasks, those that wait together in one pipeline; doesn't wait for one to be answered to begin
/// the next.
async fn send(connection: MultiplexedConnection, mut added: mpsc::UnboundedReceiver<Added>) {
    let mut together = Vec::with_capacity(BATCH);
    while added.recv_many(&mut together, BATCH).await > 0 {
        let (mut pipeline, mut submitters) = (redis::pipe(), Vec::with_capacity(together.len()));
        for (item, stored) in together.drain(..) {
            pipeline.add_command(add(TASKS, &item)).ignore();
            submitters.push(stored);
        }
        let mut connection = connection.clone();
        spawn_local(async move {
            // What is not stored is told by dropping.
            if pipeline.exec_async(&mut connection).await.is_ok() {
                for stored in submitters {
                    let _ = stored.send(());
                }
            }
        });
    }
}

async fn receive(
    mut connection: MultiplexedConnection,
    stream: String,
    pending: Rc<Pending>,
) -> Result<()> {
    let mut results: Vec<Entry> = Vec::new();
    loop {
        results = swap(redis::pipe(), &stream, &results, 0, BATCH, &mut connection).await?;
        for (_, (_, item)) in &mut results {
            pending.end(std::mem::take(item).into())?;
        }
    }
}

/// Ends entries of a stream behind what is in the pipeline, and waits for the next ones.
async fn swap(
    mut pipeline: Pipeline,
    stream: &str,
    ended: &[Entry],
    consumer: u32,
    count: usize,
    connection: &mut MultiplexedConnection,
) -> Result<Vec<Entry>> {
    if !ended.is_empty() {
        let ids: Vec<&str> = ended.iter().map(|(id, _)| id.as_str()).collect();
        pipeline.cmd("XACK").arg(stream).arg(GROUP).arg(&ids).ignore();
        pipeline.cmd("XDEL").arg(stream).arg(&ids).ignore();
    }
    pipeline.cmd("XREADGROUP").arg("GROUP").arg(GROUP).arg(consumer);
    pipeline.arg("COUNT").arg(count).arg("BLOCK").arg(0).arg("STREAMS").arg(stream).arg(">");
    let (entries,): (Entries,) = pipeline.query_async(connection).await?;
    Ok(entries.into_iter().flat_map(|(_, entries)| entries).collect())
}

fn add(stream: &str, item: &[u8]) -> Cmd {
    let mut command = redis::cmd("XADD");
    command.arg(stream).arg("*").arg("item").arg(item);
    command
}

async fn make(connection: &mut MultiplexedConnection, stream: &str) -> Result<()> {
    let mut command = redis::cmd("XGROUP");
    command.arg("CREATE").arg(stream).arg(GROUP).arg("$").arg("MKSTREAM");
    Ok(command.exec_async(connection).await?)
}

fn result_stream(client: u64) -> String {
    format!("results:{client}")
}
