//! CPU time of processes, from `/proc`. None where there is no `/proc`.

use super::Load;

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

fn cpu_us(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks = ticks(&stat)?;
    Some(ticks * 1_000_000 / rustix::param::clock_ticks_per_second())
}

/// utime + stime: fields 14 and 15 by proc(5). The second, the program's name, may have spaces.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_program_does_not_shift_the_fields() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 1 2 3 4 150 27 5 6 20 0 1 0 9";
        assert_eq!(ticks(stat), Some(177));
    }
}
