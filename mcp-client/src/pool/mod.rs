//! A pool of clients, for programs that speak to several brokers.

mod table;

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, join_all};
use tokio::sync::oneshot;

use crate::client::Client;
use crate::connect::Endpoint;
use crate::error::ConnectError;
use table::{Place, Table, Take};

/// Bounds of a [`Pool`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolConfig {
    /// Connections at once, used and idle. At least 1.
    pub max_open: usize,
    /// Connections kept though nobody uses them.
    pub max_idle: usize,
    /// How long a connection is kept though nobody uses it.
    pub idle_timeout: Duration,
    /// How long [`Pool::client`] waits for room.
    pub wait_timeout: Duration,
    /// How long one attempt to connect may take.
    pub connect_timeout: Duration,
}

impl Default for PoolConfig {
    /// 64 connections, 16 idle ones for up to 60 s; 5 s for waiting and for connecting.
    fn default() -> Self {
        Self {
            max_open: 64,
            max_idle: 16,
            idle_timeout: Duration::from_secs(60),
            wait_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
        }
    }
}

/// Why a pool has no client.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// All connections stayed in use.
    #[error(
        "all {max_open} connections of the pool stayed in use for {after:?}: give clients back \
         sooner, or raise max_open"
    )]
    Timeout {
        /// The pool's bound.
        max_open: usize,
        /// How long was waited.
        after: Duration,
    },
    /// The broker can't be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The pool was closed.
    #[error("the pool is closed")]
    Closed,
}

/// Clients of several brokers, with one connection to each that all its users share (a connection
/// carries any number of tasks at once). Cheap to clone. Once the last clone and the last
/// [`PooledClient`] are dropped, so are the connections.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<State>,
}

struct State {
    config: PoolConfig,
    table: Mutex<Table<Cell, Granted>>,
}

/// A connection being made, or made: all who want it share it, and its failure.
type Cell = Shared<BoxFuture<'static, Result<Client, ConnectError>>>;

/// Tells who waits that it may look again; with a place, if one was given to it.
type Granted = oneshot::Sender<Option<Grant>>;

impl Pool {
    /// An empty pool. Connections are made when they are asked for.
    pub fn new(config: PoolConfig) -> Self {
        let table = Mutex::new(Table::new(config.max_open.max(1), config.max_idle));
        Self { shared: Arc::new(State { config, table }) }
    }

    /// A client of the broker at `endpoint`: the one that is open, or a new one. When `max_open`
    /// is reached, closes the connection that has been idle longest; when none is idle, waits in
    /// order of arrival. Dropping the future gives up the place.
    pub async fn client(&self, endpoint: &Endpoint) -> Result<PooledClient, PoolError> {
        let PoolConfig { max_open, wait_timeout, .. } = self.shared.config;
        let (loan, cell) = tokio::time::timeout(wait_timeout, self.shared.take(endpoint))
            .await
            .map_err(|_| PoolError::Timeout { max_open, after: wait_timeout })??;
        // A failure gives the loan back, and with it the place.
        let client = cell.await?;
        Ok(PooledClient { client, _loan: loan })
    }

    /// Closes the connections that nobody uses, and waits for that; the others are closed once
    /// they are given back. From now on there are no clients any more.
    pub async fn close(&self) {
        let idle = self.shared.lock().close();
        let clients = idle.iter().filter_map(|cell| cell.peek()?.as_ref().ok());
        join_all(clients.map(Client::close)).await;
    }

    /// Connections now, those being made included.
    pub fn open(&self) -> usize {
        self.shared.lock().open()
    }

    /// Connections that nobody uses now.
    pub fn idle(&self) -> usize {
        self.shared.lock().idle()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("config", &self.shared.config)
            .field("open", &self.open())
            .field("idle", &self.idle())
            .finish_non_exhaustive()
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Table<Cell, Granted>> {
        // Every critical section leaves the table whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn take(self: &Arc<Self>, endpoint: &Endpoint) -> Result<(Loan, Cell), PoolError> {
        let mut grant: Option<Grant> = None;
        loop {
            let (tell, told) = oneshot::channel();
            let take = {
                let mut table = self.lock();
                // Used up by this, if it is still there.
                let place = grant.take().map(Grant::into_place);
                let is_usable = |cell: &Cell| !cell.peek().is_some_and(is_over);
                table.take(endpoint, place, is_usable, || self.connect(endpoint), tell)
            };
            match take {
                Take::Lent { number, client, evicted, again } => {
                    drop(evicted);
                    for waiter in again {
                        let _ = waiter.send(None);
                    }
                    // The place may not have been needed.
                    self.grant();
                    let loan = Loan { shared: self.clone(), endpoint: endpoint.clone(), number };
                    return Ok((loan, client));
                }
                Take::Closed => return Err(PoolError::Closed),
                Take::Wait { ticket } => {
                    let _waiting = Waiting { shared: self, ticket };
                    grant = told.await.map_err(|_| PoolError::Closed)?;
                }
            }
        }
    }

    fn connect(&self, endpoint: &Endpoint) -> Cell {
        let builder = Client::builder(endpoint.clone());
        builder.connect_timeout(self.config.connect_timeout).connect().boxed().shared()
    }

    /// Gives free places to those who wait.
    fn grant(self: &Arc<Self>) {
        loop {
            let Some((waiter, place)) = self.lock().grant() else { return };
            let grant = Grant { shared: self.clone(), place: Some(place) };
            // Who has gone meanwhile does not take it; the next one may.
            if let Err(Some(grant)) = waiter.send(Some(grant)) {
                let place = grant.into_place();
                self.lock().give_up(place);
            }
        }
    }

    fn give_back(self: &Arc<Self>, endpoint: &Endpoint, number: u64) {
        let (dropped, sweeps) = {
            let mut table = self.lock();
            // Nor one that nobody waited for until it was made.
            let is_usable = |cell: &Cell| cell.peek().is_some_and(|result| !is_over(result));
            (table.give_back(endpoint, number, Instant::now(), is_usable), table.begin_sweep())
        };
        drop(dropped);
        self.grant();
        if sweeps {
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn(sweep(Arc::downgrade(self)))),
                Err(_) => self.lock().end_sweep(),
            }
        }
    }
}

fn is_over(result: &Result<Client, ConnectError>) -> bool {
    result.as_ref().map_or(true, Client::is_closed)
}

/// Closes connections that have been idle for too long, until none is idle.
async fn sweep(shared: Weak<State>) {
    loop {
        let wait = {
            let Some(shared) = shared.upgrade() else { return };
            let idle_timeout = shared.config.idle_timeout;
            let now = Instant::now();
            let mut table = shared.lock();
            let dropped = table.expire(now, idle_timeout);
            let oldest = table.idle_since();
            if oldest.is_none() {
                table.end_sweep();
            }
            drop(table);
            drop(dropped);
            match oldest {
                Some(oldest) => (oldest + idle_timeout).saturating_duration_since(now),
                None => return,
            }
        };
        tokio::time::sleep(wait.max(Duration::from_millis(1))).await;
    }
}

/// A place for a connection that was given to one who waited; goes to the next one when dropped.
struct Grant {
    shared: Arc<State>,
    place: Option<Place>,
}

impl Grant {
    /// Takes the place out. Does not lock the table.
    fn into_place(mut self) -> Place {
        self.place.take().unwrap_or_default()
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.shared.lock().give_up(place);
            self.shared.grant();
        }
    }
}

/// One who waits for a place; forgotten when dropped.
struct Waiting<'a> {
    shared: &'a State,
    ticket: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.lock().forget(self.ticket);
    }
}

/// One use of a connection.
struct Loan {
    shared: Arc<State>,
    endpoint: Endpoint,
    number: u64,
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.shared.give_back(&self.endpoint, self.number);
    }
}

/// A client on loan from a [`Pool`]; given back when dropped. A clone of the [`Client`] in it
/// keeps the connection open beyond that, and out of the pool's count.
#[must_use = "a client that is dropped is given back"]
pub struct PooledClient {
    client: Client,
    _loan: Loan,
}

impl Deref for PooledClient {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

impl fmt::Debug for PooledClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.client.fmt(f)
    }
}
