//! What is told at the end.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use mcp_client::{ActionName, Outcome};
use serde::Serialize;

use super::Bench;
use super::load::Tally;
use super::schedule;
use crate::exit::Exit;
use crate::latency;
use crate::outcomes::Outcomes;

/// A run and its result.
#[derive(Serialize)]
pub(super) struct Summary<'a> {
    action: &'a ActionName,
    shadow: bool,
    #[serde(rename = "loop")]
    kind: &'static str,
    in_flight: u32,
    rate: Option<f64>,
    payload_bytes: u32,
    /// How long tasks were sent.
    secs: f64,
    /// Tasks that ended.
    tasks: u64,
    tasks_per_s: f64,
    outcomes: BTreeMap<&'static str, u64>,
    /// None when none ended `ok`.
    latency_us: Option<Quantiles>,
    /// Of an open loop, tasks that should have been sent in the time and were not.
    unsent: u64,
    first_error: Option<&'a str>,
    #[serde(skip)]
    counts: Outcomes,
}

#[derive(Serialize)]
struct Quantiles {
    p50: u64,
    p90: u64,
    p99: u64,
    p99_9: u64,
    max: u64,
}

impl<'a> Summary<'a> {
    pub(super) fn new(bench: &'a Bench, tally: &'a Tally) -> Self {
        let secs = tally.took.as_secs_f64();
        let planned =
            bench.rate.map_or(0, |rate| schedule::count(rate, tally.took.min(bench.secs)));
        let quantile = |part| tally.latencies.quantile(part).as_micros() as u64;
        let latency_us = (tally.outcomes.count(Outcome::Ok) > 0).then(|| Quantiles {
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p99_9: quantile(0.999),
            max: quantile(1.0),
        });
        Self {
            action: &bench.action,
            shadow: bench.shadow,
            kind: if bench.rate.is_some() { "open" } else { "closed" },
            in_flight: bench.in_flight(),
            rate: bench.rate,
            payload_bytes: bench.payload,
            secs,
            tasks: tally.outcomes.total(),
            tasks_per_s: tally.ok_in_time as f64 / secs.max(1e-6),
            outcomes: tally.outcomes.iter().map(|(it, count)| (it.name(), count)).collect(),
            latency_us,
            unsent: planned.saturating_sub(tally.sent),
            first_error: tally.first_error.as_deref(),
            counts: tally.outcomes,
        }
    }

    pub(super) fn exit(&self) -> Exit {
        let ok = self.counts.count(Outcome::Ok);
        if ok > 0 && ok == self.tasks { Exit::Ok } else { Exit::Failed }
    }
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { action, in_flight, payload_bytes, secs, tasks_per_s, .. } = self;
        match self.rate {
            Some(rate) => write!(f, "{action}: {rate} tasks/s, at most {in_flight} in flight")?,
            None => write!(f, "{action}: {in_flight} in flight")?,
        }
        let shadow = if self.shadow { ", shadow tasks" } else { "" };
        writeln!(f, ", {payload_bytes} bytes, {secs:.1} s{shadow}")?;
        writeln!(f, "  tasks/s   {tasks_per_s:.0}")?;
        if let Some(it) = &self.latency_us {
            let show = |us| latency::show(Duration::from_micros(us));
            let [p50, p90, p99, p99_9, max] = [it.p50, it.p90, it.p99, it.p99_9, it.max].map(show);
            let text = format!("p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p99_9}, max {max}");
            writeln!(f, "  latency   {text}")?;
        }
        let none = if self.tasks == 0 { "no task ended" } else { "" };
        write!(f, "  outcomes  {}{none}", self.counts)?;
        if self.unsent > 0 {
            write!(f, "\n  unsent    {} that were due: more than could be sent", self.unsent)?;
        }
        if let Some(error) = self.first_error {
            write!(f, "\n  first     {}", error.replace('\n', "\n            "))?;
        }
        Ok(())
    }
}
