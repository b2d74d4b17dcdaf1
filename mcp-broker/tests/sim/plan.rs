//! What a seed makes of a run: how many take part, how fast everything is, what goes wrong and how
//! often. Each seed leaves some kinds of trouble out, so that the others get further.

use std::ops::Range;

use mcp_broker::broker::{CoreConfig, HedgeRule, Policy};
use mcp_proto::NodeId;

use crate::rng::Rng;

/// What may go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Break,
    Partition,
    /// Nothing that workers send arrives for a while: those that are busy are lost, and heard again.
    Silence,
    Lag,
    ClientCrash,
    ClientLeave,
    WorkerCrash,
    WorkerLeave,
    BrokerCrash,
    BrokerShutdown,
    /// The broker's process does nothing for a while.
    BrokerStall,
    /// A client's or worker's does nothing.
    PeerStall,
    DiskFailure,
    WallJump,
    /// Nothing goes wrong: an operator has a dead letter done again, or drops it.
    Operator,
}

pub(crate) const FAULTS: [Fault; 15] = [
    Fault::Break,
    Fault::Partition,
    Fault::Silence,
    Fault::Lag,
    Fault::ClientCrash,
    Fault::ClientLeave,
    Fault::WorkerCrash,
    Fault::WorkerLeave,
    Fault::BrokerCrash,
    Fault::BrokerShutdown,
    Fault::BrokerStall,
    Fault::PeerStall,
    Fault::DiskFailure,
    Fault::WallJump,
    Fault::Operator,
];

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) clients: usize,
    pub(crate) workers: usize,
    /// That each client sends.
    pub(crate) tasks: u64,
    /// Until everything heals.
    pub(crate) trouble_us: u64,
    /// Of a frame on its way.
    pub(crate) delay_us: Range<u64>,
    /// Between two tasks of a client, on average.
    pub(crate) pause_us: u64,
    pub(crate) ttl_ms: Range<u64>,
    pub(crate) work_us: Range<u64>,
    pub(crate) sync_us: Range<u64>,
    pub(crate) durable_percent: u32,
    pub(crate) idempotent_percent: u32,
    pub(crate) delayed_percent: u32,
    /// Tasks that another client sends as well.
    pub(crate) shared_percent: u32,
    pub(crate) cancel_percent: u32,
    pub(crate) fail_percent: u32,
    pub(crate) nack_percent: u32,
    /// Tasks that end with their client's connection.
    pub(crate) tied_percent: u32,
    /// Mean time between two of a kind, for those that happen.
    pub(crate) every_us: [Option<u64>; FAULTS.len()],
    pub(crate) policy: Policy,
    pub(crate) hedges: bool,
    /// Tasks that wait, and bytes of durable ones; 0: as many as usual.
    pub(crate) max_queue_tasks: usize,
    pub(crate) max_durable_bytes: usize,
    /// For how long an outcome is kept that nobody settles.
    pub(crate) retention_ms: u64,
    pub(crate) hello_timeout_ms: u64,
    pub(crate) detach_ms: u64,
    pub(crate) resume_grace_ms: u64,
    pub(crate) drain_ms: u64,
}

const S: u64 = 1_000_000;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

impl Plan {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let mut every_us = [None; FAULTS.len()];
        for every in &mut every_us {
            if rng.chance(50) {
                *every = Some(rng.time_us(2 * S..60 * S));
            }
        }
        let trouble_us = rng.between(10 * S..60 * S);
        let tasks = rng.between(5..60);
        Self {
            clients: 1 + rng.index(3),
            workers: 1 + rng.index(4),
            tasks,
            trouble_us,
            delay_us: rng.pick(&[50..500, 100..20_000, 1_000..300_000]),
            // Some send all at once, and others from beginning to end.
            pause_us: if rng.chance(50) { rng.time_us(10_000..2 * S) } else { trouble_us / tasks },
            ttl_ms: rng.pick(&[50..2_000, 1_000..30_000, 30_000..120_000, 50..120_000]),
            work_us: rng.pick(&[100..5_000, 1_000..500_000, 1_000..5 * S, 1_000..20 * S]),
            sync_us: rng.pick(&[1..200, 500..20_000, 1..4 * S]),
            durable_percent: rng.pick(&[0, 50, 50, 90]),
            idempotent_percent: rng.pick(&[0, 50, 90]),
            delayed_percent: rng.pick(&[0, 0, 20]),
            shared_percent: rng.pick(&[0, 10, 50]),
            cancel_percent: rng.pick(&[0, 5, 20]),
            fail_percent: rng.pick(&[0, 10, 40]),
            nack_percent: rng.pick(&[0, 5, 30]),
            tied_percent: rng.pick(&[0, 0, 20]),
            every_us,
            policy: rng.pick(Policy::ALL),
            hedges: rng.chance(30),
            max_queue_tasks: rng.pick(&[0, 0, 0, 4]),
            max_durable_bytes: rng.pick(&[0, 0, 0, 1_000]),
            retention_ms: rng.pick(&[DAY_MS, DAY_MS, DAY_MS, 10_000]),
            hello_timeout_ms: 3_000,
            detach_ms: rng.pick(&[500, 30_000]),
            resume_grace_ms: rng.pick(&[1_000, 10_000]),
            drain_ms: rng.pick(&[0, 500, 10_000]),
        }
    }

    pub(crate) fn every_us(&self, fault: Fault) -> Option<u64> {
        self.every_us[fault as usize]
    }

    /// From now on tasks are easily done.
    pub(crate) fn heals(&mut self) {
        self.ttl_ms = 100_000..120_000;
        self.work_us = 100..10_000;
        self.sync_us = 100..10_000;
        self.delay_us = 50..5_000;
        (self.delayed_percent, self.shared_percent) = (0, 0);
        (self.cancel_percent, self.tied_percent) = (0, 0);
        if self.max_durable_bytes > 0 {
            // Outcomes that nobody settles may have taken all the room.
            self.durable_percent = 0;
        }
    }

    /// What the broker of an epoch is configured with.
    pub(crate) fn config(&self, epoch: u64, seed: u64, is_restart: bool) -> CoreConfig {
        let broker_id = NodeId::try_from("broker-1").unwrap();
        let mut config = CoreConfig::new(broker_id, epoch, seed);
        config.rules.policy = self.policy;
        config.rules.hedge = self.hedges.then(|| {
            let mut rule = HedgeRule::default();
            (rule.budget_percent, rule.min_samples, rule.min_delay_ms) = (100, 1, 0);
            rule
        });
        config.rules.max_queue_tasks = self.max_queue_tasks;
        if self.max_durable_bytes > 0 {
            config.durable.max_bytes = self.max_durable_bytes;
        }
        config.durable.retention_ms = self.retention_ms;
        config.hello_timeout_ms = self.hello_timeout_ms;
        config.detach_ms = self.detach_ms;
        config.resume_grace_ms = self.resume_grace_ms;
        config.restart_grace_ms = if is_restart { 15_000 } else { 0 };
        config.is_durable = true;
        config
    }
}
