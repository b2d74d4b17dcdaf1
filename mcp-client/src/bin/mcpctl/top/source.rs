//! Where what is shown comes from: the broker, asked again and again.

use std::time::Duration;

use mcp_client::{AgentFilter, AgentList, CallError, Client, Endpoint, Overview};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// A broker that does not answer in this time is told as lost.
const PATIENCE: Duration = Duration::from_secs(3);

/// Agents that are asked for: as many as may be on a page.
const AGENTS: u32 = 1_000;

/// What the broker said at one time.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) overview: Box<Overview>,
    /// Or why they can't be told.
    pub(super) agents: Result<AgentList, String>,
}

#[derive(Debug)]
pub(super) enum Update {
    Snapshot(Snapshot),
    /// It does not answer, and why.
    Lost(String),
}

/// Asks in a task of its own, so that keys are heard meanwhile.
pub(super) struct Source {
    updates: mpsc::Receiver<Update>,
    filter: watch::Sender<String>,
    task: JoinHandle<()>,
}

impl Source {
    pub(super) fn start(client: Client, endpoint: Endpoint, interval: Duration) -> Self {
        // Whoever draws takes each before the next is there.
        let (to, updates) = mpsc::channel(1);
        let (filter, filtered) = watch::channel(String::new());
        let task = tokio::spawn(ask(client, endpoint, interval, filtered, to));
        Self { updates, filter, task }
    }

    /// None when nobody asks any more: its task panicked. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Update> {
        self.updates.recv().await
    }

    /// Which agents to ask for: those with this in their name.
    pub(super) fn filter(&self, text: &str) {
        self.filter.send_replace(text.to_owned());
    }

    pub(super) async fn close(self) {
        drop(self.updates);
        drop(self.filter);
        // It may wait for a broker that is not there.
        let _ = tokio::time::timeout(Duration::from_millis(500), self.task).await;
    }
}

/// Agents whose name or node has this in it, or why not.
pub(super) async fn agents(client: &Client, text: &str) -> Result<AgentList, String> {
    let filter =
        AgentFilter { text: text.to_owned(), limit: Some(AGENTS), ..AgentFilter::default() };
    client.agents(&filter).await.map_err(|error| error.to_string())
}

async fn ask(
    mut client: Client,
    endpoint: Endpoint,
    interval: Duration,
    mut filter: watch::Receiver<String>,
    to: mpsc::Sender<Update>,
) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The first has been shown already.
    ticks.reset();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            changed = filter.changed() => if changed.is_err() { break },
            () = to.closed() => break,
        }
        let text = filter.borrow_and_update().clone();
        let update = tokio::select! {
            update = look(&mut client, &endpoint, &text) => update,
            () = to.closed() => break,
        };
        if to.send(update).await.is_err() {
            break;
        }
    }
    client.close().await;
}

async fn look(client: &mut Client, endpoint: &Endpoint, text: &str) -> Update {
    // A client comes back by itself, unless it was told not to.
    if client.is_closed() {
        match Client::builder(endpoint.clone()).connect_timeout(PATIENCE).connect().await {
            Ok(another) => *client = another,
            Err(error) => return Update::Lost(error.to_string()),
        }
    }
    if !client.is_connected() {
        return Update::Lost("the connection broke; it is tried again".to_owned());
    }
    match tokio::time::timeout(PATIENCE, asked(client, text)).await {
        Ok(Ok(snapshot)) => Update::Snapshot(snapshot),
        Ok(Err(error)) => Update::Lost(error.to_string()),
        Err(_) => Update::Lost(format!("no answer for {PATIENCE:?}")),
    }
}

async fn asked(client: &Client, text: &str) -> Result<Snapshot, CallError> {
    let (overview, agents) = tokio::join!(client.overview(), agents(client, text));
    Ok(Snapshot { overview: Box::new(overview?), agents })
}
