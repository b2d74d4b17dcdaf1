//! Tasks that were copied to shadow workers, and what is compared of them and their copies.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use foldhash::fast::FixedState;
use mcp_proto::limits::MAX_BODY_BYTES;
use mcp_proto::{ActionName, Deliver, ErrorCode, HopEvent, Outcome};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::histogram::Histogram;
use super::inflight::TaskKey;
use super::metrics::Slot;
use super::rng::Rng;

/// The most that `max_running` can be: the table of an action is searched, and its bodies are held
/// at their workers' connections.
const MAX_RUNNING: usize = 1_024;

/// Which share of an action's tasks is copied to its shadow workers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MirrorRule {
    /// Of the tasks that are routed, in percent, 0 to 100. Tasks whose input comes in chunks, since
    /// it does not fit a frame, are not copied.
    pub percent: f64,
    /// Copies, and comparisons whose original still runs, at one time; 1 to 1,024. 64: some seconds
    /// of a share of the traffic, and at most 4 MiB of inputs.
    #[serde(default = "default_max_running")]
    pub max_running: usize,
}

fn default_max_running() -> usize {
    64
}

impl MirrorRule {
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        if !(0.0..=100.0).contains(&self.percent) {
            return Err(("mirror.percent", format!("is {}; allowed are 0 to 100", self.percent)));
        }
        if !(1..=MAX_RUNNING).contains(&self.max_running) {
            let problem = format!("is {}; allowed are 1 to {MAX_RUNNING}", self.max_running);
            return Err(("mirror.max_running", problem));
        }
        Ok(())
    }
}

/// What became of an action's copies, since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MirrorCounts {
    /// Tasks that were copied.
    pub mirrored: u64,
    /// Tasks that were not, though it was their turn: no shadow worker had room, or there were
    /// `max_running` copies.
    pub skipped: u64,
    /// Pairs with the same result: the same outcome, and the same body or error code.
    pub equal: u64,
    /// Pairs with different results.
    pub different: u64,
    /// Pairs that can't be compared: the original has no result, or one in parts that is longer than
    /// a body.
    pub not_compared: u64,
    /// Copies without a result: lost with their worker, handed back, or too slow.
    pub shadow_failed: u64,
    /// Pairs that were given up, since their originals took too long and there were too many.
    pub given_up: u64,
    /// From ROUTE to RESULT, of originals whose copies have a result too.
    pub live: Histogram,
    /// The same of those copies.
    pub shadow: Histogram,
}

/// Ties a task to a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mirrored {
    /// Of the comparison.
    pub(super) id: u64,
    pub(super) is_copy: bool,
}

/// A task that was copied, and its copy, while one of them has not ended.
#[derive(Debug)]
pub(super) struct Comparison {
    pub(super) id: u64,
    pub(super) copy: TaskKey,
    pub(super) live: Option<Finding>,
    pub(super) shadow: Option<Finding>,
}

/// A result, as far as it is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Finding {
    outcome: Outcome,
    error_code: Option<ErrorCode>,
    /// Of the parts and the body.
    body_hash: u64,
    body_bytes: u64,
    /// From ROUTE to RESULT.
    held_us: u64,
}

/// One of a pair that has ended, with its result, if it has one.
#[derive(Debug)]
pub(super) struct Half {
    pub(super) mirrored: Mirrored,
    pub(super) action: ActionName,
    pub(super) slot: Slot,
    pub(super) finding: Option<Finding>,
}

impl Finding {
    /// What a task that ends so has of a result, of which these parts came before.
    pub(super) fn of(parts: Option<&Digest>, deliver: &Deliver, body: &Bytes) -> Option<Self> {
        let trace = deliver.trace.decode();
        let hop = trace.hops.last().filter(|hop| hop.event == HopEvent::Completed)?;
        let mut digest = parts.cloned().unwrap_or_else(Digest::new);
        digest.add(body);
        let (body_hash, body_bytes) = digest.hash();
        Some(Self {
            outcome: deliver.outcome,
            error_code: deliver.error.as_ref().map(|error| error.code),
            body_hash,
            body_bytes,
            held_us: hop.network_us + hop.worker_queue_us + hop.work_us,
        })
    }
}

impl Half {
    pub(super) fn is_copy(&self) -> bool {
        self.mirrored.is_copy
    }
}

/// Where a new comparison goes.
pub(super) enum Place {
    Free,
    /// That of one that is given up.
    Of(usize),
}

/// All comparisons under way.
#[derive(Debug)]
pub(super) struct Mirrors {
    /// By action, oldest first, at most `max_running` of each.
    pub(super) tables: HashMap<ActionName, VecDeque<Comparison>, FixedState>,
    pub(super) rng: Rng,
    /// Copies so far.
    pub(super) issued: u64,
}

impl Mirrors {
    pub(super) fn new(seed: u64) -> Self {
        let tables = HashMap::with_hasher(FixedState::with_seed(seed));
        Self { tables, rng: Rng::new(seed), issued: 0 }
    }

    /// Whether there is a place for one more comparison of an action, and which one is to be given
    /// up for it: the oldest whose copy has ended. Those whose copies run are not given up, or none
    /// would come to its end where copies are slow.
    pub(super) fn place(&self, action: &ActionName, max: usize) -> Option<Place> {
        match self.tables.get(action).filter(|table| table.len() >= max) {
            None => Some(Place::Free),
            Some(table) => table.iter().position(|it| it.shadow.is_some()).map(Place::Of),
        }
    }

    pub(super) fn find(&mut self, action: &ActionName, id: u64) -> Option<&mut Comparison> {
        let table = self.tables.get_mut(action)?;
        let index = table.binary_search_by_key(&id, |it| it.id).ok()?;
        table.get_mut(index)
    }

    pub(super) fn remove(&mut self, action: &ActionName, id: u64) {
        let Some(table) = self.tables.get_mut(action) else { return };
        if let Ok(index) = table.binary_search_by_key(&id, |it| it.id) {
            table.remove(index);
        }
        if table.is_empty() {
            self.tables.remove(action);
        }
    }
}

impl MirrorCounts {
    pub(super) fn compare(&mut self, live: Finding, shadow: Finding) {
        self.live.record(live.held_us);
        self.shadow.record(shadow.held_us);
        let is_equal = |live: Finding, shadow: Finding| {
            let [live, shadow] = [live, shadow].map(|it| Finding { held_us: 0, ..it });
            live == shadow
        };
        if live.body_bytes > MAX_BODY_BYTES as u64 {
            // Nobody takes a copy's result in parts, so it could not give as much.
            self.not_compared += 1;
        } else if is_equal(live, shadow) {
            self.equal += 1;
        } else {
            self.different += 1;
        }
    }
}
