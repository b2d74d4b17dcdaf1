//! One attack: on a broker, beside honest tasks.

use std::time::Duration;

use anyhow::{Context, Result};

use super::Options;
use super::attacker::Seen;
use super::kind::Attack;
use crate::load::{Load, Measured, Mode};
use crate::peers::Target;
use crate::peers::mcp::BrokerSettings;
use crate::processes::Process;
use crate::procfs;
use crate::role::Role;

const PAYLOAD_BYTES: usize = 128;
const SLOTS: u32 = 1024;
const WARM_UP: Duration = Duration::from_millis(500);

/// What came of it.
pub(super) struct Outcome {
    pub(super) seen: Seen,
    pub(super) before: Measured,
    pub(super) during: Measured,
    /// Resident memory of the broker: with the honest peers only, and the most in the attack.
    pub(super) rest_bytes: u64,
    pub(super) peak_bytes: u64,
    /// CPU time of the broker, by time.
    pub(super) cores: f64,
}

pub(super) fn measure(attack: Attack, options: &Options) -> Result<Outcome> {
    let mut broker = Process::of(&Role::Broker(BrokerSettings::default()))?;
    let target: Target = broker.hear()?;
    let mut worker =
        Process::of(&Role::Worker { target: target.clone(), slots: SLOTS, prefetch: 0 })?;
    worker.hear::<()>()?;
    let load = |measured| Load {
        mode: Mode::Open { rate: f64::from(options.rate) },
        payload_bytes: PAYLOAD_BYTES,
        warm_up: WARM_UP,
        measured,
        server_pid: Some(broker.pid()),
        worker_pid: None,
    };
    let client = |load| Process::of(&Role::Client { target: target.clone(), load });
    let before = client(load(options.time() / 4))?.hear()?;
    let rest_bytes = procfs::resident_bytes(broker.pid()).context("no /proc")?;

    let mut attacker = Process::of(&Role::Attacker {
        target: target.clone(),
        attack,
        connections: options.connections,
        time: options.time(),
    })?;
    let cpu_us = || procfs::cpu_us(broker.pid()).context("the broker ended");
    let begun_us = cpu_us()?;
    let during = client(load(options.time().saturating_sub(WARM_UP)))?.hear()?;
    let cores = (cpu_us()? - begun_us) as f64 / 1e6 / options.time().as_secs_f64();
    let seen = attacker.hear()?;
    let peak_bytes = procfs::peak_resident_bytes(broker.pid()).context("the broker ended")?;
    Ok(Outcome { seen, before, during, rest_bytes, peak_bytes, cores })
}
