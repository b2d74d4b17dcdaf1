//! What one run came to.

use serde::Serialize;

use super::holder::Held;
use crate::procfs::{cpu_us, resident_bytes};

/// One run, as JSON has it. CPU is user and system time.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Cost {
    pub(super) held: Held,
    pub(super) count: u32,
    pub(super) repeat: u32,
    /// That hold them, besides the broker's.
    pub(super) processes: usize,
    /// Opened and acknowledged a second, all on one machine.
    pub(super) per_s: f64,
    /// The broker's CPU time to take one in.
    pub(super) broker_cpu_us_each: f64,
    /// CPU time to open one at its own end, the processes' start included.
    pub(super) holders_cpu_us_each: f64,
    /// Resident memory that the broker gained, by each: some seconds after the last came,
    pub(super) broker_settled_bytes_each: f64,
    /// and after the idle time.
    pub(super) broker_bytes_each: f64,
    pub(super) idle_secs: f64,
    /// CPU time by time, while idle.
    pub(super) broker_idle_cores: f64,
    /// Resident memory of the processes that hold them, by each.
    pub(super) holders_bytes_each: f64,
    pub(super) holders_idle_cores: f64,
}

/// What processes use at one time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sample {
    cpu_us: u64,
    bytes: u64,
}

impl Sample {
    /// Of all of them together; none when one is gone.
    pub(super) fn of(pids: &[u32]) -> Option<Self> {
        pids.iter().try_fold(Self::default(), |sum, pid| {
            let (cpu_us, bytes) = (cpu_us(*pid)?, resident_bytes(*pid)?);
            Some(Self { cpu_us: sum.cpu_us + cpu_us, bytes: sum.bytes + bytes })
        })
    }

    pub(super) fn cpu_s_since(&self, before: &Self) -> f64 {
        self.cpu_us.saturating_sub(before.cpu_us) as f64 / 1e6
    }

    /// May be negative: memory is given back.
    pub(super) fn bytes_since(&self, before: &Self) -> f64 {
        self.bytes as f64 - before.bytes as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_is_a_difference() {
        let before = Sample { cpu_us: 1_000_000, bytes: 5000 };
        let after = Sample { cpu_us: 1_500_000, bytes: 4000 };
        assert_eq!(after.cpu_s_since(&before), 0.5);
        assert_eq!(after.bytes_since(&before), -1000.0);
    }
}
