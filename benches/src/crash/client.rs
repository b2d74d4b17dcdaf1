//! A process that sends tasks, and notes what it is told. When it is started again it asks for what it
//! was not told.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mcp_client::{Client, Delivery, TaskEnd, TaskId};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::ledger::{self, FAST, Ledger, Note};
use crate::peers::{Target, mcp};

pub(super) const ACTION: &str = "note";

/// Longer than a run takes: none shall expire.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// Of so many durable tasks one is not settled, and asked for again in the end.
const NOT_SETTLED: u64 = 50;

/// Of so many tasks one is not durable, and may not run twice.
const NOT_DURABLE: u64 = 5;

/// After an attempt to connect that failed.
pub(super) const CONNECT_AGAIN: Duration = Duration::from_millis(20);

/// What a client is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(super) dir: PathBuf,
    pub(super) index: u32,
    pub(super) in_flight: u32,
}

/// A task whose outcome is not noted.
struct Open {
    id: String,
    is_accepted: bool,
}

struct State {
    client: Client,
    ledger: Ledger,
    plan: Plan,
    open: RefCell<Vec<Open>>,
    sent: RefCell<u64>,
}

/// Sends until there is the file that says stop, and all that was sent has its outcome.
pub(crate) async fn send(target: Target, plan: Plan) -> Result<()> {
    let Target::Mcp { address, ca_pem, .. } = target else { bail!("a broker of another kind") };
    let path = ledger::of_client(&plan.dir, plan.index);
    let (ledger, notes) = Ledger::open(&path)?;
    let client = loop {
        match Client::builder(mcp::endpoint(address, &ca_pem)).connect().await {
            Ok(client) => break client,
            // The broker was killed as well.
            Err(_) => tokio::time::sleep(CONNECT_AGAIN).await,
        }
    };
    let in_flight = plan.in_flight;
    let state = Rc::new(State {
        client,
        ledger,
        plan,
        open: RefCell::new(open(notes)),
        sent: RefCell::new(0),
    });
    let mut lanes = JoinSet::new();
    for _ in 0..in_flight {
        let state = state.clone();
        lanes.spawn_local(async move { state.lane().await });
    }
    while let Some(lane) = lanes.join_next().await {
        lane.context("a lane")??;
    }
    state.ask_again(&path).await?;
    state.client.close().await;
    Ok(())
}

/// Tasks that were sent by an earlier process, and not told. Of those that may not run twice, nobody
/// knows.
fn open(notes: Vec<Note>) -> Vec<Open> {
    let mut open = HashMap::new();
    for note in notes {
        match note {
            Note::Sent(id) if !id.starts_with(FAST) => {
                open.insert(id, false);
            }
            Note::Accepted(id) => {
                open.insert(id, true);
            }
            Note::Ended(id, ..) | Note::Lost(id) => {
                open.remove(&id);
            }
            Note::Sent(_) | Note::Again(..) | Note::Run(..) => {}
        }
    }
    open.into_iter().map(|(id, is_accepted)| Open { id, is_accepted }).collect()
}

impl State {
    async fn lane(self: Rc<Self>) -> Result<()> {
        loop {
            let old = self.open.borrow_mut().pop();
            match old {
                Some(old) => self.ask(old).await?,
                None if ledger::stop_file(&self.plan.dir).exists() => return Ok(()),
                None => self.send_new().await?,
            }
        }
    }

    async fn send_new(&self) -> Result<()> {
        let number = self.sent.replace_with(|sent| *sent + 1);
        let kind = if number.is_multiple_of(NOT_DURABLE) { FAST } else { "" };
        let id = format!("{kind}{}-{}-{number}", self.plan.index, std::process::id());
        self.ledger.note(&Note::Sent(id.clone()))?;
        self.send(id).await
    }

    async fn send(&self, id: String) -> Result<()> {
        let is_fast = id.starts_with(FAST);
        let delivery = if is_fast { Delivery::Fast } else { Delivery::Durable };
        let task = self.client.task(ACTION).id(id.as_str()).body(id.clone()).ttl(TTL);
        let sent = task.delivery(delivery).settle_manually().send().await;
        let mut handle = sent.with_context(|| format!("{id} can't be sent"))?;
        if !is_fast && handle.accepted().await.is_ok() {
            self.ledger.note(&Note::Accepted(id.clone()))?;
        }
        let end = handle.outcome().await;
        self.ended(id, &end)
    }

    /// A task of an earlier process.
    async fn ask(&self, old: Open) -> Result<()> {
        match self.client.result(&TaskId::try_from(old.id.as_str())?).await? {
            Some(end) => self.ended(old.id, &end),
            None if old.is_accepted => self.ledger.note(&Note::Lost(old.id)),
            None => self.send(old.id).await,
        }
    }

    fn ended(&self, id: String, end: &TaskEnd) -> Result<()> {
        let (outcome, result) = told(end);
        self.ledger.note(&Note::Ended(id.clone(), outcome, result))?;
        if !is_left(&id) {
            self.client.settle(&TaskId::try_from(id.as_str())?);
        }
        Ok(())
    }

    /// Asks again for the outcomes that were not settled.
    async fn ask_again(&self, path: &std::path::Path) -> Result<()> {
        for note in ledger::read(path)? {
            let Note::Ended(id, ..) = note else { continue };
            if !is_left(&id) {
                continue;
            }
            let (outcome, result) =
                match self.client.result(&TaskId::try_from(id.as_str())?).await? {
                    Some(end) => told(&end),
                    None => ("unknown".to_owned(), String::new()),
                };
            self.ledger.note(&Note::Again(id, outcome, result))?;
        }
        Ok(())
    }
}

/// Whether a task's outcome is not settled.
fn is_left(id: &str) -> bool {
    let number = id.rsplit('-').next().and_then(|number| number.parse::<u64>().ok());
    !id.starts_with(FAST) && number.is_some_and(|number| number % NOT_SETTLED == 1)
}

fn told(end: &TaskEnd) -> (String, String) {
    let code = end.error.as_ref().map(|error| format!(" {}", error.code)).unwrap_or_default();
    (format!("{}{code}", end.outcome), String::from_utf8_lossy(&end.body).into_owned())
}
