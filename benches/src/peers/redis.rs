//! Redis lists: tasks are pushed to one, results to one of each client.
//!
//! What can be pushed or popped together is, up to [`BATCH`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::{Context, Result};
use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, Value};
use tokio::sync::mpsc;
use tokio::task::spawn_local;

use super::ECHO;
use super::item::{self, Pending};

/// Items in one command. More gains nothing.
const BATCH: usize = 32;

/// Connections of a worker that has room: while one waits for Redis, another can be served.
const WORKER_CONNECTIONS: u32 = 2;

pub(super) async fn work(address: SocketAddr, slots: u32, ready: impl FnOnce()) -> Result<()> {
    let connections = WORKER_CONNECTIONS.min(slots.div_ceil(BATCH as u32));
    let batch = BATCH.min(slots as usize);
    let mut loops = tokio::task::JoinSet::new();
    for _ in 0..connections {
        loops.spawn_local(echo(connect(address).await?, batch));
    }
    ready();
    loops.join_next().await.context("no loop")??
}

/// Answers a batch of tasks and asks for the next one, in one pipeline.
async fn echo(mut connection: MultiplexedConnection, batch: usize) -> Result<()> {
    let mut tasks: Vec<Vec<u8>> = Vec::new();
    loop {
        let mut by_client: HashMap<u64, Vec<Vec<u8>>> = HashMap::new();
        for item in tasks.drain(..) {
            by_client.entry(item::client(&item)?).or_default().push(item);
        }
        let mut pipeline = redis::pipe();
        for (client, items) in by_client {
            pipeline.add_command(push(&result_list(client), &items)).ignore();
        }
        pipeline.add_command(pop(ECHO, batch));
        let (popped,): (Value,) = pipeline.query_async(&mut connection).await?;
        tasks = items(popped)?;
    }
}

pub(super) struct Caller {
    to_push: mpsc::UnboundedSender<Vec<u8>>,
    pending: Rc<Pending>,
}

impl Caller {
    pub(super) async fn connect(address: SocketAddr) -> Result<Self> {
        let client = u64::from(std::process::id());
        let (to_push, pushed) = mpsc::unbounded_channel();
        let pending = Rc::new(Pending::of(client));
        spawn_local(send(connect(address).await?, pushed));
        spawn_local(receive(connect(address).await?, client, pending.clone()));
        Ok(Self { to_push, pending })
    }
}

impl crate::load::Caller for Caller {
    async fn call(&self, body: Bytes) -> Result<Bytes> {
        let (item, result) = self.pending.begin(&body);
        self.to_push.send(item).ok().context("the connection is gone")?;
        Ok(result.await?)
    }
}

/// Pushes tasks, those that wait together; doesn't wait for one push to be answered to begin the
/// next.
async fn send(connection: MultiplexedConnection, mut pushed: mpsc::UnboundedReceiver<Vec<u8>>) {
    let mut items = Vec::with_capacity(BATCH);
    while pushed.recv_many(&mut items, BATCH).await > 0 {
        let command = push(ECHO, &items);
        items.clear();
        let mut connection = connection.clone();
        // What is lost with the connection is counted as not come back.
        spawn_local(async move { command.exec_async(&mut connection).await });
    }
}

async fn receive(
    mut connection: MultiplexedConnection,
    client: u64,
    pending: Rc<Pending>,
) -> Result<()> {
    let command = pop(&result_list(client), BATCH);
    loop {
        for item in items(command.query_async(&mut connection).await?)? {
            pending.end(item.into())?;
        }
    }
}

fn push(list: &str, items: &[Vec<u8>]) -> Cmd {
    let mut command = redis::cmd("RPUSH");
    command.arg(list);
    for item in items {
        command.arg(&item[..]);
    }
    command
}

fn pop(list: &str, count: usize) -> Cmd {
    let mut command = redis::cmd("BLMPOP");
    command.arg(0).arg(1).arg(list).arg("LEFT").arg("COUNT").arg(count);
    command
}

/// What BLMPOP answered: the list's name and its items.
fn items(popped: Value) -> Result<Vec<Vec<u8>>> {
    let (_, items): (String, Vec<Vec<u8>>) = redis::from_redis_value(popped)?;
    Ok(items)
}

fn result_list(client: u64) -> String {
    format!("results:{client}")
}

pub(super) async fn connect(address: SocketAddr) -> Result<MultiplexedConnection> {
    let client = redis::Client::open(format!("redis://{address}"))?;
    // A BLMPOP is answered when there is something.
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
}
