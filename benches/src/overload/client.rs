//! A process that sends tasks at their times, whatever comes back, and notes how each ended. A
//! latency counts from the time at which its task should have been sent.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use hdrhistogram::Histogram;
use mcp_client::{ActionName, Client, ErrorCode, Outcome, TaskEnd};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_local;

use crate::load::Ticker;
use crate::peers::{Target, mcp};

pub(super) const ACTION: &str = "sleep";

/// After which nobody is interested any more.
const TTL: Duration = Duration::from_secs(1);

/// After the last task: more than all have to live.
const SETTLE: Duration = Duration::from_secs(3);

/// What is sent.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Flood {
    pub(crate) per_s: f64,
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

/// What came of it, in the measured time.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Said {
    pub(super) sent: u64,
    pub(super) done: u64,
    /// In handlers, of what was done.
    pub(super) work_us: u64,
    pub(super) done_p50_us: f64,
    pub(super) done_p99_us: f64,
    /// Refused when they came.
    pub(super) refused: u64,
    pub(super) refused_p50_us: f64,
    pub(super) refused_p99_us: f64,
    /// Taken, and given up when they had waited for too long.
    pub(super) waited: u64,
    /// Taken, and not done in time.
    pub(super) failed: u64,
    /// How many were not done for which reason.
    pub(super) not_done: BTreeMap<String, u64>,
}

/// Sends, and says how it was.
pub(crate) async fn send(target: Target, flood: Flood) -> Result<Said> {
    let Target::Mcp { address, ca_pem, .. } = target else { bail!("a broker of another kind") };
    let client = Client::builder(mcp::endpoint(address, &ca_pem)).connect().await?;
    let action = ActionName::try_from(ACTION)?;
    let notes = Rc::new(RefCell::new(Notes::new()?));
    let start = Instant::now();
    let window = start + flood.warm_up..start + flood.warm_up + flood.measured;
    let mut ticker = Ticker::new(Duration::from_secs_f64(1.0 / flood.per_s));
    for number in 0u64.. {
        let due = start + Duration::from_secs_f64(number as f64 / flood.per_s);
        while Instant::now() < due {
            ticker.tick().await;
        }
        if due >= window.end {
            break;
        }
        let (client, action, notes, window) =
            (client.clone(), action.clone(), notes.clone(), window.clone());
        spawn_local(async move {
            let end = match client.task(action).ttl(TTL).send().await {
                Ok(handle) => handle.await,
                Err(error) => return notes.borrow_mut().not_sent(&error.to_string()),
            };
            let now = Instant::now();
            notes.borrow_mut().note(&end, now - due, window.contains(&due), window.contains(&now));
        });
    }
    tokio::time::sleep(SETTLE).await;
    let said = notes.borrow().said();
    Ok(said)
}

struct Notes {
    said: Said,
    done_us: Histogram<u64>,
    refused_us: Histogram<u64>,
}

impl Notes {
    fn new() -> Result<Self> {
        let histogram = || Histogram::new_with_bounds(1, 60_000_000, 3);
        Ok(Self { said: Said::default(), done_us: histogram()?, refused_us: histogram()? })
    }

    /// A task has ended that should have been sent, or ended, within the measured time or not.
    fn note(&mut self, end: &TaskEnd, latency: Duration, is_of_it: bool, ended_in_it: bool) {
        if end.outcome == Outcome::Ok && ended_in_it {
            self.said.done += 1;
            self.said.work_us += end.trace.decode().hops.last().map_or(0, |hop| hop.work_us);
        }
        if !is_of_it {
            return;
        }
        self.said.sent += 1;
        let us = latency.as_micros() as u64;
        let code = end.error.as_ref().map(|error| error.code);
        match end.outcome {
            Outcome::Ok => self.done_us.saturating_record(us),
            Outcome::Rejected if code == Some(ErrorCode::AllBusy) => self.said.waited += 1,
            Outcome::Rejected => {
                self.said.refused += 1;
                self.refused_us.saturating_record(us);
            }
            _ => self.said.failed += 1,
        }
        if let Some(code) = code {
            *self.said.not_done.entry(code.to_string()).or_default() += 1;
        }
    }

    fn not_sent(&mut self, why: &str) {
        *self.said.not_done.entry(why.to_owned()).or_default() += 1;
    }

    fn said(&self) -> Said {
        let at = |histogram: &Histogram<u64>, share| histogram.value_at_quantile(share) as f64;
        Said {
            done_p50_us: at(&self.done_us, 0.5),
            done_p99_us: at(&self.done_us, 0.99),
            refused_p50_us: at(&self.refused_us, 0.5),
            refused_p99_us: at(&self.refused_us, 0.99),
            ..self.said.clone()
        }
    }
}
