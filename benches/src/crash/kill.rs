//! The processes, and their end.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

use super::{Options, Plan, ledger};
use crate::peers::Target;
use crate::peers::mcp::BrokerSettings;
use crate::processes::Process;
use crate::role::Role;

/// Between two kills, ms: some come before what was killed last is back.
const PAUSE_MS: std::ops::Range<u64> = 0..600;

/// Of so many brokers that are killed, one is killed again before it is ready.
const AT_ITS_START: u32 = 4;

/// How long a broker may take until it is killed then.
const START_MS: std::ops::Range<u64> = 0..40;

/// What was killed.
#[derive(Debug)]
pub(super) struct Killed {
    pub(super) brokers: u32,
    pub(super) workers: u32,
    pub(super) clients: u32,
    /// From the start of each broker until it was ready, µs.
    pub(super) ready_us: Histogram<u64>,
}

struct Fleet<'a> {
    options: &'a Options,
    dir: &'a Path,
    rng: fastrand::Rng,
    target: Target,
    broker: Process,
    workers: Vec<Process>,
    clients: Vec<Process>,
    killed: Killed,
}

/// Kills as often as it is to, and lets what is left come to its end.
pub(super) fn run(options: &Options, dir: &Path) -> Result<Killed> {
    let mut broker = Process::of(&Role::Broker(settings(dir, None)))?;
    let target = broker.hear()?;
    let mut fleet = Fleet {
        options,
        dir,
        rng: fastrand::Rng::with_seed(options.seed),
        target,
        broker,
        workers: Vec::new(),
        clients: Vec::new(),
        killed: Killed {
            brokers: 0,
            workers: 0,
            clients: 0,
            ready_us: Histogram::new_with_bounds(1, 600_000_000, 3)?,
        },
    };
    for index in 0..options.workers {
        let worker = fleet.worker(index)?;
        fleet.workers.push(worker);
    }
    for index in 0..options.clients {
        let client = fleet.client(index)?;
        fleet.clients.push(client);
    }
    let progress = indicatif::ProgressBar::new(options.cycles.into());
    for _ in 0..options.cycles {
        std::thread::sleep(Duration::from_millis(fleet.rng.u64(PAUSE_MS)));
        fleet.kill_one()?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    std::fs::write(ledger::stop_file(dir), "")?;
    for client in &mut fleet.clients {
        client.hear::<()>().context("a client")?;
    }
    Ok(fleet.killed)
}

fn settings(dir: &Path, target: Option<&Target>) -> BrokerSettings {
    let listen = match target {
        Some(Target::Mcp { address, .. }) => Some(*address),
        _ => None,
    };
    BrokerSettings { state_dir: Some(dir.join("broker")), listen, ..BrokerSettings::default() }
}

impl Fleet<'_> {
    fn kill_one(&mut self) -> Result<()> {
        match self.rng.u32(0..4) {
            0 | 1 => self.kill_broker(),
            2 => {
                let index = self.rng.usize(0..self.workers.len());
                let worker = self.worker(index as u32)?;
                self.workers[index] = worker;
                self.killed.workers += 1;
                Ok(())
            }
            _ => {
                let index = self.rng.usize(0..self.clients.len());
                // Two would write to the same notes.
                self.clients[index].kill();
                let client = self.client(index as u32)?;
                self.clients[index] = client;
                self.killed.clients += 1;
                Ok(())
            }
        }
    }

    fn kill_broker(&mut self) -> Result<()> {
        loop {
            // Its address and its state directory are the next one's.
            self.broker.kill();
            self.killed.brokers += 1;
            let begun = Instant::now();
            self.broker = Process::of(&Role::Broker(settings(self.dir, Some(&self.target))))?;
            if self.rng.u32(0..AT_ITS_START) == 0 {
                std::thread::sleep(Duration::from_millis(self.rng.u64(START_MS)));
                continue;
            }
            self.broker.hear::<Target>().context("the broker that was started again")?;
            self.killed.ready_us.saturating_record(begun.elapsed().as_micros() as u64);
            return Ok(());
        }
    }

    fn worker(&self, index: u32) -> Result<Process> {
        let (target, dir) = (self.target.clone(), self.dir.to_owned());
        Process::of(&Role::NotingWorker { target, dir, index, slots: self.options.slots })
    }

    fn client(&self, index: u32) -> Result<Process> {
        let (dir, in_flight) = (self.dir.to_owned(), self.options.in_flight);
        let plan = Plan { dir, index, in_flight };
        Process::of(&Role::NotingClient { target: self.target.clone(), plan })
    }
}
