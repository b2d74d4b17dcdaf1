//! Tasks as they come.

use fastrand::Rng;
use mcp_proto::Priority;

use super::random::{Service, exponential};

/// One source of tasks. Its tasks are a group of their own in the figures.
#[derive(Debug, Clone)]
pub(super) struct Traffic {
    /// The group's name.
    pub(super) name: &'static str,
    pub(super) arrivals: Arrivals,
    pub(super) service: Service,
    pub(super) mean_service_us: f64,
    pub(super) keys: Keys,
    pub(super) priority: Priority,
    /// Empty: none.
    pub(super) tenant: &'static str,
}

/// When tasks come.
#[derive(Debug, Clone, Copy)]
pub(super) enum Arrivals {
    /// Independently of each other.
    Poisson { per_s: f64 },
    /// So many at once, in regular intervals.
    Bursts { tasks: u32, interval_us: u64 },
}

/// Which affinity keys they have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Keys {
    None,
    /// So many, all as often.
    Balanced {
        count: u64,
    },
    /// So many, of which the first has this share of all tasks.
    Hot {
        count: u64,
        share: f64,
    },
}

/// A task.
#[derive(Debug, Clone, Copy)]
pub(super) struct SimTask {
    /// When its client sends it.
    pub(super) at_us: u64,
    /// What it takes a worker of ordinary speed.
    pub(super) service_us: u64,
    /// Index of its [`Traffic`].
    pub(super) group: usize,
    pub(super) key: Option<u64>,
    /// Between 0 and 1: a worker that fails such a share of its tasks fails those below.
    pub(super) luck: f64,
}

impl Traffic {
    /// Its tasks until a time, in order.
    pub(super) fn tasks(&self, group: usize, until_us: u64, rng: &mut Rng) -> Vec<SimTask> {
        let mut tasks = Vec::new();
        let mut at_us = 0.0;
        loop {
            let (interval_us, count) = match self.arrivals {
                Arrivals::Poisson { per_s } => (exponential(1e6 / per_s, rng), 1),
                Arrivals::Bursts { tasks, interval_us } => (interval_us as f64, tasks),
            };
            at_us += interval_us;
            if at_us >= until_us as f64 {
                return tasks;
            }
            for _ in 0..count {
                let service_us = self.service.draw_us(self.mean_service_us, rng);
                let key = self.keys.draw(rng);
                let luck = rng.f64();
                tasks.push(SimTask { at_us: at_us as u64, service_us, group, key, luck });
            }
        }
    }

    /// Tasks a second.
    pub(super) fn per_s(&self) -> f64 {
        match self.arrivals {
            Arrivals::Poisson { per_s } => per_s,
            Arrivals::Bursts { tasks, interval_us } => f64::from(tasks) * 1e6 / interval_us as f64,
        }
    }
}

impl Keys {
    fn draw(self, rng: &mut Rng) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Balanced { count } => Some(rng.u64(..count)),
            Self::Hot { share, .. } if rng.f64() < share => Some(0),
            Self::Hot { count, .. } => Some(rng.u64(1..count)),
        }
    }
}
