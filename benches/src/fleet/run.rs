//! One fleet: started, idle, measured, ended.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;

use super::cost::{Cost, Sample};
use super::metrics;
use super::options::{Fleet, Options};
use crate::peers::Target;
use crate::peers::mcp::BrokerSettings;
use crate::processes::Process;
use crate::role::Role;

/// Handshakes leave something to do for a while: path MTU discovery, keys to be dropped.
const SETTLE: Duration = Duration::from_secs(5);

/// What the bar counts of each run.
pub(super) const STEPS: u64 = 3;

/// Runs one.
pub(super) fn measure(
    fleet: &Fleet,
    options: &Options,
    per_process: u32,
    bar: &ProgressBar,
) -> Result<Cost> {
    let mut broker = Process::of(&Role::Broker(BrokerSettings::default()))?;
    let target: Target = broker.hear()?;
    let Target::Mcp { admin, .. } = target else { bail!("a broker of another kind") };
    let fresh = Sample::of(&[broker.pid()]).context("no /proc")?;

    bar.set_message(format!("{fleet}: being connected"));
    let shares = shares(fleet.count, per_process);
    let concurrency = (options.concurrency / shares.len() as u32).max(1);
    let role = |count| {
        let (target, held) = (target.clone(), fleet.held);
        Process::of(&Role::Holder { target, held, count, concurrency })
    };
    let mut holders = shares.iter().map(|count| role(*count)).collect::<Result<Vec<_>>>()?;
    let mut secs = 0.0_f64;
    for holder in &mut holders {
        secs = secs.max(holder.hear()?);
    }
    let connected = Sample::of(&[broker.pid()]).context("the broker ended")?;
    let pids: Vec<_> = holders.iter().map(Process::pid).collect();
    let holders_connected = Sample::of(&pids).context("a holder ended")?;
    bar.inc(1);

    bar.set_message(format!("{fleet}: settling"));
    std::thread::sleep(SETTLE);
    let settled = Sample::of(&[broker.pid()]).context("the broker ended")?;
    let holders_settled = Sample::of(&pids).context("a holder ended")?;
    bar.inc(1);

    bar.set_message(format!("{fleet}: idle"));
    let start = Instant::now();
    std::thread::sleep(options.idle());
    let idle_secs = start.elapsed().as_secs_f64();
    let after = Sample::of(&[broker.pid()]).context("the broker ended")?;
    let holders_after = Sample::of(&pids).context("a holder ended")?;
    let connected_still = metrics::connected(admin, fleet.held)?;
    if connected_still != fleet.count {
        bail!("the broker has {connected_still} of them at the end");
    }
    bar.inc(1);

    let each = 1.0 / f64::from(fleet.count);
    let of_a_core = |used: &Sample, since: &Sample| used.cpu_s_since(since) / idle_secs;
    Ok(Cost {
        held: fleet.held,
        count: fleet.count,
        repeat: fleet.repeat,
        processes: holders.len(),
        per_s: f64::from(fleet.count) / secs,
        broker_cpu_us_each: connected.cpu_s_since(&fresh) * 1e6 * each,
        holders_cpu_us_each: holders_connected.cpu_s_since(&Sample::default()) * 1e6 * each,
        broker_settled_bytes_each: settled.bytes_since(&fresh) * each,
        broker_bytes_each: after.bytes_since(&fresh) * each,
        idle_secs,
        broker_idle_cores: of_a_core(&after, &settled),
        holders_bytes_each: holders_after.bytes_since(&Sample::default()) * each,
        holders_idle_cores: of_a_core(&holders_after, &holders_settled),
    })
}

/// So many for each process, as few processes as will do.
fn shares(count: u32, per_process: u32) -> Vec<u32> {
    let processes = count.div_ceil(per_process);
    (0..processes).map(|index| count / processes + u32::from(index < count % processes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_is_shared_evenly() {
        assert_eq!(shares(5, 10), [5]);
        assert_eq!(shares(10, 10), [10]);
        assert_eq!(shares(20_000, 6_645), [5_000; 4]);
        assert_eq!(shares(11, 4), [4, 4, 3]);
    }
}
