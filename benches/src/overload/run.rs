//! The processes of an overload.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mcp_broker::broker::ActionRules;
use serde_json::json;

use super::Options;
use super::client::{Flood, Said};
use crate::peers::Target;
use crate::peers::mcp::BrokerSettings;
use crate::processes::Process;
use crate::procfs;
use crate::role::Role;

const WARM_UP: Duration = Duration::from_secs(2);

pub(super) struct Outcome {
    pub(super) client: Said,
    pub(super) broker_before_bytes: Option<u64>,
    pub(super) broker_peak_bytes: Option<u64>,
    /// Of all processes together, while the client sent, by what all cores have.
    pub(super) cpu: f64,
}

pub(super) fn measure(options: &Options) -> Result<Outcome> {
    let rules = match options.max_queue_wait_ms {
        0 => ActionRules::default(),
        bound => serde_json::from_value(json!({ "max_queue_wait_ms": bound }))?,
    };
    let settings = BrokerSettings { rules, ..BrokerSettings::default() };
    let mut broker = Process::of(&Role::Broker(settings))?;
    let target: Target = broker.hear()?;
    let start_worker = |_| {
        let (target, work) = (target.clone(), options.work());
        let (slots, prefetch) = (options.slots, options.prefetch);
        Process::of(&Role::Sleeper { target, slots, prefetch, work })
    };
    let mut workers = (0..options.workers).map(start_worker).collect::<Result<Vec<_>>>()?;
    for worker in &mut workers {
        worker.hear::<()>()?;
    }
    let flood = Flood {
        per_s: options.capacity_per_s() * options.factor,
        warm_up: WARM_UP,
        measured: Duration::from_secs(options.secs),
    };
    let broker_before_bytes = procfs::resident_bytes(broker.pid());
    let mut client = Process::of(&Role::Flooder { target: target.clone(), flood })?;
    let mut pids: Vec<_> = workers.iter().map(Process::pid).collect();
    pids.extend([broker.pid(), client.pid()]);
    let cpu_us = || pids.iter().map(|pid| procfs::cpu_us(*pid)).sum::<Option<u64>>();
    // What starting and connecting costs is not a part of it.
    std::thread::sleep(WARM_UP);
    let (start, before_us) = (Instant::now(), cpu_us().context("no /proc")?);
    std::thread::sleep(flood.measured);
    let used_us = cpu_us().context("a process ended")? - before_us;
    let cores = std::thread::available_parallelism()?.get() as f64;
    let cpu = used_us as f64 / 1e6 / start.elapsed().as_secs_f64() / cores;
    let client = client.hear()?;
    let broker_peak_bytes = procfs::peak_resident_bytes(broker.pid());
    Ok(Outcome { client, broker_before_bytes, broker_peak_bytes, cpu })
}
