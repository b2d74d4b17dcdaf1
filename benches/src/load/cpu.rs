//! CPU time of the processes of a run.

use super::Load;
use crate::procfs::cpu_us;

/// CPU time used so far, µs, by each process of a run.
pub(super) struct Clocks {
    pub(super) server_us: Option<u64>,
    pub(super) worker_us: Option<u64>,
    pub(super) client_us: Option<u64>,
}

impl Clocks {
    pub(super) fn read(load: &Load) -> Self {
        Self {
            server_us: load.server_pid.and_then(cpu_us),
            worker_us: load.worker_pid.and_then(cpu_us),
            client_us: cpu_us(std::process::id()),
        }
    }
}

pub(super) fn per_task(
    clock: fn(&Clocks) -> Option<u64>,
    before: &Clocks,
    after: &Clocks,
    tasks: u64,
) -> Option<f64> {
    Some(clock(after)?.saturating_sub(clock(before)?) as f64 / tasks as f64)
}
